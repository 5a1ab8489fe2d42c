"""A portrait's face that speaks: AniPortrait's Audio2Lmk, from sound to drawings of a face mesh.

Speech moves the vertices of the portrait's own mesh; the head moves by a network of its own, or as in another film.
Both networks run at 30 frames a second, as they were trained; films of other rates are interpolated in time.
Published and done right here: sound of five seconds and less, and of whole multiples of five seconds, which fail there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from referencenet.checkpoints.audio2lmk import AUDIO2LMK
from referencenet.checkpoints.published import find_files, read_component
from referencenet.inputs import read_array
from referencenet.media.sound import SAMPLE_RATE, Sound
from referencenet.networks.audio2face import POSE, MeshFromSpeech, PoseFromSpeech
from referencenet.networks.wav2vec import speech_states
from referencenet.preprocess.face_geometry import pose_matrices, poses_of, projected, smoothed
from referencenet.preprocess.face_mesh import FaceMeshFilm
from referencenet.preprocess.face_track import FaceTrack, read_track
from referencenet.preprocess.speech import SpeechFeatures, moments, num_frames_of, read_speech

TRAINED_RATE = Fraction(30)  # frames per second
CHUNK = 5  # seconds, of which poses are decoded anew; the last one takes what is left
ROTATION = 0.5  # share of the decoded angles, as published
SPEECH_SMOOTHING, FILM_SMOOTHING = 7, 5  # frames, as published


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

    @torch.no_grad()
    def offsets(self, sound: Sound) -> np.ndarray:
        """How far each vertex moves from the portrait's mesh, (frames, 468, 3), at 30 frames per second."""
        features = SpeechFeatures(self.audio2mesh.audio_encoder, sound, rate=TRAINED_RATE)
        return torch.cat([self.audio2mesh(piece[None, :, -1])[0] for piece in features]).cpu().double().numpy()

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
    ) -> FaceMeshFilm:
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
        offsets = self.offsets(samples)
        num_frames = num_frames_of(len(samples), rate)
        offsets, poses = (at_rate(value, TRAINED_RATE, Fraction(rate), num_frames) for value in (offsets, poses))
        matrices = portrait.matrices[0] @ pose_matrices(poses)
        pixels = projected(portrait.vertices[0] + offsets, matrices, portrait.width, portrait.height)
        places = pixels / np.array([portrait.width, portrait.height])
        return FaceMeshFilm(places, width=width, height=height, rate=Fraction(rate))


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
    places = np.minimum(np.arange(num_frames) * float(given / wanted), len(values) - 1)
    before = places.astype(int)
    after = np.minimum(before + 1, len(values) - 1)
    share = (places - before).reshape(-1, *[1] * (values.ndim - 1))
    return values[before] * (1 - share) + values[after] * share
