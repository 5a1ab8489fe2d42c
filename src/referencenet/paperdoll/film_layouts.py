"""The three layouts that hold films: UBC fashion, TikTok dances and HDTF's talking heads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from referencenet.paperdoll.film import dance, talk
from referencenet.paperdoll.landmarks import face_box
from referencenet.paperdoll.maps import PARTS, dense_map, dense_picture, grown, part_mask, segmentation
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Background, Scene
from referencenet.paperdoll.skeleton import skeleton
from referencenet.paperdoll.video import write_video, write_wav

NUM_FRAMES = {"ubc": 48, "tiktok": 24, "hdtf": 50}


@dataclass(frozen=True)
class FilmClip:
    """One clip to write: its number, who and what it shows, its split, and its size as (width, height)."""

    number: int
    character: int
    film: int
    split: str
    size: tuple[int, int]


def write_ubc(folder: Path, clip: FilmClip) -> None:
    """Write `train/NAME.mp4`, the same under `train_dwpose` and `train_densepose`, and a line in the list of pairs."""
    name = f"{clip.number:05d}.mp4"
    film = dance(clip.character, clip.film, num_frames=NUM_FRAMES["ubc"], background=Background(colour="white"))
    kinds = {
        "": lambda scene: render(scene, clip.size),
        "_dwpose": lambda scene: skeleton(scene, clip.size),
        "_densepose": lambda scene: dense_picture(dense_map(scene, clip.size)),
    }
    for kind, draw in kinds.items():
        target = folder / f"{clip.split}{kind}"
        target.mkdir(exist_ok=True)
        write_video(target / name, map(draw, film.scenes), film.fps)
    listing = folder / f"fashion_{clip.split}_meta.json"
    rows = json.loads(listing.read_text()) if listing.exists() else []
    rows.append({"video_path": f"{clip.split}/{name}", "kps_path": f"{clip.split}_dwpose/{name}"})
    listing.write_text(json.dumps(rows, indent=1))


def write_tiktok(folder: Path, clip: FilmClip) -> None:
    """Write `TikTok_dataset/NNNNN/{images,masks,densepose,openpose}/NNNN.png`."""
    target = folder / "TikTok_dataset" / f"{clip.number + 1:05d}"
    film = dance(clip.character, clip.film, num_frames=NUM_FRAMES["tiktok"])
    for number, scene in enumerate(film.scenes, start=1):
        pictures = {
            "images": render(scene, clip.size),
            "masks": part_mask(segmentation(scene, clip.size), *PARTS[1:]).astype(np.uint8) * 255,
            "densepose": dense_picture(dense_map(scene, clip.size)),
            "openpose": skeleton(scene, clip.size),
        }
        for kind, picture in pictures.items():
            _save(picture, target / kind / f"{number:04d}.png")


def write_hdtf(folder: Path, clip: FilmClip) -> None:
    """Write a talking head: `videos/NAME.mp4` with its sound, `audios/NAME.wav`, `images/NAME/NNNN.png` and masks."""
    name = f"{clip.number:04d}"
    film = talk(clip.character, clip.film, num_frames=NUM_FRAMES["hdtf"])
    assert film.audio is not None  # a talking film has sound
    frames = list(film.frames(clip.size))
    for kind in ("videos", "audios"):
        (folder / kind).mkdir(exist_ok=True)
    path = folder / "videos" / f"{name}.mp4"
    write_video(path, frames, film.fps, audio=film.audio, sample_rate=film.sample_rate)
    write_wav(folder / "audios" / f"{name}.wav", film.audio, film.sample_rate)
    for number, frame in enumerate(frames):
        _save(frame, folder / "images" / name / f"{number:04d}.png")
    for kind, mask in _head_masks(film.scenes, clip.size).items():
        _save(mask.astype(np.uint8) * 255, folder / kind / f"{name}.png")
    with (folder / f"{clip.split}_list.txt").open("a") as file:
        file.write(f"{name}\n")


def _head_masks(scenes: tuple[Scene, ...], size: tuple[int, int]) -> dict[str, np.ndarray]:
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


def _save(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
