"""Writing at every so many steps only: what the passes of a step read is kept for the steps behind it.

An approximation: a bank shows the reference at the noise level of the step that it was written at.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from referencenet.links.reading import ReadBank


@dataclass
class Rewriting:
    """What was written last in a call of a pipeline.

    Attributes:
        step: The number of the step that had the last pass.
        place: Of that pass among the passes of its step.
        reads: Place to what the pass was like, and what it read.
    """

    step: int | None = None
    place: int = 0
    reads: dict[int, tuple[Hashable, Sequence[ReadBank]]] = field(
        default_factory=dict[int, tuple[Hashable, Sequence[ReadBank]]]
    )

    def recall(self, step: int, every: int, like: Hashable) -> Sequence[ReadBank] | None:
        """What a pass reads without writing; None: it is to write. To be asked once for every pass.

        Args:
            step: The number of its step, from 0.
            every: At every so many steps there is writing.
            like: What a bank depends on beside the step; another value is written anew.
        """
        self.place = self.place + 1 if step == self.step else 0
        self.step = step
        if step % every == 0:
            return None
        before, reads = self.reads.get(self.place, (None, None))
        return reads if before == like else None

    def keep(self, like: Hashable, reads: Sequence[ReadBank]) -> None:
        """Remember what the pass that was asked for has written."""
        self.reads[self.place] = (like, reads)
