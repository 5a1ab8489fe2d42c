"""Attaching links to a UNet, and taking them away again: write, read, and the handle that shows what is linked.

`attach` takes a seat at every site that its links choose and gives all back in reverse when its context ends, whatever
happened inside. Between passes nothing of a call stays: tasks lie in the seats' slots only while a pass runs. What a
link does at a site is its own affair (`kind.py`). Letters: r reading rows, b bank rows, n tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Concat
from referencenet.links.kind import Kind, Task
from referencenet.links.masks import Pyramid
from referencenet.links.offloading import bring, rests_in_groups, send_back
from referencenet.links.reading import Banks, ReadBank, as_reads, check_masks, plan_over
from referencenet.links.rows import RowPlan
from referencenet.links.seats import Seat, forget_saved, is_linked
from referencenet.links.sites import Site
from referencenet.links.table import table
from referencenet.links.writing import WriteDone, Writing

AnyLink = Kind


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
            return self._write(writing, sample, timestep, encoder_hidden_states=encoder_hidden_states, **unet_kwargs)

    def _write(self, writing: Writing, *args: Any, **kwargs: Any) -> ReferenceBank:
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
        is_late = empties or rests_in_groups(self.unet)
        if not is_late:
            bring(self.unet)  # its layers project the bank before its first pass, which would bring it otherwise

        def read(kind: Kind, seat: Seat) -> Task | None:
            if is_late:
                return ReadLate(kind, seat, reads, plan, empties)
            references = kind.take(seat, reads)
            return kind.read(references, plan) if references else None

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
    """A read task whose references are made when a pass comes to its site, where its weights are then.

    Attributes:
        empties: Whether they are taken out of their banks and let go, for a single pass; else they are kept for the
            next, but under autograd or in compiled code, which must find every pass alike.
    """

    kind: Kind
    seat: Seat
    reads: Sequence[ReadBank]
    plan: RowPlan
    empties: bool
    made: Task | None = None

    def __call__(self, *args: Any) -> Tensor:
        """As the kind's own read task."""
        if self.made is not None:
            return self.made(*args)
        references = self.kind.take(self.seat, self.reads)
        plan = self.plan if references else RowPlan(rows=self.plan.rows, sections=())
        task = self.kind.read(references, plan)
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            if self.empties:
                for read in self.reads:
                    read.bank.forget(self.seat.site.name)
            else:
                self.made = task
        return task(*args)


@contextmanager
def attach(unet: nn.Module, links: Sequence[AnyLink] = (Concat(),)) -> Generator[Link]:
    """Link a UNet for the length of a context.

    Args:
        unet: A diffusers UNet2DConditionModel or UNetMotionModel (not a compiled wrapper of one).
        links: At most one of each kind.

    Raises:
        TypeError: If `unet` has no sites or its attention is of a kind the links cannot replace.
        ValueError: If it is linked already, or no site is chosen.
    """
    chosen = _chosen(unet, links)
    if is_linked(unet):
        raise ValueError(
            "this UNet is linked already; leave the first `with` block before the second, or give all references to "
            "one."
        )
    seats = [(kind, kind.seat(unet, site)) for kind, site in chosen]
    link = Link(unet, seats)
    with ExitStack() as undo:
        undo.callback(forget_saved, unet)
        for _, seat in seats:
            seat.take(undo)
        yield link


def write(unet: nn.Module, latents: Tensor, *, timestep: Tensor | float = 0, encoder_hidden_states: Tensor | None,
          links: Sequence[AnyLink] = (Concat(),), **unet_kwargs: Any) -> ReferenceBank:  # fmt: skip
    """Write a reference with a UNet of its own, as the trained systems do: their readers project the bank themselves.

    Args:
        unet: The reference UNet.
        latents: (b, channels, height, width).
        timestep: 0 in most systems.
        encoder_hidden_states: The context, (b, tokens, channels).
        links: Which sites are written.
        unet_kwargs: Further arguments of the UNet.

    Returns:
        A bank of self-attention inputs, b rows; gradients flow through it.
    """
    with attach(unet, links) as link:
        stop = not getattr(unet, "is_gradient_checkpointing", False)  # recomputing a block needs all of it
        writing = Writing(projected=False, last=link.sites[-1].name if stop else None)
        context = {"encoder_hidden_states": encoder_hidden_states, **unet_kwargs}
        return link._write(writing, latents, timestep, **context)  # pyright: ignore[reportPrivateUsage] - of this file


def choose_sites(unet: nn.Module, links: Sequence[AnyLink]) -> list[Site]:
    """The sites of a UNet that take part.

    Raises:
        TypeError: If the module has no sites at all, or a link is of no known kind.
        ValueError: If there are no links, two of a kind, a weight outside [0, 1], or the weights choose no site.
    """
    return [site for _, site in _chosen(unet, links)]


def _chosen(unet: nn.Module, links: Sequence[AnyLink]) -> list[tuple[Kind, Site]]:
    """Every site that takes part, and the link that reads there."""
    if not isinstance(unet, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance] - users err here
        raise TypeError(f"links attach to a diffusers UNet, but were given a {type(unet).__name__}.")
    if not links:
        raise ValueError("no link was given; expected at least one of Concat() and AdaIN().")
    for link in links:
        if not isinstance(link, Kind):  # pyright: ignore[reportUnnecessaryIsInstance] - users err here
            raise TypeError(f"{link!r} is no link; expected Concat(), AdaIN() or another Kind.")
        link.check()
    if len({link.place for link in links}) < len(links):
        raise ValueError(
            f"two links of one kind were given: {list(links)}; give one on attention and one on features at most."
        )
    chosen: list[tuple[Kind, Site]] = []
    for link in links:
        candidates = link.candidates(unet)
        if not candidates:
            raise TypeError(
                f"{type(unet).__name__} has no place where a reference could be read; give a diffusers UNet with "
                "spatial transformer blocks (Stable Diffusion 1, 2, XL or AnimateDiff)."
            )
        chosen += [(link, site) for site in candidates if link.chooses(site)]
    if not chosen:
        raise ValueError(f"the weights of {list(links)} choose no layer; raise one above 0, or do not link at all.")
    return chosen


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
