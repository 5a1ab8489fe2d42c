"""What a run is, as values: read from TOML, changed by `--set`, refused where a word is not known.

A file has one table per stage, and in it the fields of `RunConfig`; tables inside are its parts:

    [video]
    steps = 10000
    [video.optimizer]
    learning_rate = 1e-5
"""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from referencenet.inputs import read_text
from referencenet.telling import nearest

LARGEST = 1e300
"""Of a number: more is none."""

Precision = Literal["fp32", "bf16", "fp16"]
OptimizerName = Literal["adamw", "adamw8bit", "sgd"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How weights are updated.

    Attributes:
        name: `adamw`; `adamw8bit`, whose state has 8 bits (bitsandbytes, on a GPU); `sgd`, without a state.
        learning_rate: After the warm-up.
        warmup: Steps of linear rise.
        cooldown: Share of the steps, at the end, of linear fall to zero; 0: the rate stays.
        betas: Of Adam's two averages.
        weight_decay: Share of the learning rate by which weights shrink in a step.
        epsilon: Of Adam.
        clip: Largest norm of all gradients together; 0: they are not clipped.
        muon: Names of components whose matrices and convolutions Muon updates; the named optimizer has the rest.
    """

    name: OptimizerName = "adamw"
    learning_rate: float = 1e-5
    warmup: int = 1
    cooldown: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    epsilon: float = 1e-8
    clip: float = 1.0
    muon: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError if a number lies outside its range."""
        if self.learning_rate <= 0:
            raise ValueError(f"optimizer.learning_rate is {self.learning_rate}; expected a number above 0, as 1e-5.")
        if not 0 <= self.cooldown <= 1:
            raise ValueError(f"optimizer.cooldown is {self.cooldown}; expected a share of the steps, from 0 to 1.")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, counted from 0, in a run of so many steps."""
        falling = max(1.0, self.cooldown * steps)
        return self.learning_rate * min((step + 1) / max(1, self.warmup), 1.0, (steps - step) / falling)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read of a data set.

    Attributes:
        layout: Of the folder; empty: the one that the system was trained on.
        split: Which part is learned from.
        validation: Which part is held out.
        size: Width and height in pixels; (0, 0): those of the system.
        frames: Of a clip; 0: as many as the stage is published with.
        stride: Frames of the film from one of the clip's to the next; a shorter film is squeezed.
        strides: In its place several, of which each clip draws one.
        margin: Least distance in frames between a picture and its reference, where the film is long enough.
        crop: Least share of the picture's area that a random crop keeps; 0: pictures are stretched to the size.
        augment: Probability of each of the system's own changes of a picture, such as mirroring.
        samples: Only so many; 0: all.
        workers: Processes that read.
    """

    layout: str = ""
    split: str = "train"
    validation: str = "test"
    size: tuple[int, int] = (0, 0)
    frames: int = 0
    stride: int = 4
    strides: tuple[int, ...] = ()
    margin: int = 30
    crop: float = 0.0
    augment: float = 0.0
    samples: int = 0
    workers: int = 2


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank weights beside frozen ones (Hu et al. 2021), by PEFT.

    Attributes:
        rank: Of the update; 0: none.
        alpha: The update counts alpha / rank.
        targets: Regular expressions of the layers' names, `component.path`.
    """

    rank: int = 0
    alpha: float = 1.0
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A stage's run.

    Attributes:
        steps: Optimizer steps of the whole stage.
        batch: Samples that a process learns from at once.
        accumulate: Batches whose gradients make one step.
        seed: Of everything random.
        average: Decay of the weights' moving average; 0: there is none.
        precision: What is computed in; weights that are trained are kept in single precision.
        frozen: What weights that are not trained are kept in.
        checkpointing: Whether what lies inside of blocks is computed again instead of kept.
        predicts: What the denoiser learns to predict, in the place of the system's: `v_prediction`, with zero terminal
            SNR, for weights that do so; empty: as the system was trained.
        mask_weight: How much the error inside a sample's mask counts, of systems that
            have one: what a try-on paints, a face, a talking mouth; 1: as elsewhere.
        cache: Where latents, words' and pictures' states of frozen encoders are kept: `none`, `memory`, or a folder.
        cache_gib: How much is kept at most, in each process.
        train: Patterns in the place of the stage's own: regular expressions of `component.parameter`; empty: its own.
        drops: Name of a drop to its rate, in the place of the stage's own.
        save_every: Steps between checkpoints.
        keep: Checkpoints that stay; older ones are removed.
        validate_every: Steps between validations; 0: none.
        log_every: Steps between records.
        trackers: Beside `log.jsonl`: names that accelerate knows, such as tensorboard.
        optimizer: How weights are updated.
        data: What is read.
        lora: Low-rank weights instead of the stage's own.
    """

    steps: int
    batch: int = 1
    accumulate: int = 1
    seed: int = 0
    average: float = 0.0
    precision: Precision = "fp32"
    frozen: Precision = "fp32"
    checkpointing: bool = False
    predicts: Literal["", "v_prediction"] = ""
    mask_weight: float = 1.0
    cache: str = "none"
    cache_gib: float = 2.0
    train: tuple[str, ...] = ()
    drops: Mapping[str, float] = field(default_factory=dict[str, float])
    save_every: int = 500
    keep: int = 2
    validate_every: int = 500
    log_every: int = 50
    trackers: tuple[str, ...] = ()
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    lora: LoraSettings = field(default_factory=LoraSettings)

    def __post_init__(self) -> None:
        """Raises ValueError if a number lies outside its range."""
        for name in ("steps", "batch", "accumulate", "save_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1.")
        if not 0 <= self.average < 1:
            raise ValueError(f"average is {self.average}; expected a decay in [0, 1), such as 0.999.")
        for name in ("cache_gib", "mask_weight"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number above 0.")
        for name, rate in self.drops.items():
            if not 0 <= rate <= 1:
                raise ValueError(f"drops.{name} is {rate}; expected a rate from 0 to 1.")


def read_config(path: str | Path, stage: str, changes: Sequence[str] = ()) -> RunConfig:
    """Read a stage's run from a file.

    Args:
        path: A TOML file with a table for each stage.
        stage: Which.
        changes: `key=value` each, as in `optimizer.learning_rate=2e-5`; values are written as in TOML, and a bare word
            is a string.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not TOML, lacks the stage, or a key or a value is not known.
    """
    tables = read_tables(path)
    if stage not in tables:
        raise ValueError(f"{path} has no stage {stage!r}; it has {', '.join(tables) or 'none'}.")
    table = tables[stage]
    for change in changes:
        _change(table, change)
    return made(RunConfig, table, str(path), stage)


def read_tables(path: str | Path) -> dict[str, dict[str, Any]]:
    """A file's tables, one per stage.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not TOML, or holds something outside of stages.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration {path}; give a TOML file with a table for each stage.")
    text = read_text(path, "a TOML file with a table for each stage")
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {' '.join(str(error).split())[:200]}.") from error
    loose = [key for key, value in tables.items() if not isinstance(value, dict)]
    if loose:
        raise ValueError(f"{path} has {loose[0]!r} outside of a stage; write it below [stage], as in [image].")
    return tables


def made(kind: Any, table: Mapping[str, Any], source: str, place: str = "") -> Any:
    """A configuration value of a table.

    Args:
        kind: A dataclass.
        table: Its fields.
        source: Where the table stands, for errors.
        place: Of the table, in dots.

    Raises:
        ValueError: If a key is unknown, a value is of the wrong kind, or one is missing.
    """
    hints = typing.get_type_hints(kind)
    unknown = [key for key in table if key not in hints]
    if unknown:
        raise ValueError(f"{source} has an unknown key {_dotted(place, unknown[0])!r}{meant(unknown[0], hints)}")
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in table]
    if missing:
        raise ValueError(f"{source} lacks {_dotted(place, missing[0])!r}; give it a value.")
    values = {key: _value(hints[key], value, source, _dotted(place, key)) for key, value in table.items()}
    return kind(**values)


def meant(given: str, known: Iterable[str]) -> str:
    """What may have been meant, as the end of a sentence."""
    known = list(known)
    near = nearest(given, known)
    return f"; did you mean {near!r}?" if near is not None else f"; there are {', '.join(known)}."


def _value(hint: Any, value: Any, source: str, place: str) -> Any:
    """A value of the kind that a field has."""
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{source}: {place} is {value!r}; expected a table, [{place}].")
        return made(hint, value, source, place)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in parts:
            raise ValueError(f"{source}: {place} is {value!r}{meant(str(value), parts)}")
        return value
    if origin is tuple:
        return _several(parts, value, source, place)
    if origin is not None:  # a mapping of texts
        if not isinstance(value, Mapping):
            raise ValueError(f"{source}: {place} is {value!r}; expected a table, [{place}].")
        return {str(key): _value(parts[1], each, source, _dotted(place, key)) for key, each in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, source, place)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise ValueError(f"{source}: {place} is {value!r}; expected {names[hint]}.")
    return value


def _finite(value: float, source: str, place: str) -> float:
    """A number that is one."""
    if not abs(value) <= LARGEST:
        raise ValueError(f"{source}: {place} is {value if isinstance(value, float) else 'enormous'}; expected a finite "
                         "number.")  # fmt: skip
    return float(value)


def _several(parts: tuple[Any, ...], value: Any, source: str, place: str) -> tuple[Any, ...]:
    """A list of values of one kind."""
    if not isinstance(value, list | tuple) or (parts[-1] is not ... and len(value) != len(parts)):
        wanted = "numbers" if parts[0] in (int, float) else "texts"
        count = "" if parts[-1] is ... else f" of {len(parts)}"
        raise ValueError(f"{source}: {place} is {value!r}; expected a list{count} of {wanted}.")
    return tuple(_value(parts[0], each, source, place) for each in value)


def _change(table: dict[str, Any], change: str) -> None:
    """Set one value inside a table."""
    key, sign, text = change.partition("=")
    if not (sign and key.strip() and text.strip()):
        raise ValueError(f"--set was {change!r}; it has the form KEY=VALUE, as in optimizer.learning_rate=2e-5.")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()  # a bare word
    *tables, last = key.strip().split(".")
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ValueError(f"--set was {change!r}, but {name} is not a table.")
    table[last] = value


def _dotted(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key
