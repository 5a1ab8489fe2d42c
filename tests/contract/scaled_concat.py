"""A link of one's own, as a newcomer would add it: one file and one row in `rows.py`.

References are read as if they were fainter: their tokens are scaled before they join the own ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from referencenet.links.concat import Read
from referencenet.links.kernel import ReferenceTokens
from referencenet.links.kind import Kind
from referencenet.links.rows import RowPlan


@dataclass(frozen=True, kw_only=True)
class ScaledConcat(Kind):
    """Read scaled references in self-attention.

    Attributes:
        scale: What reference tokens are multiplied with.
    """

    rule: ClassVar[str] = "attention over [own; scale x reference]"

    scale: float = 0.5

    def read(self, references: Sequence[ReferenceTokens], plan: RowPlan) -> Read:
        """Attention over own and scaled reference tokens; keys and values have no bias, so they scale alike."""
        fainter = [replace(r, key=r.key * self.scale, value=r.value * self.scale) for r in references]
        return Read(fainter, plan)
