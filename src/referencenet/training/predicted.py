"""The denoiser's prediction while it learns: the system's own writer, link and conditions, one pass for each sample.

What `pipelines/prediction.py` is for calls, with gradients: every sample has its own timestep, reference and blindness,
and all hooks lie until the context ends, since blocks that are checkpointed run again while `backward` does. Letters: b
samples, f frames, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from referencenet.links.attach import attach
from referencenet.links.bank import ReferenceBank
from referencenet.links.rows import RowPlan, plan_rows
from referencenet.pipelines.conditions import FrameStore
from referencenet.pipelines.passes import Pass
from referencenet.pipelines.prediction import Call
from referencenet.pipelines.spec import Canvas, Condition, Moment, Seat, Shown, UNetCall, each_for


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A batch as the networks take it; everything random is drawn.

    Attributes:
        latents: Clean, (b, 4, h, w), or clips (b, 4, f, h, w).
        noise: Of the same shape.
        timesteps: (b,); or (b f,), where every frame has its own.
        shown: To the writer, as many rows for each sample, those of a sample together; None: the system has none.
        given: Condition name to what it takes: of pictures for all samples, of clips a list with one entry each.
        passes: One for each sample.
        further: What trained encoders are given.
        absent: Names of conditions that take no part at all, as in a stage before a network is there.
        places: How much the error counts at each place, (b, 1, h, w); None: everywhere alike.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    shown: Shown | None
    given: Mapping[str, Any]
    passes: tuple[Pass, ...]
    further: Mapping[str, Any] = field(default_factory=dict[str, Any])
    absent: tuple[str, ...] = ()
    places: Tensor | None = None

    @property
    def frames(self) -> int | None:
        """Of a clip; None: these are pictures."""
        return self.latents.shape[2] if self.latents.ndim == 5 else None


@contextmanager
def predicted(pipe: Any, inputs: Inputs, noisy: Tensor, conditions: Sequence[Condition] = ()) -> Generator[Tensor]:
    """The denoiser's prediction, of the latents' shape; `backward` runs inside.

    Args:
        pipe: The system's pipeline, whose components learn.
        inputs: The batch.
        noisy: Its latents with their noise.
        conditions: In the place of the system's.
    """
    with ExitStack() as stack:
        _read(pipe, inputs, stack)
        conditions = [c for c in conditions or pipe.spec.conditions if c.name not in inputs.absent]
        seats = {c.name: Seat() for c in conditions}
        for c in conditions:
            stack.enter_context(c.hooks(pipe.unet, seats[c.name]))
        run = UNetCall(sample=noisy)
        for c in conditions:
            run = c.enter(run, _value(pipe, c, inputs, noisy))
        for name, value in run.seated.items():
            seats[name].value = value
        yield pipe.denoise(run, inputs.timesteps)


def learns(module: nn.Module | None) -> bool:
    """Whether some parameter of a module requires a gradient."""
    return module is not None and any(parameter.requires_grad for parameter in module.parameters())


def written_bank(pipe: Any, inputs: Inputs) -> ReferenceBank:
    """What the writer leaves of the batch's references: one row for each sample, gradients where the writer learns.

    Of a system whose references are one sequence, those of a sample are joined; of a system that reads blank banks,
    the rows of zero latents come first.
    """
    unet, spec, shown = pipe.reference_unet, pipe.spec, inputs.shown
    assert shown is not None
    rows = shown.with_blank() if spec.guidance.reads_blank else shown
    place = (pipe.device_of(unet), unet.dtype)
    placed = Shown(latents=rows.latents.to(*place), context=rows.context.to(*place))
    timesteps = inputs.timesteps.repeat_interleave(len(placed.latents) // len(inputs.timesteps))
    with torch.set_grad_enabled(learns(unet) and torch.is_grad_enabled()):
        bank = spec.write.bank(unet, placed, timesteps, pipe.link)
    if shown.masks is not None:
        bank = bank.masked(shown.masks.to(place[0]))
    if spec.joins:
        joined = {name: x.unflatten(0, (len(inputs.latents), -1)).flatten(1, 2) for name, x in bank.hidden.items()}
        bank = replace(bank, hidden=joined)
    return bank


def plan_of(passes: Sequence[Pass], *, has_blank: bool, rows: int = 1) -> RowPlan:
    """Which sample reads which row of the bank: each its own, or, of so many rows for each, every frame its own."""
    passes = [p for p in passes for _ in range(rows)]
    first = len(passes) if has_blank else 0
    sources = [i if p.reads == "blank" else first + i for i, p in enumerate(passes)]
    weights = [0.0 if p.reads is None else p.strength for p in passes]
    return plan_rows(sources, weights, reads_zeros=[p.reads == "zeros" for p in passes])


def _read(pipe: Any, inputs: Inputs, stack: ExitStack) -> None:
    """Let the denoiser read what the writer leaves; where no sample reads, the writer does not run, as published."""
    if pipe.link is None or all(p.reads is None for p in inputs.passes):
        return
    bank = written_bank(pipe, inputs)
    link = stack.enter_context(attach(pipe.unet, [pipe.link]))
    has_blank = pipe.spec.guidance.reads_blank
    rows = bank.rows // len(inputs.passes) // (2 if has_blank else 1)
    plan = plan_of(inputs.passes, has_blank=has_blank, rows=rows)
    stack.enter_context(link.reading(pipe.reads(bank), plan=plan))


def _value(pipe: Any, condition: Any, inputs: Inputs, noisy: Tensor) -> Any:
    """A condition's value for all samples, each as its pass sees it."""
    blind = [condition.name in p.blind for p in inputs.passes]
    if inputs.frames is None:
        seen, blank = _of(pipe, condition, inputs, noisy, slice(None), any(blind))
        return condition.joined([_mixed(seen, blank, torch.tensor(blind))], len(blind))
    both = [_of(pipe, condition, inputs, noisy, slice(i, i + 1), blind[i]) for i in range(len(blind))]
    values = [blank if is_blind else seen for (seen, blank), is_blind in zip(both, blind, strict=True)]
    return condition.joined(values, 1)


def _of(
    pipe: Any, condition: Any, inputs: Inputs, noisy: Tensor, rows: slice, is_blind: bool
) -> tuple[Any, Any]:  # fmt: skip
    """What passes see and what blind ones get instead, of some samples; clips go one by one."""
    frames, shown = inputs.frames, inputs.shown
    if frames is None:
        given: Mapping[str, Any] = inputs.given
    else:
        given = {name: value[rows.start] for name, value in inputs.given.items()}
    if shown is not None:
        kept = {name: value[rows] for name, value in shown.kept.items()}
        latents, context = (_part(each, rows, len(noisy)) for each in (shown.latents, shown.context))
        shown = Shown(latents=latents, context=context, kept=kept)
    height, width = (pipe.vae_scale_factor * side for side in noisy.shape[-2:])
    canvas = Canvas(width=width, height=height, samples=len(noisy[rows]), frames=frames)
    call = Call(canvas=canvas, given=given, guidance=pipe.spec.guidance, shown=shown)
    value = condition.encode(pipe, call)
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, FrameStore) and frames is not None:
            part.admit(0, frames)
    now = condition.at_step(
        pipe, value, Moment(latents=noisy[rows], timestep=_part(inputs.timesteps, rows, len(noisy)))
    )
    now = condition.at_window(pipe, now, None if frames is None else range(frames))
    seen = condition.seen(now)
    return seen, condition.blank(now) if is_blind else seen


def _part(values: Tensor, rows: slice, samples: int) -> Tensor:
    """The rows of some samples, of which each has as many."""
    return values.unflatten(0, (samples, -1))[rows].flatten(0, 1)


def _mixed(seen: Any, blank: Any, blind: Tensor) -> Any:
    """Row by row what is seen or its blank; `blind` (b,) of bool."""
    if blank is seen or not bool(blind.any()):
        return seen
    if isinstance(seen, Tensor):
        rows = len(blind)
        mask = blind.to(seen.device).view(-1, *([1] * (seen.ndim - 1)))
        return torch.where(mask, each_for(blank, rows).to(seen), each_for(seen, rows))
    if isinstance(seen, Mapping):
        return {name: _mixed(seen[name], blank[name], blind) for name in seen}
    return type(seen)(_mixed(one, other, blind) for one, other in zip(seen, blank, strict=True))
