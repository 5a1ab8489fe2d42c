"""HDTF as Hallo prepares it: `videos/NAME.mp4`, `audios/NAME.wav`, `images/NAME/`, masks by folder, a list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from referencenet.training.data.layouts.files import first_file, read_names
from referencenet.training.data.sample import Sample

MASKS = {"face": "sep_face_mask", "lip": "sep_lip_mask", "border": "sep_pose_mask", "whole": "face_mask"}
"""Of a clip: name to folder."""


def samples(root: Path, split: str) -> Iterator[Sample]:
    """Talking heads: films with sound and masks; what is made of them lies in folders such as `speech`."""
    listing = first_file(root, [f"{split}_list.txt"], "HDTF")
    for name in read_names(listing):
        frames = root / "images" / name
        further = {
            "embedding": root / "face_emb" / f"{name}.npy",
            "speech": root / "speech" / f"{name}.npy",
            "speeds": root / "speed" / f"{name}.npy",
            "track": root / "face_track" / f"{name}.npz",
        }
        yield Sample(
            name=name,
            target=frames if frames.is_dir() else root / "videos" / f"{name}.mp4",
            audio=root / "audios" / f"{name}.wav",
            face_mask={kind: root / folder / f"{name}.png" for kind, folder in MASKS.items()},
            **{field: path if path.is_file() else None for field, path in further.items()},
        )
