"""How fast the paperdoll world is drawn, in pictures per second of one core.

    python benchmarks/paperdoll.py [--json FILE] [--count N]

Counts processor time, not the clock on the wall, so that a busy machine does not look slow. The floor beside it is the
renderer alone, on SVG text that is already there.
"""

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
import torch
from rich.console import Console
from rich.table import Table

from referencenet.paperdoll.canvas import rasterize
from referencenet.paperdoll.landmarks import landmarks
from referencenet.paperdoll.maps import dense_map, segmentation
from referencenet.paperdoll.render import compose, render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.skeleton import keypoints, skeleton

TARGET = 100.0  # pictures a second and core at 64 pixels
SIZES = (64, 256, 512)


def rate(action: Callable[[Any], Any], inputs: list[Any]) -> float:
    """Calls per second of processor time, after one round of warm-up over a tenth of the inputs."""
    for item in inputs[: max(1, len(inputs) // 10)]:
        action(item)
    start = time.process_time()
    for item in inputs:
        action(item)
    return len(inputs) / (time.process_time() - start)


def svg_text(scene: Scene, size: int) -> str:
    """The SVG of a scene, as `render` hands it to the renderer."""
    body = "".join(compose(scene, size).painted)
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}">{body}</svg>'


def rates(size: int, count: int) -> dict[str, float]:
    """Pictures and annotations per second at one size."""
    scenes = [Scene.from_seeds(seed, seed) for seed in range(count)]
    actions: dict[str, Callable[[Scene], Any]] = {
        "picture": lambda scene: render(scene, size),
        "skeleton": lambda scene: skeleton(scene, size),
        "key_points": keypoints,
        "landmarks": landmarks,
        "segmentation": lambda scene: segmentation(scene, size),
        "dense_map": lambda scene: dense_map(scene, size),
    }
    found = {name: rate(action, scenes) for name, action in actions.items()}
    texts = [svg_text(scene, size) for scene in scenes]
    return found | {"renderer_alone": rate(lambda text: rasterize(text, size, size), texts)}


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the rates here")
    parser.add_argument("--count", type=int, default=200, help="pictures per measurement")
    arguments = parser.parse_args()
    results = {size: rates(size, arguments.count) for size in SIZES}
    table = Table("pixels", *results[SIZES[0]], title="per second of one core")
    for size, row in results.items():
        table.add_row(str(size), *(f"{value:.0f}" for value in row.values()))
    console = Console()
    console.print(table)
    met = results[64]["picture"] >= TARGET
    console.print(f"target at 64 pixels: {TARGET:.0f} pictures a second and core: {'met' if met else 'missed'}")
    if arguments.json:
        circumstances = measuring.circumstances(torch.device("cpu"))
        circumstances["versions"]["resvg_py"] = importlib.metadata.version("resvg_py")
        record = circumstances | {"count": arguments.count, "per_second": {str(k): v for k, v in results.items()}}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
