"""A sample: what one entry of a data set has. What is not there is None, and never guessed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from referencenet.media.folders import PICTURES

Place = tuple[float, float, float, float]
"""Left, top, right and bottom as shares of a picture's sides."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Files and words of an entry.

    Attributes:
        name: For messages.
        target: A picture; or a film: a video file, or a folder of pictures.
        frames: Of a film that is listed picture by picture.
        references: Other pictures of the same person.
        garment: The garment, laid flat.
        garment_mask: White where the garment is.
        mask: White where the target is to be repainted.
        pose: Skeleton, a picture or a film as the target.
        dense: DensePose rendering, likewise.
        parts: Pictures of parts by their label.
        part_masks: White where a part is, by its label.
        landmarks: Points of MediaPipe's face mesh, `.npy` of (478, 3) as fractions; one file for each of the frames.
        views: The same person from other cameras, in order.
        cameras: Renderings of another head from the same cameras.
        audio: Sound.
        speech: Features of the sound, `.npy` of (frames, layers, channels).
        speeds: Of the head, `.npy` of (frames,) in degrees a frame.
        track: Of the face, as `preprocess.face_track.read_track` reads it.
        face_mask: White where the face may be; `border`, `face` and `lip` by name.
        face_box: Of the target: left, top, right and bottom as shares of its sides.
        reference_boxes: Of the references' faces, likewise.
        embedding: Of the face, `.npy` or `.pt`.
        caption: What the target shows.
        garment_caption: What the garment is.
    """

    name: str
    target: Path | None = None
    frames: tuple[Path, ...] = ()
    references: tuple[Path, ...] = ()
    garment: Path | None = None
    garment_mask: Path | None = None
    mask: Path | None = None
    pose: Path | None = None
    dense: Path | None = None
    parts: dict[str, Path] = field(default_factory=dict[str, Path])
    part_masks: dict[str, Path] = field(default_factory=dict[str, Path])
    landmarks: tuple[Path, ...] = ()
    views: tuple[Path, ...] = ()
    cameras: tuple[Path, ...] = ()
    audio: Path | None = None
    speech: Path | None = None
    speeds: Path | None = None
    track: Path | None = None
    face_mask: dict[str, Path] = field(default_factory=dict[str, Path])
    face_box: Place | None = None
    reference_boxes: tuple[Place, ...] = ()
    embedding: Path | None = None
    caption: str | None = None
    garment_caption: str | None = None

    def lacks(self, needs: Iterable[str]) -> list[str]:
        """Which of these fields are absent, empty, or name files that are not there.

        Raises:
            ValueError: If there is no such field.
        """
        known = {f.name for f in fields(self)}
        found: list[str] = []
        for name in needs:
            if name not in known:
                raise ValueError(f"a sample has no field {name!r}; it has {', '.join(sorted(known))}.")
            value = getattr(self, name)
            if value is None or value in ((), {}):
                found.append(name)
            elif not all(is_there(path) for path in files_of(value)):
                found.append(f"{name} (no such file)")
        return found


def files_of(value: object) -> list[Path]:
    """The paths in a field's value."""
    if isinstance(value, Path):
        return [value]
    if isinstance(value, dict):
        return [path for path in value.values() if isinstance(path, Path)]
    return [path for path in value if isinstance(path, Path)] if isinstance(value, tuple) else []


def is_there(path: Path) -> bool:
    """Whether there is a file, or a folder with pictures."""
    return path.is_file() or (path.is_dir() and any(file.suffix.lower() in PICTURES for file in path.iterdir()))


@dataclass(frozen=True, kw_only=True)
class Found:
    """A data set's samples of one split.

    Attributes:
        samples: Whole ones.
        left_out: Names of the others, with what they lack.
    """

    samples: Sequence[Sample]
    left_out: dict[str, list[str]]

    def __str__(self) -> str:
        if not self.left_out:
            return f"{len(self.samples)} samples"
        name, lacking = next(iter(self.left_out.items()))
        return (
            f"{len(self.samples)} samples; {len(self.left_out)} left out, as {name}, which lacks {', '.join(lacking)}"
        )


def whole_ones(samples: Iterable[Sample], needs: Sequence[str], where: str) -> Found:
    """Part samples into those that have what is needed and the others.

    Args:
        samples: Of a split.
        needs: Fields that a stage learns from.
        where: The data set, for errors.

    Raises:
        ValueError: If none is whole.
    """
    good: list[Sample] = []
    left_out: dict[str, list[str]] = {}
    for sample in samples:
        lacking = sample.lacks(needs)
        if lacking:
            left_out[sample.name] = lacking
        else:
            good.append(sample)
    if not good:
        name, lacking = next(iter(left_out.items()), ("none", []))
        reason = f"all {len(left_out)} lack something, as {name}: {', '.join(lacking)}" if left_out else "it has none"
        raise ValueError(f"{where} has no sample to learn from: {reason}; the stage needs {', '.join(needs)}.")
    return Found(samples=good, left_out=left_out)
