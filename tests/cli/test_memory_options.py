"""Options of all tasks; of them `--offload` and `--vae-tiling`: refused where they could do nothing."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from referencenet import Reference, reference
from referencenet.bases.devices import place
from referencenet.cli.app import COMMANDS as ALL
from referencenet.cli.app import app, command_of
from referencenet.cli.run import load
from referencenet.methods.catvton import CatVTONPipeline
from systems import SYSTEMS, System
from tiny import picture, tiny

COMMANDS = ("generate", "animate", "talk", "turn", "tryon", "face", "compose")
CPU = torch.device("cpu")
CHEAP = [system for system in SYSTEMS if system.name in ("animate_anyone", "idm_vton", "catvton")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_task_has_the_options(name: str) -> None:
    command = typer.main.get_command(importlib.import_module(f"referencenet.cli.{name}").app)
    person = "--person-number" if name == "tryon" else "--person"  # there --person is the picture
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--fit", person, "--offload", "--vae-tiling"} <= options


def test_the_tasks_are_all_commands_that_draw_by_weights_of_their_own() -> None:
    drawing = {name for name in ALL if {"--device", "--dtype"} <= {o for p in command_of(name).params for o in p.opts}}
    assert drawing == {*COMMANDS, "ui"}  # its tabs have fields instead


@pytest.mark.parametrize("how", ["model", "group"])
@pytest.mark.parametrize("system", CHEAP, ids=lambda system: system.name)
def test_offloaded_it_draws_the_same(system: System, how: str) -> None:
    """With the CPU as the device that computes; accelerate's hooks layer by layer cannot have it as that."""
    pipe = system.make()
    expected = system.call(pipe, num_inference_steps=1, output_type="pt")
    hooks = place(pipe, CPU, offload=how).unet
    assert hasattr(hooks, "_hf_hook") or any(hasattr(module, "_diffusers_hook") for module in hooks.modules())
    assert torch.allclose(system.call(pipe, num_inference_steps=1, output_type="pt"), expected, atol=1e-5)


@pytest.mark.parametrize("how", ["model", "group"])
def test_a_linked_pipeline_of_diffusers_may_be_offloaded(how: str) -> None:
    pipeline, hero = tiny("sd"), Reference(picture(1))
    with reference(pipeline.pipe, hero):
        expected = pipeline()
    place(pipeline.pipe, CPU, offload=how)
    with reference(pipeline.pipe, hero):
        assert torch.allclose(pipeline(), expected, atol=1e-5)


@pytest.mark.parametrize("how", ["model", "group", "sequential"])
def test_offloading_to_the_cpu_itself_is_refused(how: str) -> None:
    with pytest.raises(ValueError, match=f"--offload {how} keeps weights in the CPU's memory.*the device is the CPU"):
        load(CatVTONPipeline, None, None, "cpu", "auto", offload=how)


def typed(folder: Path, *further: str) -> tuple[Any, Path]:
    for i, name in enumerate(("person", "garment")):
        picture(i, (96, 128)).save(folder / f"{name}.png")
    Image.new("L", (96, 128), 255).save(folder / "mask.png")
    out = folder / f"out{len(further)}.png"
    given = [f"--{name}={folder / name}.png" for name in ("person", "garment", "mask")]
    command = ["tryon", *given, f"--out={out}", "--method=catvton", "--random-tiny", "--device=cpu", "--steps=1"]
    return CliRunner().invoke(app, [*command, "--size=96x128", *further]), out


def test_tiles_are_seen_in_pictures_that_are_larger_than_one(tmp_path: Path) -> None:
    made: list[np.ndarray] = []
    for further in ((), ("--vae-tiling",)):
        result, out = typed(tmp_path, *further)
        assert result.exit_code == 0, result.output
        with Image.open(out) as image:
            made.append(np.asarray(image))
    assert made[0].shape == made[1].shape
    assert not np.array_equal(made[0], made[1])


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    result, _ = typed(tmp_path, "--offload=model")
    assert result.exit_code == 2
    assert "--offload model keeps weights" in result.output
    assert "Traceback" not in result.output
