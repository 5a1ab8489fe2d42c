"""Golden cases on disk: a folder with `case.json` and `outputs.safetensors`.

Reading is strict: whatever is missing or contradicts itself is a `CaseError` that names the file, what was expected
and what to do. Nothing about sizes, steps or scalars is assumed here; a runner reads them from the case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from referencenet.checkpoints.keymap import CheckpointError, KeyMap
from referencenet.checkpoints.load import load_published
from referencenet.inputs import read_json as bounded_json
from referencenet.parity.seeded import Kind, fill, seeded, seeded_input

DEFAULT_TOLERANCE = 1e-4
"""Largest relative error of an output unless the case has its own `tolerance`."""

PLAIN_KEYS = KeyMap()
"""Published keys that are ours."""

REQUIRED = ("id", "method", "kind", "components", "inputs", "outputs")  # and scalars, if there are any


class CaseError(ValueError):
    """A golden case that cannot be read or that no runner understands."""


class InputSpec(NamedTuple):
    """Shape and distribution of a seeded input."""

    shape: tuple[int, ...]
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Case:
    """A golden case: what to build, what to feed and what must come out."""

    path: Path
    id: str
    method: str
    kind: str
    components: Mapping[str, Mapping[str, Any]]
    inputs: Mapping[str, InputSpec]
    scalars: Mapping[str, Any]
    expected: Mapping[str, torch.Tensor]
    tolerance: float
    content: Mapping[str, Any]

    def input(self, name: str) -> torch.Tensor:
        """Draw the input `name`, float32, of the shape that the case gives it."""
        if name not in self.inputs:
            raise CaseError(f"{self.id} has no input {name!r} (it has {listed(self.inputs)}); add it to case.json")
        return seeded_input(self.id, name, *self.inputs[name])

    def scalar(self, name: str) -> Any:
        """Return the scalar `name`."""
        if name not in self.scalars:
            raise CaseError(f"{self.id} has no scalar {name!r} (it has {listed(self.scalars)}); add it to case.json")
        return self.scalars[name]

    def fill(self, module: torch.nn.Module, component: str) -> None:
        """Fill a module by the golden rule, after checking that its keys and shapes are those of the manifest."""
        manifest = {key: tuple(shape) for key, shape, _ in self.components[component]["state_dict"]}
        actual = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        problems = {
            "missing in the model": manifest.keys() - actual.keys(),
            "missing in the manifest": actual.keys() - manifest.keys(),
            "of another shape": {key for key in manifest.keys() & actual.keys() if manifest[key] != actual[key]},
        }
        found = [f"{len(keys)} {what}: {listed(keys)}" for what, keys in problems.items() if keys]
        if found:
            raise CaseError(
                f"{self.id}: the manifest of {component!r} is not that of {type(module).__name__} with the case's "
                f"configuration ({'; '.join(found)}); correct its configuration or its state_dict in case.json"
            )
        fill(module, self.id, component)

    def published_state(self, component: str) -> dict[str, torch.Tensor]:
        """The parameters of a published component under their published keys; buffers are left out."""
        rows = self.components[component]["state_dict"]
        return {
            key: torch.from_numpy(seeded(f"{self.id}/{component}/{key}", shape)).reshape(tuple(shape))
            for key, shape, kind in rows
            if kind == "param"
        }

    def load(self, module: torch.nn.Module, component: str, keymap: KeyMap = PLAIN_KEYS) -> None:
        """Fill a module from a component's published keys through the key map that its checkpoints are read with.

        Raises:
            CaseError: a published key does not fit the module, or a parameter of the module would stay unset.
        """
        source = f"{self.id}/{component}"
        try:
            brought = load_published(module, self.published_state(component), keymap, source=source, partial=True)
        except CheckpointError as error:
            raise CaseError(f"{error} Correct the component's configuration or state_dict in case.json.") from error
        unset = {name for name, _ in module.named_parameters()} - brought
        if unset:
            raise CaseError(
                f"{source} lacks {len(unset)} parameters: {listed(unset)}; correct its state_dict in case.json"
            )


def _with_scalars_apart(content: dict[str, Any]) -> dict[str, Any]:
    """A case whose numbers stand among its inputs, with them among its scalars."""
    if not isinstance(content["inputs"], dict) or not isinstance(content["scalars"], dict):
        return content
    numbers = {name: value for name, value in content["inputs"].items() if isinstance(value, int | float)}
    inputs = {name: value for name, value in content["inputs"].items() if name not in numbers}
    return {**content, "inputs": inputs, "scalars": {**numbers, **content["scalars"]}}


def listed(names: Mapping[str, Any] | Sequence[str] | set[str]) -> str:
    """Name at most ten of the given names, sorted, and count the rest."""
    names = sorted(names)
    rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + rest if names else "none"


def load_case(path: str | Path) -> Case:
    """Read a golden case folder.

    Args:
        path: folder that holds `case.json` and `outputs.safetensors`.

    Raises:
        CaseError: the folder or a file is missing, the JSON is broken, keys are missing, or the two files disagree.
    """
    path = Path(path)
    content = read_content(path)
    missing = [key for key in REQUIRED if key not in content]
    if missing:
        raise CaseError(f"{path / 'case.json'} lacks {listed(missing)}; a case has {', '.join(REQUIRED)}")
    content = {"scalars": {}, **content}
    content = _with_scalars_apart(content)
    for key in (*REQUIRED[3:], "scalars"):
        if not isinstance(content[key], dict):
            raise CaseError(f"{path / 'case.json'}: {key} is {type(content[key]).__name__}; expected an object")
    return Case(
        path=path,
        id=content["id"],
        method=content["method"],
        kind=content["kind"],
        components={name: read_component(path, name, value) for name, value in content["components"].items()},
        inputs={name: read_input(path, name, value) for name, value in content["inputs"].items()},
        scalars=content["scalars"],
        expected=read_outputs(path, content["outputs"]),
        tolerance=read_tolerance(path, content),
        content=content,
    )


def read_content(path: Path) -> dict[str, Any]:
    """Read a case folder's case.json and check that it says what it is: id, method and kind.

    Raises:
        CaseError: the folder or the file is missing, the JSON is broken, or it does not say what it is.
    """
    if not path.is_dir():
        state = "is a file" if path.exists() else "does not exist"
        raise CaseError(f"{path} {state}; give a case folder, which holds case.json and outputs.safetensors")
    content = read_json(path / "case.json")
    for key in REQUIRED[:3]:
        if not isinstance(content.get(key), str):
            raise CaseError(f"{path / 'case.json'}: {key} is {content.get(key)!r}; expected a name")
    return content


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; every way it can fail is a CaseError."""
    try:
        content = bounded_json(file, "a JSON object")
    except (OSError, ValueError) as error:
        raise CaseError(f"{error} A case folder holds a case.json; write it again.") from error
    if not isinstance(content, dict):
        raise CaseError(f"{file} holds a {type(content).__name__}; expected a JSON object")
    return content


def read_component(path: Path, name: str, value: Any) -> Mapping[str, Any]:
    """Check that a component has a class, a configuration and a manifest of [key, shape, "param" or "buffer"]."""
    if not isinstance(value, dict) or not {"class", "config", "state_dict"} <= value.keys():
        raise CaseError(f"{path / 'case.json'}: component {name!r} needs class, config and state_dict")
    rows = value["state_dict"]
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 3 for row in rows):
        raise CaseError(f"{path / 'case.json'}: state_dict of {name!r} must be a list of [key, shape, kind]")
    return value


def read_input(path: Path, name: str, value: Any) -> InputSpec:
    """Check that an input has a shape of positive sizes and a distribution."""
    shape = value.get("shape") if isinstance(value, dict) else None
    if not isinstance(shape, list) or not all(isinstance(size, int) and size > 0 for size in shape):
        raise CaseError(f"{path / 'case.json'}: input {name!r} needs a shape, a list of positive sizes; got {shape!r}")
    kind = value.get("kind", "normal")
    if kind not in ("normal", "uniform"):
        raise CaseError(f"{path / 'case.json'}: input {name!r} is of kind {kind!r}; expected 'normal' or 'uniform'")
    return InputSpec(tuple(shape), kind)


def read_outputs(path: Path, declared: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Read the expected outputs; they must be exactly those that case.json declares, at least one."""
    file = path / "outputs.safetensors"
    if not file.is_file():
        raise CaseError(f"{file} does not exist; a case without outputs proves nothing: copy the whole case folder")
    try:
        outputs = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CaseError(f"{file} is not a safetensors file ({error}); copy it again") from error
    if not declared or outputs.keys() != declared.keys():
        raise CaseError(f"{file} holds {listed(outputs)}; case.json declares {listed(declared)}; they must agree")
    return outputs


def read_tolerance(path: Path, content: Mapping[str, Any]) -> float:
    """Return the case's tolerance: a positive number, 1e-4 if it has none."""
    tolerance = content.get("tolerance", DEFAULT_TOLERANCE)
    if not isinstance(tolerance, int | float) or not tolerance > 0:
        raise CaseError(f"{path / 'case.json'}: tolerance is {tolerance!r}; expected a positive number")
    return float(tolerance)
