"""`refnet generate` on a real, tiny model in a folder: what it writes, that it repeats, what it refuses."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from referencenet.cli.app import app
from tiny import SIZE, half_mask, picture, tiny

TRAINED = ["--link", "referencenet", "--model", "builtin"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny Stable Diffusion model, a ControlNet, and pictures."""
    folder = tmp_path_factory.mktemp("generate")
    pipe = tiny("controlnet").pipe
    pipe.controlnet.save_pretrained(folder / "net")
    tiny("sd").pipe.save_pretrained(folder / "model")
    for name, image in (("a", picture(1)), ("b", picture(2)), ("mask", half_mask()), ("pose", picture(3))):
        image.save(folder / f"{name}.png")
    return folder


@pytest.fixture
def generate(folder, tmp_path, monkeypatch):
    """Run `refnet generate` with two steps; gives the result and the folder of its first run."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments, name="out", model="model", extra=("-p", "a", "--steps", "2", "-r", "a.png")):
        out = tmp_path / name
        model_option = ("--model", model) if model else ()
        return CliRunner().invoke(app, ["generate", "--out", str(out), *model_option, *extra, *arguments]), out / "0001"

    return run


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def test_pictures_sheet_and_settings_are_written(generate):
    result, out = generate("--count", "2", "--seed", "5")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["seed-5.png", "seed-6.png", "settings.json", "sheet.png"]
    assert pixels(out / "seed-5.png").shape == (SIZE, SIZE, 3)
    assert not np.array_equal(pixels(out / "seed-5.png"), pixels(out / "seed-6.png"))
    document = json.loads((out / "settings.json").read_text())
    assert document["settings"]["seed"] == 5
    assert document["settings"]["size"] == f"{SIZE}x{SIZE}"
    assert None not in {document["settings"][name] for name in ("steps", "guidance", "seed", "size")}
    assert str(out / "sheet.png") in result.output


def test_settings_draw_the_same_pictures_again_and_typed_options_go_before(generate):
    first, out = generate("--count", "2", "--link", "both", "--mask", "mask.png", "--strength", "0.7")
    assert first.exit_code == 0, first.output
    again, copy = generate("--settings", str(out / "settings.json"), name="again", model=None, extra=())
    assert again.exit_code == 0, again.output
    pictures = sorted(path.name for path in out.glob("seed-*.png"))
    assert len(pictures) == 2
    assert all(np.array_equal(pixels(out / name), pixels(copy / name)) for name in pictures)
    seed = pictures[1].removeprefix("seed-").removesuffix(".png")
    one, alone = generate(
        "--settings", str(out / "settings.json"), "--count", "1", "--seed", seed, name="one", model=None, extra=()
    )
    assert one.exit_code == 0, one.output
    assert np.array_equal(pixels(alone / pictures[1]), pixels(out / pictures[1]))


def test_strength_zero_is_plain_and_a_reference_moves_the_picture(generate):
    _, off = generate("--seed", "1", "--strength", "0", name="off")
    _, on = generate("--seed", "1", name="on")
    _, two = generate("--seed", "1", "-r", "b.png", name="two")
    pictures = [pixels(out / "seed-1.png") for out in (off, on, two)]
    assert not any(np.array_equal(pictures[i], pictures[j]) for i, j in ((0, 1), (1, 2), (0, 2)))


def test_a_style_is_taken_and_every_switch_counts(generate):
    style = ("-p", "a", "--steps", "1", "--style", "a.png", "--seed", "3")
    drawn = {}
    for name, switches in {
        "published": (),
        "other style": ("--style", "b.png"),
        "prompt": ("--style-prompt", "a fox"),
        "noised": ("--style-from", "noised"),
        "weight": ("--style-weight", "5"),
        "attention": ("--no-share-attention",),
        "queries": ("--no-adain-queries",),
        "keys": ("--no-adain-keys",),
        "norm": ("--group-norm",),
        "strength": ("--strength", "0.5"),
        "fidelity": ("--style-fidelity", "1"),
    }.items():
        result, out = generate(*switches, name=name, extra=style)
        assert result.exit_code == 0, result.output
        drawn[name] = pixels(out / "seed-3.png")
    _, plain = generate("--strength", "0", name="plain", extra=style)
    drawn["plain"] = pixels(plain / "seed-3.png")
    assert len({picture.tobytes() for picture in drawn.values()}) == len(drawn)
    _, unlinked = generate("--seed", "3", "--strength", "0", "--steps", "1", name="unlinked")
    assert np.abs(drawn["plain"].astype(int) - pixels(unlinked / "seed-3.png")).max() <= 1
    published = json.loads((plain.parents[1] / "published" / "0001" / "settings.json").read_text())["settings"]
    assert (published["link"], published["style_fidelity"]) == ("aligned", 0.0)


def test_styled_pictures_are_drawn_from_their_own_seeds_and_drawn_again(generate):
    style = ("-p", "a", "--steps", "2", "--style", "a.png", "--group-norm", "--style-prompt", "a fox")
    _, out = generate("--seed", "3", "--count", "2", extra=style)
    _, alone = generate("--seed", "4", name="alone", extra=style)
    result, again = generate("--settings", str(out / "settings.json"), name="again", model=None, extra=())
    assert result.exit_code == 0, result.output
    expected = pixels(out / "seed-4.png")
    assert np.array_equal(pixels(alone / "seed-4.png"), expected)
    assert np.array_equal(pixels(again / "seed-4.png"), expected)


def test_controlnet_follows_its_picture(generate):
    result, out = generate("--seed", "1", "--control", "pose=pose.png", "--controlnet", "pose=net")
    assert result.exit_code == 0, result.output
    _, plain = generate("--seed", "1", name="plain")
    assert not np.array_equal(pixels(out / "seed-1.png"), pixels(plain / "seed-1.png"))
    assert json.loads((out / "settings.json").read_text())["made_with"]["pipeline"].endswith("ControlNetPipeline")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-r", "nothing.png"], "there is no picture"),
        (["-r", "model/model_index.json"], "is not a picture"),
        (["--mask", "mask.png", "--mask", "mask.png"], "--mask was given 2 times for 1 references"),
        (["--size", "huge"], "--size was 'huge'"),
        (["--size", "65"], "--size is 65x65; width and height must be multiples of 8"),
        (["--control", "pose=pose.png"], "Nothing follows --control pose; add --controlnet pose=FOLDER"),
        (["--controlnet", "pose=net"], "--controlnet pose has no picture to follow"),
        (["--control", "pose"], "it has the form KIND=PATH"),
        (["--control", "depth=a.png", *TRAINED], "give --control pose=PICTURE"),
        (TRAINED, "give --control pose=PICTURE"),
        ([*TRAINED, "--control", "pose=pose.png", "--strength", "0.5"], "does not take --strength"),
        (["--group-norm", "--no-adain-keys"], "--adain-keys, --group-norm is for --style PICTURE"),
        (["--link", "aligned", "-r", "b.png"], "--link aligned does not take more than one --reference"),
        (["--link", "aligned", "--mask", "mask.png"], "--link aligned does not take --mask"),
        (["--style", "b.png"], "--style and --reference were both given"),
        ([*TRAINED, "--control", "pose=pose.png", "-r", "b.png"], "more than one --reference"),
        (["--link", "magic"], "magic"),
        (["--device", "toaster"], "--device toaster cannot be used"),
        (["--settings", "model/model_index.json"], "is not a settings.json of refnet generate"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(generate, arguments, message):
    result, out = generate(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nothing", "there is no such folder, and names on the hub have the form owner/name"),
        ("net", "is a folder without model_index.json"),
        ("a.png", "is not a weight file; give a folder of a diffusers model"),
        ("nothing.safetensors", "there is no file nothing.safetensors"),
        ("nobody/nothing", "is not in the local cache, and the hub gave no answer"),
    ],
)
def test_models_that_are_not_there_are_told_in_one_line(generate, monkeypatch, model, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result, _ = generate(model=model)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not re.search("stack ?trace|local_files_only", result.output), "of a library's, which nobody sees here"


def test_model_of_another_kind_is_refused(generate):
    result, _ = generate("--link", "referencenet", "--control", "pose=pose.png")
    assert result.exit_code == 2
    assert "needs a trained ReferenceNet, and model is a StableDiffusionPipeline" in result.output


@pytest.mark.parametrize("link", ["attention", "both", "referencenet"])
def test_builtin_model_draws_in_64_pixels(generate, link):
    control = ("--control", "pose=pose.png") if link == "referencenet" else ()
    result, out = generate("--link", link, "--seed", "1", *control, model=None)
    assert result.exit_code == 0, result.output
    assert pixels(out / "seed-1.png").shape == (64, 64, 3)
