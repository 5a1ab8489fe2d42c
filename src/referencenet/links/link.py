"""The handle of a linked UNet: write, read, share, and what `print` shows of its sites.

Between passes nothing of a call stays: tasks lie in the seats' slots only while a pass runs. What a link does at a site
is its own affair (`kind.py`); here its tasks are put in place and taken away. Letters: r reading rows, b bank rows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from referencenet.links.bank import ReferenceBank
from referencenet.links.kind import Kind, Task
from referencenet.links.masks import Pyramid
from referencenet.links.offloading import bring, rests_in_groups, send_back
from referencenet.links.parts import ReadChunks, ReadUnperturbed, cutter_of, cutters_of, perturbed_parts
from referencenet.links.reading import Banks, ReadBank, as_reads, check_masks, plan_over
from referencenet.links.rows import RowPlan
from referencenet.links.seats import Seat
from referencenet.links.table import table
from referencenet.links.writing import WriteDone, Writing


class Link:
    """A UNet with links attached. Made by `attach`; `print` shows its sites."""

    def __init__(self, unet: nn.Module, seats: Iterable[tuple[Kind, Seat]]) -> None:
        self.unet = unet
        self._seats = sorted(seats, key=lambda pair: pair[1].site.order)
        self.sites = tuple(seat.site for _, seat in self._seats)
        self._last: dict[str, tuple[str, str]] = {}  # by site what the last bank held and how many tokens, in words

    def write(self, sample: Tensor, timestep: Tensor | float, *, encoder_hidden_states: Tensor | None,
              projected: bool = True, readable: Pyramid | None = None, stop: bool = True,
              **unet_kwargs: Any) -> ReferenceBank:  # fmt: skip
        """Run the UNet over a reference and keep what its sites offer.

        The pass is not checkpointed: what `backward()` recomputes while the UNet reads would read as well.

        Args:
            sample: Reference latents as the UNet takes them, (b, channels, height, width).
            timestep: The UNet's timestep.
            encoder_hidden_states: The context, (b, tokens, channels).
            projected: Keep keys and values (the reader is this UNet) instead of the self-attention's inputs.
            readable: Mask of the reference for AdaIN's statistics.
            stop: End the pass behind the last site. A compiled UNet cannot be left halfway: pass False.
            unet_kwargs: Further arguments of the UNet.

        Returns:
            The bank, b rows.
        """
        writing = Writing(projected=projected, readable=readable, last=self.sites[-1].name if stop else None)
        with _without_checkpointing(self.unet):
            return self.write_as(writing, sample, timestep, encoder_hidden_states=encoder_hidden_states, **unet_kwargs)

    def write_as(self, writing: Writing, *args: Any, **kwargs: Any) -> ReferenceBank:
        """Write as told, with the UNet's arguments."""
        with self._tasks(lambda kind, seat: kind.write(seat, writing)):
            try:
                self.unet(*args, **kwargs)
            except WriteDone:
                send_back(self.unet)
        self._note([writing.bank])
        return writing.bank

    @contextmanager
    def reading(self, banks: Banks, *, weights: Sequence[float] | None = None, plan: RowPlan | None = None,
                once: bool = False) -> Generator[None]:  # fmt: skip
        """Inside, the UNet reads the banks. Under gradient checkpointing keep `backward()` inside as well.

        Args:
            banks: One or several; all with the same number of rows.
            weights: Per row of the reading batch how much it reads: 0 not at all, 1 in full, more goes beyond; None:
                all rows in full. Row i of r reads bank row i * b // r. A UNet that folds frames into its rows counts
                samples here.
            plan: Instead of weights, exactly which row reads which bank row, and which row reads zeros in its place.
            once: A single pass reads the banks, and nobody needs them afterwards: where that can be, they are emptied
                site by site as it goes, and memory is free sooner.

        Raises:
            KeyError: If a bank lacks sites that this link reads.
            ValueError: If rows do not fit.
        """
        reads = as_reads(banks)
        plan = plan or plan_over(reads, weights)
        self._check_banks([read.bank for read in reads])
        for kind in {kind for kind, _ in self._seats}:
            kind.check_plan(plan)
        check_masks(self.unet, reads)
        self._note([read.bank for read in reads])
        empties = once and self.can_read_once
        is_late = empties or rests_in_groups(self.unet) or _takes_a_scale(self.unet)
        if not is_late:
            bring(self.unet)  # its layers project the bank before its first pass, which would bring it otherwise
        cutters = cutters_of(self.unet)
        with ExitStack() as followed:

            def read(kind: Kind, seat: Seat) -> Task | None:
                cutter, parts = cutter_of(seat, cutters), perturbed_parts(seat)
                late = ReadLate(kind, seat, reads, plan, empties, keeps=cutter is not None)
                if not is_late:
                    late.taken = kind.take(seat, reads)
                    if not late.taken:
                        return None
                if cutter is not None:
                    chunks = ReadChunks(late.by, plan)
                    followed.callback(cutter.register_forward_pre_hook(chunks.begin, with_kwargs=True).remove)
                    return chunks
                if parts:
                    return ReadUnperturbed(late.by, plan, parts)
                return late if is_late else late.by(plan)

            with self._tasks(read):
                yield

    @property
    def can_read_once(self) -> bool:
        """Whether `reading(once=True)` empties banks now: not under autograd, which reads again, nor compiled."""
        compiled = any(module._compiled_call_impl is not None for module in self.unet.modules())  # pyright: ignore[reportPrivateUsage]
        return not torch.is_grad_enabled() and not compiled

    @contextmanager
    def sharing(self, *, halves: int, weights: Sequence[float], weight: float = 1.0) -> Generator[None]:
        """Inside, every picture of the batch reads the first picture of its guidance half.

        Args:
            halves: Guidance halves in the batch.
            weights: Per half how much it reads, in [0, 1].
            weight: How many times the first picture counts.
        """
        with self._tasks(lambda kind, _: kind.share(halves, weights, weight)):
            yield

    def belong_to(self, thread: int) -> None:
        """Let only one thread do what is written and read here.

        Args:
            thread: Its identity, as `threading.get_ident` tells it.
        """
        for _, seat in self._seats:
            seat.slot.thread = thread

    @contextmanager
    def _tasks(self, task: Callable[[Kind, Seat], Task | None]) -> Generator[None]:
        """Inside, every seat has the task that is made for it, afterwards the one of before."""
        for _, seat in self._seats:
            seat.renew()
        before = [seat.slot.task for _, seat in self._seats]
        try:
            for kind, seat in self._seats:
                seat.slot.task = task(kind, seat)
            yield
        finally:
            for (_, seat), earlier in zip(self._seats, before, strict=True):
                seat.slot.task = earlier

    def _check_banks(self, banks: Sequence[ReferenceBank]) -> None:
        for bank in banks:
            offered = {*bank.hidden, *bank.projected, *bank.statistics}
            missing = sorted({site.name for site in self.sites} - offered)
            if missing:
                raise KeyError(
                    f"the bank has {len(offered)} of the {len(self.sites)} sites read here; missing {_some(missing)}. "
                    "Write it with the same links and weights on a UNet of the same layout."
                )

    def _note(self, banks: Sequence[ReferenceBank]) -> None:
        """Remember in words what banks hold, for `print`."""
        for name, (what, tensors) in ((name, held) for bank in banks[:1] for name, held in bank.sites().items()):
            tokens = sum(bank.sites()[name][1][0].shape[1] for bank in banks) if tensors[0].ndim == 3 else 0
            self._last[name] = (what, str(tokens or "-"))

    def __repr__(self) -> str:
        rows = [("site", "width", "tokens", "writer", "reader", "rule")]
        for kind, seat in self._seats:
            what, tokens = self._last.get(seat.site.name, ("-", "-"))
            width = str(seat.site.width or "-")
            rows.append((seat.site.name, width, tokens, what, kind.reader(seat.site), kind.rule))
        return f"Link on {type(self.unet).__name__}: {len(self.sites)} sites\n{table(rows)}"


@dataclass
class ReadLate:
    """A read task whose references are taken when a pass comes to its site, where its weights are then.

    Attributes:
        empties: Whether they are taken out of their banks and let go, for a single pass; else they are kept for the
            next, but under autograd or in compiled code, which must find every pass alike.
        keeps: Whether they are kept all the same, where a single pass comes several times.
    """

    kind: Kind
    seat: Seat
    reads: Sequence[ReadBank]
    plan: RowPlan
    empties: bool
    keeps: bool = False
    taken: Sequence[Any] | None = None

    def __call__(self, *args: Any) -> Tensor:
        """As the kind's own read task."""
        return self.by(self.plan)(*args)

    def by(self, plan: RowPlan) -> Task:
        """The kind's own read task by a plan."""
        references = self._references()
        return self.kind.read(references, plan if references else RowPlan(rows=plan.rows, sections=()))

    def _references(self) -> Sequence[Any]:
        if self.taken is not None:
            return self.taken
        references = self.kind.take(self.seat, self.reads)
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            if self.empties:
                for read in self.reads:
                    read.bank.forget(self.seat.site.name)
            if self.keeps or not self.empties:
                self.taken = references
        return references


def _takes_a_scale(unet: nn.Module) -> bool:
    """Whether there are LoRA layers, to which a pass gives its own scale (`cross_attention_kwargs`) while it runs."""
    return any(hasattr(module, "scale_layer") for module in unet.modules())


@contextmanager
def _without_checkpointing(unet: nn.Module) -> Generator[None]:
    """Inside, no block of the UNet is checkpointed."""
    checkpointed: list[Any] = []
    if torch.is_grad_enabled():
        checkpointed = [module for module in unet.modules() if getattr(module, "gradient_checkpointing", False)]
    try:
        for module in checkpointed:
            module.gradient_checkpointing = False
        yield
    finally:
        for module in checkpointed:
            module.gradient_checkpointing = True


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
