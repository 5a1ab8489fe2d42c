"""Every system as tests call it: its tiny pipeline, and what a call needs, by the names of its parameters."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from referencenet.methods.systems import pipelines
from referencenet.pipelines.clips import ClipPipeline
from referencenet.pipelines.films import FilmPipeline
from referencenet.pipelines.spec import Canvas, EachStep
from referencenet.preprocess.parts import LABELS, PersonPart
from referencenet.preprocess.portrait import Portrait
from tiny import half_mask, picture, tiny_pipeline

SIZE = (32, 24)  # width, height: latents of 4 x 3


def landmarks(size: tuple[int, int]) -> torch.Tensor:
    """Points all over the middle of a picture, as many as a face mesh has."""
    middle = torch.rand(468, 2, generator=torch.Generator().manual_seed(0)) / 2 + 0.25
    return middle * torch.tensor(size)


def embedding(seed: int = 0) -> torch.Tensor:
    """Numbers of a face."""
    return torch.randn(512, generator=torch.Generator().manual_seed(seed))


def speech(frames: int, seed: int = 0) -> torch.Tensor:
    """Features of a tiny speech model."""
    return torch.randn(frames, 2, 4, generator=torch.Generator().manual_seed(seed))


SQUARE = (32, 32)

GIVEN: dict[str, Any] = {
    "reference": picture(1, SIZE),
    "faces": [picture(1), picture(2)],
    "parts": [PersonPart(picture=picture(i, SIZE), label=LABELS[i], mask=half_mask("top", SIZE)) for i in range(2)],
    "person": picture(1, SIZE),
    "garment": picture(2, SIZE),
    "mask": half_mask("top", SIZE),
    "densepose": picture(3, SIZE),
    "pose": picture(3, SIZE),
    "poses": [picture(100, SIZE), picture(101, SIZE)],
    "cameras": [picture(100, SIZE), picture(101, SIZE)],
    "portrait": Portrait(picture=picture(1, SQUARE), landmarks=landmarks(SQUARE), face=embedding()),
    "audio": speech(2),
    "prompt": "a knight",
}
"""What a call is given, by parameter."""

REFERENCES = ("reference", "faces", "parts", "garment", "portrait")
"""Names of the parameter that takes what `write` wrote."""


@dataclass(frozen=True)
class System:
    """A system, or a published set of it that has a pipeline of its own."""

    name: str
    kind: Any

    @property
    def is_film(self) -> bool:
        """Whether it makes films."""
        return issubclass(self.kind, FilmPipeline)

    @property
    def writes(self) -> bool:
        """Whether a reference UNet writes a bank; else the reference is given to the denoiser itself."""
        return self.kind.spec.link is not None

    @property
    def unets(self) -> tuple[str, ...]:
        """The denoiser and, where there is one, the writer, by their names."""
        return ("unet", "reference_unet") if self.writes else ("unet",)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its results in tests."""
        return SQUARE if issubclass(self.kind, ClipPipeline) else SIZE

    @property
    def writes_each_step(self) -> bool:
        """Whether its writer runs at every step."""
        return isinstance(self.kind.spec.write, EachStep)

    @property
    def several(self) -> str:
        """The option that asks for several results of one call."""
        return "num_films" if self.is_film else "num_images_per_prompt"

    @property
    def given(self) -> dict[str, Any]:
        """What a call needs."""
        names = inspect.signature(self.kind.__call__).parameters
        given = {name: value for name, value in GIVEN.items() if name in names}
        if getattr(self.kind, "num_driving", 1) > 1:
            given["poses"] = tuple([picture(100 + 10 * film + i, SIZE) for i in range(2)] for film in range(2))
        return given

    @property
    def reference(self) -> str:
        """The parameter that takes what `write` wrote."""
        return next(name for name in REFERENCES if name in self.given)

    def make(self) -> Any:
        """A fresh tiny pipeline."""
        pipe = tiny_pipeline(self.name)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def call(self, pipe: Any, *, seed: int = 0, **changes: Any) -> Any:
        """The results of two steps, as latents unless told otherwise."""
        common = {"num_inference_steps": 2, "output_type": "latent", "generator": torch.Generator().manual_seed(seed)}
        size = {"width": self.size[0], "height": self.size[1]}
        if self.size == SQUARE and "width" in changes:
            changes = {"height": changes["width"], **changes}
        return pipe(**self.given | common | size | {"return_dict": False} | changes)[0]

    def write(self, pipe: Any, num_inference_steps: int = 2) -> Any:
        """What `write` makes of the reference, for the calls of `call`."""
        steps = {"num_inference_steps": num_inference_steps} if self.writes_each_step else {}
        generator = torch.Generator().manual_seed(0)
        return pipe.write(
            self.given[self.reference], width=self.size[0], height=self.size[1], generator=generator, **steps
        )

    def noise(self, results: int = 1, seed: int = 3) -> torch.Tensor:
        """A first noise for a call."""
        canvas = Canvas(width=self.size[0], height=self.size[1], samples=results, frames=2 if self.is_film else None)
        shape = tiny_pipeline(self.name).latent_shape(canvas)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _systems() -> list[System]:
    """One of each class, by the name of its row where it has one."""
    first: dict[Any, str] = {}
    for name, kind in pipelines().items():
        first.setdefault(kind, name)
    return [System(name, kind) for kind, name in first.items()]


SYSTEMS = _systems()
OF_EACH_KIND = ("animate_anyone", "catvton", "diffportrait3d", "emo", "idm_vton", "parts2whole")
"""Films of poses and of views, clips, pictures of SD and of SDXL; written once, at every step, or not at all."""


def in_time(system: System, *case: Any) -> Any:
    """A case that `make test` leaves out where another system runs the same lines."""
    marks = () if system.name in OF_EACH_KIND else pytest.mark.slow
    return pytest.param(system, *case, id="-".join((system.name, *case)), marks=marks)


every_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
"""Where a test costs next to nothing."""
every_system_in_time = pytest.mark.parametrize("system", [in_time(system) for system in SYSTEMS])
"""Where it draws: most of them are slow."""
