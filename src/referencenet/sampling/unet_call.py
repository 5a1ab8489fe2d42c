"""One call of a UNet as a value: what the denoising pass was given, and the same for some of its rows.

Letters: r rows of the guidance batch (samples), f frames that the model folds into its rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

PER_ROW = ("encoder_hidden_states", "class_labels", "timestep_cond", "encoder_attention_mask", "added_cond_kwargs")
"""Arguments of a diffusers UNet that hold something for every row."""

REGIONS = "ip_adapter_masks"
"""diffusers' name for where each image prompt acts, in `cross_attention_kwargs`."""

_OF_THE_RESULT = (
    "down_block_additional_residuals",
    "mid_block_additional_residual",
    "down_intrablock_additional_residuals",
)
"""Spatial conditions: they describe the result, never the reference."""


@dataclass(frozen=True)
class UNetCall:
    """The arguments of a UNet's forward.

    Attributes:
        sample: (r, c, h, w), or (r, c, f, h, w) for films.
        timestep: A number, or a tensor of one or r.
        conditions: The other arguments by name.
    """

    sample: Tensor
    timestep: Any
    conditions: dict[str, Any]

    @classmethod
    def bind(cls, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> UNetCall:
        """Read a call of `unet` as a forward hook gets it."""
        signature = inspect.signature(unet.forward)
        named = dict(signature.bind(*args, **kwargs).arguments)
        return cls(named.pop("sample"), named.pop("timestep"), named)

    @property
    def rows(self) -> int:
        """Samples in the guidance batch, r."""
        return self.sample.shape[0]

    @property
    def frames(self) -> int:
        """Frames per sample; 1 for pictures."""
        return self.sample.shape[2] if self.sample.ndim == 5 else 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the latents."""
        return self.sample.shape[-2], self.sample.shape[-1]

    def timestep_of(self, rows: Sequence[int]) -> Any:
        """The timestep for some rows."""
        return _pick(self.timestep, rows, self.rows, 1)

    def conditions_of(self, rows: Sequence[int], size: tuple[int, int]) -> dict[str, Any]:
        """The conditions for a pass over a reference in the place of some rows: without those that describe the result.

        Args:
            rows: Which rows.
            size: (height, width) of the reference's latents, to which the regions of image prompts are stretched.
        """
        kept: dict[str, Any] = {}
        for name, value in self.conditions.items():
            if name in PER_ROW:
                kept[name] = _pick(value, rows, self.rows, self.frames)
            elif name == "cross_attention_kwargs" and value and REGIONS in value and size != self.size:
                kept[name] = {**value, REGIONS: _stretched(value[REGIONS], self.size, size)}
            elif name not in (*_OF_THE_RESULT, "attention_mask", "return_dict"):
                kept[name] = value
        return kept

    def distinct_rows(self, by_channels: bool = False) -> list[int]:
        """For every row the first row whose conditions are equal to its own.

        Args:
            by_channels: Whether what is shown beside the latents is such a condition.
        """
        found: list[int] = []
        conditions = {name: self.conditions.get(name) for name in PER_ROW}
        if by_channels:
            conditions["beside"] = self.sample[:, self.sample.shape[1] // 2 :].flatten(1).any(dim=1)
        rows = [_tensors(_pick(conditions, [row], self.rows, self.frames)) for row in range(self.rows)]
        for row in range(self.rows):
            same = (other for other in sorted(set(found)) if all(map(torch.equal, rows[other], rows[row])))
            found.append(next(same, row))
        return found


def with_own_size(conditions: dict[str, Any], image: Image.Image, size: tuple[int, int]) -> dict[str, Any]:
    """SDXL's added conditions, saying the reference's own size: (original, crop, target), each height first."""
    added = conditions.get("added_cond_kwargs") or {}
    if "time_ids" not in added:
        return conditions
    own = [image.height, image.width, 0, 0, *size]
    time_ids = added["time_ids"].clone()
    kept = 6 if time_ids.shape[1] == 6 else 4  # refiners have a score in the place of the target size
    time_ids[:, :kept] = time_ids.new_tensor(own[:kept])
    return {**conditions, "added_cond_kwargs": {**added, "time_ids": time_ids}}


def _stretched(masks: Any, before: tuple[int, int], size: tuple[int, int]) -> Any:
    """Regions of a result, each (1, pictures, H, W), laid over a picture of other proportions.

    Args:
        masks: In whatever lists they are.
        before: (height, width) of the result's latents.
        size: (height, width) of the other picture's latents.
    """
    if isinstance(masks, list | tuple):
        return [None if mask is None else _stretched(mask, before, size) for mask in masks]
    pixels = max(masks.shape[-2] // before[0], 1)  # for each latent
    return F.interpolate(masks, (size[0] * pixels, size[1] * pixels), mode="nearest-exact")


def _pick(value: Any, rows: Sequence[int], total: int, frames: int) -> Any:
    """The given rows of every tensor inside `value` that has one entry per row (or per row and frame)."""
    if isinstance(value, dict):
        return {key: _pick(part, rows, total, frames) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_pick(part, rows, total, frames) for part in value]
    if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] not in (total, total * frames):
        return value
    value = value[::frames] if value.shape[0] == total * frames else value
    return value if list(rows) == list(range(total)) else value[list(rows)]


def _tensors(value: Any) -> list[Tensor]:
    """All tensors inside a value."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, list | tuple) else []
