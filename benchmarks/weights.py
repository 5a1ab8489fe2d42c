"""Counts the weights of every system at its published size, on PyTorch's meta device: `python benchmarks/weights.py`.

Nothing is loaded or drawn. Prints a Markdown table: all weights in half precision; with model offloading, where one
network at a time is on the accelerator, the largest one; and with the denoiser and its reader alone, when the reference
was written before.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from torch import nn

from referencenet.methods.systems import pipelines
from referencenet.training.full_size import full_pipeline

GIB = 2**30


def gibibytes(network: nn.Module) -> float:
    """Weights in half precision."""
    return 2 * sum(parameter.numel() for parameter in network.parameters()) / GIB


def counted(pipeline: Any) -> dict[str, float]:
    """Network to its weights in GiB of half precision."""
    parts = full_pipeline(pipeline).components
    return {name: round(gibibytes(part), 3) for name, part in parts.items() if isinstance(part, nn.Module)}


def main() -> None:
    """Print the table; with a path, write the numbers there too."""
    rows: dict[str, dict[str, float]] = {}
    print("| system | all weights | largest network | which |\n|---|---|---|---|")
    for name, pipeline in pipelines().items():
        try:
            found = counted(pipeline)
        except (ValueError, KeyError, TypeError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        largest = max(found, key=lambda part: found[part])
        rows[name] = found
        print(f"| `{name}` | {sum(found.values()):.1f} GiB | {found[largest]:.1f} GiB | {largest} |")
    for path in sys.argv[1:]:
        Path(path).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
