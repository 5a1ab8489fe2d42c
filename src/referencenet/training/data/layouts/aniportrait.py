"""AniPortrait's data: `train.json`, video to its clips, each with lists of frames and of their landmarks.

    {"NAME": {"clip_data_list": [{"frame_path_list": ["0000.png", ...], "lmks_list": ["0000.npy", ...]}]}}

Paths are absolute or begin at the folder; landmarks are (478, 3) fractions of the picture, one file a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from referencenet.training.data.layouts.files import first_file, read_json
from referencenet.training.data.sample import Sample


def samples(root: Path, split: str) -> Iterator[Sample]:
    """Clips as lists of frames with their landmarks.

    Raises:
        ValueError: If the list is of another kind, or a clip has not as many frames as landmarks.
    """
    listing = first_file(root, [f"{split}.json"], "AniPortrait")
    for video, row in read_json(listing, dict).items():
        try:
            clips = [(clip["frame_path_list"], clip["lmks_list"]) for clip in row["clip_data_list"]]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{listing}: {video} has no clip_data_list of frame_path_list and lmks_list, as AniPortrait's data has."
            ) from error
        for number, (frames, landmarks) in enumerate(clips):
            if len(frames) != len(landmarks):
                raise ValueError(
                    f"{listing}: a clip of {video} has {len(frames)} frames and {len(landmarks)} landmarks; give one "
                    "for each frame."
                )
            yield Sample(
                name=video if len(clips) == 1 else f"{video} ({number})",
                frames=tuple(root / path for path in frames),
                landmarks=tuple(root / path for path in landmarks),
            )
