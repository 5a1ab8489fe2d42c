"""A film of Animate Anyone the published way against ours: windows and denoising steps together, in one run.

    python benchmarks/whole_films.py [--frames 64] [--steps 6] [--json FILE] [--clock process]

The published way is `published_animate_anyone.film`: windows of 24 frames that overlap by 4 and wrap around the film's
end, each computed as the published code does. Ours is the pipeline's call with its own default windows. Both begin with
the same latents, reference and poses and end at latents: no autoencoder, no CLIP. Reported: `film_ratio`, the median
over the rounds of ours over published in time; `flop_ratio`; how often the denoiser runs on a window, and on how many
frames, each way; `max_difference`, ||ours - published|| / ||published||, of our way with the published windows, since a
film that is cut in other places is another film. A published film takes 30 steps; the more there are, the less weighs
what is done once per film, write pass and pose net. The network is a tenth as wide as Stable Diffusion 1.5 and frames
have about a tenth of the tokens, so that attention keeps its share; every attention, the motion modules' too, has one
head of a tenth of the width in place of eight, since a head of 4 channels takes a CPU almost as long as one of 32.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import published_animate_anyone
import torch
from diffusers import DDIMScheduler
from rich.console import Console
from rich.table import Table
from torch import Tensor
from trained_links import CLOCKS, GUIDANCE, Place, animate_anyone_pipeline

from referencenet.methods.animate_anyone import PUBLISHED
from referencenet.networks.layout import SD15_UNET, film_config
from referencenet.networks.motion import SpatioTemporalUNet
from referencenet.networks.pose_guider import PoseGuider
from referencenet.pipelines.encoders import IMAGE_TOKEN
from referencenet.pipelines.portraits import PORTRAIT_SCHEDULE
from referencenet.pipelines.spec import Shown
from referencenet.sampling.windows import Windows

NARROW: Mapping[str, Any] = SD15_UNET | {
    "block_out_channels": (32, 64, 128, 128),
    "cross_attention_dim": 80,
    "attention_head_dim": 1,
    "norm_num_groups": 8,
}
"""A tenth of Stable Diffusion 1.5's width; one head of 32 to 128 channels for eight of 40 to 160."""

MOTION_HEADS = 1  # published: 8 of 40 to 160 channels

POSE_WIDTHS = (4, 4, 8, 16)
LATENTS = (32, 20)  # frames of 256 x 160 pixels


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of networks and frames.

    Attributes:
        config: Of the reference UNet and of the denoiser.
        motion_heads: Of the denoiser's motion modules.
        pose_widths: Of the pose net.
        latents: Height and width.
    """

    config: Mapping[str, Any]
    motion_heads: int
    pose_widths: tuple[int, ...]
    latents: tuple[int, int]


TENTH = Size(config=NARROW, motion_heads=MOTION_HEADS, pose_widths=POSE_WIDTHS, latents=LATENTS)


class Bench:
    """Networks and inputs of a film.

    Args:
        frames: Of the film.
        steps: Denoising steps.
        place: Where it is computed.
        size: Of networks and frames.
    """

    def __init__(self, frames: int, steps: int, place: Place, size: Size = TENTH) -> None:
        self.frames, self.steps, self.size = frames, steps, size
        config, latents = size.config, size.latents
        unet = SpatioTemporalUNet(**film_config(config, motion_heads=size.motion_heads))
        self.pipe = animate_anyone_pipeline(
            place.network("films", "reference_unet", PUBLISHED.build["reference_unet"](config)),
            place.network("films", "unet", unet),
            place.network("films", "pose_guider", PoseGuider(3, config["block_out_channels"][0], size.pose_widths)),
        )
        self.reference = place.draw("films", "reference", 1, 4, *latents)
        self.token = place.draw("films", "token", 1, 1, config["cross_attention_dim"])
        self.latents = place.draw("films", "latents", 1, 4, frames, *latents)
        self.poses = place.draw("films", "poses", frames, 3, *(8 * side for side in latents)).sigmoid()

    def ours(self, windows: Windows | None = None) -> Tensor:
        """The film's latents (1, 4, f, h, w), by the pipeline; None: its own windows."""
        return self.pipe(
            Shown(latents=self.reference, context=self.token, kept={IMAGE_TOKEN: self.token}),
            self.poses,
            width=8 * self.size.latents[1],
            height=8 * self.size.latents[0],
            num_inference_steps=self.steps,
            guidance_scale=GUIDANCE,
            windows=windows,
            latents=self.latents,
            output_type="latent",
        ).frames  # pyright: ignore

    def published(self) -> Tensor:
        """The same, the published way."""
        scheduler = DDIMScheduler(**PORTRAIT_SCHEDULE)
        scheduler.set_timesteps(self.steps, device=self.latents.device)
        given = {
            "reference": self.reference,
            "token": self.token,
            "latents": self.latents,
            "pose": self.pipe.pose_guider(self.poses).transpose(0, 1).unsqueeze(0),
        }
        window = Windows().size
        return published_animate_anyone.film(
            self.pipe.reference_unet, self.pipe.unet, scheduler, given, scale=GUIDANCE, window=window
        )

    def calls(self) -> dict[str, dict[str, int]]:
        """How often each way runs the denoiser on a window, and on how many frames in all."""
        cut = {
            "ours": [len(window.frames) for window in Windows().of(self.frames)],
            "published": [len(window) for window in published_animate_anyone.windows(self.frames, Windows().size)],
        }
        return {
            name: {"window_calls": len(sizes) * self.steps, "frames_per_step": sum(sizes)}
            for name, sizes in cut.items()
        }


@torch.no_grad()
def measure(bench: Bench, place: Place, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is reported."""
    actions = {"ours": bench.ours, "published": bench.published}
    count, films = {}, {}
    for name, action in actions.items():
        count[name], films[name] = measuring.counted(action)
    alike = bench.ours(Windows(published=True)).double()
    theirs = films["published"].double()
    seconds = measuring.interleaved_seconds(
        actions, warm_up=0, repeats=options.repeats, device=place.device, clock=CLOCKS[options.clock]
    )
    return {
        "film_ratio": measuring.median_ratio(seconds["ours"], seconds["published"]),
        "flop_ratio": count["ours"] / count["published"],
        "max_difference": float((alike - theirs).norm() / theirs.norm()),
        "calls": bench.calls(),
        "details": {"seconds": seconds, "flops": count},
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: the CPU time, on a busy machine")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    place = Place(torch.device(options.device), getattr(torch, options.dtype))
    result = measure(Bench(options.frames, options.steps, place), place, options)
    table = Table("way", "window calls", "frames per step", "GFLOP")
    for name, calls in result["calls"].items():
        gigaflops = result["details"]["flops"][name] / 1e9
        table.add_row(name, str(calls["window_calls"]), str(calls["frames_per_step"]), f"{gigaflops:.0f}")
    console = Console()
    console.print(table)
    console.print(", ".join(f"{key} {result[key]:.3g}" for key in ("film_ratio", "flop_ratio", "max_difference")))
    if options.json is not None:
        document = measuring.circumstances(place.device) | {
            key: getattr(options, key) for key in ("frames", "steps", "dtype", "clock", "repeats")
        }
        options.json.write_text(json.dumps({**document, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
