"""What each half of a guidance batch sees of a reference. Links know rows and weights; halves are known here only."""

from __future__ import annotations

import torch
from torch import Tensor

from referencenet.sampling.caller import Caller
from referencenet.sampling.unet_call import UNetCall

FLAG = "do_classifier_free_guidance"
"""diffusers' name for it, a variable of the call in some pipelines and a property in others."""


def is_guided(caller: Caller, call: UNetCall, given: bool | None = None) -> bool:
    """Whether a pass has an unconditional half, the first one.

    What the pipeline says is held against the batch: with guidance it has two rows for each of the call's latents, and
    its halves start from the same ones. A property may still speak of another call, so variables of the call go first.

    Args:
        caller: The pipeline's call.
        call: The pass.
        given: What the user said; None: nothing.

    Raises:
        ValueError: If nobody says it, or the batch is of another kind.
    """
    said = given if given is not None else caller.local(FLAG)
    said = getattr(caller.pipe, FLAG, None) if said is None else said
    parts = _parts(caller, call)
    if said is None and parts is None:
        raise ValueError(
            f"{_name(caller)} does not say whether this pass is guided; give guided=True if the first half of the "
            "UNet's rows is the unconditional one, or guided=False if there is none."
        )
    guided = parts == 2 if said is None else bool(said)
    if given is None and parts not in (None, 2 if guided else 1):
        raise ValueError(
            f"{_name(caller)} gives its UNet {call.rows} rows for {call.rows // (parts or 1)} latents, with guidance "
            f"{'on' if guided else 'off'}; expected {'2 rows' if guided else '1 row'} for each. Such a batch has a "
            "meaning of its own: give guided=True if its first half is unconditional, guided=False if no row is."
        )
    return guided


def check_halves(caller: Caller, call: UNetCall) -> None:
    """See that the unconditional half comes first: both halves start from the same latents, in the same order.

    Raises:
        ValueError: If they do not.
    """
    half = call.rows // 2
    if call.rows % 2 or not torch.equal(call.sample[:half], call.sample[half:]):
        raise ValueError(
            f"{_name(caller)} gives its UNet {call.rows} rows under guidance in an order of its own; expected the "
            "unconditional half first and then the same latents again. With one picture, and with one view at a time "
            "(view_batch_size=1), no other order is possible."
        )


def half_weights(*, guided: bool, style_fidelity: float) -> list[float]:
    """How much each guidance half reads, in diffusers' order (unconditional half first).

    Published blend (Reference-Only): the unconditional half is s * plain + (1 - s) * reading, the conditional half
    reads. Without guidance there is one half, and it reads in full.

    Args:
        guided: Whether the batch has an unconditional half.
        style_fidelity: s in [0, 1].
    """
    return [1.0 - style_fidelity, 1.0] if guided else [1.0]


def _parts(caller: Caller, call: UNetCall) -> int | None:
    """Rows of the UNet for each of the call's latents; None where its latents are of another size than the rows."""
    latents = caller.local("latents")
    if not isinstance(latents, Tensor) or latents.shape[2:] != call.sample.shape[2:] or not len(latents):
        return None
    return call.rows // len(latents) if call.rows % len(latents) == 0 else None


def _name(caller: Caller) -> str:
    return type(caller.pipe).__name__
