"""Which task is each system's, at which size, and where the weights come from that are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from referencenet.builtin.drawn import drawn_spec, size_of
from referencenet.builtin.load import STEPS, load_observer
from referencenet.builtin.shipped import CALLS, speech_model
from referencenet.builtin.start import load_system
from referencenet.builtin.starts import STARTS
from referencenet.evaluation.animate import Animation, DenseAnimation, FaceAnimation
from referencenet.evaluation.compose import Composed
from referencenet.evaluation.face import FacePictures
from referencenet.evaluation.measure import Measured, measured
from referencenet.evaluation.talk import Talking
from referencenet.evaluation.task import Drawing, Task
from referencenet.evaluation.tryon import TryOn
from referencenet.evaluation.turn import Turned
from referencenet.telling import did_you_mean
from referencenet.training.export import export
from referencenet.training.recipes.index import recipe_of

TASKS: Mapping[str, type[Task]] = MappingProxyType({
    "animate_anyone": Animation,
    "aniportrait": FaceAnimation,
    "diffportrait3d": Turned,
    "emo": Talking,
    "flashface": FacePictures,
    "hallo": Talking,
    "idm_vton": TryOn,
    "magic_animate": DenseAnimation,
    "magicpose": Animation,
    "parts2whole": Composed,
    "stable_garment": TryOn,
})  # fmt: skip
"""System to what is measured of it: all that can be trained."""


def task_of(system: str) -> type[Task]:
    """What is measured of a system.

    Raises:
        ValueError: If it is none that can be trained.
    """
    if system not in TASKS:
        raise ValueError(
            f"there is no measurement of {system!r}; there are {', '.join(TASKS)}.{did_you_mean(system, TASKS)}"
        )
    return TASKS[system]


def load_measured(system: str, start: str | Path | None) -> Any:
    """The pipeline that is measured.

    Args:
        system: Registry name.
        start: A run of `refnet train`, whose last checkpoint is taken, or a folder that `save_pretrained` wrote; None:
            the built-in weights.

    Raises:
        FileNotFoundError: If there is no such folder, or no built-in weights of the system are shipped.
        ValueError: If it is another system's.
    """
    pipeline = recipe_of(system).pipeline
    if start is None:
        return load_system(system)
    folder = Path(start)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give a run of refnet train, or a saved pipeline.")
    if (folder / "model_index.json").is_file():
        return pipeline.from_pretrained(folder)
    with TemporaryDirectory() as temporary:
        written = export(folder, Path(temporary) / "pipeline", starts=STARTS)
        return pipeline.from_pretrained(written)


def benchmark_paperdoll(
    system: str,
    num_characters: int = 64,
    seed: int = 0,
    *,
    start: str | Path | None = None,
    steps: int = STEPS,
    guidance: float | None = None,
    begun: Callable[[str], None] = lambda _: None,
    drawn: Callable[[int], None] = lambda _: None,
) -> tuple[Task, Measured, Drawing]:
    """Measure a system on characters of the test split, whom nothing was trained on.

    Args:
        system: Registry name of a system that can be trained.
        num_characters: How many, at least 2.
        seed: Chooses characters, scenes and noise; the same seed gives the same numbers on one machine.
        start: See `load_measured`.
        steps: Denoising steps.
        guidance: Guidance scale; None: that of the small networks.
        begun: Told which way of drawing begins.
        drawn: Told the number of cases that were drawn.

    Returns:
        The cases with their truth, what came out, and how it was drawn.

    Raises:
        FileNotFoundError: If the weights are not there.
        ValueError: If there is no such system, or fewer than 2 characters are asked for.
    """
    kind = task_of(system)
    if num_characters < 2:
        raise ValueError(f"{num_characters} characters were asked for; at least 2, so that a reference can be wrong.")
    pipe = load_measured(system, start)
    pipe.spec = drawn_spec(system)
    pipe.set_progress_bar_config(disable=True)
    begun("drawing the truth")
    task = kind(num_characters, seed, size_of(system), load_observer())
    speech = speech_model() if hasattr(pipe, "hear") else None
    drawing = Drawing(
        steps=steps,
        guidance=pipe.spec.scale if guidance is None else guidance,
        seed=seed,
        drawn=drawn,
        speech=speech,
        further=CALLS.get(system, {}),
    )
    return task, measured(task, pipe, drawing, begun), drawing
