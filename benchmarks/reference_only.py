"""Reference-Only: ours against the published way and against plain generation, in one run.

    python benchmarks/reference_only.py [--json FILE]
    python benchmarks/reference_only.py --device cuda --dtype bfloat16 [--compile] --layout sd15 sdxl

Four paths on the same weights and inputs: (1) the published way, as `published.py` writes it plainly; (2) ours, exact,
at style fidelity 0.5 and 1; (3) ours with one fixed noise for all pictures, at four pictures, against (1) at four;
(4) plain generation, the floor that no reference can reach. Whole calls are timed in turn, round by round; a ratio is
the median over the rounds. FLOPs stand beside them, against what is unavoidable: with O and A the plain guided step's
FLOPs outside and inside of the self-attention's products and W those of a plain pass up to the last site, W + O + 2 A
at style fidelity 0.5 and W / 2 + O + 1.5 A at 1 (the published way: 2 O + 3.5 A and more).
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import published
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from referencenet.methods.reference_only import Reference, reference
from referencenet.parity.seeded import fill, seeded_input
from referencenet.parity.systems.reference_only import stable_diffusion

GUIDANCE = 7.5
SD15 = {
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
NARROW = {**SD15, "block_out_channels": (64, 128, 256, 256), "cross_attention_dim": 192}


@dataclass(frozen=True)
class Layout:
    """A UNet's configuration and the size of its latents."""

    config: dict[str, Any]
    size: int


LAYOUTS = {
    "sd15-narrow-32": Layout(NARROW, 32),
    "sd15-narrow-64": Layout(NARROW, 64),
    "sd15": Layout(SD15, 64),
    "sdxl": Layout(SDXL, 128),
}
"""SD 1.5's layout at a fifth of its width for CPUs; SD 1.5 at 512 x 512 and SDXL at 1024 x 1024 pixels for GPUs."""

CPU_LAYOUTS = ("sd15-narrow-32", "sd15-narrow-64")


class Bench:
    """One UNet, its inputs, and the paths that generate with it."""

    def __init__(self, layout: Layout, options: argparse.Namespace) -> None:
        self.layout, self.num_steps = layout, options.steps
        self.device, self.dtype = torch.device(options.device), getattr(torch, options.dtype)
        unet: Any = UNet2DConditionModel(sample_size=layout.size, **layout.config).eval()
        fill(unet, "benchmark", "unet")
        self.unet: Any = unet.to(self.device, self.dtype)
        if options.compile:
            self.unet = torch.compile(self.unet)
        self.is_sdxl = "addition_embed_type" in layout.config
        self.pipe = self.build_pipeline()
        self.noise = [self.draw(f"noise_{i}", 1, 4, layout.size, layout.size) for i in range(self.num_steps)]
        self.reference = self.draw("reference", 1, 4, layout.size, layout.size)

    def draw(self, name: str, *shape: int) -> torch.Tensor:
        """An input that depends on its name and shape only."""
        return seeded_input("benchmark", name, shape).to(self.device, self.dtype)

    def build_pipeline(self) -> Any:
        """A pipeline that takes embeddings and returns latents."""
        scheduler: Any = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
        return stable_diffusion(self.unet, scheduler)

    def prompt(self) -> dict[str, torch.Tensor]:
        """Embeddings of one prompt and its negative."""
        width = self.layout.config["cross_attention_dim"]
        shapes = {"prompt_embeds": (1, 77, width), "negative_prompt_embeds": (1, 77, width)}
        if self.is_sdxl:
            shapes |= {"pooled_prompt_embeds": (1, 1280), "negative_pooled_prompt_embeds": (1, 1280)}
        return {name: self.draw(name, *shape) for name, shape in shapes.items()}

    def plain(self, num_pictures: int = 1) -> torch.Tensor:
        """Generate without a reference; latents (pictures, 4, size, size)."""
        size = self.layout.size
        return self.pipe(
            **self.prompt(),
            latents=self.draw("latents", num_pictures, 4, size, size),
            num_images_per_prompt=num_pictures,
            num_inference_steps=self.num_steps,
            guidance_scale=GUIDANCE,
            height=8 * size,
            width=8 * size,
            output_type="latent",
        ).images

    def ours(self, style_fidelity: float, num_pictures: int = 1, *, noise: Any = None) -> torch.Tensor:
        """Generate with a reference our way; the noise of each step is given, or "fixed"."""
        linked = reference(
            self.pipe,
            Reference(latents=self.reference),
            style_fidelity=style_fidelity,
            noise=self.noise if noise is None else noise,
        )
        with linked:
            return self.plain(num_pictures)

    def theirs(self, style_fidelity: float, num_pictures: int = 1) -> torch.Tensor:
        """Generate with a reference the published way, with the same noise at each step."""
        prompt, size = self.prompt(), self.layout.size

        def halves(name: str) -> torch.Tensor:
            return torch.cat([prompt[f"negative_{name}"], prompt[name]]).repeat_interleave(num_pictures, dim=0)

        conditions: dict[str, Any] = {"encoder_hidden_states": halves("prompt_embeds")}
        if self.is_sdxl:
            text_embeds = halves("pooled_prompt_embeds")
            time_ids = torch.tensor([[8 * size, 8 * size, 0, 0, 8 * size, 8 * size]] * len(text_embeds))
            conditions["added_cond_kwargs"] = {"text_embeds": text_embeds, "time_ids": time_ids.to(text_embeds)}
        inputs = published.Inputs(
            latents=self.draw("latents", num_pictures, 4, size, size),
            reference=self.reference,
            noise=self.noise,
            conditions=conditions,
        )
        setting = published.Setting(style_fidelity=style_fidelity)
        result = published.sample(
            self.unet, self.pipe.scheduler, setting, inputs, num_steps=self.num_steps, guidance=GUIDANCE
        )
        return result["final_latents"]

    def paths(self) -> dict[str, Callable[[], torch.Tensor]]:
        """What is measured, in the order of a round."""
        return {
            "published": lambda: self.theirs(0.5),
            "ours": lambda: self.ours(0.5),
            "published_s1": lambda: self.theirs(1.0),
            "ours_s1": lambda: self.ours(1.0),
            "plain": self.plain,
            "published_4": lambda: self.theirs(0.5, 4),
            "ours_shared_4": lambda: self.ours(0.5, 4, noise="fixed"),
        }


RATIOS = {
    "exact": ("ours", "published"),
    "exact_s1": ("ours_s1", "published_s1"),
    "shared": ("ours_shared_4", "published_4"),
    "plain": ("plain", "published"),
}
"""Ratios of two paths; floors and targets belong to the first three."""

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
TARGETS = {"exact": 0.85, "exact_s1": 0.72, "shared": 0.62}


def floor_flops(bench: Bench) -> dict[str, float]:
    """FLOPs per step that no exact implementation can avoid, from one plain guided pass of the UNet.

    Shared at p pictures: one write for all (W), and each picture's own O + 2 A.
    """
    unet: Any = getattr(bench.unet, "_orig_mod", bench.unet)
    last = unet.up_blocks[-1] if hasattr(unet.up_blocks[-1], "attentions") else unet.up_blocks[-2]
    attention = last.attentions[-1].transformer_blocks[-1].attn1
    counter = FlopCounterMode(display=False, custom_mapping=measuring.FLOP_FORMULAS)
    seen: dict[str, float] = {}

    def up_to_here(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:  # noqa: ARG001 - a hook's signature
        projections = 2 * 2 * args[0].numel() * attention.to_k.out_features  # keys and values of the last site
        seen["W"] = counter.get_total_flops() + projections

    hook = attention.register_forward_pre_hook(up_to_here)
    size = bench.layout.size
    prompt = bench.prompt()
    conditions: dict[str, Any] = {
        "encoder_hidden_states": torch.cat([prompt["prompt_embeds"], prompt["negative_prompt_embeds"]])
    }
    if bench.is_sdxl:
        pooled = torch.cat([prompt["pooled_prompt_embeds"], prompt["negative_pooled_prompt_embeds"]])
        conditions["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": pooled.new_zeros(2, 6)}
    try:
        with torch.no_grad(), counter:
            unet(bench.draw("latents", 2, 4, size, size), 1, **conditions)
    finally:
        hook.remove()
    products = sum(
        count
        for name, operators in counter.get_flop_counts().items()
        if name.endswith(".attn1")
        for operator, count in operators.items()
        if "scaled_dot_product" in str(operator)
    )
    total, write = counter.get_total_flops(), seen["W"]
    return {
        "plain": total,
        "exact": write + total + products,
        "exact_s1": write / 2 + total + products / 2,
        "shared": write + 4 * (total + products),
    }


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """||ours - theirs|| / ||theirs||."""
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one layout: FLOPs and results in a first round, memory in a second, times in the others."""
    bench = Bench(LAYOUTS[name], options)
    paths = bench.paths()
    firsts = {  # compiled code cannot be counted
        path: (0, action()) if options.compile else measuring.counted(action) for path, action in paths.items()
    }
    memory = {path: measuring.peak_bytes(action, bench.device) for path, action in paths.items()}
    seconds: dict[str, list[float]] = {}
    for of_four, repeats in ((False, options.repeats), (True, max(3, options.repeats // 3))):
        group = {path: action for path, action in paths.items() if path.endswith("_4") == of_four}
        seconds |= measuring.interleaved_seconds(
            group, warm_up=options.warm_up, repeats=repeats, device=bench.device, clock=CLOCKS[options.clock]
        )
    pairs = (("ours", "published"), ("ours_s1", "published_s1"))
    result: dict[str, Any] = {
        "max_difference": max(relative_difference(firsts[ours][1], firsts[theirs][1]) for ours, theirs in pairs)
    }
    for key, (ours, theirs) in RATIOS.items():
        result[f"ratio_{key}"] = measuring.median_ratio(seconds[ours], seconds[theirs])
        result[f"memory_ratio_{key}"] = memory[ours] / memory[theirs]
    if not options.compile:
        counts = {path: total / bench.num_steps for path, (total, _) in firsts.items()}
        floors = floor_flops(bench)
        for key, (ours, theirs) in RATIOS.items():
            result[f"flop_ratio_{key}"] = counts[ours] / counts[theirs]
            result[f"floor_ratio_{key}"] = floors[key] / counts[theirs]
        result["gflop_per_step"] = {path: count / 1e9 for path, count in counts.items()}
        result["gflop_floor"] = {key: count / 1e9 for key, count in floors.items()}
    result["seconds_per_step"] = {path: [s / bench.num_steps for s in values] for path, values in seconds.items()}
    result["peak_mib"] = {path: size / 2**20 for path, size in memory.items()}
    return result


def table(name: str, result: dict[str, Any]) -> Table:
    """Ratios of one layout beside their targets and floors."""
    shown = Table("against the published way", "time", "target", "FLOPs", "floor", "peak memory", title=name)
    for key in RATIOS:
        cells = [f"{result[f'{kind}_{key}']:.3f}" if f"{kind}_{key}" in result else "" for kind in (
            "ratio", "flop_ratio", "floor_ratio", "memory_ratio")]  # fmt: skip
        target = f"{TARGETS[key]:.2f}" if key in TARGETS else ""
        shown.add_row(" / ".join(RATIOS[key]), cells[0], target, *cells[1:])
    return shown


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--compile", action="store_true", help="torch.compile the UNet on every path")
    parser.add_argument(
        "--layout", nargs="+", choices=LAYOUTS, default=CPU_LAYOUTS, help="the last one is the headline"
    )
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: the CPU time, on a busy machine")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--steps", type=int, default=1, help="denoising steps of a call")
    parser.add_argument("--warm-up", type=int, default=1, help="rounds that are not counted")
    parser.add_argument("--repeats", type=int, default=10, help="rounds counted; a third for four pictures")
    return parser.parse_args()


def write(file: Path, results: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the results so far; the last layout's ratios stand at the top."""
    headline = list(results)[-1]
    ratios = {key: value for key, value in results[headline].items() if key.startswith(("ratio_", "max_"))}
    settings = {key: getattr(options, key) for key in ("dtype", "compile", "clock", "steps", "warm_up", "repeats")}
    where = measuring.circumstances(torch.device(options.device))
    document = {**ratios, "headline": headline, **where, **settings, "layouts": results}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    """Measure, print, write."""
    options = parse()
    torch.set_num_threads(options.threads)
    console = Console(width=110)
    results: dict[str, Any] = {}
    for name in options.layout:
        results[name] = measure(name, options)
        console.print(table(name, results[name]))
        console.print(f"largest relative difference to the published way: {results[name]['max_difference']:.1e}\n")
        if options.json is not None:
            write(options.json, results, options)


if __name__ == "__main__":
    main()
