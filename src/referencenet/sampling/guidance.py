"""What each half of a guidance batch sees of a reference. Links know rows and weights; halves are known here only."""

from __future__ import annotations

from typing import Any


def is_guided(pipe: Any) -> bool:
    """Whether the pipeline's present call has an unconditional half."""
    return bool(getattr(pipe, "do_classifier_free_guidance", False))


def half_weights(*, guided: bool, style_fidelity: float) -> list[float]:
    """How much each guidance half reads, in diffusers' order (unconditional half first).

    Published blend (Reference-Only): the unconditional half is s * plain + (1 - s) * reading, the conditional half
    reads. Without guidance there is one half, and it reads in full.

    Args:
        guided: Whether the batch has an unconditional half.
        style_fidelity: s in [0, 1].
    """
    return [1.0 - style_fidelity, 1.0] if guided else [1.0]
