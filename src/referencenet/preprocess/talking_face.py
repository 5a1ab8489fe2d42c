"""A portrait's face that speaks: AniPortrait's Audio2Lmk, from sound to drawings of a face mesh.

Speech moves the vertices of the portrait's own mesh; the head moves by a network of its own, or as in another film.
Both networks run at 30 frames a second, as they were trained; films of other rates are interpolated in time. Faces are
made a block at a time when they are drawn, so that memory does not grow with the sound.
Published and done right here: sound of five seconds and less, and of whole multiples of five seconds, which fail there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from referencenet.checkpoints.audio2lmk import AUDIO2LMK
from referencenet.checkpoints.published import find_files, read_component
from referencenet.inputs import read_array
from referencenet.media.sound import SAMPLE_RATE, Sound
from referencenet.networks.audio2face import POSE, MeshFromSpeech, PoseFromSpeech
from referencenet.networks.wav2vec import speech_states
from referencenet.preprocess.face_geometry import pose_matrices, poses_of, projected, smoothed
from referencenet.preprocess.face_mesh import draw_face_mesh
from referencenet.preprocess.face_track import FaceTrack, read_track
from referencenet.preprocess.speech import SpeechFeatures, moments, num_frames_of, read_speech

TRAINED_RATE = Fraction(30)  # frames per second
CHUNK = 5  # seconds, of which poses are decoded anew; the last one takes what is left
ROTATION = 0.5  # share of the decoded angles, as published
SPEECH_SMOOTHING, FILM_SMOOTHING = 7, 5  # frames, as published
BLOCK = 256  # frames whose faces are made together


class TalkingFace:
    """From sound to drawings.

    Args:
        audio2mesh: Moves the mesh.
        audio2pose: Moves the head.
    """

    def __init__(self, audio2mesh: MeshFromSpeech, audio2pose: PoseFromSpeech) -> None:
        self.audio2mesh, self.audio2pose = audio2mesh.eval(), audio2pose.eval()

    @classmethod
    def from_published(cls, folder: str | Path, *, config: Mapping[str, Any] | None = None) -> TalkingFace:
        """Read `audio2mesh.pt` and `audio2pose.pt`, strictly.

        Args:
            folder: Where they are.
            config: Sizes of the networks; None: the released ones.

        Raises:
            FileNotFoundError: If one is missing; says where to get it.
            CheckpointError: If a tensor is missing, unknown, of another shape or not finite.
        """
        paths = find_files(AUDIO2LMK, folder)
        networks: Any = (read_component(AUDIO2LMK, name, paths, config) for name in AUDIO2LMK.components)
        return cls(*networks)

    def to(self, device: str | torch.device) -> TalkingFace:
        """Compute there from now on."""
        self.audio2mesh.to(device)
        self.audio2pose.to(device)
        return self

    @property
    def identities(self) -> int:
        """Ways to move a head."""
        return self.audio2pose.id_embed.num_embeddings

    def identity_of(self, seed: int) -> int:
        """The identity that a seed draws."""
        return random.Random(seed).randrange(self.identities)

    def offsets(self, sound: Sound) -> np.ndarray:
        """How far each vertex moves from the portrait's mesh, (frames, 468, 3), at 30 frames per second."""
        features = self._heard(sound)
        return moved(self.audio2mesh, features, 0, len(features))

    def _heard(self, sound: Sound) -> SpeechFeatures:
        """What moves the mesh."""
        return SpeechFeatures(self.audio2mesh.audio_encoder, sound, rate=TRAINED_RATE)

    @torch.no_grad()
    def poses(self, sound: Sound, identity: int) -> np.ndarray:
        """Head poses, (frames, 6), at 30 frames per second.

        Args:
            sound: What is said.
            identity: Which way to move a head, below `identities`.

        Raises:
            ValueError: If there is no such identity, or the sound cannot be read.
        """
        encoder = self.audio2pose.audio_encoder
        samples = read_speech(sound, encoder)
        mean, deviation = moments(samples)
        chunk = CHUNK * SAMPLE_RATE
        starts = [
            i * chunk for i in range(max(1, num_frames_of(len(samples), TRAINED_RATE) // int(CHUNK * TRAINED_RATE)))
        ]
        decoded: list[np.ndarray] = []
        for start, stop in zip(starts, [*starts[1:], len(samples)], strict=True):
            wave = torch.from_numpy((samples[start:stop] - np.float32(mean)) / np.float32(deviation))
            frames = num_frames_of(stop - start, TRAINED_RATE)
            states = speech_states(encoder, wave[None].to(encoder.device, encoder.dtype), frames)[-1]
            decoded.append(self.audio2pose(states, identity)[0].cpu().double().numpy())
        poses = np.concatenate(decoded)
        poses[:, :3] *= ROTATION
        return smoothed(poses, SPEECH_SMOOTHING)

    def __call__(
        self,
        sound: Sound,
        portrait: FaceTrack,
        *,
        head_poses: np.ndarray | None = None,
        identity: int | None = None,
        seed: int = 0,
        rate: Fraction | int = TRAINED_RATE,
        width: int = 512,
        height: int = 512,
    ) -> SpokenFilm:
        """Drawings of the portrait's face as it speaks, one for each frame of the sound.

        Args:
            sound: What is said.
            portrait: The portrait's own face, one frame.
            head_poses: (frames, 6), relative to the first, at 30 frames per second: played forth and back instead of
                what the network hears.
            identity: Which way to move the head, below `identities`; None: drawn by `seed`.
            seed: Draws the identity.
            rate: Frames per second of the film.
            width: Of the drawings in pixels.
            height: Likewise.

        Raises:
            ValueError: If the sound cannot be read, there is no such identity, or poses have another shape.
        """
        if head_poses is not None and identity is not None:
            raise ValueError("head poses and an identity were given; the head moves by one of them.")
        samples = read_speech(sound, self.audio2mesh.audio_encoder)
        if head_poses is None:
            poses = self.poses(samples, self.identity_of(seed) if identity is None else identity)
        else:
            poses = forth_and_back(checked_poses(head_poses), num_frames_of(len(samples), TRAINED_RATE))
        features = self._heard(samples)
        num_frames = num_frames_of(len(samples), rate)
        return SpokenFilm(
            offsets=partial(moved, self.audio2mesh, features),  # the other network is not kept
            num_trained=len(features),
            poses=at_rate(poses, TRAINED_RATE, Fraction(rate), num_frames),
            portrait=portrait,
            width=width,
            height=height,
            rate=Fraction(rate),
        )


@dataclass(frozen=True, kw_only=True)
class SpokenFilm:
    """Drawings of a face that speaks, each made when it is read: a `FrameSource`.

    Attributes:
        offsets: Gives how far vertices move in frames [start, stop) at 30 frames per second, (frames, 468, 3).
        num_trained: Frames at that rate.
        poses: Of the head in each frame of the film, (frames, 6).
        portrait: The portrait's own face, one frame.
        width: Of the drawings in pixels.
        height: Likewise.
        rate: Frames per second of the film.
    """

    offsets: Callable[[int, int], np.ndarray]
    num_trained: int
    poses: np.ndarray
    portrait: FaceTrack
    width: int
    height: int
    rate: Fraction

    def __len__(self) -> int:
        return len(self.poses)

    def __iter__(self) -> Iterator[Image.Image]:
        """Drawings in order."""
        return (Image.fromarray(draw_face_mesh(face, self.width, self.height)) for face in self.faces())

    def faces(self) -> Iterator[np.ndarray]:
        """Landmarks of each frame, (468, 2) as fractions of the picture."""
        portrait = self.portrait
        for first in range(0, len(self), BLOCK):
            poses = self.poses[first : first + BLOCK]
            places = np.arange(first, first + len(poses)) * float(TRAINED_RATE / self.rate)
            places = np.minimum(places, self.num_trained - 1)
            start, stop = int(places[0]), min(int(places[-1]) + 2, self.num_trained)
            moved = portrait.vertices[0] + between(self.offsets(start, stop), places - start)
            matrices = portrait.matrices[0] @ pose_matrices(poses)
            pixels = projected(moved, matrices, portrait.width, portrait.height)
            yield from pixels / np.array([portrait.width, portrait.height])

    @property
    def landmarks(self) -> np.ndarray:
        """Those of all frames at once, (frames, 468, 2)."""
        return np.stack(list(self.faces()))


@torch.no_grad()
def moved(audio2mesh: MeshFromSpeech, features: SpeechFeatures, start: int, stop: int) -> np.ndarray:
    """How far each vertex moves in frames [start, stop), (frames, 468, 3), by features of its own encoder."""
    states = features.of(range(start, stop))[None, :, -1]
    return audio2mesh(states)[0].cpu().double().numpy()


def read_head_poses(path: str | Path) -> np.ndarray:
    """Head poses of a file.

    Args:
        path: An .npy of poses, (frames, 6), such as the published `pose_temp.npy`; or a film's face track, an npz or
            JSON file.

    Returns:
        (frames, 6), relative to the first frame, at 30 frames per second.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is neither.
    """
    path = Path(path)
    if path.suffix.lower() != ".npy":
        return head_poses_of(read_track(path))
    found = read_array(path, "head poses (frames, 6): three angles in degrees, a translation")
    try:
        return checked_poses(found)
    except ValueError as error:
        raise ValueError(f"{path} holds no head poses ({error})") from error


def head_poses_of(track: FaceTrack) -> np.ndarray:
    """A film's head poses relative to its first frame, smoothed, (frames, 6), at 30 frames per second."""
    poses = poses_of(np.linalg.inv(track.matrices[0]) @ track.matrices)
    num_frames = int((len(poses) - 1) / track.rate * TRAINED_RATE) + 1
    return smoothed(at_rate(poses, track.rate, TRAINED_RATE, num_frames), FILM_SMOOTHING)


def checked_poses(poses: np.ndarray) -> np.ndarray:
    """Poses as float64.

    Raises:
        ValueError: If they are not (frames, 6), or not finite.
    """
    found = np.asarray(poses, dtype=np.float64)
    if found.ndim != 2 or found.shape[1] != POSE or not len(found) or not np.isfinite(found).all():
        raise ValueError(
            f"head poses have shape {found.shape}{'' if np.isfinite(found).all() else ' and are not all finite'}; "
            "expected (frames, 6): three angles in degrees, a translation."
        )
    return found


def forth_and_back(poses: np.ndarray, num_frames: int) -> np.ndarray:
    """Poses (frames, 6), then back without both ends, and again, (num_frames, 6)."""
    cycle = np.concatenate([poses, poses[-2:0:-1]])
    return cycle[np.arange(num_frames) % len(cycle)]


def at_rate(values: np.ndarray, given: Fraction, wanted: Fraction, num_frames: int) -> np.ndarray:
    """Frames (frames, ...) of one rate, linearly interpolated at another; behind the last one it stays."""
    if given == wanted:
        return values[:num_frames]
    return between(values, np.minimum(np.arange(num_frames) * float(given / wanted), len(values) - 1))


def between(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values (frames, ...) at places (n,) that may lie between frames, linearly interpolated, (n, ...)."""
    before = places.astype(int)
    after = np.minimum(before + 1, len(values) - 1)
    share = (places - before).reshape(-1, *[1] * (values.ndim - 1))
    return values[before] * (1 - share) + values[after] * share
