"""Sites: the places of a UNet where a reference can be written and read, and the rule that chooses among them.

Attention sites are the self-attentions (`attn1`) of the spatial transformer blocks; statistics sites are the hidden
states after each (resnet [+ attention]) pair of a down or up block and the output of the mid block. Names are the
modules' own names, so that two UNets of one layout pair by name. The ranks are those of Reference-Only and
Reference-AdaIN as published (sd-webui ControlNet extension, 2023). Temporal transformers of motion modules are no
sites.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from diffusers.models.attention import BasicTransformerBlock
from torch import nn

Stage = Literal["down_blocks", "mid_block", "up_blocks"]

STAGES: tuple[Stage, ...] = ("down_blocks", "mid_block", "up_blocks")
MID_UP: tuple[Stage, ...] = ("mid_block", "up_blocks")
"""The sites that many systems call `midup`; theirs of all stages are `full`."""

_LAST = 10**6
"""Behind every pair and layer of a block."""

_PLACE = re.compile(
    r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?(?:\.(?:attentions|resnets)\.(\d+)(?:\.module)?)?"
    r"(?:\.transformer_blocks\.(\d+))?"
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """One place of a UNet.

    Attributes:
        name: The module's name in the UNet, such as `up_blocks.1.attentions.0.transformer_blocks.0.attn1`.
        kind: `attention`, `adain` or `norm`.
        width: Channels of what is written there; 0 where the module does not tell.
        rank: Share in [0, 1] of the published order; the link's weight is compared with it.
        order: Sorts sites by when a forward pass reaches them.
        layer: What inside the module reads, where it is not the module itself: an additive link's own attention.
        beside: The module of the same block that a link sits at instead.
    """

    name: str
    kind: Literal["attention", "adain", "norm"]
    width: int
    rank: float
    order: tuple[int, int, int, int]
    layer: str = ""
    beside: str = ""

    @property
    def reader(self) -> str:
        """Name in the UNet of the attention that reads."""
        if self.beside:
            return f"{self.name.rpartition('.')[0]}.{self.beside}"
        return f"{self.name}.{self.layer}" if self.layer else self.name

    @property
    def stage(self) -> Stage:
        """The part of the UNet that it belongs to."""
        return STAGES[self.order[0]]


def attention_sites(unet: nn.Module) -> list[Site]:
    """Every self-attention a reference can reach, ranked i / n after a stable sort of depth-first order by width."""
    found: list[tuple[str, int]] = []
    for name, module in unet.named_modules():
        if (
            isinstance(module, BasicTransformerBlock)
            and "motion_modules" not in name
            and not module.only_cross_attention
        ):
            found.append((f"{name}.attn1", module.norm1.normalized_shape[0]))  # pyright: ignore
    widest_first = sorted(found, key=lambda item: -item[1])
    return [
        Site(name=name, kind="attention", width=width, rank=i / len(found), order=_order(name, after=0))
        for i, (name, width) in enumerate(widest_first)
    ]


def adain_sites(unet: nn.Module) -> list[Site]:
    """Every block output AdaIN can renormalise; ranks: mid block 0, k-th of n down blocks 1 - k/n, up blocks k/n."""
    sites: list[Site] = []
    for stage in ("down_blocks", "up_blocks"):
        blocks: list[nn.Module] = list(getattr(unet, stage, []))
        for k, block in enumerate(blocks):
            rank = 1 - k / len(blocks) if stage == "down_blocks" else k / len(blocks)
            part = "attentions" if getattr(block, "attentions", None) else "resnets"
            for j in range(len(getattr(block, part, ()))):
                name = f"{stage}.{k}.{part}.{j}"
                width = int(getattr(block.resnets[j], "out_channels", 0))  # pyright: ignore
                sites.append(Site(name=name, kind="adain", width=width, rank=rank, order=_order(name, after=1)))
    if getattr(unet, "mid_block", None) is not None:
        sites.append(Site(name="mid_block", kind="adain", width=0, rank=0.0, order=_order("mid_block", after=1)))
    return sorted(sites, key=lambda site: site.order)


def norm_sites(unet: nn.Module) -> list[Site]:
    """Every group norm over the features of one picture; those of motion modules see all frames, and are none."""
    sites: list[Site] = []
    for name, module in unet.named_modules():
        if isinstance(module, nn.GroupNorm) and "motion_modules" not in name:
            is_last = _PLACE.match(name) is None  # conv_norm_out, behind all blocks
            order = (len(STAGES) - 1, _LAST, _LAST, 0) if is_last else _order(name, after=0)
            sites.append(Site(name=name, kind="norm", width=module.num_channels, rank=0.0, order=order))
    return sorted(sites, key=lambda site: site.order)


def check_weight(link: object, weight: float) -> None:
    """Whether a link's weight is a share of the published order.

    Raises:
        ValueError: If it is not.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"the weight of {link!r} must lie in [0, 1]: 0 chooses no layer, 1 all.")


def _order(name: str, *, after: int) -> tuple[int, int, int, int]:
    """When a forward pass reaches a site: stage, block, pair, and the place inside the pair (statistics come last)."""
    match = _PLACE.match(name)
    if match is None:
        raise ValueError(
            f"the module {name!r} lies outside of the UNet's down_blocks, mid_block and up_blocks, where references "
            "are read; give a diffusers UNet2DConditionModel or UNetMotionModel."
        )
    stage, block, pair, layer = match.groups()
    pair_index = _LAST if pair is None else int(pair)
    return STAGES.index(stage), int(block or 0), pair_index, _LAST * after + int(layer or 0)
