"""`refnet compose`: both systems' whole path with tiny random weights, and what is refused before loading."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from commands import told
from docs.desk import write_segmenter
from referencenet.cli.app import app
from referencenet.cli.compose import label_of
from tiny import picture, tiny_pipeline

SIZE = (32, 48)
OPAQUE, CUT = ("--part", "shoes={0}/shoes.png"), ("--part", "face={0}/face.png")
POSE = ("--pose", "{0}/pose.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Opaque pictures, one with transparency, and a mask."""
    for i, name in enumerate(("shirt", "shoes", "pose")):
        picture(i, SIZE).save(tmp_path / f"{name}.png")
    half = Image.new("L", SIZE)
    half.paste(255, (0, 0, 16, 48))
    half.save(tmp_path / "mask.png")
    face = picture(5, SIZE)
    face.putalpha(half)
    face.save(tmp_path / "face.png")
    return tmp_path


def run(folder: Path, *typed: str, out: str = "out.png") -> Result:
    given = [word.format(folder) for word in typed]
    return CliRunner().invoke(app, ["compose", "--overwrite", "-o", str(folder / out), *given])


TINY = ("--random-tiny", "--size", "32x48", "--steps", "2", "--device", "cpu")


def test_parts_with_masks_and_transparency_are_composed(folder: Path) -> None:
    result = run(
        folder, *CUT, "--part", "upper={0}/shirt.png", "--mask", "upper-body-clothes={0}/mask.png", *POSE,
        "-p", "a person", "--count", "2", "--seed", "7", "--side-by-side", *TINY,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for name in ("out-1.png", "out-2.png"):
        assert str(folder / name) in result.stdout
        with Image.open(folder / name) as shown:
            assert shown.size == (4 * SIZE[0], SIZE[1])  # two parts, pose, result
    settings = json.loads((folder / "out.png.json").read_text())
    assert (settings["seed"], settings["count"], settings["guidance_scale"], settings["width"]) == (7, 2, 3.5, 32)
    assert "garment_prompt" not in settings  # the other system's


def test_a_later_picture_is_the_one_of_its_own_seed(folder: Path) -> None:
    both = run(folder, *CUT, *POSE, *TINY, "-n", "2", "--seed", "7")
    alone = run(folder, *CUT, *POSE, *TINY, "--seed", "8", out="alone.png")
    assert (both.exit_code, alone.exit_code) == (0, 0)
    second, own = (np.asarray(Image.open(folder / name)).astype(int) for name in ("out-2.png", "alone.png"))
    assert abs(second - own).max() <= 1  # rounding


def test_a_segmenter_makes_the_masks_that_are_missing(folder: Path) -> None:
    write_segmenter(folder / "clothes")
    given = ("--segmenter", "{0}/clothes", *POSE, *TINY)
    assert run(folder, *OPAQUE, *given).exit_code == 0
    result = run(folder, "--part", "face={0}/shirt.png", *given)
    assert result.exit_code == 2
    assert "the segmenter finds no face in this picture" in told(result)
    assert "--segmenter is not used" in told(run(folder, *CUT, *given))


def test_a_person_in_a_garment_is_drawn(folder: Path) -> None:
    given = ("--method", "stable_garment", "-g", "{0}/shirt.png", "-p", "a woman", *TINY)
    pictures = []
    for i, further in enumerate([(), ("--fusion-blocks", "full"), ("--style-fidelity", "0.3"), ("--no-magnify",)]):
        result = run(folder, *given, *further, out=f"{i}.png")
        assert result.exit_code == 0, result.output
        with Image.open(folder / f"{i}.png") as drawn:
            assert drawn.size == SIZE
            pictures.append(drawn.tobytes())
    assert len(set(pictures)) == 4  # every option acts
    settings = json.loads((folder / "0.png.json").read_text())
    assert (settings["guidance_scale"], settings["num_inference_steps"]) == (4.0, 2)


def test_a_converted_folder_is_read_and_another_systems_refused(folder: Path) -> None:
    tiny_pipeline("parts2whole").save_pretrained(folder / "converted")
    given = (*CUT, *POSE, "--checkpoint", "{0}/converted", "--size", "32x48", "--steps", "1", "--device", "cpu")
    assert run(folder, *given).exit_code == 0
    result = run(folder, *given, "--base", "sd15")
    assert (result.exit_code, "leave --base out" in told(result)) == (2, True)
    result = run(folder, "--method", "stable_garment", "-g", "{0}/shirt.png", "--checkpoint", "{0}/converted")
    assert result.exit_code == 2
    assert "holds a Parts2WholePipeline, not a StableGarmentPipeline" in told(result)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("parts2whole", ("decoupled_attn.pth", "huanngzh/Parts2Whole", "Apache-2.0", "sd-vae-ft-mse")),
        ("stable_garment", ("garment_encoder", "loooooong/StableGarment_text2img", "CC BY-NC-SA 4.0", "--base")),
    ],
)
@pytest.mark.usefixtures("nothing_shipped")
def test_without_weights_one_screen_says_which_files_to_get(folder: Path, method: str, words: tuple[str, ...]) -> None:
    given = (*CUT, *POSE) if method == "parts2whole" else ("-g", "{0}/shirt.png")
    result = run(folder, *given, "--method", method)
    assert result.exit_code == 2
    assert all(word in result.output for word in (*words, "licence", "--random-tiny"))
    assert len(result.output.splitlines()) <= 20
    assert not (folder / "out.png").exists()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ((*OPAQUE, *POSE), "the picture of 'shoes' is opaque and has no mask"),
        ((*OPAQUE, "--mask", "face={0}/mask.png", *POSE), "--mask face: there is no --part of this label"),
        ((*CUT, "--part", "Face={0}/face.png", *POSE), "the part 'face' was given twice"),
        ((*CUT, *CUT, *POSE), "names the kind 'face' twice"),
        (POSE, "0 parts were given; parts2whole needs --part LABEL=PICTURE, 1 to 6 times"),
        ((*[word for i in range(7) for word in ("--part", f"{i}=x.png")], *POSE), "7 parts were given"),
        (("--part", "hat={0}/face.png", *POSE), "'hat' is not a part of a person; expected one of upper-body-clothes"),
        (("--part", "body={0}/face.png", *POSE), "'body' could be upper body clothes or lower body clothes"),
        (("--part", "face.png", *POSE), "--part was 'face.png'"),
        (("--part", "face={0}/none.png", *POSE), "there is no picture"),
        (CUT, "parts2whole needs --pose PICTURE, a DensePose rendering"),
        ((*CUT, *POSE, "--garment", "{0}/shirt.png"), "--garment is for stable_garment; parts2whole does not take it"),
        ((*CUT, *POSE, "--no-magnify"), "--magnify is for stable_garment"),
        (("--method", "stable_garment"), "stable_garment needs --garment PICTURE"),
        (("--method", "stable_garment", "-g", "{0}/shirt.png", *POSE), "--pose is for parts2whole"),
        ((*CUT, *POSE, "--size", "33x48"), "--size is 33x48; width and height must be multiples of 8"),
        ((*CUT, *POSE, "--segmenter", "{0}/none", *OPAQUE), "there is no --segmenter"),
        ((*CUT, *POSE, "--base", "sd15"), "--random-tiny makes its own weights"),
        ((*CUT, *POSE, "-o", "{0}"), "is a folder; give the name of a picture"),
        ((*CUT, *POSE, "-o", "{0}/out.mov"), "names no picture format"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_cannot_be_is_told_in_one_line_before_a_model_is_loaded(
    folder: Path, typed: tuple[str, ...], message: str
) -> None:
    before = sorted(folder.iterdir())
    result = run(folder, *typed, "--random-tiny")
    assert result.exit_code == 2
    assert result.output.count("\n") == 1  # and no note about random weights
    assert message in told(result).replace(str(folder) + "/", "")
    assert sorted(folder.iterdir()) == before


def test_a_missing_checkpoint_is_named(folder: Path) -> None:
    result = run(folder, *CUT, *POSE, "--checkpoint", "{0}/none")
    assert (result.exit_code, "there is no --checkpoint" in told(result)) == (2, True)


def test_labels_are_found_by_what_is_typed() -> None:
    found = {"upper-body-clothes": "upper body clothes", "Lower": "lower body clothes", "hair": "hair or headwear",
             "headwear": "hair or headwear", "whole_body": "whole body clothes", "face": "face"}  # fmt: skip
    assert {text: label_of(text) for text in found} == found
