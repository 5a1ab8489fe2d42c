"""A system's declaration as a drawing: what is written, what lies in the bank, how it is linked, and who reads it."""

from __future__ import annotations

from collections.abc import Sequence

from referencenet.pipelines.passes import Pass
from referencenet.pipelines.spec import EachStep, Once, Spec

READS = {
    None: "reads nothing",
    "reference": "reads the reference",
    "blank": "reads the bank of a zero latent",
    "zeros": "reads keys and values of zero",
}


def drawing(spec: Spec) -> str:
    """Write, bank, link and read of a system, top to bottom, in plain text of at most 120 columns."""
    link = (spec.write.link if spec.write is not None else None) or spec.link
    stages = [stage.removesuffix("_blocks").removesuffix("_block") for stage in getattr(link, "stages", ())]
    banked = "all references as one sequence" if spec.joins else "one row for each reference"
    lines = [
        f"write      {_writer(spec)}",
        "  |",
        f"bank       {link.kept}{f' in {_listed(stages)} blocks' if stages else ''}; {banked}",
        "  |",
        f"link       {type(spec.link).__name__}: {spec.link.rule}",
        "  |",
        "read       noise -> denoiser, told of",
        *(f"             {condition.name}: {condition.enters}" for condition in spec.conditions),
        *_passes(spec),
        "  |",
        f"scheduler  {getattr(spec.scheduler, 'func', spec.scheduler).__name__}, {spec.steps} steps, "
        f"guidance {spec.scale:g}",
    ]
    if spec.windows is not None:
        lines.append(f"windows    of {spec.windows.size} frames, averaged where they overlap")
    return "\n".join(lines)


def _writer(spec: Spec) -> str:
    match spec.write:
        case None:
            return "nobody: banks come from elsewhere"
        case Once(timestep=timestep):
            return f"reference -> reference UNet, once, on clean latents at timestep {timestep}"
        case EachStep():
            return "reference -> reference UNet, at every step, on clean latents at the denoiser's timestep"


def _passes(spec: Spec) -> list[str]:
    """The passes of a step; of the schedule's beginning and end, where those differ."""
    early, late = (spec.guidance.passes(timestep, spec.scale) for timestep in (999.0, 1.0))
    if early == late:
        return _told(early, f"each step adds up, at guidance {spec.scale:g}:")
    return [*_told(early, "early steps add up:"), *_told(late, "late steps add up:")]


def _told(passes: Sequence[Pass], beginning: str) -> list[str]:
    lines = [f"           {beginning}"]
    for each in passes:
        strength = "" if each.strength == 1 or each.reads is None else f" at {each.strength:g}"
        blind = f", blind to {_listed(sorted(each.blind))}" if each.blind else ""
        lines.append(f"             {each.factor:+g} x a pass that {READS[each.reads]}{strength}{blind}")
    return lines


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 2 else list(words))
