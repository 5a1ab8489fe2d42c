"""Trained systems: one denoising step the published way against ours, on the same weights and inputs, in one run.

    python benchmarks/trained_links.py [--system SYSTEM] [--json FILE] [--device cuda --dtype bfloat16]

The published way is our own plain writing of it (`published_SYSTEM.py`). Reported per system: `time_ratio`,
`memory_ratio` and `flop_ratio`, ours over published; `flops_over_ideal`, ours over what is unavoidable: each reference
row and token once, nothing computed and thrown away; `max_difference`, ||ours - published|| / ||published||. Widths are
reduced so that a step fits a CPU; weights are random, by the golden rule.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import published_idm_vton
import torch
from diffusers import UNet2DConditionModel
from rich.console import Console
from rich.table import Table
from torch import Tensor

from referencenet.checkpoints.idm_vton import SDXL_UNET
from referencenet.links.attach import attach
from referencenet.methods.idm_vton import LINK, Garment, reading_plan, write_garment
from referencenet.networks.image_prompt import ImagePromptUNet, with_image_prompt
from referencenet.parity.seeded import fill, seeded_input

TIMESTEP = 613


@dataclass(frozen=True)
class Paths:
    """A system's step, both ways, and the FLOPs that no way can avoid."""

    published: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    ideal_flops: Callable[[], int]


IDM_VTON: Mapping[str, Any] = SDXL_UNET | {
    "block_out_channels": (64, 128, 256),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": 256,
    "norm_num_groups": 16,
}
"""SDXL's UNet at a fifth of its width; heads keep their 64 channels."""

IDM_VTON_LATENTS = (64, 48)  # of a picture of 512 x 384


def idm_vton(device: torch.device, dtype: torch.dtype) -> Paths:
    """IDM-VTON: SDXL, written at every step, zeros in the unconditional half."""
    added_width = 64
    unet = ImagePromptUNet(
        **IDM_VTON | {"in_channels": 13},
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=added_width + 48,
    )
    garment_unet = UNet2DConditionModel(**IDM_VTON)
    for name, net in (("unet", unet), ("garment_unet", garment_unet)):
        fill(net, "benchmark-idm_vton", name)
        net.eval().to(device, dtype)
    draw = lambda name, *shape: seeded_input("benchmark-idm_vton", name, shape).to(device, dtype)  # noqa: E731
    width = IDM_VTON["cross_attention_dim"]
    sample = draw("sample", 1, 13, *IDM_VTON_LATENTS)
    given = {
        "timestep": TIMESTEP,
        "garment": draw("garment", 1, 4, *IDM_VTON_LATENTS),
        "garment_context": draw("garment_context", 1, 77, width),
        "sample": sample.repeat(2, 1, 1, 1),
        "context": with_image_prompt(draw("text", 2, 77, width), draw("picture", 2, 16, width)),
        "added": {
            "text_embeds": draw("pooled", 2, added_width),
            "time_ids": torch.tensor([[512.0, 384, 0, 0, 512, 384]] * 2).to(device),
        },
    }  # fmt: skip
    plan = reading_plan(persons=1, garments=1, guided=True)
    garment = Garment(given["garment"], given["garment_context"])

    def plain() -> Tensor:
        return unet(given["sample"], TIMESTEP, given["context"], added_cond_kwargs=given["added"], return_dict=False)[0]

    def ours() -> Tensor:
        with attach(unet, [LINK]) as reader, attach(garment_unet, [LINK]) as writer:
            with reader.reading(write_garment(writer, garment, TIMESTEP), plan=plan):
                return plain()

    def ideal() -> int:
        """TryonNet plainly, GarmentNet up to its last norm1, and at each site one garment row read by one row."""
        *_, (_, last) = published_idm_vton.blocks(garment_unet)
        with published_idm_vton.hooked(last.attn1.register_forward_pre_hook(published_idm_vton.stop)):
            write = measuring.flops(lambda: stopped(garment_unet, given))
        read = 0
        for feature in published_idm_vton.write(garment_unet, given["garment"], TIMESTEP, given["garment_context"]):
            _, tokens, channels = feature.shape
            projections = 2 * 2 * tokens * channels**2  # keys and values
            read += projections + 2 * 2 * tokens**2 * channels  # q k^T and its product with the values
        return measuring.flops(plain) + write + read

    return Paths(published=lambda: published_idm_vton.step(unet, garment_unet, given), ours=ours, ideal_flops=ideal)


def stopped(garment_unet: UNet2DConditionModel, given: Mapping[str, Any]) -> None:
    """Run GarmentNet until a hook stops it."""
    try:
        garment_unet(given["garment"], given["timestep"], encoder_hidden_states=given["garment_context"])
    except published_idm_vton.Done:
        pass


SYSTEMS: Mapping[str, Callable[[torch.device, torch.dtype], Paths]] = {"idm_vton": idm_vton}


@torch.no_grad()
def measure(paths: Paths, device: torch.device, *, warm_up: int, repeats: int) -> dict[str, Any]:
    """Everything that is reported of a system."""
    actions = {"ours": paths.ours, "published": paths.published}
    ours, theirs = paths.ours().double(), paths.published().double()
    counts = {name: measuring.flops(action) for name, action in actions.items()}
    memory = {name: measuring.peak_bytes(action, device) for name, action in actions.items()}
    seconds = measuring.interleaved_seconds(
        actions, warm_up=warm_up, repeats=repeats, device=device, clock=time.perf_counter
    )
    ideal = paths.ideal_flops()
    return {
        "time_ratio": measuring.median_ratio(seconds["ours"], seconds["published"]),
        "memory_ratio": memory["ours"] / memory["published"],
        "flop_ratio": counts["ours"] / counts["published"],
        "flops_over_ideal": counts["ours"] / ideal,
        "max_difference": float((ours - theirs).norm() / theirs.norm()),
        "details": {"seconds": seconds, "peak_bytes": memory, "flops": {**counts, "ideal": ideal}},
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=SYSTEMS, help="only this one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    results = {
        name: measure(SYSTEMS[name](device, dtype), device, warm_up=options.warm_up, repeats=options.repeats)
        for name in ([options.system] if options.system else SYSTEMS)
    }
    keys = ("time_ratio", "memory_ratio", "flop_ratio", "flops_over_ideal", "max_difference")
    table = Table("system", *keys)
    for name, result in results.items():
        table.add_row(
            name, *(f"{result[key]:.3g}" if key == "max_difference" else f"{result[key]:.3f}" for key in keys)
        )
    Console().print(table)
    if options.json is not None:
        document = {
            **measuring.circumstances(device),
            "dtype": options.dtype,
            "warm_up": options.warm_up,
            "repeats": options.repeats,
        }
        options.json.write_text(json.dumps({**document, "systems": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
