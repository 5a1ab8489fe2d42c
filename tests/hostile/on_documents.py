"""Settings, states of films and training, saved folders, key lists, golden cases, archives and programs handed over."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import torch

from films import write_interpolator
from hostile.case import Table
from hostile.made import (
    LFS,
    PAGE,
    Make,
    bytes_at,
    cut,
    json_at,
    once,
    pipe_at,
    saved_at,
    with_holes,
    zip_of_zeros,
    zipped,
)
from referencenet.checkpoints.manifest import read_manifest
from referencenet.methods.systems import load
from referencenet.preprocess.model_files import SUMS, unpack
from referencenet.sampling.insertion import read_interpolator
from referencenet.training.checkpoint import RunFolder, State

TABLE = Table("documents")
DRAWN = {"prompt": "a knight", "reference": ["hero.png"], "size": "64", "steps": 1, "seed": 1}
GENERATE = ("generate", "--settings", "s.json", "--out", "out")


def settings(name: str, says: str, document: Any) -> None:
    """Add a settings.json that is none."""
    make = bytes_at("s.json", document) if isinstance(document, str | bytes) else json_at("s.json", document)
    TABLE.add(f"settings, {name}", once("hero"), make, typed=GENERATE, says=says)


def drawn(**changes: Any) -> dict[str, Any]:
    """A settings.json with changes."""
    return {"settings": DRAWN | changes, "sha256": {}}


settings("nothing in the file", r"s\.json is empty", b"")
settings("a web page", r"s\.json is a web page", PAGE)
settings("no JSON", r"s\.json is not JSON", "{'settings': 1}")
settings("nested without end", r"s\.json is not JSON", '{"settings":' * 50_000)
settings("a list", r"s\.json is not a settings\.json", [1])
settings("no sections", r"s\.json is not a settings\.json", {"prompt": "x"})
settings("sections that are lists", r"s\.json is not a settings\.json", {"settings": [], "sha256": []})
settings("an option of another version", r"s\.json holds unknown settings charm", drawn(charm=1))
settings("an option that is no setting", r"s\.json holds unknown settings out", drawn(out="/elsewhere"))
settings("a list for a word", r"s\.json has prompt = .*expected one value", drawn(prompt=["a", "b"]))
settings("an object for a number", r"s\.json has steps = .*expected one value", drawn(steps={"a": 1}))
settings("a word for a list", r"s\.json has reference = 'hero.png'; expected a list", drawn(reference="hero.png"))
settings("lists in a list", r"s\.json has reference = .*expected a list", drawn(reference=[["hero.png"]]))
settings("a word for a number", r"'--steps'.*valid integer", drawn(steps="many"))
settings("a number out of range", r"'--strength'.*less than or equal to 1", drawn(strength=7))
settings(
    "NaN", r"'--strength'.*less than or equal to 1", json.dumps(drawn()).replace('"steps"', '"strength": NaN, "steps"')
)
settings("a reference that is not there", "gone.png", drawn(reference=["gone.png"]))
settings("a model that is a web address", "--model", drawn(model="http://localhost/model"))
settings("a model outside of the disk", "--model", drawn(model="/dev/null"))

# --- an unfinished film -----------------------------------------------------------------------------------------------

RESUME = ("animate", "-r", "hero.png", "-p", "poses", "--random-tiny", "--steps", "1", "-o", "o.mp4", "--resume")
STATE = ".o.mp4.parts/state.pt"


def state(name: str, says: str, *make: Make) -> None:
    """Add an unfinished film whose state is none."""
    TABLE.add(
        f"state of a film, {name}",
        once("hero"),
        once("poses"),
        lambda f: (f / STATE).parent.mkdir(),
        *make,
        typed=RESUME,
        says=says,
    )


state("nothing in the file", r"state\.pt.*start again", bytes_at(STATE, b""))
state("prose", r"state\.pt.*start again", bytes_at(STATE, "half way there"))
state("a Git LFS pointer", r"state\.pt.*start again", bytes_at(STATE, LFS))
state("a list", r"state\.pt.*start again", saved_at(STATE, [1, 2]))
state("an empty object", r"state\.pt.*start again", saved_at(STATE, {}))
state("settings that are a word", r"state\.pt.*start again", saved_at(STATE, {"settings": "x"}))
state(
    "settings of another film",
    r"state\.pt.*start again",
    saved_at(STATE, {"settings": {"seed": "7"}, "frames": 1, "predictions": 1, "last": None, "state": {}}),
)
state("code", r"state\.pt.*start again", saved_at(STATE, {"settings": Path("x")}))
state("half a file", r"state\.pt.*start again", saved_at(STATE, {"settings": {}}), cut(STATE))
state(
    "an expanded tensor",
    r"state\.pt.*start again",
    saved_at(STATE, {"settings": {}, "state": torch.zeros(1).expand(2**33)}),
)
state(
    "a packed archive of gigabytes",
    r"state\.pt.*start again",
    zip_of_zeros(STATE, {"state/data.pkl": (b"\x80\x02}q\0.", 2**28), "state/version": (b"3\n", 0)}),
)
TABLE.add(
    "state of a film, a named pipe",
    once("hero"),
    once("poses"),
    lambda f: (f / STATE).parent.mkdir(),
    pipe_at(STATE),
    typed=RESUME,
    says=r"state\.pt.*start again",
)

# --- a training run ---------------------------------------------------------------------------------------------------


STEP = "run/step-00000001"
LEARNED = {"unet.weight": torch.zeros(3)}


def checkpoint(folder: Path) -> None:
    """A whole checkpoint, to be damaged."""
    RunFolder(folder / "run").save(State(step=1, weights=LEARNED, optimizers={"adamw": {"state": {}}}))


def run(name: str, *make: Make) -> None:
    """Add a training run whose checkpoint is none."""
    TABLE.add(
        f"state of training, {name}",
        checkpoint,
        *make,
        call=lambda: RunFolder("run").load(),
        says=r"run/step-00000001 is not a complete checkpoint .*remove it",
    )


run("nothing in the file", bytes_at(f"{STEP}/optimizers.pt", b""))
run("prose", bytes_at(f"{STEP}/optimizers.pt", "step 1000"))
run("half a file", cut(f"{STEP}/weights.safetensors"))
run("code", saved_at(f"{STEP}/optimizers.pt", {"optimizers": Path("x")}))
run("a list", saved_at(f"{STEP}/optimizers.pt", [1]))
run("an expanded tensor", saved_at(f"{STEP}/optimizers.pt", {"optimizers": torch.zeros(1).expand(2**33)}))
run("a step that is no number", json_at(f"{STEP}/state.json", {"step": "many"}))
run("no step", json_at(f"{STEP}/state.json", []))
TABLE.add(
    "state of training, of an earlier version",
    lambda f: (f / "run").mkdir(),
    saved_at("run/state.pt", {"step": 1}),
    call=lambda: RunFolder("run").load(),
    says=r"run holds a run of an earlier version \(state\.pt\)",
)

# --- saved folders ----------------------------------------------------------------------------------------------------


def saved(name: str, says: str, *make: Make) -> None:
    """Add a saved pipeline that is damaged."""
    TABLE.add(f"saved folders, {name}", once("converted"), *make, call=lambda: load("converted"), says=says, slow=True)


INDEX = "converted/model_index.json"
saved("an index that is not JSON", r"model_index\.json", bytes_at(INDEX, "{"))
saved("an empty index", r"model_index\.json is empty", bytes_at(INDEX, b""))
saved("an index that is a list", r"model_index\.json", json_at(INDEX, [1]))
saved(
    "an index of no class", r"converted holds a None", json_at(INDEX, {"unet": ["diffusers", "UNet2DConditionModel"]})
)
saved(
    "an index of another library",
    r"model_index\.json names .*, which is not a part of diffusers",
    lambda f: (f / INDEX).write_text(json.dumps(json.loads((f / INDEX).read_text()) | {"vae": ["os", "system"]})),
)
saved(
    "an index of a class that is not there",
    r"model_index\.json names .*, which is not a part of diffusers",
    lambda f: (f / INDEX).write_text(
        json.dumps(json.loads((f / INDEX).read_text()) | {"vae": ["diffusers", "AutoencoderOfNobody"]})
    ),
)
saved(
    "an index of numbers",
    r"model_index\.json names .*, which is not a part of diffusers",
    lambda f: (f / INDEX).write_text(json.dumps(json.loads((f / INDEX).read_text()) | {"vae": [1, 2]})),
)
saved(
    "a part that is missing",
    r"converted has no folder vae",
    lambda f: (f / "converted/vae").rename(f / "converted/elsewhere"),
)
saved(
    "a part's weights are a pointer",
    r"vae.*LFS pointer",
    bytes_at("converted/vae/diffusion_pytorch_model.safetensors", LFS),
)
saved("a part's weights are half a file", r"unet", cut("converted/unet/diffusion_pytorch_model.safetensors"))
saved(
    "a part as large as memory",
    r"unet/config\.json claims \d+ weights",
    lambda f: (f / "converted/unet/config.json").write_text(
        json.dumps(json.loads((f / "converted/unet/config.json").read_text()) | {"block_out_channels": [2**20] * 2})
    ),
)
saved(
    "a schedule of words",
    r"scheduler_config\.json claims num_train_timesteps",
    lambda f: (f / "converted/scheduler/scheduler_config.json").write_text(
        json.dumps(
            json.loads((f / "converted/scheduler/scheduler_config.json").read_text()) | {"num_train_timesteps": "many"}
        )
    ),
)
saved(
    "a schedule as long as memory",
    r"scheduler_config\.json claims num_train_timesteps",
    lambda f: (f / "converted/scheduler/scheduler_config.json").write_text(
        json.dumps(
            json.loads((f / "converted/scheduler/scheduler_config.json").read_text()) | {"num_train_timesteps": 2**40}
        )
    ),
)
TABLE.add("saved folders, no folder", call=lambda: load("gone"), says="gone")
TABLE.add(
    "saved folders, code that the folder brings",
    once("converted"),
    bytes_at("converted/pipeline.py", "open('this-ran', 'w')\n"),
    call=lambda: load("converted"),
    gives=lambda _: Path("this-ran").exists() and 1 / 0,
)

# --- key lists and golden cases ---------------------------------------------------------------------------------------


def keys(name: str, *make: Make) -> None:
    """Add a key list that is none."""
    TABLE.add(
        f"key lists, {name}", *make, call=lambda: read_manifest("k.json.gz"), says=r"k\.json\.gz is not a key list"
    )


keys("nothing in the file", bytes_at("k.json.gz", b""))
keys("not packed", bytes_at("k.json.gz", "{}"))
keys("half a file", bytes_at("k.json.gz", gzip.compress(b'{"file": "x", "keys": {}}' * 99)), cut("k.json.gz"))
keys("gigabytes of packed blanks", bytes_at("k.json.gz", gzip.compress(bytes(2**20), 9) * 3000))
keys("no keys", bytes_at("k.json.gz", gzip.compress(b"{}")))
keys("shapes of words", bytes_at("k.json.gz", gzip.compress(b'{"file": "x", "keys": {"a": ["wide"]}}')))
keys("a shape that overflows", bytes_at("k.json.gz", gzip.compress(b'{"file": "x", "keys": {"a": [9e99, 4]}}')))
keys("nested without end", bytes_at("k.json.gz", gzip.compress(b'{"a":' * 90_000)))

# --- archives and programs --------------------------------------------------------------------------------------------


def wheel(name: str, says: str, *make: Make) -> None:
    """Add an archive that is not the wheel of the networks."""
    TABLE.add(f"wheels, {name}", *make, call=lambda: unpack("w.whl", "models"), says=says)


NAMES = [f"mediapipe/modules/{name}" for name in SUMS]
wheel("no file", r"there is no wheel of .* w\.whl")
wheel("a named pipe", r"w\.whl", pipe_at("w.whl"))
wheel("prose", r"w\.whl is not a wheel", bytes_at("w.whl", "PK but not really"))
wheel("another archive", r"w\.whl does not hold", zipped("w.whl", {"a.txt": b"a"}))
wheel("networks of other sums", r"has the sha256 sum", zipped("w.whl", dict.fromkeys(NAMES, b"network")))
wheel(
    "networks of gigabytes of zeros",
    r"w\.whl.*bytes",
    zip_of_zeros("w.whl", {name: (b"", 2**28) for name in NAMES[:1]}),
)
wheel("names that lead outside", r"has the sha256 sum", zipped("w.whl", {f"../../../{name}": b"x" for name in SUMS}))
wheel("half a file", r"w\.whl is not a wheel", zipped("w.whl", dict.fromkeys(NAMES, b"network")), cut("w.whl"))


def _links(folder: Path) -> None:
    """An archive whose members are links to a file outside."""
    with zipfile.ZipFile(folder / "w.whl", "w") as archive:
        for name in NAMES:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")


wheel("links for networks", r"has the sha256 sum", _links)


def program(name: str, says: str, *make: Make) -> None:
    """Add a file that is no network between frames."""
    TABLE.add(f"interpolators, {name}", *make, call=lambda: read_interpolator("i.pt"), says=says)


program("no file", r"there is no .*i\.pt")
program("a named pipe", r"i\.pt", pipe_at("i.pt"))
program("nothing in the file", r"i\.pt is empty", bytes_at("i.pt", b""))
program("a Git LFS pointer", r"i\.pt is a Git LFS pointer", bytes_at("i.pt", LFS))
program("prose", r"i\.pt is not a TorchScript archive", bytes_at("i.pt", "def forward(): pass"))
program("weights alone", r"i\.pt is not a TorchScript archive", saved_at("i.pt", {"w": torch.zeros(2)}))
program("half a file", r"i\.pt is not a TorchScript archive", lambda f: write_interpolator(f / "i.pt"), cut("i.pt"))
program("a terabyte of nothing", r"i\.pt is not a TorchScript archive", with_holes("i.pt", b"PK\3\4", 2**40))
