"""A training from its order to its end: the pipeline that it begins with, its data and its stages.

A run's folder has one folder per stage, and `run.json`, which says of what system it is and what it began with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.published import PublishedSet
from referencenet.checkpoints.start import Start, read_start
from referencenet.inputs import read_json
from referencenet.media.files import written_whole
from referencenet.methods.tiny import tiny_pipeline
from referencenet.training.checkpoint import RunFolder
from referencenet.training.config import RunConfig, meant, read_config, read_tables
from referencenet.training.data.layouts.index import open_dataset
from referencenet.training.data.sampler import batches_of
from referencenet.training.estimate import estimate
from referencenet.training.full_size import full_pipeline
from referencenet.training.loop import fit
from referencenet.training.memory import in_single
from referencenet.training.parallel import join, rank, world_size
from referencenet.training.recipes.index import CONFIGURATIONS, configuration, recipe_of
from referencenet.training.spread import refuse_what_is_whole

Starts = Mapping[str, Callable[[str], Any]]
"""Names that stand in the place of a folder to begin with, and what makes a system's pipeline of them."""

STARTS: Starts = MappingProxyType({"tiny": lambda system: tiny_pipeline(recipe_of(system).pipeline)})
"""`tiny`: narrow networks of random weights, where there are no others."""

HELD_OUT = 4
"""Samples of a validation, at least."""

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What shall be trained.

    Attributes:
        system: Registry name.
        config: A TOML file, or the name of a shipped configuration.
        out: Folder of the run.
        data: Folder of the data set.
        start: Folder of weights, released or saved, to begin with, or a name of `starts`.
        base: Folder of the base model, where released files need one.
        stage: Which; None: all of the file's, in order.
        changes: `key=value` each.
        resume: Whether a run that is there goes on; without it, it is refused.
        device: Such as cpu or cuda.
        quiet: No progress bar.
        starts: What else than a folder may be begun with.
    """

    system: str
    config: str | Path
    out: Path
    data: Path | None = None
    start: str = ""
    base: str | None = None
    stage: str | None = None
    changes: tuple[str, ...] = ()
    resume: bool = False
    device: str = "cpu"
    quiet: bool = False
    starts: Starts = field(default_factory=lambda: STARTS)
    stages: Mapping[str, RunConfig] = field(init=False)

    def __post_init__(self) -> None:
        """Read the configuration.

        Raises:
            ValueError: If there is no such system, stage or configuration.
        """
        recipe = recipe_of(self.system)
        named = str(self.config) in CONFIGURATIONS
        path = configuration(self.system, str(self.config)) if named else Path(self.config)
        names = [self.stage] if self.stage else list(read_tables(path))
        for name in names:
            if name not in recipe.stages:
                raise ValueError(f"{self.system} has no stage {name!r}{meant(name, recipe.stages)}")
        object.__setattr__(self, "stages", {name: read_config(path, name, self.changes) for name in names})


def train(order: Order, tell: Tell = lambda _: None) -> None:
    """Train the order's stages, one after the other, each from where the last one ended.

    Args:
        order: What.
        tell: Told what begins, and what was left out of the data.

    Raises:
        FileExistsError: If there is a run already, and it shall not go on.
        FileNotFoundError: If there are no data.
        ValueError: If the run that is there is of another system, or a stage cannot be spread over processes that are
            launched so.
    """
    _check_folder(order)
    for config in order.stages.values():
        refuse_what_is_whole(config)
    if order.data is None:
        raise FileNotFoundError("no data set was given; give its folder with --data.")
    recipe_class, processes = recipe_of(order.system), join(order.device)
    all_found = [_samples(order, config, name, config.data.split) for name, config in order.stages.items()]
    for name, found in zip(order.stages, all_found, strict=True):
        tell(f"{name}: {found}")
    pipe = start_pipeline(order.system, order.start, order.base, order.starts, tell).to(processes.device)
    if rank() == 0:
        _write_order(order)
        _write_left_out(order, dict(zip(order.stages, all_found, strict=True)))
    for (name, config), found in zip(order.stages.items(), all_found, strict=True):
        recipe = recipe_class(pipe, name, config)
        recipe.hold_out(_held_out(order, config, name, tell))
        coming = batches_of(recipe, found.samples, config, rank(), world_size())
        fit(recipe, order.out / name, config, batches=coming, quiet=order.quiet)
        for module in recipe.modules.values():
            module.eval()
        in_single(pipe)


def plan(order: Order) -> str:
    """What the order would train, in words: parameters, and a GPU's memory, stage by stage; nothing is trained.

    Without weights to begin with, the networks are those of the published size.
    """
    recipe_class, told = recipe_of(order.system), []
    for name, config in order.stages.items():
        begun = start_pipeline(order.system, order.start, order.base, order.starts) if order.start else None
        pipe = full_pipeline(recipe_class.pipeline) if begun is None else begun.to("meta")
        recipe = recipe_class(pipe, name, config)
        stage, optimizer = recipe.stage, config.optimizer
        width, height = recipe.size
        frames = f", {recipe.frames} frames" if recipe.frames > 1 else ""
        drops = ", ".join(f"{key} {drop.rate:g} per {drop.per}" for key, drop in stage.drops.items()) or "none"
        told += [
            f"{name}: {config.steps} steps of {config.accumulate} x {config.batch} at {width} x {height}{frames}, "
            f"{config.precision}, {optimizer.name} {optimizer.learning_rate:g}",
            f"source: {stage.source}",
            f"trained: {', '.join(config.lora.targets if config.lora.rank else config.train or stage.train)}",
            f"frozen of it: {', '.join(() if config.train else stage.freeze) or 'nothing'}",
            f"dropped: {drops}",
            str(estimate(recipe, config)),
            "",
        ]
    return "\n".join(told).rstrip()


def start_pipeline(
    system: str, start: str, base: str | None = None, starts: Starts = STARTS, tell: Tell = lambda _: None
) -> Any:
    """The pipeline that a run begins with, in single precision.

    Args:
        system: Registry name.
        start: A folder that `save_pretrained` wrote, one of released files, one of the files that the published
            training starts from, or a name of `starts`.
        base: Of the base model, where files need one.
        starts: What else than a folder there is.
        tell: Told what the networks of a starting point are made of.

    Raises:
        FileNotFoundError: If there is no such folder, or it lacks a file.
        ValueError: If none was named, or a file does not fit.
    """
    recipe = recipe_of(system)
    pipeline, begun = recipe.pipeline, recipe.start
    starts = starts if recipe.has_built_in else {name: made for name, made in starts.items() if name in STARTS}
    if not start:
        raise ValueError(
            "nothing to begin with was named; give --from a folder of weights, released or saved, or one of the names "
            f"{', '.join(starts)}."
        )
    if start in starts:
        return starts[start](system)
    folder = Path(start)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder} to begin with; give one that holds weights, or {', '.join(starts)}."
        )
    if (folder / "model_index.json").is_file():
        return pipeline.from_pretrained(folder, dtype=torch.float32)
    try:
        if begun is not None and not pipeline.published.is_in(folder):
            if not begun.is_in(folder, base):
                raise FileNotFoundError(_lacks(folder, pipeline.published, begun))
            parts = read_start(begun, folder, base, tell=tell)
            return pipeline(**{"scheduler": pipeline.spec.scheduler(), **parts}).to(dtype=torch.float32)
        return pipeline.from_published(folder, base=base, dtype=torch.float32)
    except CheckpointError as error:
        raise ValueError(f"{folder}: {error}") from error


def _lacks(folder: Path, published: PublishedSet, begun: Start) -> str:
    """What a folder would hold that a run could begin with."""
    released, files = (", ".join(dict.fromkeys(f.path for f in s.files)) for s in (published, begun.published))
    return (
        f"{folder} holds nothing to begin with: neither released files ({released}; {published.source}) nor those that "
        f"training starts from ({files + ' and ' if files else ''}the base model in {begun.base_folder} or --base; "
        f"{begun.published.source}, {begun.base_source})."
    )


def read_order(run: Path) -> dict[str, Any]:
    """What `run.json` says.

    Raises:
        FileNotFoundError: If the folder is no run.
    """
    path = run / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run} is not a run of `refnet train`: it has no run.json.")
    return read_json(path, "what decides a run")


def _check_folder(order: Order) -> None:
    """Refuse a folder with another run, or with one that shall not go on."""
    if not (order.out / "run.json").is_file():
        return
    told = read_order(order.out)
    if told["system"] != order.system:
        raise ValueError(f"{order.out} is a run of {told['system']}; give another folder.")
    if not order.resume and any(RunFolder(order.out / name).checkpoints() for name in order.stages):
        raise FileExistsError(f"{order.out} holds a run already; give --resume to go on, or another folder.")


def _write_order(order: Order) -> None:
    """Write `run.json`: of stages that were trained before, too."""
    path = order.out / "run.json"
    before: Mapping[str, Any] = read_order(order.out)["stages"] if path.is_file() else {}
    stages = {**before, **{name: asdict(config) for name, config in order.stages.items()}}
    start = order.start if order.start in order.starts else _absolute(order.start)
    told = {"system": order.system, "start": start, "base": order.base and _absolute(order.base), "stages": stages}
    order.out.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _absolute(folder: str) -> str:
    """A folder as it is found from anywhere; what is no folder stays."""
    return str(Path(folder).resolve()) if Path(folder).is_dir() else folder


def _write_left_out(order: Order, found: Mapping[str, Any]) -> None:
    """Write `left_out.json`, where samples were: every one by its stage and name, with what it lacks."""
    left_out = {name: each.left_out for name, each in found.items() if each.left_out}
    if left_out:
        with written_whole(order.out / "left_out.json") as temporary:
            temporary.write_text(json.dumps(left_out, indent=2) + "\n", encoding="utf-8")


def _samples(order: Order, config: RunConfig, stage: str, split: str) -> Any:
    """A stage's samples of a split."""
    recipe = recipe_of(order.system)
    needs = recipe.stages[stage].needs
    assert order.data is not None
    found = open_dataset(order.data, config.data.layout or recipe.layout, split, needs)
    if config.data.samples:
        return type(found)(samples=found.samples[: config.data.samples], left_out=found.left_out)
    return found


def _held_out(order: Order, config: RunConfig, stage: str, tell: Tell) -> Sequence[Any]:
    """Samples of the split that is not learned from; none where the data set has none, or nothing is validated."""
    if not (config.validate_every and config.data.validation):
        return ()
    try:
        found = _samples(order, config, stage, config.data.validation)
    except FileNotFoundError as error:  # what is learned from was found, so that the layout is right
        tell(f"{stage}: nothing is held out to validate with ({error})")
        return ()
    return found.samples[: max(HELD_OUT, config.batch)]
