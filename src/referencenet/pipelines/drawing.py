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
    lines = [
        *([] if spec.link is None else _linked(spec)),
        "read       noise -> denoiser, told of",
        *(f"             {condition.name}: {condition.enters}" for condition in spec.conditions),
        *_passes(spec),
        "  |",
        f"scheduler  {getattr(spec.scheduler, 'func', spec.scheduler).__name__}, {spec.steps} steps, "
        f"guidance {spec.scale:g}{f', eta {spec.eta:g}' if spec.eta else ''}",
    ]
    if spec.windows is not None:
        how = "the last one filled up" if spec.windows.filled else "averaged where they overlap"
        lines.append(f"windows    of {spec.windows.size} frames, {how}")
    return "\n".join(lines)


def _linked(spec: Spec) -> list[str]:
    """What is written, where it lies, and how it is read."""
    link = (spec.write.link if spec.write is not None else None) or spec.link
    stages = [stage.removesuffix("_blocks").removesuffix("_block") for stage in getattr(link, "stages", ())]
    banked = "all references as one sequence" if spec.joins else "one row for each reference"
    return [
        f"write      {_writer(spec)}",
        "  |",
        f"bank       {link.kept}{f' in {_listed(stages)} blocks' if stages else ''}; {banked}",
        "  |",
        f"link       {type(spec.link).__name__}: {spec.link.rule}",
        "  |",
    ]


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
    links = spec.link is not None
    if early == late:
        return _told(early, f"each step adds up, at guidance {spec.scale:g}:", links=links)
    return [*_told(early, "early steps add up:", links=links), *_told(late, "late steps add up:", links=links)]


def _told(passes: Sequence[Pass], beginning: str, *, links: bool) -> list[str]:
    lines = [f"           {beginning}"]
    for each in passes:
        strength = "" if each.strength == 1 or each.reads is None else f" at {each.strength:g}"
        blind = f"blind to {_listed(sorted(each.blind))}" if each.blind else ""
        if links:
            told = f"that {READS[each.reads]}{strength}{f', {blind}' if blind else ''}"
        else:
            told = blind or "that sees everything"
        lines.append(f"             {each.factor:+g} x a pass {told}")
    return lines


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 2 else list(words))
