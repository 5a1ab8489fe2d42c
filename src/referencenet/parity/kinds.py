"""The kinds of golden cases: what a writer leaves, single modules, one step, whole calls, motion modules, values.

A system's file says how inputs become what a pipeline is given, and what outputs are called; here is what runs.
Letters: b samples, r reference rows, n tokens, c channels, f frames, (h, w) latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from referencenet.links.attach import AnyLink
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.record import Produced, Runner, cut, each_output, fold, observed, unfold
from referencenet.parity.system import System, motion_module, scheduler_of
from referencenet.pipelines.passes import Guidance, Pass
from referencenet.pipelines.prediction import Call, predicting
from referencenet.pipelines.spec import Canvas, Once, Shown, Spec
from referencenet.sampling.windows import Windows
from referencenet.training.losses import VelocityLoss
from referencenet.training.recipes.index import recipe_of

FACTOR = 8  # pixels per latent, in every system

Outputs = dict[str, Tensor]
Naming = str | Callable[[str], str]
"""Site to an output's name: a function, or a form with {site}, {block} (without .attn1), {place} (without
.transformer_blocks.0.attn1) or {index} (the order of writing)."""

WRITER_NOTE = "plain pass: our own write pass stops after its last site"


def runner(make: Callable[[Case], Mapping[str, Any]], *, in_part: bool = False, **notes: str) -> Runner:
    """A runner of what a function makes of a case, without gradients, as float tensors.

    Args:
        make: From the case to its outputs.
        in_part: Whether the case may store less than all of an output: the first entries along every axis.
        notes: Of outputs whose names begin so.
    """

    @torch.no_grad()
    def run(case: Case) -> Produced:
        outputs = {name: torch.as_tensor(value).detach().float() for name, value in make(case).items()}
        told = {name: note for name in outputs for start, note in notes.items() if name.startswith(start)}
        return Produced(cut(case, outputs) if in_part else outputs, told)

    return run


@dataclass(frozen=True)
class Shows:
    """What a writer is shown of a case: inputs with clean latents and with the context.

    Attributes:
        latents: Input (r, 4, h, w).
        context: Input (r, n, c).
    """

    latents: str
    context: str

    def __call__(self, case: Case) -> Shown:
        """Both."""
        return Shown(latents=case.input(self.latents), context=case.input(self.context))


# --- write ------------------------------------------------------------------------------------------------------------


def banked(pipe: Any, shown: Shown, timestep: Any, name: Naming) -> Outputs:
    """What the pipeline's writer leaves of what it is shown, by site, (r, n, c); joined rows are parted again."""
    if isinstance(pipe.spec.write, Once):
        pipe.spec = replace(pipe.spec, write=replace(pipe.spec.write, timestep=timestep))
    hidden = pipe.bank_of(shown, timestep).hidden
    if pipe.spec.joins:
        hidden = {site: tokens.unflatten(1, (len(shown.latents), -1))[0] for site, tokens in hidden.items()}
    return {named(name, site, index): tokens for index, (site, tokens) in enumerate(hidden.items())}


def named(name: Naming, site: str, index: int) -> str:
    """The output's name of a site."""
    if callable(name):
        return name(site)
    block = site.removesuffix(".attn1")
    return name.format(site=site, block=block, place=block.removesuffix(".transformer_blocks.0"), index=index)


def writes(
    system: System, shown: Callable[[Case], Shown], name: Naming, *, in_part: bool = False, **settings: Any
) -> Runner:
    """The bank of the case's timestep; `in_part` as for `runner`, settings as for `System.pipe`."""

    def make(case: Case) -> Outputs:
        pipe = system.pipe(case, "reference_unet", **settings)
        return banked(pipe, shown(case), case.scalar("timestep"), name)

    return runner(make, in_part=in_part)


# --- module -----------------------------------------------------------------------------------------------------------


def controlled(network: Any, down: str, middle: str, *inputs: Any, **options: Any) -> Outputs:
    """A ControlNet's residuals for latents, timestep, context and condition; the down blocks' by number."""
    levels, last = network(*inputs, **options, return_dict=False)
    return {**{down.format(i): level for i, level in enumerate(levels)}, middle: last}


def motion(inputs: str, output: str, watched: Mapping[str, str], table: str = "position_table") -> Runner:
    """A motion module on (b, c, f, h, w), or on (b f, c, h, w) and the scalar `frames`.

    Args:
        inputs: Name of the input.
        output: Name of the output.
        watched: "norm", or a layer of its first block, to the output's name.
        table: Name of the position table.
    """

    def make(case: Case) -> Outputs:
        network, clip = motion_module(case), case.input(inputs)
        frames = clip.shape[2] if clip.ndim == 5 else case.scalar("frames")
        names = {path if path == "norm" else f"transformer_blocks.0.{path}": name for path, name in watched.items()}
        folded = fold(clip) if clip.ndim == 5 else clip
        result, kept = observed(network, names, folded, num_frames=frames)
        positions = folded.shape[2] * folded.shape[3]
        outputs = {
            name: fold(value) if value.ndim == 5 else value.unflatten(0, (-1, positions)).transpose(1, 2).flatten(0, 1)
            for name, value in kept.items()
        }  # (b f, c, h, w) and (b f, h w, c)
        block: Any = network.get_submodule("transformer_blocks.0")
        return outputs | {output: unfold(result, frames) if clip.ndim == 5 else result, table: block.pos_embed.pe}

    return runner(make, in_part=True)


# --- step -------------------------------------------------------------------------------------------------------------


class Passes(Guidance):
    """Given passes, whatever the timestep and scale."""

    def __init__(self, *passes: Pass) -> None:
        self.given = list(passes)

    def passes(self, timestep: float, scale: float) -> list[Pass]:  # noqa: ARG002 - as all guidance
        """Those."""
        return self.given

    @property
    def reads_blank(self) -> bool:
        """Whether one reads the first half of the bank's rows."""
        return any(each.reads == "blank" for each in self.given)


UNREAD = Passes(Pass(factor=1.0, reads=None))
"""One pass that reads nothing."""


@torch.no_grad()
def predict(
    pipe: Any,
    latents: Tensor,
    timestep: Any,
    shown: Shown,
    given: Mapping[str, Any],
    *,
    raw: str = "raw",
    guided: str = "guided",
    watched: Mapping[str, str] = MappingProxyType({}),
    scale: float = 1.0,
    guidance: Guidance | None = None,
    link: AnyLink | None = None,
    half_precision_bank: bool = False,
) -> Outputs:
    """One prediction of the pipeline's denoiser; what modules give in films has the frames as an axis.

    Args:
        pipe: The pipeline.
        latents: (b, c, h, w) or (b, c, f, h, w).
        timestep: Of the step.
        shown: To the writer.
        given: To the conditions, by name; drawings of films as `drawn` gives them.
        raw: Name of what the denoiser gives, pass by pass.
        guided: Name of the guided prediction.
        watched: Module of the denoiser to the name of its output.
        scale: Of guidance; 1: one pass.
        guidance: None: the system's.
        link: None: the pipeline's.
        half_precision_bank: Whether the bank is rounded.
    """
    canvas = canvas_of(latents)
    frames = None if canvas.frames is None else range(canvas.frames)
    settings = pipe.settle({"guidance_scale": scale, "half_precision_bank": half_precision_bank})
    written = pipe.written(shown, canvas, settings)
    call = Call(canvas=canvas, given=given, guidance=guidance or pipe.spec.guidance, link=link, **written)
    kept: Outputs = {}
    with (
        pipe.calling(settings),
        each_output(pipe.unet, {"": raw, **watched}, kept, joins=pipe.spec.apart),  # before conditions add to it
        predicting(pipe, call) as prediction,
    ):
        if frames is not None:
            prediction.admit(0, len(frames))
        result = prediction.begin(latents, timestep)(frames)
    if frames is not None:
        kept = {name: unfold(value, len(frames)) if value.ndim == 4 else value for name, value in kept.items()}
    return {**kept, guided: result}


def canvas_of(latents: Tensor) -> Canvas:
    """The pictures behind latents (b, c, h, w), or films behind (b, c, f, h, w)."""
    height, width = (side * FACTOR for side in latents.shape[-2:])
    frames = latents.shape[2] if latents.ndim == 5 else None
    return Canvas(width=width, height=height, samples=len(latents), frames=frames)


def drawn(*films: Tensor) -> Callable[[int, int], list[Tensor]]:
    """Films of drawings, each (f, 3, H, W), as conditions of films take them."""
    return lambda start, stop: [film[start:stop] for film in films]


# --- sample -----------------------------------------------------------------------------------------------------------


def sample(
    case: Case,
    pipe: Any,
    call: Callable[..., Any],
    name: str,
    *,
    first: int = 0,
    final: str = "latents_final",
    raw: str = "raw",
    steps: str = "num_inference_steps",
    latents: str | Tensor = "latents",
    numbers: Mapping[str, Any] | None = None,
    **options: Any,
) -> Outputs:
    """A call from noise to latents.

    Args:
        case: Whose scalars are the call's options.
        pipe: The pipeline.
        call: Takes options: the pipeline, perhaps with its inputs.
        name: Of the latents behind a step; {} is its number.
        first: The first step's number.
        final: Name of the last latents.
        raw: Name of what the denoiser gave first.
        steps: Scalar with their number.
        latents: The first noise, or its input.
        numbers: In the place of the scalars.
        options: Further ones.

    Raises:
        CaseError: If a scalar is missing, or asks for noise that the case does not have.
    """
    scalars = case.scalars if numbers is None else numbers
    noise = case.input(latents) if isinstance(latents, str) else latents
    missing = [each for each in (steps, "guidance_scale") if each not in scalars]
    if missing:
        raise CaseError(f"{case.id} has no {' and no '.join(missing)}; add it to case.json")
    if scalars.get("eta", 0.0) != 0.0:
        raise CaseError(f"{case.id}: eta is {scalars['eta']}; expected 0, as a case has no noise of steps")
    size = {"width": noise.shape[-1] * FACTOR, "height": noise.shape[-2] * FACTOR}
    if any(scalars.get(side, pixels) != pixels for side, pixels in size.items()):
        raise CaseError(f"{case.id}: the latents are of {size}; correct width and height, or the inputs' shapes")
    kept: Outputs = {}
    apart = hasattr(pipe, "spec") and pipe.spec.apart  # diffusers' own pipelines have no spec

    def keep(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        kept[name.format(step + first)] = kept[final] = tensors["latents"]
        return tensors

    def keep_raw(_module: Any, _inputs: Any, output: Any) -> None:
        if raw in kept and apart and final not in kept:
            kept[raw] = torch.cat([kept[raw], output[0]])
        kept.setdefault(raw, output[0])

    hook = pipe.unet.register_forward_hook(keep_raw)
    try:
        call(**{
            **size,
            "num_inference_steps": scalars[steps],
            "guidance_scale": scalars["guidance_scale"],
            "guidance_rescale": scalars.get("guidance_rescale", 0.0),
            "latents": noise,
            "output_type": "latent",
            "callback_on_step_end": keep,
            **options,
        })  # fmt: skip
    finally:
        hook.remove()
    timesteps, alphas = pipe.scheduler.timesteps, getattr(pipe.scheduler, "alphas_cumprod", None)
    if alphas is not None:
        kept["alphas_cumprod_at_timesteps"] = alphas[timesteps.long()]
    return {**kept, "timesteps": timesteps}


def film_windows(case: Case, numbers: Mapping[str, Any], spec: Spec) -> Windows:
    """The published windows of a film, of the system's size if the case's numbers say none."""
    if numbers.get("context_batch_size", 1) != 1:
        raise CaseError(f"{case.id}: context_batch_size must be 1")
    return Windows(
        size=numbers.get("context_frames", spec.windows.size if spec.windows else 1),
        overlap=numbers.get("context_overlap", 4),
        stride=numbers.get("context_stride", 1),
        published=True,
    )


# --- train ------------------------------------------------------------------------------------------------------------


def velocity(case: Case, offset: str) -> tuple[VelocityLoss, Tensor, Outputs]:
    """The loss of the system's training with the case's numbers, its timesteps (b,), and what it makes of the inputs.

    Args:
        case: Has the inputs `latents` and `noise`.
        offset: Input with the offset of the noise.
    """
    numbers = {name: case.scalar(name) for name in ("noise_offset", "snr_gamma")}
    timesteps = torch.tensor(case.scalar("timesteps"))
    loss: Any = replace(recipe_of(case.method).stages["image"].loss(), scheduler=scheduler_of(case), **numbers)
    latents, noise = case.input("latents"), loss.offset(case.input("noise"), case.input(offset))
    outputs = {
        "noisy": loss.noisy(latents, noise, timesteps),
        "target": loss.target(latents, noise, timesteps),
        "snr": loss.snr(timesteps),
        "weights": loss.weights(timesteps),
    }
    return loss, timesteps, outputs
