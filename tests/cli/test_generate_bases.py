"""`refnet generate` on any base: single files, LoRAs, schedulers, pictures to begin from, times of references, runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from commands import told
from referencenet.cli.app import app
from referencenet.media.files import new_run
from referencenet.media.records import read_record
from single_files import write_single
from tiny import half_mask, picture, tiny

Generate = Callable[..., tuple[Result, Path]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as a folder and as a file, a ControlNet, a LoRA, and pictures."""
    folder = tmp_path_factory.mktemp("bases")
    _, _, pipe = write_single("sd", folder)
    tiny("controlnet").pipe.controlnet.save_pretrained(folder / "net")
    generator = torch.Generator().manual_seed(3)
    lora: dict[str, torch.Tensor] = {}
    for name, module in pipe.unet.named_modules():
        if name.endswith("attn1.to_v"):
            lora[f"unet.{name}.lora_A.weight"] = torch.randn(2, module.in_features, generator=generator)
            lora[f"unet.{name}.lora_B.weight"] = torch.randn(module.out_features, 2, generator=generator)
    save_file(lora, folder / "style.safetensors")
    for name, image in (("a", picture(1)), ("b", picture(2)), ("wide", picture(4, (96, 48))), ("mask", half_mask())):
        image.save(folder / f"{name}.png")
    return folder


@pytest.fixture
def generate(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generate:
    """Run `refnet generate`; gives the result and the folder of its first run."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*typed: str, name: str = "out", model: str = "sd") -> tuple[Result, Path]:
        usual = ["-p", "a", "-r", "a.png", "--steps", "2", "--seed", "1", "--model", model]
        result = CliRunner().invoke(app, ["generate", *usual, *typed, "--out", str(tmp_path / name)])
        assert "Traceback" not in result.output
        return result, tmp_path / name / "0001"

    return run


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_every_option_of_the_base_moves_the_picture(generate: Generate) -> None:
    drawn: dict[str, bytes] = {}
    for name, typed in {
        "plain": (),
        "lora": ("--lora", "style.safetensors"),
        "less": ("--lora", "style.safetensors:0.3"),
        "scheduler": ("--scheduler", "DPM++ 2M Karras"),
        "late": ("--start", "0.5"),
        "early": ("--end", "0.5"),
        "image": ("--image", "b.png"),
        "more": ("--image", "b.png", "--image-strength", "1"),
        "inpaint": ("--image", "b.png", "--inpaint-mask", "mask.png"),
        "controlled": ("--image", "b.png", "--control", "pose=waving", "--controlnet", "pose=net"),
        "followed": ("--control", "pose=waving", "--controlnet", "pose=net"),
        "in another pose": ("--control", "pose=running", "--controlnet", "pose=net"),
    }.items():
        result, out = generate(*typed, name=name)
        assert result.exit_code == 0, result.output
        drawn[name] = pixels(out / "seed-1.png").tobytes()
    assert len(set(drawn.values())) == len(drawn)
    result, out = generate("--config", "sd", name="file", model="sd.safetensors")
    assert result.exit_code == 0, result.output
    assert pixels(out / "seed-1.png").tobytes() == drawn["plain"]
    settings = json.loads((out / "settings.json").read_text())["settings"]
    assert (Path(settings["config"]).is_absolute(), Path(settings["model"]).name) == (True, "sd.safetensors")


def test_outside_of_the_mask_the_picture_stays_to_the_bit(generate: Generate) -> None:
    result, out = generate("--image", "b.png", "--inpaint-mask", "mask.png")
    assert result.exit_code == 0, result.output
    found, given = pixels(out / "seed-1.png"), np.asarray(picture(2))
    assert np.array_equal(found[:, 32:], given[:, 32:])
    assert not np.array_equal(found[:, :32], given[:, :32])


def test_without_size_a_picture_keeps_its_proportions(generate: Generate) -> None:
    result, out = generate("--image", "wide.png")
    assert result.exit_code == 0, result.output
    assert pixels(out / "seed-1.png").shape == (48, 88, 3)


def test_runs_never_mix_and_overwriting_is_a_choice(generate: Generate) -> None:
    _, first = generate()
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    generate("--seed", "2")
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert {path.name for path in (first.parent / "0002").iterdir()} == {"seed-2.png", "settings.json", "sheet.png"}
    for seed in ("3", "4"):
        generate("--seed", seed, "--overwrite", name="flat")
    assert {path.name for path in (first.parents[1] / "flat").iterdir()} == {"seed-4.png", "settings.json", "sheet.png"}


def test_a_run_that_fails_leaves_no_folder(generate: Generate) -> None:
    result, out = generate("--scheduler", "lcm karras")
    assert result.exit_code == 2
    assert not out.parent.exists()


def test_numbers_of_runs_go_on_behind_the_last(tmp_path: Path) -> None:
    for name in ("0003", "0010", "mine", "12"):
        (tmp_path / name).mkdir()
    (tmp_path / "0007").write_text("a file")
    assert [new_run(tmp_path).name for _ in range(2)] == ["0011", "0012"]
    (tmp_path / "9999").mkdir()
    assert new_run(tmp_path).name == "10000"


def test_pictures_say_what_decided_them(generate: Generate) -> None:
    _, out = generate("--count", "2", "--strength", "0.5", "--mask", "mask.png")
    record = read_record(out / "seed-2.png")
    expected = {"seed": 2, "count": 1, "strength": 0.5, "prompt": "a", "steps": 2}
    said = record["again"]["options"]
    assert {name: said.get(name, 1 if name == "count" else None) for name in expected} == expected
    assert Path(said["model"]).name == "sd"
    assert {Path(path).name for path in record["again"]["files"]} == {"a.png", "mask.png"}
    assert record["made_with"]["scheduler"] == "DDIMScheduler"
    assert read_record(out / "sheet.png")["again"]["options"]["count"] == 2


def test_the_sheet_can_be_read(generate: Generate) -> None:
    _, out = generate("--seed", "4611686018427387000")
    height, width, _ = pixels(out / "sheet.png").shape
    assert width >= 2 * 160
    assert height > 160 + 2 * 14


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--start", "0.6", "--end", "0.5"), "--start 0.6 is not before --end 0.5"),
        (("--image-strength", "0.5"), "--image-strength is for --image PICTURE, which was not given"),
        (("--inpaint-mask", "mask.png"), "--inpaint-mask is for --image PICTURE"),
        (("--image", "wide.png", "--inpaint-mask", "mask.png"), "give a mask of its proportions"),
        (("--image", "nothing.png"), "there is no"),
        (("--scheduler", "eular a"), "there is no scheduler 'eular a'"),
        (("--scheduler", "dpm++ 2m karas"), "Did you mean 'dpm++ 2m karras'?"),
        (("--lora", "nothing.safetensors"), "there is no LoRA nothing.safetensors"),
        (("--config", "sd"), "--config is for a model in a single file"),
        (("--control", "pose=wavin", "--controlnet", "pose=net"), "no such pose; poses are .*Did you mean 'waving'?"),
        (("--link", "aligned", "--image", "b.png"), "--link aligned does not take --image"),
        (("--link=referencenet", "--model=builtin", "--control=pose=waving", "--end=0.5"), "does not take --end"),
        (("--offload", "model", "--compile"), "give one of the two"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(generate: Generate, typed: tuple[str, ...], message: str) -> None:
    result, out = generate(*typed)
    assert result.exit_code == 2, result.output
    assert all(part in told(result) for part in message.split(".*"))
    assert not out.parent.exists()


def test_words_and_sizes_that_the_builtin_model_does_not_know_are_told(generate: Generate) -> None:
    typed = ("-p", "full body, wavin, knight", "--steps", "1", "--size", "32x32", "--control", "pose=arms raised")
    result, _ = generate(*typed, "--link", "referencenet", model="builtin")
    assert result.exit_code == 0, result.output
    assert "does not know wavin (it knows waving), knight (it knows night)" in told(result)
    assert "was made for 64x64 pixels; at 32x32 it draws" in told(result)


def test_sizes_that_a_model_was_not_made_for_are_told(generate: Generate) -> None:
    result, _ = generate("--size", "128x128", "--steps", "1")
    assert "was made for about 64x64 pixels; at 128x128 pictures get worse" in told(result)
    quiet, _ = generate("--size", "64x80", "--steps", "1")
    assert "was made for" not in told(quiet)
