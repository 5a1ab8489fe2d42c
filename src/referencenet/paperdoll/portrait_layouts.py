"""Layouts of talking heads: HDTF as Hallo prepares it, with what EMO needs beside it, and AniPortrait's JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from referencenet.paperdoll.entries import Entry, Layout, Rows, by_split, save, save_array, save_json, save_lines
from referencenet.paperdoll.film import Film, talk
from referencenet.paperdoll.film_layouts import films
from referencenet.paperdoll.landmarks import face_box
from referencenet.paperdoll.maps import grown, part_mask, segmentation
from referencenet.paperdoll.mesh import face_mesh, face_track
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.video import read_wav, write_video, write_wav

NUM_FRAMES = 50

Hear = Callable[[np.ndarray, int], np.ndarray]
"""Sound (samples,) at 16 kHz and a number of frames to features (frames, layers, channels)."""
Embed = Callable[[np.ndarray], np.ndarray]
"""A frame (height, width, 3) uint8 to an embedding of its face (channels,)."""


def _talking(entry: Entry, num_frames: int = NUM_FRAMES) -> Film:
    """The film of an entry."""
    return talk(entry.character, entry.seed, num_frames=num_frames, sway=entry.sway)


def _draw_hdtf(root: Path, entry: Entry) -> str:
    """Write a talking head: film, sound, frames, masks, head speeds and the face's track; its name."""
    name, film = f"{entry.number:04d}", _talking(entry)
    frames = _write_sounding(root, name, film, entry.size)
    _write_frames(root / "images" / name, frames)
    for kind, mask in head_masks(film.scenes, entry.size).items():
        save(mask, root / kind / f"{name}.png")
    save_array(head_speeds([scene.pose for scene in film.scenes]), root / "speed" / f"{name}.npy")
    (root / "face_track").mkdir(exist_ok=True)
    np.savez(root / "face_track" / f"{name}.npz", **face_track(film.scenes, entry.size, film.fps))
    return name


def _write_sounding(root: Path, name: str, film: Film, size: tuple[int, int]) -> list[np.ndarray]:
    """Write `videos/NAME.mp4` with its sound and `audios/NAME.wav`; the frames."""
    assert film.audio is not None  # a talking film has sound
    frames = list(film.frames(size))
    for kind in ("videos", "audios"):
        (root / kind).mkdir(exist_ok=True)
    path = root / "videos" / f"{name}.mp4"
    write_video(path, frames, film.fps, audio=film.audio, sample_rate=film.sample_rate)
    write_wav(root / "audios" / f"{name}.wav", film.audio, film.sample_rate)
    return frames


def _write_frames(folder: Path, frames: Sequence[np.ndarray]) -> None:
    for number, frame in enumerate(frames):
        save(frame, folder / f"{number:04d}.png")


def head_masks(scenes: Sequence[Scene], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Give the masks of a whole clip: where in any frame the face is, and lips, face without lips, and the rest."""
    width, height = size
    face, lips = np.zeros((height, width), dtype=bool), np.zeros((height, width), dtype=bool)
    for scene in scenes:
        box = face_box(scene, size)
        if box is not None:
            left, top, right, bottom = np.rint(box * (width, height, width, height)).astype(int)
            face[top:bottom, left:right] = True
        lips |= part_mask(segmentation(scene, size), "mouth")
    lips = grown(lips, max(1, width // 64)) & face
    return {"face_mask": face, "sep_pose_mask": ~face, "sep_face_mask": face & ~lips, "sep_lip_mask": lips}


def head_speeds(poses: Sequence[Pose]) -> np.ndarray:
    """How fast a head turns: (frames,) float32, degrees from the frame before; the first is as fast as the second."""
    turns = [_turn_of(pose) for pose in poses]
    angles = [0.0] * (len(turns) == 1)
    for before, after in zip(turns, turns[1:], strict=False):
        cosine = (np.trace(before.T @ after) - 1) / 2
        angles.append(float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))))
    return np.array([angles[0], *angles] if len(turns) > 1 else angles, dtype=np.float32)


def _turn_of(pose: Pose) -> np.ndarray:
    """How a head is turned, (3, 3): tilted in the picture, nodding, turned to the side."""
    yaw, pitch, tilt = np.radians([pose.head_yaw, pose.head_pitch, pose.head_tilt])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    lean = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    return lean @ nod @ turn


def add_features(root: Path, entry: Entry, hear: Hear | None, embed: Embed | None) -> None:
    """Write the features of a head's sound to `speech/NAME.npy`, and of its first face to `face_emb/NAME.npy`."""
    name = f"{entry.number:04d}"
    if hear is not None:
        samples, _ = read_wav(root / "audios" / f"{name}.wav")
        save_array(np.asarray(hear(samples, NUM_FRAMES), dtype=np.float32), root / "speech" / f"{name}.npy")
    if embed is not None:
        film = _talking(entry, 1)
        frame = next(film.frames(entry.size))
        save_array(np.asarray(embed(frame), dtype=np.float32), root / "face_emb" / f"{name}.npy")


def _finish_hdtf(folder: Path, rows: Rows) -> None:
    save_lines(folder, "{}_list.txt", rows)


def _draw_aniportrait(root: Path, entry: Entry) -> tuple[str, dict[str, list[str]]]:
    """Write a talking head's frames, and of each the points of MediaPipe's face mesh that the drawing has."""
    name, film = f"{entry.number:05d}", _talking(entry)
    _write_frames(root / "images" / name, list(film.frames(entry.size)))
    for number, scene in enumerate(film.scenes):
        save_array(face_mesh(scene, entry.size), root / "lmks" / name / f"{number:04d}.npy")
    numbers = range(len(film))
    return name, {
        "frame_path_list": [f"images/{name}/{number:04d}.png" for number in numbers],
        "lmks_list": [f"lmks/{name}/{number:04d}.npy" for number in numbers],
    }


def _finish_aniportrait(folder: Path, rows: Rows) -> None:
    for part, told in by_split(rows).items():
        if told:
            content: dict[str, Any] = {name: {"clip_data_list": [clip]} for name, clip in told}
            save_json(content, folder / f"{part}.json")


HDTF = Layout(draw=_draw_hdtf, finish=_finish_hdtf, width=1.0, cast=films)
ANIPORTRAIT = Layout(draw=_draw_aniportrait, finish=_finish_aniportrait, width=1.0, cast=films)
