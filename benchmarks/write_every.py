"""Reference-Only that writes at every k-th step: what it costs and what it leaves of the reference.

    python benchmarks/write_every.py [--characters 32] [--json FILE] [--clock process]

The built-in model draws characters that nothing was trained on, by training-free attention to a picture of them, as
`refnet benchmark builtin` does, with `reference(write_every=k)` for k = 1, 2, 4, 8. Reported per k: `gap_closed`, the
share of the way from no reference (0) to the rendered truth (1) in the observer's identity; `time_ratio`, the median
over the characters of the seconds of a picture over those with k = 1; `writes` per picture of twenty steps;
`difference`, the mean ||pictures - pictures of k = 1|| / ||pictures of k = 1||. The standard error of a gap is that of
its difference to k = 1, character by character.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from trained_links import CLOCKS

from referencenet.builtin.load import STEPS, load, load_observer
from referencenet.builtin.training.benchmark import draw_linked, draw_plain, held_out_cases
from referencenet.builtin.training.data import to_tensors
from referencenet.builtin.training.vae import reconstruct
from referencenet.methods.reference_only import NAMED_LINKS
from referencenet.paperdoll.render import render

EVERY = (1, 2, 4, 8)
KEYS = ("gap_closed", "standard_error", "time_ratio", "writes", "difference")


@torch.no_grad()
def measure(num_characters: int, seed: int, link: str, clock: Callable[[], float]) -> dict[str, Any]:
    """Everything that is reported, by k."""
    cases = held_out_cases(num_characters, seed)
    pipe, observer = load("base"), load_observer()
    pipe.set_progress_bar_config(disable=True)
    shown = np.stack([render(case.reference) for case in cases])
    wanted = observer(to_tensors(shown)).embedding

    def identity(pictures: np.ndarray) -> Tensor:
        return (observer(to_tensors(pictures)).embedding * wanted).sum(dim=1)

    plain = float(identity(draw_plain(pipe, cases, seed)).mean())
    truth = float(identity(reconstruct(pipe.vae, np.stack([render(case.target) for case in cases]))).mean())
    drawn, seconds = draw(pipe, cases, shown, link, seed, clock)
    scores = {every: (identity(np.stack(pictures)) - plain) / (truth - plain) for every, pictures in drawn.items()}
    first = np.stack(drawn[1]).astype(np.float64)
    result: dict[str, Any] = {}
    for every, pictures in drawn.items():
        changes = [np.linalg.norm(one - own) / np.linalg.norm(own) for one, own in zip(pictures, first, strict=True)]
        result[str(every)] = {
            "gap_closed": float(scores[every].mean()),
            "standard_error": float((scores[every] - scores[1]).std() / num_characters**0.5),
            "time_ratio": measuring.median_ratio(seconds[every], seconds[1]),
            "writes": -(-STEPS // every),
            "difference": float(np.mean(changes)),
        }
    return {"every": result, "identity": {"none": plain, "truth": truth}, "details": {"seconds": seconds}}


def draw(
    pipe: Any, cases: Sequence[Any], shown: np.ndarray, link: str, seed: int, clock: Callable[[], float]
) -> tuple[dict[int, list[np.ndarray]], dict[int, list[float]]]:
    """Pictures (64, 64, 3) and seconds by k; every character with each k in turn, after one that is not counted."""
    drawn: dict[int, list[np.ndarray]] = {every: [] for every in EVERY}
    seconds: dict[int, list[float]] = {every: [] for every in EVERY}
    draw_linked(pipe, cases[:1], shown[:1], NAMED_LINKS[link], seed)
    for i in range(len(cases)):
        for every in EVERY:
            start = clock()
            one = draw_linked(pipe, cases[i : i + 1], shown[i : i + 1], NAMED_LINKS[link], seed * 1009 + i, every)
            seconds[every].append(clock() - start)
            drawn[every].append(one[0])
    return drawn, seconds


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--link", choices=NAMED_LINKS, default="attention")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="process: the CPU time, on a busy machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    options = parser.parse_args()
    result = measure(options.characters, options.seed, options.link, CLOCKS[options.clock])
    table = Table("k", *KEYS)
    for every, found in result["every"].items():
        table.add_row(every, *(f"{found[key]:.3g}" for key in KEYS))
    Console().print(table)
    if options.json is not None:
        document = measuring.circumstances(torch.device("cpu")) | {
            key: getattr(options, key) for key in ("characters", "seed", "link", "clock")
        }
        options.json.write_text(json.dumps({**document, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
