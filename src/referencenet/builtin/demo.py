"""The demonstration: the same prompt drawn without a reference, with each link, and by the trained ReferenceNet.

One sheet, a row for each character: reference | without | attention | AdaIN | both | ReferenceNet in a given pose |
truth, with the identity score (cosine similarity of the observer's embedding to the reference's) under each picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from referencenet.builtin.load import WEIGHTS, load, load_observer
from referencenet.builtin.training.benchmark import (
    draw_linked,
    draw_plain,
    draw_referencenet,
    held_out_cases,
)
from referencenet.builtin.training.data import to_tensors
from referencenet.builtin.training.vae import reconstruct
from referencenet.media.sheets import contact_sheet
from referencenet.methods.reference_only import NAMED_LINKS
from referencenet.paperdoll.render import render

HEADINGS = ("reference", "without", "attention", "AdaIN", "both", "ReferenceNet", "truth")
CELL = 160


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """What the demonstration made.

    Attributes:
        sheet: The picture sheet.
        scores: Per column the mean identity score.
        pictures: Per column the pictures, (characters, 64, 64, 3) uint8.
    """

    sheet: Image.Image
    scores: dict[str, float]
    pictures: dict[str, np.ndarray]


def demo(
    num_characters: int = 4,
    seed: int = 0,
    *,
    folder: Path = WEIGHTS,
    progress: Callable[[str], None] | None = None,
) -> Demonstration:
    """Draw the sheet, in a minute or two on two CPU cores.

    Args:
        num_characters: Rows; people whom the model has never seen.
        seed: Chooses people, poses and noise.
        folder: Of the weights.
        progress: Told which column is drawn next.

    Raises:
        ValueError: If `num_characters` is below 1.
    """
    if num_characters < 1:
        raise ValueError(f"num_characters is {num_characters}; expected at least 1.")
    told = progress or (lambda _: None)
    cases = held_out_cases(num_characters, seed)
    base, net, observer = load("base", folder=folder), load("referencenet", folder=folder), load_observer(folder=folder)
    for pipe in (base, net):
        pipe.set_progress_bar_config(disable=True)
    references = np.stack([render(case.reference) for case in cases])
    truth = np.stack([render(case.target) for case in cases])
    pictures = {"reference": references}
    told("without")
    pictures["without"] = draw_plain(base, cases, seed)
    for heading, links in zip(HEADINGS[2:5], NAMED_LINKS.values(), strict=True):
        told(heading)
        pictures[heading] = draw_linked(base, cases, references, links, seed)
    told("ReferenceNet")
    pictures["ReferenceNet"] = draw_referencenet(net, cases, references, seed)
    pictures["truth"] = reconstruct(base.vae, truth)
    with torch.no_grad():
        embeddings = {name: observer(to_tensors(part)).embedding for name, part in pictures.items()}
    found = {name: (part * embeddings["reference"]).sum(dim=1).tolist() for name, part in embeddings.items()}
    shown = [Image.fromarray(pictures[name][i]).resize((CELL, CELL), Image.Resampling.LANCZOS)
             for i in range(num_characters) for name in HEADINGS]  # fmt: skip
    captions = [f"{found[name][i]:.2f}" for i in range(num_characters) for name in HEADINGS]
    sheet = contact_sheet(shown, captions=captions, headings=HEADINGS, columns=len(HEADINGS), cell=(CELL, CELL))
    return Demonstration(sheet=sheet, scores={n: float(np.mean(v)) for n, v in found.items()}, pictures=pictures)
