"""What `--model` and `--controlnet` may name, looked at before anything is loaded."""

from pathlib import Path

BUILTIN = "builtin"


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
    if not path.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise ValueError(f"{option} {name}: there is no such folder, and names on the hub have the form owner/name.")
    return path
