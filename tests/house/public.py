"""The public names with their signatures, as text. `python tests/house/public.py` prints what api.txt should hold."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import get_origin

import referencenet

PRIVATE = {"cli", "comfyui", "ui"}  # faces: their public side is the command line


def packages() -> list[str]:
    """The package and its folders at every depth, which have a front door each."""
    found = [m.name for m in pkgutil.walk_packages(referencenet.__path__, "referencenet.") if m.ispkg]
    return ["referencenet", *sorted(name for name in found if name.split(".")[1] not in PRIVATE)]


def public_names() -> Iterator[tuple[str, str, object]]:
    """Package, name and value of everything public."""
    for package in packages():
        module = importlib.import_module(package)
        for name in sorted(getattr(module, "__all__", ())):
            yield package, name, getattr(module, name)


def signature(value: object) -> str:
    """A signature without what differs between machines."""
    try:
        text = str(inspect.signature(value))  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return ""
    return re.sub(r"(PosixPath|WindowsPath)\([^)]*\)|<[^=]*? at 0x[0-9a-f]+>|<factory>", "...", text)


def describe(value: object) -> Iterator[str]:
    """A name's own line, and one for each public method of a class."""
    if inspect.isclass(value):
        yield f"class {signature(value)}"
        for name, member in sorted(vars(value).items()):
            if name.startswith("_"):
                continue
            if isinstance(member, property):
                yield f"    .{name}"
            elif inspect.isroutine(member) or isinstance(member, classmethod | staticmethod):
                yield f"    .{name}{signature(getattr(value, name))}"
    elif get_origin(value) is not None:
        yield ": a union of types"
    elif callable(value):
        yield signature(value)
    else:
        yield f": {type(value).__name__}"


def api() -> str:
    """Every public name, once, where it is shortest to import."""
    lines: list[str] = []
    seen: set[int] = set()
    for package, name, value in public_names():
        if id(value) in seen and (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        seen.add(id(value))
        first, *rest = describe(value)
        lines += [f"{package}.{name} {first}".rstrip(), *rest]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(api(), end="")  # noqa: T201
