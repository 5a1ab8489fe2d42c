"""Which models a page offers for each task, and the few that stay loaded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from referencenet.bases.devices import check_offload, choose_device, choose_dtype, place
from referencenet.bases.load import load_base, load_referencenet
from referencenet.bases.names import BUILTIN, check_model
from referencenet.builtin.shipped import shipped_system
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.cli.run import load
from referencenet.inputs import read_json
from referencenet.methods.registry import Task
from referencenet.methods.systems import pipelines, published_sets

TabName = Literal["refer", "compose", "dress", "face", "animate", "talk", "turn"]

TASKS: Mapping[TabName, Task] = MappingProxyType({
    "refer": "generate", "compose": "compose", "dress": "tryon", "face": "face", "animate": "animate", "talk": "talk",
    "turn": "turn",
})  # fmt: skip
"""Tab to the command that does the same."""

SINGLE_FILES = (".safetensors", ".ckpt")
KEPT = 2
"""Models that stay loaded."""
LOADING = threading.Lock()
"""Held while networks are made or read: transformers and accelerate change how torch does so, for all threads."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A row of a model picker.

    Attributes:
        title: As it is shown.
        kind: `built in`; `tiny`, random weights; `saved`, a folder that a pipeline wrote; `released`, a folder of
            published files; `diffusers`, a folder, a single file or a name on the hub that diffusers reads.
        system: Of a system: its name among the pipelines of the task.
        place: Where it lies.
    """

    title: str
    kind: Literal["built in", "tiny", "saved", "released", "diffusers"]
    system: str | None = None
    place: str | None = None

    @property
    def value(self) -> str:
        """By which the page names it."""
        return f"{self.kind}:{self.system or ''}:{self.place or ''}"


class Models:
    """The models of a page.

    Args:
        places: Folders of models, models' folders, single files, and names on the hub that may be used.
        base: The base model of released files that leave it out.
        device: As the command line takes it.
        dtype: Likewise.
        offload: Likewise.
        vae_tiling: Likewise.
        controlnets: By kind, folders or hub names of ControlNets that the tab `refer` offers.

    Raises:
        FileNotFoundError: If a place is not there.
        ValueError: If the device or the offloading cannot be used.
    """

    def __init__(
        self, places: Sequence[str] = (), *, base: str | None = None, device: str = "auto", dtype: str = "auto",
        offload: str | None = None, vae_tiling: bool = False, controlnets: Mapping[str, str] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        for kind, net in controlnets.items():
            check_model(f"--controlnet {kind}", net, "config.json")
        self.controlnets = controlnets
        self.base, self.offload, self.vae_tiling = base, offload, vae_tiling
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        check_offload(offload, self.device)
        self._loaded: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()
        found = [model for at in places for model in models_at(at)]
        self._rows = {tab: list(_rows(tab, found)) for tab in TASKS}

    def rows(self, tab: TabName) -> list[Model]:
        """What a tab offers."""
        return self._rows[tab]

    def find(self, tab: TabName, value: Any) -> Model:
        """The row of a value.

        Raises:
            ValueError: If the page does not offer it.
        """
        for row in self.rows(tab):
            if row.value == value:
                return row
        raise ValueError(
            f"the model {str(value)[:80]!r} is not in the list; start refnet ui with --models to offer more of them."
        )

    def check_controlnet(self, kind: str | None, model: Model) -> None:
        """See that a ControlNet is offered, and for a model that it was made for.

        Raises:
            ValueError: If not.
        """
        if kind is not None and kind not in self.controlnets:
            offered = f"there are {', '.join(self.controlnets)}" if self.controlnets else "there are none"
            raise ValueError(f"no ControlNet {kind[:80]!r} is offered, {offered}; start refnet ui with --controlnet.")
        if kind is not None and model.kind == "built in":
            raise ValueError("the built-in model has no ControlNet; choose another model, or the link `in a pose`.")

    def pipeline(
        self, tab: TabName, model: Model, *, is_busy: Callable[[Any], bool], posed: bool = False,
        controlnet: str | None = None,
    ) -> Any:  # fmt: skip
        """The loaded pipeline of a row.

        Args:
            tab: Whose row it is.
            model: The row.
            is_busy: Whether jobs of a model wait or run, by its key; such a one stays loaded.
            posed: In the tab `refer`: with a pose ReferenceNet.
            controlnet: There: kind of the ControlNet beside it.
        """
        key = key_of(tab, model, posed, controlnet)
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
                return self._loaded[key]
            for other in [other for other in self._loaded if not is_busy(other)]:
                if len(self._loaded) >= KEPT:
                    del self._loaded[other]
        with LOADING:
            pipe = self._load(tab, model, posed, controlnet)
        with self._lock:
            self._loaded[key] = pipe
        return pipe

    def _load(self, tab: TabName, model: Model, posed: bool, controlnet: str | None) -> Any:
        options: dict[str, Any] = {"offload": self.offload, "vae_tiling": self.vae_tiling}
        if model.system is not None:
            checkpoint = None if model.place is None else Path(model.place)
            base = self.base if model.kind == "released" else None
            dtype = str(self.dtype).removeprefix("torch.")
            return load(kind_of(tab, model), checkpoint, base, self.device, dtype, **options)
        name = model.place or BUILTIN
        if posed:
            pipe: Any = place(load_referencenet(name, dtype=self.dtype), self.device, **options)
        else:
            nets = {} if controlnet is None else {controlnet: self.controlnets[controlnet]}
            pipe = load_base(name, controlnets=nets, device=self.device, dtype=self.dtype, **options)
        pipe.set_progress_bar_config(disable=True)
        return pipe


def key_of(tab: TabName, model: Model, posed: bool = False, controlnet: str | None = None) -> tuple[Any, ...]:
    """By what jobs of the same pipeline know each other."""
    return (model.value, posed, controlnet, None if model.system is None else tab)


def offered(tab: TabName) -> dict[str, Any]:
    """The systems of a tab: name to pipeline, each once."""
    found: dict[Any, str] = {}
    for name, pipeline in pipelines(TASKS[tab]).items():
        if tab != "animate" or hasattr(pipeline, "stream"):
            found.setdefault(pipeline, name)
    return {name: pipeline for pipeline, name in found.items()}


def kind_of(tab: TabName, model: Model) -> Any:
    """What a system's row draws with: its class, or its built-in weights, which have defaults of their own."""
    kind = offered(tab)[model.system or ""]
    return shipped_system(kind) if model.kind == "built in" else kind


@dataclass(frozen=True)
class Found:
    """A model at a place.

    Attributes:
        path: Where it lies, or its name on the hub.
        mark: The class that saved it, or the published set whose files it holds; "" of single files and the hub.
        is_released: Whether it is a folder of published files.
    """

    path: str
    mark: str = ""
    is_released: bool = False


def models_at(place: str) -> list[Found]:
    """The models at a place.

    Args:
        place: A model's folder, a single file, a folder of such, or a name on the hub.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If there is no model.
    """
    path = Path(place).expanduser()
    if not path.exists():
        if place.startswith((".", "/", "~")) or place.count("/") != 1:
            raise FileNotFoundError(f"there is no --models {place}; give a folder, a file, or owner/name on the hub.")
        return [Found(place)]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    found = _found(path) or [each for child in inside for each in _found(child)]
    if not found:
        raise ValueError(
            f"--models {place} holds no model; give folders of diffusers or of a system, or .safetensors files."
        )
    return found


def _found(path: Path) -> list[Found]:
    """What a folder or a file is, by the names in it; nothing if it is no model."""
    at = str(path.absolute())
    if path.is_file():
        return [Found(at)] if path.suffix.lower() in SINGLE_FILES else []
    if (index := path / "model_index.json").is_file():
        named = read_json(index, "the index of a saved pipeline")
        kind = named.get("_class_name") if isinstance(named, dict) else None
        return [Found(at, str(kind[-1] if isinstance(kind, list) and kind else kind))]
    return [Found(at, name, True) for name, published in published_sets().items() if _holds(published, path)]


def _holds(published: Any, folder: Path) -> bool:
    try:
        return published.is_in(folder)
    except CheckpointError:  # a name that could be several files': who reads them says so
        return True


def _rows(tab: TabName, found: Sequence[Found]) -> list[Model]:
    """What a tab offers of what was found, beside what the package brings."""
    if tab == "refer":
        systems = {pipeline.__name__ for pipeline in pipelines().values()}
        others = [each for each in found if each.mark not in systems and not each.is_released]
        own = Model(title="built-in, 64 x 64 pixels", kind="built in")
        return [own, *(Model(title=Path(each.path).name, kind="diffusers", place=each.path) for each in others)]
    rows: list[Model] = []
    for system, pipeline in offered(tab).items():
        for each in found:
            if each.mark in (pipeline.__name__, pipeline.published.name):
                kind = "released" if each.is_released else "saved"
                rows.append(
                    Model(title=f"{Path(each.path).name} ({system})", kind=kind, system=system, place=each.path)
                )
    shipped = [name for name, pipeline in offered(tab).items() if shipped_system(pipeline) is not None]
    own = (Model(title=f"{name}, built-in", kind="built in", system=name) for name in shipped)
    return [*own, *rows, *(Model(title=f"{name} (tiny, random)", kind="tiny", system=name) for name in offered(tab))]
