"""The guided prediction of one call, in two levels: `begin` a step, then predict the whole of it or window by window.

What depends on the call alone is computed once, what depends on the step once per step: banks of writers that run at
every step, ControlNets, keys and values of the bank. Passes of guidance that are equal up to the first linked site
share their rows until there. Letters: b samples, p passes, c channels, f frames, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from referencenet.links.attach import attach
from referencenet.links.bank import ReferenceBank
from referencenet.links.fork import forked
from referencenet.links.kind import Kind
from referencenet.links.link import Link
from referencenet.links.rows import RowPlan
from referencenet.links.series import BankSeries
from referencenet.pipelines.conditions import FrameStore
from referencenet.pipelines.encoders import check_finite_input
from referencenet.pipelines.passes import Guidance, Pass, reading_plan
from referencenet.pipelines.pieces import in_pieces
from referencenet.pipelines.spec import Canvas, Moment, Seat, Shown, UNetCall
from referencenet.sampling.windows import Window

Predict = Callable[[Sequence[int] | None], Tensor]
"""Frames of the film, or None for pictures, to the guided prediction (b, c, ...)."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """Everything of one call, as a value.

    Attributes:
        canvas: What is drawn.
        given: Condition name to what the caller gave for it, in the form that the condition takes.
        guidance: The passes.
        bank: What is read; None where the writer runs at every step, or nothing is written.
        series: Banks by timestep, where they were written before.
        shown: What the writer is shown at every step.
        rescale: Of guidance, phi of Lin et al. 2023.
        link: How the denoiser reads in this call; None: as the pipeline says.
        write_every: The writer runs at every so many steps.
        half_precision_bank: Round the bank of every step; `bank` is taken as it is.
        keeps_banks: Whether banks are kept by timestep: a stream comes back to each.
        windows: Of a film that is denoised as a whole, all of which every step predicts; none: each is asked for once.
        unet_kwargs: Further arguments of the denoiser.
    """

    canvas: Canvas
    given: Mapping[str, Any]
    guidance: Guidance
    bank: ReferenceBank | None = None
    series: BankSeries | None = None
    shown: Shown | None = None
    rescale: float = 0.0
    link: Kind | None = None
    write_every: int = 1
    half_precision_bank: bool = False
    keeps_banks: bool = False
    windows: Sequence[Window] = ()
    unet_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        """Raises ValueError if a condition holds values that are not finite."""
        for name, value in self.given.items():
            check_finite_input(name, value)

    @property
    def kept(self) -> Mapping[str, Tensor]:
        """What the reference left for conditions, by name."""
        if self.bank is not None:
            return self.bank.context
        if self.series is not None:
            return next(iter(self.series.values())).context
        return {} if self.shown is None else self.shown.kept


class Prediction:
    """The denoiser of one call, linked. Made by `predicting`."""

    def __init__(self, pipe: Any, call: Call, link: Link | None, seats: Mapping[str, Seat], stack: ExitStack) -> None:
        self.pipe, self.call, self.link, self.seats = pipe, call, link, seats
        self.dtype: torch.dtype = pipe.unet.dtype
        self.conditions = pipe.spec.conditions
        self.values = {c.name: c.encode(pipe, call) for c in self.conditions}
        self.reading = stack.enter_context(ExitStack())
        self.read: tuple[ReferenceBank, RowPlan] | None = None
        self.written: dict[float, ReferenceBank] = {}
        self.last: ReferenceBank | None = None
        self.num_begun = 0

    def admit(self, start: int, stop: int) -> None:
        """Read what conditions need of frames [start, stop); in order, once for every frame."""
        for store in self._stores():
            store.admit(start, stop)

    def drop_before(self, frame: int) -> None:
        """Forget what conditions hold of earlier frames."""
        for store in self._stores():
            store.drop_before(frame)

    def begin(self, latents: Tensor, timestep: Any, first: int = 0) -> Predict:
        """Begin a step.

        Args:
            latents: Scaled as the scheduler wants them, (b, c, h, w), or frames (b, c, f, h, w).
            timestep: Of the step.
            first: Place of the latents' first frame in the film.
        """
        passes = self.call.guidance.passes(float(timestep), self.pipe.guidance_scale)
        self.num_begun += 1
        bank = None if self.link is None else self._bank(timestep)
        if bank is not None and not self.pipe.spec.apart:
            self._read(bank, passes, latents)
        moment = Moment(latents=latents, timestep=timestep, first=first, windows=self.call.windows)
        now = {c.name: c.at_step(self.pipe, self.values[c.name], moment) for c in self.conditions}
        return partial(self._predict, moment, passes, bank, now)

    def _predict(
        self,
        moment: Moment,
        passes: Sequence[Pass],
        bank: ReferenceBank | None,
        now: Mapping[str, Any],
        frames: Sequence[int] | None = None,
    ) -> Tensor:
        """The guided prediction of the frames, (b, c, ...)."""
        values = {c.name: c.at_window(self.pipe, now[c.name], frames) for c in self.conditions}
        if not self.pipe.spec.apart:
            parts = self._parts(moment, passes, values, frames)
        else:
            parts: list[Tensor] = []
            for each in passes:
                with self._reading_alone(bank, each, moment):
                    parts += self._parts(moment, [each], values, frames)
        return self.call.guidance.combine(passes, parts, self.call.rescale)

    def _parts(
        self, moment: Moment, passes: Sequence[Pass], values: Mapping[str, Any], frames: Sequence[int] | None
    ) -> Sequence[Tensor]:
        """What the denoiser predicts in each of the passes, (b, c, ...), all in one batch."""
        part = moment.of(frames)
        samples = part.shape[0]
        seen: dict[str, Any] = {}
        blank: dict[str, Any] = {}
        for c in self.conditions:
            value = values[c.name]
            seen[c.name] = c.seen(value)
            blind = any(c.name in p.blind for p in passes)
            blank[c.name] = c.blank(value) if blind else seen[c.name]
        kinds = [frozenset(name for name in p.blind if blank[name] is not seen[name]) for p in passes]
        distinct = list(dict.fromkeys(kinds)) if self._can_fork() else kinds
        sample = torch.cat([part] * len(distinct)).to(self.dtype)
        run = UNetCall(sample=sample, arguments=dict(self.call.unet_kwargs))
        for c in self.conditions:
            told = [blank[c.name] if c.name in kind else seen[c.name] for kind in distinct]
            run = c.enter(run, c.joined(told, samples))
        rows = [distinct.index(kind) * samples + i for kind in kinds for i in range(samples)]
        if len(distinct) < len(kinds):
            length = 1 if frames is None else len(frames)
            with forked(self.pipe.unet, [row * length + frame for row in rows for frame in range(length)]):
                predicted = self._run(run, moment.timestep)
        else:
            predicted = self._run(run, moment.timestep)
        return predicted.to(moment.latents.dtype).chunk(len(passes))

    def _run(self, run: UNetCall, timestep: Any) -> Tensor:
        """A pass of the denoiser."""
        for name, value in run.seated.items():
            self.seats[name].value = value
        try:
            return self.pipe.denoise(run, timestep)
        finally:
            for name in run.seated:
                self.seats[name].value = None

    def _read(self, bank: ReferenceBank, passes: Sequence[Pass], latents: Tensor) -> None:
        """Let the denoiser read the bank of this step; what it reads already goes on being read."""
        assert self.link is not None  # there is a bank
        plan = self._plan(bank, passes, latents)
        if self.read is not None and self.read[0] is bank and self.read[1] == plan:
            return
        self.reading.close()
        self.read = (bank, plan)
        # a bank that was written for this step alone is read by one pass of pictures
        once = self.call.bank is None and self.call.series is None and latents.ndim == 4 and self.last is None
        self.reading.enter_context(self.link.reading(self.pipe.reads(bank), plan=plan, once=once))

    def _reading_alone(self, bank: ReferenceBank | None, each: Pass, moment: Moment) -> AbstractContextManager[None]:
        """Inside, one pass reads; a site's keys and values are made when the pass comes to it, and let go behind it."""
        if self.link is None or bank is None:
            return nullcontext()
        plan = self._plan(bank, [each], moment.latents)
        if not plan.sections:
            return nullcontext()
        alike = bank.map(lambda tensor: tensor)  # from which sites may be taken
        return self.link.reading(self.pipe.reads(alike), plan=plan, once=True)

    def _plan(self, bank: ReferenceBank, passes: Sequence[Pass], latents: Tensor) -> RowPlan:
        """Which rows of the passes read which of the bank's."""
        return reading_plan(passes, latents.shape[0], bank.rows, has_blank=self.call.guidance.reads_blank)

    def _bank(self, timestep: Any) -> ReferenceBank:
        """The bank of this step."""
        if self.call.bank is not None:
            return self.call.bank
        number = float(timestep)
        if number in self.written:
            return self.written[number]
        if self.call.series is not None:
            bank = self.pipe.placed(self.call.series[timestep])
        elif self.last is not None and (self.num_begun - 1) % self.call.write_every:
            return self.last
        else:
            self.reading.close()  # the last step's keys and values make room first
            self.read = None
            bank = self.pipe.bank_of(self.call.shown, timestep)
        if self.call.half_precision_bank:
            bank = rounded(bank)
        if self.call.keeps_banks:
            self.written[number] = bank
        if self.call.write_every > 1:
            self.last = bank
        return bank

    def _can_fork(self) -> bool:
        """Whether no site lies before the middle block, where rows may part."""
        sites = self.link.sites if self.link is not None else ()
        return bool(sites) and not any(site.name.startswith("down_blocks") for site in sites)

    def _stores(self) -> list[FrameStore]:
        found = (part for value in self.values.values() for part in (value if isinstance(value, tuple) else (value,)))
        return [part for part in found if isinstance(part, FrameStore)]


@contextmanager
def predicting(pipe: Any, call: Call) -> Generator[Prediction]:
    """Link the denoiser for a call, if it reads a bank: hooks go on once, and only what they add changes."""
    seats = {c.name: Seat() for c in pipe.spec.conditions}
    with ExitStack() as stack:
        kind = call.link or pipe.link
        link = None if kind is None else stack.enter_context(attach(pipe.unet, [kind]))
        stack.enter_context(in_pieces(pipe.unet))
        for c in pipe.spec.conditions:
            stack.enter_context(c.hooks(pipe.unet, seats[c.name]))
        yield Prediction(pipe, call, link, seats, stack)


def rounded(bank: ReferenceBank) -> ReferenceBank:
    """The bank as several published programs pass it on: self-attention inputs through float16."""
    return replace(bank, hidden={site: tensor.half().to(tensor.dtype) for site, tensor in bank.hidden.items()})
