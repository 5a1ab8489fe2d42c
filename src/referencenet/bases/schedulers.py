"""Schedulers by the names that people know them by: diffusers' classes, webui's samplers, ComfyUI's."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from referencenet.later import later
from referencenet.telling import did_you_mean

if TYPE_CHECKING:
    import diffusers
else:
    (diffusers,) = later("diffusers")  # a name is found without it

KNOWN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpm++ 2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpm++ 3m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 3}),
    "dpm++ 2m sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "dpm++ 2s": ("DPMSolverSinglestepScheduler", {}),
    "dpm++ sde": ("DPMSolverSDEScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "sa solver": ("SASolverScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
"""Short name to diffusers' class and what its configuration gets."""

SPACINGS: Mapping[str, Mapping[str, Any]] = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "trailing": {"timestep_spacing": "trailing"},
    "sgm uniform": {"timestep_spacing": "trailing"},
}
"""What may stand behind a short name, as in "dpm++ 2m karras"."""

OTHERS = ("DDIMParallelScheduler", "DDPMParallelScheduler", "EDMEulerScheduler")
"""Diffusers' schedulers that lead the UNet of a Stable Diffusion model, and have no short name."""

CLASSES = tuple(sorted({kind for kind, _ in KNOWN.values()} | set(OTHERS)))


def with_scheduler(pipe: Any, name: str) -> Any:
    """Give a pipeline another scheduler, with the noise levels and the kind of prediction of its own.

    Args:
        pipe: A pipeline of diffusers.
        name: A class of diffusers (`EulerDiscreteScheduler`, also without `Scheduler`), or a short name as in `ddim`,
            `euler a`, `dpm++ 2m karras`, `dpmpp_2m_sde`; upper case, spaces, `-` and `_` do not matter.

    Returns:
        The pipeline.

    Raises:
        ValueError: If there is no such scheduler, it cannot be spaced so, or it does not fit the model.
    """
    kind_name, changes = find_scheduler(name)
    kind = getattr(diffusers, kind_name)
    unknown = sorted(set(changes) - set(inspect.signature(kind.__init__).parameters))
    if unknown:
        raise ValueError(f"{kind.__name__} does not know {', '.join(unknown)}, which {name!r} asks for.")
    try:
        pipe.scheduler = kind.from_config(pipe.scheduler.config, **changes)
    except Exception as error:  # a class that needs another package, or other numbers, says so in its own way
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the scheduler {name!r} cannot be used with this model: {reason}") from error
    return pipe


def find_scheduler(name: str) -> tuple[str, dict[str, Any]]:
    """The name of a scheduler's class, and what its configuration gets, by any of its names.

    Raises:
        ValueError: If there is none.
    """
    by_name = {_plain(short): (kind, {}) for kind in CLASSES for short in (kind, kind.removesuffix("Scheduler"))}
    by_name |= {
        _plain(f"{short} {spacing}"): (kind, {**changes, **SPACINGS.get(spacing, {})})
        for short, (kind, changes) in KNOWN.items()
        for spacing in ("", *SPACINGS)
    }
    plain = next((each for each in (_plain(name), _plain(name).removeprefix("k")) if each in by_name), None)  # k_euler
    if plain is None:
        words = [*KNOWN, *CLASSES, *(f"{short} {spacing}" for short in KNOWN for spacing in SPACINGS)]
        known = {word.lower(): word for word in words}
        raise ValueError(
            f"there is no scheduler {name!r}; expected one of {', '.join(KNOWN)}, also with "
            f"{', '.join(SPACINGS)} behind it, or a class of diffusers.{did_you_mean(name.lower(), known)}"
        )
    kind, changes = by_name[plain]
    return kind, dict(changes)


def _plain(name: str) -> str:
    """A name without case, spaces and marks, in webui's words where ComfyUI has others."""
    joined = re.sub(r"[\s_-]+", "", name.lower()).replace("dpmpp", "dpm++")
    return re.sub("ancestral(?!discrete)", "a", joined)
