"""TikTok dances as they come: `TikTok_dataset/NNNNN/{images,masks,densepose,openpose}/NNNN.png`.

The set has no split of its own: as in MagicPose the last clips are held out, one in twenty and at least one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from referencenet.training.data.layouts.files import first_file
from referencenet.training.data.sample import Sample


def samples(root: Path, split: str) -> Iterator[Sample]:
    """Films as folders of pictures."""
    clips = sorted(path for path in first_file(root, ["TikTok_dataset"], "TikTok").iterdir() if path.is_dir())
    held_out = max(1, len(clips) // 20)
    for clip in clips[:-held_out] if split == "train" else clips[-held_out:]:
        yield Sample(name=clip.name, target=clip / "images", pose=clip / "openpose", dense=clip / "densepose")
