"""Kinds of links compared: the same neutral base, data, noise, steps and optimizer; only how the reference is read.

    python benchmarks/links_compared.py train-base [--folder FOLDER]
    python benchmarks/links_compared.py train [ARM ...] [--folder FOLDER]
    python benchmarks/links_compared.py measure [ARM ...] [--folder FOLDER]
    python benchmarks/links_compared.py page [--folder FOLDER] [--docs docs/results]

The arms stand in `link_arms.py`, how they are trained in `links_trained.py`, what is measured in `links_measured.py`.
Every command goes on where it was stopped, and does nothing where all is done.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from link_arms import ARMS
from links_measured import Unseen, costs, draw, errors, looked_at
from links_page import BASE, COSTS, REFERENCES, TRUTH, write_page
from links_trained import BUDGET, TINY, Place, train_arm, train_base

from referencenet.builtin.training.base import make_unet
from referencenet.builtin.training.vae import decode
from referencenet.media.files import written_whole
from referencenet.paperdoll.render import render
from referencenet.training.checkpoint import RunFolder

FOLDER = Path("runs/links")
QUARTERS = 4
"""Into which the losses of a training are summed up."""


def measure(place: Place, name: str, unseen: Unseen) -> None:
    """Measure an arm, the base or the truth, or do nothing where that is done: a JSON file, and pictures beside it."""
    file = place.measured / f"{name}.json"
    if file.is_file():
        return
    place.measured.mkdir(parents=True, exist_ok=True)
    references = np.stack([render(case.reference) for case in unseen.cases])
    found: dict[str, Any] = {}
    if name == TRUTH:
        pictures = decode(place.shipped.vae, unseen.targets)
        np.save(place.measured / f"{REFERENCES}.npy", references)
    else:
        arm = ARMS["none" if name == BASE else name]
        networks = {"unet": place.base().eval()} if name == BASE else place.trained(name)
        told = name == BASE
        found["errors"] = errors(arm, networks, unseen, told=told)
        losses = np.array([record["loss"] for record in RunFolder(place.run(name)).records()])
        found["losses"] = [round(float(part.mean()), 5) for part in np.array_split(losses, QUARTERS) if len(part)]
        pictures = draw(arm, networks, unseen, place.shipped.vae, told=told, steps=place.budget.drawing_steps)
    found |= looked_at(pictures, unseen, references)
    with written_whole(place.measured / f"{name}.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, pictures)
    with written_whole(file) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure_costs(place: Place, unseen: Unseen) -> None:
    """Count what arms cost; that needs no trained weights."""
    base = make_unet().eval().requires_grad_(False)
    found = {name: costs(arm, arm.networks(base), unseen) for name, arm in ARMS.items()}
    record = {"budget": asdict(place.budget), "arms": found}
    with written_whole(place.measured / f"{COSTS}.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do one of the four things."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("train-base", "train", "measure", "page"))
    parser.add_argument("arms", nargs="*", help=f"some of {', '.join(ARMS)}; none: all of them")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where data, checkpoints and measurements lie")
    parser.add_argument("--docs", type=Path, default=Path("docs/results"), help="where the page is written")
    parser.add_argument("--tiny", action="store_true", help="a few steps on a few pictures, to see that all of it runs")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.arms) - {*ARMS, *([BASE, TRUTH] if given.what == "measure" else [])})
    if unknown:
        parser.error(f"there is no arm {unknown[0]}; expected some of {', '.join(ARMS)}")
    torch.set_num_threads(1)
    place = Place(given.folder, TINY if given.tiny else BUDGET)
    if given.what == "train-base":
        train_base(place)
    elif given.what == "train":
        for name in given.arms or ARMS:
            train_arm(place, name)
    elif given.what == "measure":
        unseen = Unseen.of(place.shipped, place.budget.unseen)
        measure_costs(place, unseen)
        for name in given.arms or [TRUTH, *place.finished()]:
            measure(place, name, unseen)
    else:
        write_page(place.measured, given.docs)


if __name__ == "__main__":
    main()
