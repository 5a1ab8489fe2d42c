"""What a link owes the house: its sites, a seat at each, a task for write passes and one for read passes.

A link is a frozen dataclass that derives from `Kind` and says, as a default, what most links share: it chooses every
self-attention, sits in the place of the processor there, and writes the attention's input (or its keys and values). It
must say how a site reads. A link is one file and one row of the contract test; nothing that attaches asks which it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from referencenet.links.reading import ReadBank, tokens_at
from referencenet.links.rows import RowPlan
from referencenet.links.seats import ProcessorSeat, Seat
from referencenet.links.sites import Site, attention_sites
from referencenet.links.writing import WriteHidden, WriteProjected, Writing

Task = Callable[..., Tensor]
"""What a site does in a pass: `(attn, hidden_states, attention_mask)` or, behind a block, features, to their like."""


class Kind(ABC):
    """A kind of link; its fields are its settings.

    Attributes:
        place: What it takes the place of. Two links of one place cannot be attached together.
        rule: What a site that reads computes, in a few words.
        kept: What a site that writes leaves in a bank, in a few words.
    """

    place: ClassVar[str] = "attention"
    rule: ClassVar[str]
    kept: ClassVar[str] = "inputs of self-attention"

    def candidates(self, unet: nn.Module) -> list[Site]:
        """Every site of a UNet that a link of this kind could use; none: it is no UNet for it."""
        return attention_sites(unet)

    def chooses(self, site: Site) -> bool:  # noqa: ARG002 - others look at it
        """Whether a site takes part."""
        return True

    def check(self) -> None:  # noqa: B027 - most links have nothing to look at
        """Look at the link's own settings before anything else is.

        Raises:
            ValueError: If one is out of its range.
        """

    def check_plan(self, plan: RowPlan) -> None:  # noqa: B027 - most links read whatever is planned
        """Look at which rows shall read before anything does.

        Raises:
            ValueError: If a row cannot read as the plan says.
        """

    def seat(self, unet: nn.Module, site: Site) -> Seat:
        """The place at a site; nothing is touched before it is taken.

        Raises:
            TypeError: If what is there cannot be replaced.
        """
        return ProcessorSeat(unet, site)

    def write(self, seat: Any, writing: Writing) -> Task:
        """The task of a site in a write pass."""
        if writing.projected:
            return WriteProjected(seat.site.name, writing)
        return WriteHidden(seat.site.name, writing, seat.original)

    def take(self, seat: Any, reads: Sequence[ReadBank]) -> Sequence[Any]:
        """What banks hold for a site, as its read task wants it; empty: nothing is read there."""
        return tokens_at(seat.module, seat.site.name, reads)

    @abstractmethod
    def read(self, references: Sequence[Any], plan: RowPlan) -> Task:
        """The task of a site in a read pass.

        Args:
            references: What `take` gave.
            plan: Which rows read which bank row, and how much.
        """

    def reader(self, site: Site) -> str:
        """What reads at a site, by its name in the block."""
        own = site.name.rpartition(".")[2]
        return f"{own}.{site.layer}" if site.layer else own

    def share(self, halves: int, weights: Sequence[float], weight: float) -> Task:
        """The task of a site where every picture of a batch reads the first; see `Link.sharing`.

        Raises:
            TypeError: If links of this kind cannot.
        """
        raise TypeError(f"{self!r} cannot share inside a batch ({halves=}, {weights=}, {weight=}); use Aligned().")
