"""Files of others are opened with bounds: what they claim is compared with what they are."""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from referencenet import inputs
from referencenet.inputs import read_arrays, read_json, read_json_lines, regular_file
from referencenet.preprocess.body import read_key_points
from referencenet.preprocess.face_mesh import read_landmarks
from referencenet.preprocess.face_track import read_track
from referencenet.preprocess.talking_face import read_head_poses

PEOPLE = {"people": [{"pose_keypoints_2d": [1.0, 2.0, 1.0] * 18}]}


def claiming(shape: tuple[int, ...]) -> bytes:
    """An .npy header for an array that is not there."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_arrays_are_read_back(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", one=np.arange(6).reshape(2, 3), two=np.float32(4))
    np.save(tmp_path / "a.npy", np.arange(3))
    found = read_arrays(tmp_path / "a.npz", "numbers")
    assert {name: array.tolist() for name, array in found.items()} == {"one": [[0, 1, 2], [3, 4, 5]], "two": 4.0}
    assert read_arrays(tmp_path / "a.npy", "numbers")[""].tolist() == [0, 1, 2]


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_claims_beyond_the_file_are_refused_before_memory_is_taken(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    if ending == ".npy":
        path.write_bytes(claiming((2**40,)))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("landmarks.npy", claiming((2**40,)))
    with pytest.raises(ValueError, match=r"a.np. holds no arrays .*takes 8796093022208 bytes, the file has"):
        read_arrays(path, "numbers")


def test_archives_that_unpack_to_gigabytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10_000))
    monkeypatch.setattr("referencenet.inputs.MAX_NUMBERS", 1000)
    with pytest.raises(ValueError, match="10000 numbers, at most 1000 are read"):
        read_arrays(tmp_path / "a.npz", "numbers")


def test_python_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="holds no arrays"):
        read_arrays(tmp_path / "a.npy", "numbers")


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "\xff", "1" * 5000, "<html>"])
def test_what_is_no_json_is_told_in_a_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.json is (not JSON|not text in UTF-8|a web page)"):
        read_json(tmp_path / "a.json", "key points")


def test_lines_of_json_are_read_with_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes('\ufeff{"a": "one\u2028line"}\r\n\n[2]\n'.encode())
    assert read_json_lines(file, "numbers") == [(1, {"a": "one\u2028line"}), (3, [2])]
    file.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(ValueError, match=r"line 2 of .*a\.jsonl is not JSON \(.*\); expected numbers"):
        read_json_lines(file, "numbers")
    monkeypatch.setattr(inputs, "MAX_JSON", 8)
    with pytest.raises(ValueError, match=r"has 16 bytes; text of at most 8 is read\. Expected numbers"):
        read_json_lines(file, "numbers")


READERS: dict[str, Any] = {
    "points": read_key_points,
    "landmarks": read_landmarks,
    "track": read_track,
    "poses": read_head_poses,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "content", ["[]", "{}", "3", "null", '"a"', '{"people": 3}', "[[[1, 2]]]", '{"landmarks": "a", "vertices": {}}',
                '{"people": [{"pose_keypoints_2d": ["a", 1, 2]}]}', '{"people": [3]}', "[null]", "[[null]]"]
)  # fmt: skip
def test_other_documents_are_told_by_every_reader(reader: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a.json|key points|landmarks|vertices"):
        READERS[reader](tmp_path / "a.json")


@pytest.mark.parametrize(
    "size", [(30_000, 30_000), (1e400, 5), (-3, 5), ("512", 512), (True, 10**9)], ids=lambda size: str(size[0])
)
def test_sizes_that_files_claim_are_bounded(size: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(PEOPLE | {"canvas_width": size[0], "canvas_height": size[1]}))
    with pytest.raises(ValueError, match="expected two whole numbers, of at most 67 million pixels"):
        read_key_points(tmp_path / "a.json")


def test_one_of_several_people_is_chosen_from_the_left(tmp_path: Path) -> None:
    people = [{"pose_keypoints_2d": [x, 5.0, 1.0] * 18} for x in (90.0, 10.0)]
    (tmp_path / "a.json").write_text(json.dumps([{"people": people}, PEOPLE]))
    with pytest.raises(ValueError, match=r"2 people are seen .*choose by its number"):
        read_key_points(tmp_path / "a.json")
    chosen = [read_key_points(tmp_path / "a.json", person)[0] for person in (1, 2)]
    assert [frames[0].body[0, 0] for frames in chosen] == [10, 90]
    assert [frames[1].is_seen for frames in chosen] == [True, False]


def test_files_of_key_points_come_in_natural_order(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        (tmp_path / f"{i}.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": [float(i), 1.0, 1.0] * 18}]}))
    (tmp_path / "._1.json").write_bytes(b"\0")
    assert [frame.body[0, 0] for frame in read_key_points(tmp_path)[0]] == [1, 2, 10]


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    for name, error, message in (
        ("empty", ValueError, "is empty"),
        ("pipe", ValueError, "is a pipe or a device"),
        (".", ValueError, "is a folder"),
        ("none", FileNotFoundError, "there is no mask"),
        ("x" * 300, FileNotFoundError, "is not a name of a file|there is no mask"),
        ("a\0b", FileNotFoundError, "is not a name of a file|there is no mask"),
    ):
        with pytest.raises(error, match=message):
            regular_file(tmp_path / name, "mask")
