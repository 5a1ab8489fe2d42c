"""What people call a base model, a LoRA: looked at before anything is loaded, and without torch."""

from __future__ import annotations

import math
from pathlib import Path

from referencenet.inputs import read_json

BUILTIN = "builtin"

WEIGHT_FILES = (".safetensors", ".ckpt", ".bin", ".pt", ".pth")
"""Endings of files that hold weights."""


def is_single_file(model: str) -> bool:
    """Whether a model is named by a weight file, not by a folder or on the hub."""
    path = Path(model).expanduser()
    return path.is_file() or (path.suffix.lower() in WEIGHT_FILES and not path.is_dir())


def is_hub_name(name: str) -> bool:
    """Whether a name may be one on the hub, owner/name."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def check_model(option: str, name: str, index: str) -> Path:
    """See that a folder holds a model, or that a name may be one on the hub.

    Args:
        option: Of the command line, for errors.
        name: What it was given.
        index: The file that every folder of such a model has.

    Returns:
        The name as a path.

    Raises:
        ValueError: If it is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        raise ValueError(f"{option} {name} is a file; give the folder of a diffusers model, which holds {index}.")
    if path.is_dir() and not (path / index).exists():
        raise ValueError(f"{option} {name} is a folder without {index}; give the folder of a diffusers model.")
    if not path.is_dir() and not is_hub_name(name):
        raise ValueError(f"{option} {name}: there is no such folder, and names on the hub have the form owner/name.")
    return path


def check_base(model: str, config: str | None = None) -> None:
    """See that a base model may be one: `builtin`, a folder, a weight file, or a name on the hub.

    Args:
        model: What it is called.
        config: Where a single file's configuration is.

    Raises:
        FileNotFoundError: If a weight file or a configuration is not there.
        ValueError: If it is none of these, or a configuration is given for what has its own.
    """
    if not is_single_file(model):
        if config is not None:
            raise ValueError(f"--config is for a model in a single file, but {model} has its own; leave it out.")
        if model != BUILTIN:
            check_model("--model", model, "model_index.json")
        return
    path = Path(model).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give a single-file checkpoint, such as model.safetensors.")
    if path.suffix.lower() not in WEIGHT_FILES:
        raise ValueError(
            f"--model {model} is not a weight file; give a folder of a diffusers model, which holds model_index.json, "
            "or a single-file checkpoint, such as model.safetensors."
        )
    if config is not None:
        check_config(config)


def check_trained(model: str) -> None:
    """See that a model that lies here is not of another kind than a trained pose ReferenceNet.

    Raises:
        ValueError: If it is.
    """
    path = Path(model).expanduser()
    index = path / "model_index.json"
    found: str | None = None
    if model == BUILTIN:
        return
    if path.is_file():
        found = "a single file"
    elif index.is_file():
        kind = read_json(index, "the index of a saved pipeline")
        name = kind.get("_class_name") if isinstance(kind, dict) else kind
        name = name[-1] if isinstance(name, list) and name else name
        found = None if name == "ReferenceNetPipeline" else f"a {name}"
    if found is not None:
        raise ValueError(
            f"--link referencenet needs a trained ReferenceNet, and {path.name} is {found}; leave --model out for the "
            "built-in one, or use --link attention."
        )


def check_config(config: str) -> None:
    """See that there is a configuration for a single file.

    Raises:
        FileNotFoundError: If not.
    """
    folder = Path(config).expanduser()
    if not folder.is_dir() and not is_hub_name(config):
        raise FileNotFoundError(f"there is no --config {config}; give a folder, or a name on the hub, owner/name.")
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"--config {folder} is a folder without model_index.json; give that of a pipeline.")


def parse_lora(text: str) -> tuple[str, float]:
    """Read FILE or FILE:SCALE.

    Args:
        text: As typed.

    Returns:
        The file, or a name on the hub, and the scale, 1 where there is none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the scale is no number.
    """
    place, scale = text, 1.0
    head, colon, tail = text.rpartition(":")
    if colon and not Path(text).expanduser().exists() and not tail.startswith(("/", "\\")):
        try:
            scale = float(tail)
        except ValueError:
            scale = math.nan
        if not math.isfinite(scale):
            raise ValueError(
                f"the LoRA {text!r} has the scale {tail!r}; expected a number, as in style.safetensors:0.8."
            )
        place = head
    path = Path(place).expanduser()
    if path.is_dir():
        raise FileNotFoundError(f"the LoRA {place} is a folder; give the weight file in it.")
    if path.is_file():
        return str(path), scale
    if path.suffix.lower() in WEIGHT_FILES or not is_hub_name(place):
        raise FileNotFoundError(f"there is no LoRA {place}; give a weight file, or a name on the hub, owner/name.")
    return place, scale
