"""Animate Anyone at its full size on a GPU, the published way against ours; then MagicAnimate and IDM-VTON.

    python benchmarks/gpu_films.py --json gpu.json
    python benchmarks/gpu_films.py --tiny --device cpu

A film of 24 frames of 512 x 768, 30 steps, bfloat16, the denoiser compiled, weights drawn at random: seconds of a film
behind a first one that compiles, TFLOP/s beside what a large matrix product reaches on the same device, and peak
memory. Both ways have networks of their own with the same weights; each runs alone. Of MagicAnimate and IDM-VTON one
step is measured, uncompiled, at the published size, while the minutes last. `--tiny` shows on any machine that the
script runs; its numbers say nothing.
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
import torch
from rich.console import Console
from rich.table import Table
from steps import Place
from torch import Tensor, nn
from trained_links import SYSTEMS
from whole_films import TENTH, Bench, Size

from referencenet.networks.layout import SD15_UNET

FULL = Size(config=SD15_UNET, motion_heads=8, pose_widths=(16, 32, 64, 128), latents=(96, 64))
FURTHER = ("magic_animate", "idm_vton")
REPEATS = 5


@dataclass(frozen=True)
class RandomPlace(Place):
    """A place whose weights and inputs are drawn where they are needed, from a seed that depends on their name."""

    def network(self, case: str, name: str, module: nn.Module) -> Any:
        """The network with weights that keep the size of what passes, and without biases."""
        module = module.eval().requires_grad_(False).to(self.device, self.dtype)
        generator = self._generator(case + name)
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
        for key, parameter in module.named_parameters():
            if key.endswith(".bias"):
                parameter.zero_()
        return module

    def draw(self, case: str, name: str, *shape: int) -> Tensor:
        """Normal numbers."""
        generator = self._generator(case + name)
        return torch.randn(shape, generator=generator, device=self.device).to(self.dtype)

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(sum(map(ord, name)))


def ceiling(place: Place, side: int) -> float:
    """TFLOP/s of a product of square matrices."""
    left, right = (torch.randn(side, side, device=place.device, dtype=place.dtype) for _ in range(2))
    (seconds,) = measuring.interleaved_seconds(
        {"product": lambda: left @ right}, warm_up=2, repeats=REPEATS, device=place.device, clock=time.perf_counter
    ).values()
    return 2 * side**3 / min(seconds) / 1e12


def measured(
    actions: Mapping[str, Callable[[], Tensor]], flops: Mapping[str, int], place: Place, *, warm_up: int, repeats: int
) -> dict[str, Any]:
    """Best seconds, TFLOP/s, peak GB and the largest difference of two ways."""
    found: dict[str, Any] = {}
    results: dict[str, Tensor] = {}
    for name, action in actions.items():  # one after the other: compiled networks of both would fill a small device
        (seconds,) = measuring.interleaved_seconds(
            {name: action}, warm_up=warm_up, repeats=repeats, device=place.device, clock=time.perf_counter
        ).values()
        results[name] = action().double()
        found[name] = {
            "seconds": min(seconds),
            "tflops_per_second": flops[name] / min(seconds) / 1e12,
            "peak_gigabytes": measuring.peak_bytes(action, place.device) / 1e9,
        }
    ours, theirs = results["ours"], results["published"]
    found["max_difference"] = float((ours - theirs).norm() / theirs.norm())
    found["time_ratio"] = found["ours"]["seconds"] / found["published"]["seconds"]
    found["flop_ratio"] = flops["ours"] / flops["published"]
    return found


def film(place: Place, size: Size, frames: int, steps: int, *, compiles: bool, warm_up: int) -> dict[str, Any]:
    """Animate Anyone's film."""
    benches = {name: Bench(frames, steps, place, size) for name in ("ours", "published")}
    actions = {"ours": benches["ours"].ours, "published": benches["published"].published}
    flops = {name: measuring.flops(action) for name, action in actions.items()}
    if compiles:
        for bench in benches.values():
            bench.pipe.unet.compile()
    return measured(actions, flops, place, warm_up=warm_up, repeats=1)


def step(place: Place, system: str, repeats: int) -> dict[str, Any]:
    """A step of another system, the best of some repeats."""
    paths = SYSTEMS[system](place)
    actions = {"ours": paths.ours, "published": paths.published}
    flops = {name: measuring.flops(action) for name, action in actions.items()}
    return measured(actions, flops, place, warm_up=min(2, repeats - 1), repeats=repeats)


@torch.no_grad()
def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a few frames of narrow networks, two steps")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--no-compile", action="store_true", help="do not compile the denoiser")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no further system behind half of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    options = parser.parse_args()
    begun = time.perf_counter()
    place = RandomPlace(torch.device(options.device), getattr(torch, options.dtype), full=not options.tiny)
    size, frames, steps = (TENTH, 2, 2) if options.tiny else (FULL, 24, 30)
    console = Console()
    most = ceiling(place, 256 if options.tiny else 8192)
    compiles = not (options.no_compile or options.tiny)
    warm_up = 0 if options.tiny else 1
    results = {"animate_anyone": film(place, size, frames, steps, compiles=compiles, warm_up=warm_up)}
    for system in FURTHER:
        if time.perf_counter() - begun > 60 * options.minutes / 2:
            console.print(f"{system}: left out, as half of {options.minutes:g} minutes are over")
            continue
        if place.device.type == "cuda":
            torch.cuda.empty_cache()
        results[system] = step(place, system, 1 if options.tiny else REPEATS)
    table = Table("system", "way", "seconds", "TFLOP/s", f"of {most:.3g}", "peak GB")
    for system, found in results.items():
        for way in ("ours", "published"):
            one = found[way]
            speed = one["tflops_per_second"]
            cells = f"{one['seconds']:.3g}", f"{speed:.3g}", f"{speed / most:.0%}", f"{one['peak_gigabytes']:.3g}"
            table.add_row(system, way, *cells)
    console.print(table)
    if options.json is not None:
        document = measuring.circumstances(place.device) | {
            "matmul_tflops_per_second": most,
            **{key: getattr(options, key) for key in ("tiny", "dtype", "no_compile", "minutes")},
        }
        options.json.write_text(json.dumps({**document, "systems": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
