"""Bytes changed, cut out and put in at random: every reader reads the file, or says in one line what is wrong with it.

Never another exception than the library's own, and never more memory than a bound. The examples are few here and many
in the slow run; what was found once stands as a case in the tables beside this file.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from encoded_films import encode
from hostile.made import track
from referencenet.batch.jobs import WrongJobs, read_jobs
from referencenet.checkpoints.files import read_saved, read_state
from referencenet.checkpoints.library import read_configuration, read_index
from referencenet.checkpoints.manifest import read_manifest
from referencenet.cli.settings import read_document
from referencenet.links.bank import ReferenceBank
from referencenet.links.series import BankSeries
from referencenet.media.films import Film
from referencenet.media.images import read_image
from referencenet.media.records import read_record
from referencenet.media.sheets import write_image
from referencenet.media.sound import read_sound
from referencenet.parity.cases import CaseError, read_content
from referencenet.preprocess.body import SkeletonFilm, read_key_points
from referencenet.preprocess.face_embedding import read_face_embedding
from referencenet.preprocess.face_mesh import read_landmarks
from referencenet.preprocess.face_track import read_track
from referencenet.preprocess.talking_face import read_head_poses
from referencenet.preprocess.task_file import read_geometry
from referencenet.sampling.references import Reference
from referencenet.training.checkpoint import RunFolder
from referencenet.training.config import read_config
from sounds import tone, write_sound
from tiny import picture

FEW, MANY = 8, 300
BYTES = 64 * 2**20  # of Python's own memory and NumPy's, for files of some kilobytes


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def former(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def gzipped(document: Any) -> bytes:
    return gzip.compress(json.dumps(document).encode())


def image(form: str) -> bytes:
    file = io.BytesIO()
    picture(0, (24, 16)).save(file, form)
    return file.getvalue()


def wave() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_sound(Path(folder) / "s.wav", tone(0.05, 16000), 16000).read_bytes()


SITE = torch.arange(8.0).reshape(1, 2, 4)
SERIES = {"scheduler": "DDIM", "digest": "0", "timesteps": [981, 1], "width": 64, "height": 64}
STATE = {"conv.weight": torch.ones(2, 2), "conv.bias": torch.zeros(2)}
PERSON = {"people": [{"pose_keypoints_2d": [float(i) for i in range(54)]}], "canvas_width": 64, "canvas_height": 64}
SETTINGS = {"settings": {"prompt": "a", "reference": ["a.png"], "steps": 3}, "sha256": {"a.png": "0"}}
INDEX = {"_class_name": "X", "unet": ["diffusers", "UNet2DConditionModel"], "vae": [None, None]}


JOB = {"command": "generate", "prompt": "a", "reference": [str(Path(__file__).parents[2] / "docs/images/ui.png")]}
RECIPE = b"[image]\nsteps = 3\nbatch = 2\noptimizer.learning_rate = 1e-5\n"


def film(name: str) -> bytes:
    """One of three frames, with a record of ours where its container has a place for one."""
    with tempfile.TemporaryDirectory() as folder:
        return encode(Path(folder) / name, 3, comment='{"referencenet": "1", "again": {}}').read_bytes()


def recorded() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_image(picture(0, (24, 16)), Path(folder) / "p.png", {"seed": 1}).read_bytes()


def canonical() -> bytes:
    """A canonical face as protocol buffers: vertices of five numbers, and three weighted points."""
    numbers = b"".join(b"\x1d" + np.float32(i).tobytes() for i in range(468 * 5))
    length = bytes([len(numbers) & 127 | 128, len(numbers) >> 7])
    points = b"".join(b"\x12\x07\x08" + bytes([i]) + b"\x15" + np.float32(1).tobytes() for i in (5, 6, 7))
    return b"\x0a" + length + numbers + points


def jobs(path: Path) -> Any:
    """Jobs; what is wrong with one is told with the number of its line, and the command names the file."""
    try:
        return read_jobs(path)
    except WrongJobs as error:
        raise ValueError(f"{path.name}: {' '.join(error.lines)}") from error


def drawn(path: Path) -> Any:
    frames, size = read_key_points(path)
    return list(SkeletonFilm(frames, size or (64, 64)))


def resumed(path: Path) -> Any:
    """A training run whose other files are whole."""
    (path.parent / "state.json").write_text('{"step": 1}')
    (path.parent / "weights.safetensors").write_bytes(save(STATE))
    return RunFolder(path.parent.parent).load()


READERS: dict[str, tuple[str, Callable[[Path], Any], Callable[[], bytes]]] = {
    "bank": (
        "b.safetensors",
        ReferenceBank.load,
        lambda: save({"hidden/a": SITE, "key/b": SITE + 1, "value/b": SITE + 2}, {"format": "referencenet-bank-1"}),
    ),
    "series": (
        "b.safetensors",
        BankSeries.load,
        lambda: save(
            {"981/hidden/a": SITE, "1/hidden/a": SITE + 1},
            {"format": "referencenet-series-1", "made_for": json.dumps(SERIES)},
        ),
    ),
    "reference": (
        "b.safetensors",
        Reference.load,
        lambda: save(
            {"latents": torch.zeros(1, 4, 2, 2)},
            {"format": "referencenet-reference-1", "settings": '{"strength": 0.5}'},
        ),
    ),
    "safetensors": ("w.safetensors", read_state, lambda: save(STATE)),
    "pickled weights": ("w.pth", read_state, lambda: saved(STATE)),
    "pickled weights of the former form": ("w.pth", read_state, lambda: former(STATE)),
    "state": ("s.pt", read_saved, lambda: saved({"step": 1, "state": [torch.zeros(3), {"a": None}]})),
    "training": (
        "step-00000001/optimizers.pt",
        resumed,
        lambda: saved({"optimizers": {"adamw": {"state": torch.zeros(3)}}, "scaler": None}),
    ),
    "key points": ("k.json", drawn, lambda: json.dumps(PERSON).encode()),
    "track": ("t.npz", read_track, lambda: npz(**track(1))),
    "track in JSON": (
        "t.json",
        read_track,
        lambda: json.dumps({name: np.asarray(value).round(1).tolist() for name, value in track(1).items()}).encode(),
    ),
    "landmarks": ("l.npy", read_landmarks, lambda: npy(np.full((1, 468, 2), 0.5, np.float16))),
    "head poses": ("h.npy", read_head_poses, lambda: npy(np.zeros((2, 6)))),
    "embedding": ("e.npy", read_face_embedding, lambda: npy(np.zeros(512, np.float32))),
    "settings": ("s.json", read_document, lambda: json.dumps(SETTINGS).encode()),
    "configuration": ("config.json", read_configuration, lambda: json.dumps({"a": 1, "layers": [2, 3]}).encode()),
    "index": ("model_index.json", lambda path: read_index(path.parent), lambda: json.dumps(INDEX).encode()),
    "key list": ("k.json.gz", read_manifest, lambda: gzipped({"file": "x", "keys": {"a": [2, 3], "b": []}})),
    "golden case": (
        "case.json",
        lambda path: read_content(path.parent),
        lambda: json.dumps({"id": "a", "method": "b", "kind": "c", "components": {}}).encode(),
    ),
    "PNG": ("p.png", read_image, lambda: image("PNG")),
    "JPEG": ("p.jpg", read_image, lambda: image("JPEG")),
    "WebP": ("p.webp", read_image, lambda: image("WEBP")),
    "GIF": ("p.gif", read_image, lambda: image("GIF")),
    "sound": ("s.wav", read_sound, wave),
    "film": ("f.mp4", lambda path: list(Film(path)), lambda: film("f.mp4")),
    "film in Matroska": ("f.mkv", lambda path: list(Film(path)), lambda: film("f.mkv")),
    "record in a picture": ("p.png", read_record, recorded),
    "record in a film": ("r.mp4", read_record, lambda: film("r.mp4")),
    "recipe": ("r.toml", lambda path: read_config(path, "image"), lambda: RECIPE),
    "face geometry": ("g.binarypb", lambda path: read_geometry(path.read_bytes(), path.name), canonical),
    "jobs": ("j.jsonl", jobs, lambda: json.dumps(JOB).encode()),
}
"""What is read: the file's name, its reader and the bytes of a whole one."""

ODD = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\x7f",
    b"{",
    b"[",
    b'"',
    b"NaN",
    b"1e999",
    b"-1",
    b"null",
    b"9" * 40,
    b"\x80\x02",
    b"(" * 200,
]


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[float, int, bytes]]:
    """Places as shares of a file, how many bytes go there, and which come."""
    edit = st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12) | st.sampled_from(ODD))
    return draw(st.lists(edit, min_size=1, max_size=6))


def changed(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for place, gone, come in changes:
        at = int(place * len(content))
        content = content[:at] + come + content[at + gone :]
    return content


def check(name: str, changes: list[tuple[float, int, bytes]], folder: Path, whole: bytes) -> None:
    """Read a changed file."""
    file, read, _ = READERS[name]
    path = folder / file
    path.write_bytes(changed(whole, changes))
    tracemalloc.start()
    try:
        read(path)
        said = path.name
    except (ValueError, TypeError, OSError, CaseError) as error:
        said = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert path.name in said or path.parent.name in said, f"names no file: {said}"
    assert "\n" not in said.strip(), f"more than a line: {said}"
    assert peak < BYTES, f"{peak} bytes"


def fuzzed(name: str, folder: Path, examples: int) -> None:
    """Read many changed files."""
    whole = READERS[name][2]()
    (folder / READERS[name][0]).parent.mkdir(parents=True, exist_ok=True)
    (folder / READERS[name][0]).write_bytes(whole)
    READERS[name][1](folder / READERS[name][0])  # the whole one is read

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(edits())
    def many(changes: list[tuple[float, int, bytes]]) -> None:
        check(name, changes, folder, whole)

    many()


@pytest.mark.filterwarnings("ignore")  # what decoders say of damage on the way
@pytest.mark.parametrize("name", READERS)
def test_changed_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    fuzzed(name, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_many_changed_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    fuzzed(name, tmp_path, MANY)
