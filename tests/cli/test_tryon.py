"""`refnet tryon`: the whole path with tiny random weights, and what it says when something is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from referencenet.cli.app import app
from tiny import picture

SIZE = (32, 48)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    for i, name in enumerate(("person", "garment", "densepose")):
        picture(i, SIZE).save(tmp_path / f"{name}.png")
    Image.new("L", SIZE, 255).save(tmp_path / "mask.png")
    labels = np.full((48, 32), 4, dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "parsing.png")
    (tmp_path / "points.json").write_text(json.dumps([[0, 0]] * 18))
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def typed(files: dict[str, str], *further: str, without: tuple[str, ...] = ()) -> tuple[int, str]:
    given = [f"--{name}={files[name]}" for name in ("person", "garment", "densepose") if name not in without]
    out = str(Path(files["person"]).with_name("out.png"))
    result = CliRunner().invoke(
        app, ["tryon", *given, f"--out={out}", "--size=32x48", "--steps=1", "--overwrite", *further]
    )
    return result.exit_code, result.output


def test_a_person_is_dressed_beside_the_settings(files: dict[str, str]) -> None:
    status, _ = typed(files, f"--mask={files['mask']}", "--random-tiny", "--side-by-side", "--device=cpu")
    assert status == 0
    out = Path(files["person"]).with_name("out.png")
    with Image.open(out) as image:
        assert image.size == (3 * SIZE[0], SIZE[1])
    assert json.loads(out.with_name("out.png.json").read_text())["num_inference_steps"] == 1


def test_a_mask_is_made_from_parsing_and_points(files: dict[str, str]) -> None:
    made = (f"--parsing={files['parsing']}", f"--keypoints={files['points']}")
    status, output = typed(files, *made, "--random-tiny", "--device=cpu")
    assert status == 0, output


@pytest.mark.usefixtures("nothing_shipped")
def test_without_a_checkpoint_it_says_which_files_to_get(files: dict[str, str]) -> None:
    status, output = typed(files, f"--mask={files['mask']}")
    assert status == 2
    assert "yisol/IDM-VTON" in output
    assert "CC BY-NC-SA 4.0" in output


def test_stable_garment_dresses_and_its_options_act(files: dict[str, str]) -> None:
    given = (f"--mask={files['mask']}", "--method=stable_garment", "--random-tiny", "--device=cpu")
    options = ("--fusion-blocks=midup", "--style-fidelity=0.3", "--control-scale=0.2", "--control-end=0", "--agnostic",
               "--prompt=knight", "--garment-prompt=shirt")  # fmt: skip
    out = Path(files["person"]).with_name("out.png")
    pictures = set()
    for further in ((), *((option,) for option in options)):
        status, output = typed(files, *given, *further)
        assert status == 0, output
        pictures.add(out.read_bytes())
    assert len(pictures) == 1 + len(options)
    settings = json.loads(out.with_name("out.png.json").read_text())
    assert (settings["guidance_scale"], settings["garment_prompt"]) == (2.5, "shirt")
    assert "description" not in settings


@pytest.mark.parametrize("method", ["idm_vton", "stable_garment", "catvton"])
def test_several_pictures_are_numbered(files: dict[str, str], method: str) -> None:
    words = (f"--mask={files['mask']}", f"--method={method}", "--random-tiny", "--count=2")
    status, output = typed(files, *words, without=("densepose",) if method == "catvton" else ())
    assert status == 0, output
    assert all(Path(files["person"]).with_name(f"out-{i}.png").is_file() for i in (1, 2))


@pytest.mark.usefixtures("nothing_shipped")
def test_stable_garment_says_which_files_to_get(files: dict[str, str]) -> None:
    status, output = typed(files, f"--mask={files['mask']}", "--method=stable_garment")
    assert status == 2
    assert all(word in output for word in ("loooooong/StableGarment_tryon", "controlnet/", "(or --base)", "licence"))


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (("--description=x",), "--description is for idm_vton; stable_garment does not take it"),
        (("--method=idm_vton", "--style-fidelity=0.5"), "--style-fidelity is for stable_garment; idm_vton does not"),
        (("--size=30x48",), "multiples of 8"),
        (("--category=dresses",), "--category and --arm-width are for masks that are made"),
        (("--mask={garment}.none",), "there is no --mask"),
        (("--mask={wide}",), "mask 0 is 48 x 48 pixels, its person 32 x 48"),
    ],
)
def test_what_does_not_fit_is_told_before_loading(
    files: dict[str, str], further: tuple[str, ...], message: str
) -> None:
    wide = Path(files["person"]).with_name("wide.png")
    Image.new("L", (48, 48), 255).save(wide)
    given = (f"--mask={files['mask']}", "--method=stable_garment", "--random-tiny")
    status, output = typed(files, *given, *(word.format(wide=wide, **files) for word in further))
    assert status == 2
    assert message in " ".join(output.split())
    assert "random weights" not in output
    assert not wide.with_name("out.png").exists()


@pytest.mark.parametrize("method", ["idm_vton", "stable_garment"])
def test_a_missing_densepose_is_told_before_loading(files: dict[str, str], method: str) -> None:
    words = (f"--mask={files['mask']}", f"--method={method}", "--random-tiny")
    status, output = typed(files, *words, without=("densepose",))
    assert status == 2
    assert f"{method} needs --densepose" in output
    assert "random weights" not in output


@pytest.mark.usefixtures("nothing_shipped")
def test_catvton_says_which_files_to_get(files: dict[str, str]) -> None:
    status, output = typed(files, f"--mask={files['mask']}", "--method=catvton", without=("densepose",))
    assert status == 2
    assert all(word in output for word in ("zhengchong/CatVTON", "attention/model.safetensors", "CC BY-NC-SA 4.0"))


@pytest.mark.parametrize("option", ["--densepose=x.png", "--negative-prompt=x", "--description=x", "--guess-mode"])
def test_what_catvton_does_not_take_is_refused(files: dict[str, str], option: str) -> None:
    words = (f"--mask={files['mask']}", "--method=catvton", "--random-tiny", option)
    status, output = typed(files, *words, without=("densepose",))
    assert status == 2
    assert "catvton does not take it" in " ".join(output.split())


@pytest.mark.parametrize(
    ("further", "message"),
    [((), "give either --mask, or --parsing and --keypoints"), (("--parsing=x.png",), "give both")],
    ids=["neither", "half"],
)
def test_a_missing_mask_is_explained(files: dict[str, str], further: tuple[str, ...], message: str) -> None:
    status, output = typed(files, *further, "--random-tiny")
    assert status == 2
    assert message in " ".join(output.split())


@pytest.mark.parametrize("method", ["idm_vton", "stable_garment", "catvton"])
def test_composite_keeps_the_person_outside_of_the_mask(files: dict[str, str], method: str) -> None:
    mask = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8)
    mask[16:40, 8:24] = 255
    Image.fromarray(mask).save(files["mask"])
    given = (f"--mask={files['mask']}", f"--method={method}", "--random-tiny", "--device=cpu")
    without = ("densepose",) if method == "catvton" else ()
    out = Path(files["person"]).with_name("out.png")
    made: list[np.ndarray] = []
    for further in ((), ("--composite",)):
        status, output = typed(files, *given, *further, without=without)
        assert status == 0, output
        with Image.open(out) as image:
            made.append(np.asarray(image))
    with Image.open(files["person"]) as image:
        person = np.asarray(image)
    assert np.array_equal(made[1][mask == 0], person[mask == 0])
    assert not np.array_equal(made[0][mask == 0], person[mask == 0])
    assert np.array_equal(made[1][26:30, 14:18], made[0][26:30, 14:18])
    assert json.loads(out.with_name("out.png.json").read_text())["composite"] is True
