"""Faces as 512 numbers: alignment, the network of the user's, ready numbers, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from referencenet.preprocess import Portrait
from referencenet.preprocess.face_embedding import (
    FIVE,
    LEFT_EYE,
    MOUTH,
    NOSE,
    RIGHT_EYE,
    FaceEmbedder,
    align_face,
    five_points,
    read_face_embedding,
)
from referencenet.preprocess.model_files import GLINTR

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(size=(512, 3)).astype(np.float32)


def write_network(path: Path, side: int = 112, numbers: int = 512) -> Path:
    """A network of glintr100's interface: weights times the mean red, green and blue of the picture."""
    onnx = pytest.importorskip("onnx", reason="onnx writes the network")
    helper: Any = onnx.helper
    given = helper.make_tensor_value_info("input.1", onnx.TensorProto.FLOAT, [None, 3, side, side])
    answer = helper.make_tensor_value_info("1333", onnx.TensorProto.FLOAT, [None, numbers])
    table = onnx.numpy_helper.from_array(WEIGHTS[:numbers].T.copy(), "table")
    nodes = [
        helper.make_node("GlobalAveragePool", ["input.1"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["row"]),
        helper.make_node("MatMul", ["row", "table"], ["1333"]),
    ]
    graph = helper.make_graph(nodes, "tiny", [given], [answer], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def landmarks(five: np.ndarray) -> np.ndarray:
    """468 points of which the five are these."""
    points = RANDOM.random((468, 2)) * 100
    for eye, place in ((LEFT_EYE, five[0]), (RIGHT_EYE, five[1])):
        around = RANDOM.normal(size=(len(eye), 2))
        points[list(eye)] = place + around - around.mean(axis=0)
    points[[NOSE, *MOUTH]] = five[2:]
    return points


@pytest.mark.parametrize(("angle", "scale"), [(0, 1), (30, 2.5), (-70, 0.6)])
def test_a_face_is_turned_and_scaled_to_arcfaces_places(angle: float, scale: float) -> None:
    turn = np.radians(angle)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    five = np.array(FIVE) @ matrix.T + (200, 180)
    picture = np.zeros((600, 600, 3), np.uint8)
    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255))
    for (x, y), colour in zip(five, colours, strict=True):
        picture[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4] = colour
    assert np.allclose(five_points(landmarks(five)), five)
    aligned = align_face(picture, five)
    assert aligned.shape == (112, 112, 3)
    for (x, y), colour in zip(FIVE, colours, strict=True):
        assert np.abs(aligned[round(y), round(x)].astype(int) - colour).max() < 40


def test_the_network_sees_rgb_from_minus_one_to_one_and_its_numbers_are_not_normalised(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_network(tmp_path / GLINTR)
    five = np.array(FIVE) + 40
    picture = Image.new("RGB", (300, 300), (255, 102, 0))
    found = FaceEmbedder(tmp_path)(picture, landmarks(five))
    expected = WEIGHTS @ np.array([1.0, 102 / 127.5 - 1, -1.0])
    assert (found.shape, found.dtype) == ((512,), np.float32)
    assert np.allclose(found, expected, atol=1e-4)
    assert np.linalg.norm(found) > 2
    read = read_face_embedding(tmp_path / GLINTR, picture, landmarks(five))
    assert torch.allclose(read, torch.from_numpy(expected).float()[None], atol=1e-4)
    portrait = Portrait(picture=picture, landmarks=landmarks(five), face=tmp_path / GLINTR)
    assert torch.equal(portrait.embedding(), read)


def test_other_networks_are_told(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(FileNotFoundError, match=r"there is no .*glintr100.onnx; get glintr100.onnx from"):
        FaceEmbedder(tmp_path)
    (tmp_path / "a.onnx").write_text("no network")
    with pytest.raises(ValueError, match="onnxruntime cannot read"):
        FaceEmbedder(tmp_path / "a.onnx")
    for sizes in ({"side": 160}, {"numbers": 128}):
        with pytest.raises(ValueError, match="it is another network"):
            FaceEmbedder(write_network(tmp_path / "b.onnx", **sizes))
    with pytest.raises(ValueError, match="give the portrait and its face's landmarks"):
        read_face_embedding(write_network(tmp_path / "c.onnx"))
    regions_alone = Portrait(picture=Image.new("RGB", (8, 8)), regions=tmp_path / "x.npz", face=tmp_path / "c.onnx")
    with pytest.raises(ValueError, match="knows faces, but none was given"):
        regions_alone.embedding()


def test_ready_numbers_are_read_and_checked(tmp_path: Path) -> None:
    numbers = RANDOM.normal(size=512)
    np.save(tmp_path / "face.npy", numbers)
    expected = torch.from_numpy(numbers).float()[None]
    for given in (
        numbers,
        numbers.tolist(),
        torch.from_numpy(numbers),
        tmp_path / "face.npy",
        str(tmp_path / "face.npy"),
    ):
        assert torch.equal(read_face_embedding(given), expected)
    assert torch.equal(read_face_embedding(None), torch.zeros(1, 512))
    with pytest.raises(FileNotFoundError, match="there is no"):
        read_face_embedding(tmp_path / "none.npy")
    np.savez(tmp_path / "several.npz", numbers)
    (tmp_path / "text.npy").write_text("512")
    for path, words in (("several.npz", "is an archive of arrays"), ("text.npy", "holds no arrays that can be read")):
        with pytest.raises(ValueError, match=words):
            read_face_embedding(tmp_path / path)
    for wrong, words in ((np.zeros(128), "expected 512 numbers"), (np.full(512, np.nan), "not finite")):
        with pytest.raises(ValueError, match=words):
            read_face_embedding(wrong)
