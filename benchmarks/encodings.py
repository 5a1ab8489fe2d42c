"""What it costs to encode a reference, and to find it encoded again: an autoencoder of Stable Diffusion's size.

Random weights: time does not depend on them. Run: python benchmarks/encodings.py --device cpu --size 512
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import diffusers
import torch
from diffusers import AutoencoderKL

from referencenet.sampling.encodings import Encodings, posterior_of, weights_sum

SHAPE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}  # of Stable Diffusion 1, 2 and XL


def main() -> None:
    """Measure, print, and write the numbers where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    vae = AutoencoderKL(**SHAPE).to(given.device, getattr(torch, given.dtype)).eval()
    pixels = torch.rand(1, 3, given.size, given.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels = pixels.to(given.device, vae.dtype)
    kept = Encodings()
    with torch.no_grad():
        kept.of(vae, pixels)
        seconds = {
            "encode": _timed(lambda: posterior_of(vae, pixels), given),
            "found again": _timed(lambda: kept.of(vae, pixels), given),
            "of that, the weights": _timed(lambda: weights_sum(vae), given),
        }
    document = {
        "seconds": seconds,
        "size": given.size,
        "dtype": given.dtype,
        "device": torch.cuda.get_device_name() if given.device.startswith("cuda") else platform.processor() or "CPU",
        "threads": torch.get_num_threads(),
        "repeats": given.repeats,
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
    }
    text = json.dumps(document, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


def _timed(work: Callable[[], object], given: argparse.Namespace) -> float:
    """The median of some runs, in seconds: of this process on the CPU, else of the clock."""
    is_cpu = given.device == "cpu"
    clock = time.process_time if is_cpu else time.perf_counter
    taken: list[float] = []
    for _ in range(given.repeats):
        begun = clock()
        work()
        if not is_cpu:
            torch.cuda.synchronize()
        taken.append(clock() - begun)
    return median(taken)


if __name__ == "__main__":
    main()
