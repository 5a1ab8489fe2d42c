"""The concatenating link: keys and values of self-attention become those of self and reference together.

Reference-Only (sd-webui ControlNet, 2023) and, with a writer of their own, Animate Anyone, MagicAnimate, AniPortrait,
Hallo, MagicPose, IDM-VTON, Parts2Whole and DiffPortrait3D: attention(Q, [K_self; K_ref], [V_self; V_ref]). The kernel
computes it as one attention over each part, merged. Guidance, schedules and pictures are not known here. Letters: r
rows, n tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from diffusers.models.attention_processor import Attention as AttentionModule
from torch import Tensor

from referencenet.links.heads import finish, own_mask, query_key_value
from referencenet.links.kernel import ReferenceTokens, attend
from referencenet.links.kind import Kind
from referencenet.links.renamed import renamed
from referencenet.links.rows import RowPlan
from referencenet.links.sites import STAGES, Site, Stage, check_weight


@dataclass(frozen=True, kw_only=True)
class Concat(Kind):
    """Read references in self-attention.

    Attributes:
        weight: How many sites take part, in [0, 1]: those of rank i / n below it, widest first.
        stages: The parts of the UNet whose sites take part.
    """

    rule: ClassVar[str] = "attention over [own; reference]"

    weight: float = 1.0
    stages: tuple[Stage, ...] = STAGES

    def check(self) -> None:
        """The weight lies in [0, 1]."""
        check_weight(self, self.weight)

    def chooses(self, site: Site) -> bool:
        """Whether a site takes part."""
        return self.weight > site.rank and site.stage in self.stages

    def read(self, references: Sequence[ReferenceTokens], plan: RowPlan) -> Read:
        """Attention over own and reference tokens."""
        return Read(references, plan)


@dataclass
class Read:
    """Attend to self and references.

    Attributes:
        references: What each active reference offers here.
        plan: Which rows read.
    """

    references: Sequence[ReferenceTokens]
    plan: RowPlan

    def __call__(self, attn: AttentionModule, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Attention over [self; references] for the rows of the plan, plain attention for the others: (r, n, c)."""
        query, key, value = query_key_value(attn, hidden_states)
        mask = own_mask(attn, attention_mask, hidden_states)
        return finish(attn, attend(query, key, value, self.references, self.plan, mask))


__getattr__ = renamed(__name__, {"Attention": Concat})
