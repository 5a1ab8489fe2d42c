"""The page of the comparison of links, made of what was measured: `links.md`, `links.json` and `links.webp`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from link_arms import ARMS
from PIL import Image

from referencenet.media.files import written_whole
from referencenet.media.sheets import contact_sheet, write_image

BASE, TRUTH, REFERENCES, COSTS = "base", "truth", "references", "costs"
"""Beside the arms: the base told in words who it is, the truth through the autoencoder, references, and costs."""
BESIDE = {BASE: "told", TRUTH: "truth, through the autoencoder"}
"""What is measured beside the arms, and its title."""
SHOWN = 8
"""Characters in the picture."""
COMPARED = ("900", "700", "500")
"""Timesteps at which cut and wrong references stand in the page."""
CELL = 96
"""Pixels of a cell of the picture."""

INTRODUCTION = """# Kinds of links compared

*Made from `links.json` by `python benchmarks/links_compared.py page`.*

Published systems that read a reference differ in the link, and also in base, data, size and training. Here only the
link differs. One base was trained from captions alone: it never saw two pictures of one character, and its attention
was not taught where to look. Each kind of link then learned from that base for {steps} steps of {rows} pictures, which
read {references} references. All arms see the same pairs, words, noise and drops in the same order, with one optimizer
and one seed. The writer is a copy of the base and is trained in all arms. New layers start as copies of the layers
beside them and add nothing at first. The words tell pose, view, expression and place, not who it is.

- Attention is linked in the middle and up blocks. *AdaIN* renormalises the blocks that Reference-AdaIN does.
- *Replace* reads in the place of the attention to words, so its words are heard in the down blocks alone.
- *Masked concat* reads the figure alone: masked inputs are zeros and stay in the softmax.
- *Image prompt alone* reads 16 tokens that a resampler makes of the writer's middle block, beside the words.
- *None* was trained for as many steps without a reference. *Told* is the base itself, told in words who it is.

The base learned for {base_steps} steps of {base_rows} pictures of {characters} characters, 64 pixels. Arms are measured
on {unseen} characters of the test split. Each has one reference, a whole figure from the front; wanted is the same
person in another pose and place.
"""

READING = """## How far this goes

The networks are small, the training is short, and there is one seed: arms whose numbers differ by about a standard
error may change places with another seed. The numbers tell how far each kind gets from the same start within the same
steps. They do not tell what large networks reach at the end of a long training.
"""


def write_page(measured: Path, docs: Path) -> Path:
    """Write the page and what it shows, of what has been measured so far.

    Args:
        measured: Folder of the measurements.
        docs: Folder of the page.

    Raises:
        FileNotFoundError: If not even the costs are measured.
    """
    found = {name: _read(measured / f"{name}.json") for name in (COSTS, *ARMS, BASE, TRUTH)}
    known: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
    if COSTS not in known:
        raise FileNotFoundError(f"{measured} has no {COSTS}.json; run `links_compared.py measure`.")
    docs.mkdir(parents=True, exist_ok=True)
    if TRUTH in known:
        write_image(_sheet(measured, known), docs / "links.webp")
    _write(docs / "links.json", json.dumps(known, indent=1) + "\n")
    page = docs / "links.md"
    _write(page, text_of(known))
    return page


def text_of(known: Mapping[str, Any]) -> str:
    """The page's text, of what `links.json` holds."""
    arms = {name: known[name] for name in ARMS if name in known}
    budget = known[COSTS]["budget"]
    rows = budget["references"] * budget["readers"]
    parts = [INTRODUCTION.format(**budget, rows=rows)]
    lacking = [ARMS[name].title for name in ARMS if name not in known]
    if lacking:
        parts.append(f"**Unfinished: not trained or not measured yet: {'; '.join(lacking)}.**\n")
    rules = [(arm.title, arm.rule, arm.example) for arm in ARMS.values()]
    parts.append(_table(("kind", "what a site computes", "as in"), rules))
    if {"none", TRUTH} <= set(known):
        parts += ["## Who it is\n", _identity(known, arms)]
    if TRUTH in known:
        parts.append("![Rows of characters, columns of links](links.webp)\n")
    if arms:
        parts += ["## Error by noise level\n", _levels(known, arms)]
    if set(arms) - {"none"}:
        parts.append(_cut(arms))
    parts += ["## What it costs\n", _costs(known[COSTS]["arms"])]
    if arms:
        parts += ["## How it was learned\n", _learned(arms)]
    return "\n".join([*parts, READING])


def _identity(known: Mapping[str, Any], arms: Mapping[str, Any]) -> str:
    floor, ceiling = known["none"]["identity"], known[TRUTH]["identity"]
    rows: list[Sequence[object]] = []
    named = {ARMS[name].title: value for name, value in arms.items()}
    named |= {title: known[name] for name, title in BESIDE.items() if name in known}
    for title, value in named.items():
        gap = (value["identity"] - floor) / (ceiling - floor)
        identity = f"{value['identity']:.3f} ± {value['identity_error']:.3f}"
        rows.append((title, identity, f"{gap:.2f}", f"{value['person']:.2f}", f"{value['told']:.2f}"))
    text = (
        "Pictures drawn in {steps} steps of DDIM, as the observer sees them. Identity: cosine similarity of its\n"
        "embedding to that of the reference picture, with its standard error. Gap closed: share of the way from\n"
        "*none* to the truth. Person: share of the aspects of hair and clothes that are as they should be. Words: the\n"
        "same of pose, view, expression and place, which the words tell.\n"
    ).format(steps=known[COSTS]["budget"]["drawing_steps"])
    return f"{text}\n{_table(('kind', 'identity', 'gap closed', 'person', 'words'), rows)}"


def _levels(known: Mapping[str, Any], arms: Mapping[str, Any]) -> str:
    named = {ARMS[name].title: value for name, value in arms.items()}
    named |= {BESIDE[BASE]: known[BASE]} if BASE in known else {}
    levels = list(next(iter(arms.values()))["errors"]["linked"]["figure"])
    rows = [
        (title, *(f"{value['errors']['linked']['figure'][t]:.3f}" for t in levels)) for title, value in named.items()
    ]
    text = (
        "Mean squared error of the guessed clean latents where the figure stands, at six of 1000 timesteps, linked.\n"
    )
    return f"{text}\n{_table(('kind', *(f't = {t}' for t in levels)), rows)}"


def _cut(arms: Mapping[str, Any]) -> str:
    rows = [
        (
            ARMS[name].title,
            *(" / ".join(f"{value['errors'][way]['figure'][t]:.3f}" for way in value["errors"]) for t in COMPARED),
        )
        for name, value in arms.items()
        if name != "none"
    ]
    text = "The same network linked / with its link cut / with the reference of somebody else:\n"
    return f"{text}\n{_table(('kind', *(f't = {t}' for t in COMPARED)), rows)}"


def _costs(arms: Mapping[str, Any]) -> str:
    plain, base = arms["none"]["flops"]["step"], arms["none"]["parameters"]["unet"]
    rows: list[Sequence[object]] = []
    for name, value in arms.items():
        parameters, flops = value["parameters"], value["flops"]
        beside = parameters.get("writer", 0) + parameters.get("resampler", 0)
        rows.append((
            ARMS[name].title,
            f"{(parameters['unet'] - base) / 1e6:+.2f}",
            f"{beside / 1e6:.2f}",
            f"{flops['once'] / 1e9:.2f}",
            f"{flops['step'] / 1e9:.2f}",
            f"{flops['step'] / plain - 1:+.1%}",
        ))  # fmt: skip
    heads = (
        "kind", "denoiser, M more", "writer, resampler, M", "once per reference, GFLOP",
        "step, GFLOP", "step beside none",
    )  # fmt: skip
    text = (
        f"Parameters in millions: what the denoiser has more than the base's {base / 1e6:.2f}, and what is beside the\n"
        "denoiser; of the writer, what it uses up to its last site. Operations are of one picture; once per reference\n"
        "runs the writer, and keys and values of what it left are made.\n"
    )
    return f"{text}\n{_table(heads, rows)}"


def _learned(arms: Mapping[str, Any]) -> str:
    rows = [(ARMS[name].title, *(f"{loss:.4f}" for loss in value["losses"])) for name, value in arms.items()]
    heads = ("kind", *("first", "second", "third", "last")[: len(rows[0]) - 1])
    text = (
        "Loss of the training, mean over every fifth batch of each quarter of the steps; figures and upper garments\n"
        "count more in it. All arms see the same batches.\n"
    )
    return f"{text}\n{_table(heads, rows)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def _sheet(measured: Path, known: Mapping[str, Any]) -> Image.Image:
    """Characters below each other, references, links and truth beside each other."""
    columns = {"reference": REFERENCES} | {ARMS[name].title: name for name in ARMS if name in known}
    columns |= {title.partition(",")[0]: name for name, title in BESIDE.items() if name in known}
    drawn = {heading: np.load(measured / f"{name}.npy") for heading, name in columns.items()}
    number = min(SHOWN, *(len(pictures) for pictures in drawn.values()))
    cells = [Image.fromarray(pictures[row]) for row in range(number) for pictures in drawn.values()]
    return contact_sheet(cells, headings=list(columns), columns=len(columns), cell=(CELL, CELL), gutter=6, font_size=12)


def _read(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _write(file: Path, text: str) -> None:
    with written_whole(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
