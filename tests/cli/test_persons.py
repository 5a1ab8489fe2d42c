"""`--person N` of `turn`, `compose`, `generate`, `animate` and `face`: as if somebody had cut the picture by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from commands import told
from docs.desk import write_segmenter
from fetched import MODELS, needs_models
from referencenet.cli.app import app
from referencenet.cli.persons import only_theirs, people_finder
from referencenet.preprocess import FaceMesh, Portrait
from referencenet.preprocess.faces import Face
from referencenet.preprocess.people import find_person
from tiny import picture

TINY = ("--random-tiny", "--device", "cpu", "--steps", "1")
PLACED = ("--models", str(MODELS))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of two people, as large as a group's; a shoe; a pose."""
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photograph")
    folder = tmp_path_factory.mktemp("several")
    one = Image.fromarray(data.astronaut())
    both = Image.new("RGB", (1124, 512), "grey")
    both.paste(one.resize((400, 400)), (0, 112))
    both.paste(one, (612, 0))
    both.save(folder / "both.png")
    white = Image.new("L", both.size)
    white.paste(255, (200, 300, 900, 512))
    white.save(folder / "white.png")
    for i, name in enumerate(("shoe", "pose")):
        picture(i, (48, 48)).save(folder / f"{name}.png")
    return folder


def run(*typed: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in typed])


def drawn(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@needs_models
def test_a_portrait_is_cut_around_the_face_that_is_meant(several: Path, tmp_path: Path) -> None:
    portraits = {"both": several / "both.png"}
    for person in (1, 2):
        with Image.open(several / "both.png") as both:
            cut = Portrait.found(both, FaceMesh(MODELS), person=person).picture
        assert isinstance(cut, Image.Image)
        portraits[str(person)] = tmp_path / f"{person}.png"
        cut.save(portraits[str(person)])

    def turned(name: str, portrait: Path, *further: Any) -> tuple[np.ndarray, Result]:
        out = tmp_path / name
        result = run("turn", "-r", portrait, "-o", out, "--size", "32", "--views", "1", *TINY, *further)
        return drawn(out / "000000.png"), result

    by_hand = [turned(f"hand{person}", portraits[person])[0] for person in ("1", "2")]
    for person in (1, 2):
        found, result = turned(f"found{person}", portraits["both"], "--person", person, *PLACED)
        assert "the portrait is 1124 x 512 pixels; a square of" in told(result)
        assert np.array_equal(found, by_hand[person - 1])
    assert not np.array_equal(*by_hand)
    wrong = run("turn", "-r", portraits["both"], "-o", tmp_path / "no", "--person", 3, *PLACED, *TINY)
    assert (wrong.exit_code, "face 3 from the left was asked for" in told(wrong)) == (2, True)


@needs_models
def test_parts_are_cut_around_the_person_who_is_meant(several: Path, tmp_path: Path) -> None:
    with Image.open(several / "both.png") as both, Image.open(several / "white.png") as white:
        cut = find_person(both, people_finder(MODELS), 2, (32, 48))
        assert cut is not None
        both.crop(cut.box).save(tmp_path / "cut.png")
        white.crop(cut.box).save(tmp_path / "mask.png")
    shoe = ("--part", f"shoes={several}/shoe.png", "--mask", f"shoes={several}/shoe.png")
    common = ("--pose", several / "pose.png", "--size", "32x48", *TINY)

    def composed(name: str, part: Path, mask: Path, *further: Any) -> tuple[np.ndarray, str]:
        typed = ("--part", f"upper={part}", "--mask", f"upper={mask}", *shoe, "-o", tmp_path / name)
        result = run("compose", *typed, *common, *further)
        assert result.exit_code == 0, told(result)
        return drawn(tmp_path / name), told(result)

    by_hand, _ = composed("hand.png", tmp_path / "cut.png", tmp_path / "mask.png")
    files = several / "both.png", several / "white.png"
    found, said = composed("found.png", *files, "--person", 2, *PLACED)
    assert np.array_equal(found, by_hand)
    assert "are cut out around person 2" in said
    assert "the picture of shoes shows nobody that --person could choose; it stays whole" in said
    assert not np.array_equal(composed("whole.png", *files)[0], found)
    wrong = run("compose", "--part", f"face={files[0]}", "--mask", f"face={files[1]}", "-o", tmp_path / "no.png",
                *common, "--person", 3, *PLACED)  # fmt: skip
    assert "the picture of face: person 3 from the left was asked for, but" in told(wrong)


@needs_models
def test_a_made_mask_is_of_the_person_alone(several: Path, tmp_path: Path) -> None:
    write_segmenter(tmp_path / "clothes")
    result = run(
        "compose", "--part", f"shoes={several}/both.png", "--segmenter", tmp_path / "clothes", "--person", 1, *PLACED,
        "--pose", several / "pose.png", "--size", "32x48", *TINY, "-o", tmp_path / "out.png",
    )  # fmt: skip
    assert result.exit_code == 0, told(result)
    half = Image.new("L", (8, 8))
    half.paste(255, (0, 0, 4, 8))
    find = only_theirs(lambda picture, _label: Image.new("L", picture.size, 200), {"shoes": half})
    mask = np.asarray(find(Image.new("RGB", (8, 8)), "shoes"))
    assert (mask[:, :4] == 200).all()
    assert not mask[:, 4:].any()
    assert np.asarray(find(Image.new("RGB", (8, 8)), "face")).min() == 200


@needs_models
def test_references_are_cut_with_their_masks(several: Path, tmp_path: Path) -> None:
    with Image.open(several / "both.png") as both, Image.open(several / "white.png") as white:
        cut = find_person(both, people_finder(MODELS), 1)
        assert cut is not None
        both.crop(cut.box).save(tmp_path / "cut.png")
        white.crop(cut.box).save(tmp_path / "mask.png")

    def made(name: str, shown: Path, mask: Path, *further: Any) -> np.ndarray:
        typed = ("-r", shown, "--mask", mask, "-p", "a b", "--seed", 1, "--steps", 1, "--size", 32, "--device", "cpu")
        result = run("generate", *typed, "-o", tmp_path / name, *further)
        assert result.exit_code == 0, told(result)
        return drawn(tmp_path / name / "0001" / "seed-1.png")

    by_hand = made("hand", tmp_path / "cut.png", tmp_path / "mask.png")
    found = made("found", several / "both.png", several / "white.png", "--person", 1, *PLACED)
    assert np.array_equal(found, by_hand)
    assert not np.array_equal(made("whole", several / "both.png", several / "white.png"), found)
    again = run("generate", "--settings", tmp_path / "found" / "0001" / "settings.json", "-o", tmp_path / "again")
    assert again.exit_code == 0, told(again)
    assert np.array_equal(drawn(tmp_path / "again" / "0001" / "seed-1.png"), found)


ASKED = {
    "turn": ("-r", "{0}/shoe.png", "--random-tiny", "-o", "{0}/no"),
    "compose": ("--part", "face={0}/shoe.png", "--mask", "face={0}/shoe.png", "--pose", "{0}/pose.png", "--random-tiny",
                "-o", "{0}/no.png"),
    "generate": ("-r", "{0}/shoe.png", "-p", "a", "-o", "{0}/no"),
}  # fmt: skip


@pytest.mark.parametrize("command", ASKED)
def test_networks_without_a_person_and_a_person_without_networks_are_refused(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, name in enumerate(("shoe", "pose")):
        picture(i, (48, 48)).save(tmp_path / f"{name}.png")
    typed = [word.format(tmp_path) for word in ASKED[command]]
    result = run(command, *typed, "--models", tmp_path)
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "--models is where the networks for --person are, which was not given" in told(result)
    result = run(command, *typed, "--person", 0)
    assert result.exit_code == 2
    monkeypatch.setenv("REFNET_MODELS", str(tmp_path / "none"))
    pytest.importorskip("ai_edge_litert", reason="LiteRT runs the networks")
    result = run(command, *typed, "--person", 1)
    assert result.exit_code == 2
    assert "run `refnet models fetch`" in told(result)
    assert "for --person; or cut the p" in told(result)
    assert not (tmp_path / "no").exists()


def test_a_style_has_no_person(tmp_path: Path) -> None:
    picture(0, (48, 48)).save(tmp_path / "style.png")
    result = run("generate", "--style", tmp_path / "style.png", "-p", "a", "-o", tmp_path / "no", "--person", 1)
    assert "--link aligned does not take --person" in told(result)


def test_the_key_points_of_one_of_several_lead_a_film(tmp_path: Path) -> None:
    picture(0, (48, 64)).save(tmp_path / "hero.png")
    drawn_at = np.random.default_rng(2).uniform((4, 4), (20, 60), (18, 2))
    people = [(np.column_stack([drawn_at + (shift, 0), np.ones(18)])).ravel().tolist() for shift in (24, 0)]
    for name, those in (("both", people), ("1", people[1:]), ("2", people[:1])):
        seen = [{"pose_keypoints_2d": each} for each in those]
        document = [{"people": seen, "canvas_width": 48, "canvas_height": 64}]
        (tmp_path / f"{name}.json").write_text(json.dumps(document))

    def danced(name: str, *further: Any) -> np.ndarray:
        out = tmp_path / f"out-{name}{len(further)}"
        result = run(
            "animate", "-r", tmp_path / "hero.png", "-k", tmp_path / f"{name}.json", "-o", out, *TINY, *further
        )
        assert result.exit_code == 0, told(result)
        return drawn(out / "000000.png")

    alone = {person: danced(str(person)) for person in (1, 2)}
    assert not np.array_equal(alone[1], alone[2])
    for person, expected in alone.items():
        assert np.array_equal(danced("both", "--person", person, *["--overwrite"] * (person - 1)), expected)
    wrong = run("animate", "-r", tmp_path / "hero.png", "-k", tmp_path / "both.json", "-o", tmp_path / "no", *TINY)
    assert (wrong.exit_code, "2 people are seen in" in told(wrong)) == (2, True)


def test_a_face_of_several_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(1, (80, 56)).save(tmp_path / "both.png")
    boxes = (44.0, 8.0, 72.0, 44.0), (4.0, 8.0, 32.0, 44.0)
    monkeypatch.setattr("referencenet.cli.face.YuNet", lambda _: lambda _: [Face(box=box) for box in boxes])

    def made(name: str, *further: Any) -> np.ndarray:
        out = tmp_path / f"{name}.png"
        result = run("face", "words", "-f", tmp_path / "both.png", "--size", "32x32", "-o", out, *TINY, *further)
        assert result.exit_code == 0, told(result)
        return drawn(out)

    by_hand = [made(f"hand{i}", "--box", ",".join(map(str, box))) for i, box in enumerate(reversed(boxes))]
    for person, expected in enumerate(by_hand, 1):
        assert np.array_equal(made(f"found{person}", "--detector", tmp_path, "--person", person), expected)
    assert not np.array_equal(*by_hand)
    for further, message in (
        ((), "2 faces were found"),
        (("--person", 3), "there is no person 3, counted from the left"),
    ):
        wrong = run("face", "words", "-f", tmp_path / "both.png", "-o", tmp_path / "no.png", *TINY, "--detector",
                    tmp_path, *further)  # fmt: skip
        assert (wrong.exit_code, message in told(wrong)) == (2, True)
