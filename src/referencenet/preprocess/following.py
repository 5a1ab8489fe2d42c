"""One person through a film: who is meant among several, and what stands for frames in which nobody is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from PIL import Image

from referencenet.media.images import Picture, read_image
from referencenet.preprocess.faces import Box
from referencenet.preprocess.regions import Region, overlap

T = TypeVar("T")
STILL_THE_SAME = 0.1  # overlap with the frame before from which on somebody is the same person


class Followed(Generic[T]):
    """What an estimator says of one person in every frame, read once.

    The person is chosen in the first frame, and then is whoever overlaps most with where it was; where nobody does, as
    after a cut, it is chosen anew. Where it is not found its last value is held, or before the first its first.

    Args:
        frames: Pictures of one size; streamed.
        regions: Finds people or faces of an RGB picture.
        read: What is said of one; None: it is none after all.
        person: Which one, counted from the left from 1; None: the largest.
        doubt: Why what was read should not be trusted, by it and the size of the frames; None: it should.

    Attributes:
        num_frames: Read so far.
        held: Numbers of frames in which the person was not found, so far.
        most: People in one frame, at most, so far.
        doubted: Why, and numbers of the frames of which it was doubted, so far.

    Raises:
        ValueError: While it is read, if no frame shows the person, or a frame has another size than the first.
    """

    def __init__(
        self,
        frames: Iterable[Picture],
        regions: Callable[[Image.Image], Sequence[Region]],
        read: Callable[[Image.Image, Region], T | None],
        person: int | None = None,
        doubt: Callable[[T, tuple[int, int]], str | None] | None = None,
    ) -> None:
        if person is not None and person < 1:
            raise ValueError(f"the person is {person}; they are counted from 1, from the left.")
        self.frames, self.regions, self.read, self.person, self.doubt = frames, regions, read, person, doubt
        self.held: list[int] = []
        self.doubted: dict[str, list[int]] = {}
        self.num_frames = self.most = 0
        self._last: Box | None = None

    def __iter__(self) -> Iterator[T]:
        """The value of each frame, in order."""
        value: T | None = None
        size: tuple[int, int] | None = None
        for image in map(read_image, self.frames):
            size = size or image.size
            if image.size != size:
                raise ValueError(
                    f"frame {self.num_frames} is {image.width} x {image.height} pixels, the first {size[0]} x "
                    f"{size[1]}; give frames of one size."
                )
            found = self._found(image)
            why = None if found is None or self.doubt is None else self.doubt(found, size)
            if why is not None:
                self.doubted.setdefault(why, []).append(self.num_frames)
            late = self.num_frames if value is None else 0
            self.num_frames += 1
            if found is None:
                self.held.append(self.num_frames - 1)
            value = value if found is None else found
            if value is not None:
                yield from [value] * (late + 1)
        if value is None:
            raise ValueError(self._nobody())

    def _nobody(self) -> str:
        """Why there is no value."""
        who = "anybody" if self.person is None else f"a person {self.person} from the left"
        shown = f"the picture does not show {who}" if self.num_frames == 1 else (
            f"none of {self.num_frames} frames shows {who}"
        )  # fmt: skip
        if self.most >= (self.person or 1):
            seen = "a person was found, but cannot be read, as in profile, covered or cut off"
        else:
            seen = f"at most {self.most} were found in one" if self.most else "no person was found"
        return f"{shown} ({seen}); give a clearer picture in which the person is larger."

    def _found(self, image: Image.Image) -> T | None:
        """What is said of the person in a frame."""
        regions = self.regions(image)
        self.most = max(self.most, len(regions))
        region = chosen(regions, self.person, self._last)
        value = None if region is None else self.read(image, region)
        if region is not None and value is not None:
            self._last = region.box
        return value


def chosen(regions: Sequence[Region], person: int | None, last: Box | None) -> Region | None:
    """Whom to take.

    Args:
        regions: Of people or faces.
        person: Counted from the left from 1; None: the largest.
        last: Where it was in the frame before, if it was followed.
    """
    if last is not None and regions:
        nearest = max(regions, key=lambda region: overlap(region.box, last))
        if overlap(nearest.box, last) >= STILL_THE_SAME:
            return nearest
    if person is None:
        return max(regions, key=lambda region: region.side, default=None)
    in_order = sorted(regions, key=lambda region: region.x)
    return in_order[person - 1] if len(in_order) >= person else None
