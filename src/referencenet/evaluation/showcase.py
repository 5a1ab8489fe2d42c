"""What the built-in systems do, to look at: some cases of each task beside the truth, as pictures and small films."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from referencenet.builtin.drawn import size_of
from referencenet.builtin.load import STEPS, WEIGHTS, load_observer
from referencenet.builtin.shipped import ShippedSystem, speech_model
from referencenet.builtin.start import is_shipped
from referencenet.evaluation.systems import task_of
from referencenet.evaluation.talk import Talking
from referencenet.evaluation.task import Drawing, Task
from referencenet.media.films import write_film
from referencenet.media.sheets import write_image
from referencenet.paperdoll.video import write_wav

HEIGHT, GAP = 128, 4
RATES: Mapping[str, int] = MappingProxyType({"animate": 12, "talk": 25, "turn": 5})
"""Frames a second; a task that is not here makes pictures."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """A part of the demonstration.

    Attributes:
        system: Whose weights are shipped.
        file: Name of what is written.
        told: What it shows.
        cases: How many people.
    """

    system: str
    file: str
    told: str
    cases: int = 2


SHOWS = (
    Show(system="animate_anyone", file="walking.gif", told="person, skeleton, drawn, truth"),
    Show(system="hallo", file="talking.mp4", told="portrait, drawn, truth; with the voice", cases=1),
    Show(system="idm_vton", file="dressing.png", told="person, garment, drawn, truth", cases=6),
    Show(system="diffportrait3d", file="turning.gif", told="portrait, somebody else from the camera, drawn, truth"),
    Show(system="flashface", file="faces.png", told="four faces, drawn after words, truth", cases=3),
    Show(system="parts2whole", file="parts.png", told="parts and a pose, drawn, truth", cases=3),
)


def shows(folder: Path = WEIGHTS) -> list[Show]:
    """Those whose weights are shipped."""
    return [show for show in SHOWS if is_shipped(show.system, folder=folder)]


def write_show(
    show: Show, out: Path, seed: int = 0, *, steps: int = STEPS, folder: Path = WEIGHTS,
    drawn: Callable[[int], None] = lambda _: None, record: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Draw a part of the demonstration and write it; where.

    Args:
        show: Which.
        out: Folder for it.
        seed: Chooses people and noise.
        steps: Denoising steps.
        folder: Of the built-in weights.
        drawn: Called with the number of people that were drawn.
        record: What decided it, to stand in it, see `media.records`.
    """
    small = ShippedSystem(show.system, folder)
    pipe = small.load()
    pipe.set_progress_bar_config(disable=True)
    task = task_of(show.system)(show.cases, seed, size_of(show.system), load_observer(folder=folder))
    speech = speech_model() if hasattr(pipe, "hear") else None
    drawing = Drawing(steps=steps, guidance=small.spec.scale, seed=seed, drawn=drawn, speech=speech, further=small.call)
    pictures, path = task.draw(pipe, drawing), out / show.file
    if task.name not in RATES:
        return write_image(Image.fromarray(sheet(task, pictures)), path, record)
    frames = [Image.fromarray(sheet(task, pictures, frame)) for frame in range(pictures.shape[1])]
    if not isinstance(task, Talking):
        return write_film(frames, path, RATES[task.name], settings=record)
    film = task.films[0]
    assert film.audio is not None  # a talking film has sound
    with TemporaryDirectory() as temporary:
        sound = write_wav(Path(temporary) / "voice.wav", film.audio, film.sample_rate)
        return write_film(frames[: len(film)], path, RATES[task.name], sound=sound, settings=record)


def sheet(task: Task, pictures: np.ndarray, frame: int | None = None) -> np.ndarray:
    """What was given, what was drawn and the truth, a row for each person, (H, W, 3) uint8; of a film a frame.

    Args:
        task: The cases.
        pictures: As `Task.draw` gives them.
        frame: Which.
    """
    rows: list[np.ndarray] = []
    for case in range(task.number):
        both = [all_of[case] if frame is None else all_of[case][frame] for all_of in (pictures, task.truth)]
        cells = [_cell(picture) for picture in [*task.given(case, frame or 0), *both]]
        rows.append(np.concatenate([part for cell in cells for part in (cell, _gap(cell))][:-1], axis=1))
    width = max(row.shape[1] for row in rows)  # faces are cut out in their own proportions
    return np.concatenate([_widened(row, width) for row in rows], axis=0)


def _widened(row: np.ndarray, width: int) -> np.ndarray:
    """A row with white at its right."""
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)


def _cell(picture: np.ndarray) -> np.ndarray:
    """A picture at the height of a row, its width even."""
    width = 2 * round(picture.shape[1] * HEIGHT / picture.shape[0] / 2)
    return np.asarray(Image.fromarray(picture).resize((width, HEIGHT), Image.Resampling.LANCZOS))


def _gap(cell: np.ndarray) -> np.ndarray:
    """White beside a cell."""
    return np.full((cell.shape[0], GAP, 3), 255, dtype=np.uint8)
