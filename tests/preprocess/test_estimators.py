"""Estimators on real files of tiny networks: what goes in and what is made of what comes out, through OpenCV.

The networks find white cells, and red, green and blue dots: their answers are known, unlike those of trained ones,
which cannot be had here.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnx_files import Network
from referencenet.preprocess import DWPose, YuNet, film_points, find_face
from referencenet.preprocess.model_files import SIMCC, YOLOX, YUNET

cv2 = pytest.importorskip("cv2")
SIDE, CELL = 640, 32
DOTS = ((40, 30), (100, 200), (150, 60))  # red, green, blue: x and y


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models")
    write_face_network(found / YUNET)
    write_people_network(found / YOLOX)
    write_points_network(found / SIMCC)
    return found


def write_face_network(path: Path) -> None:
    """A face of 64 x 64 pixels around every white cell of 32 x 32, its eyes at the cell's left and right border."""
    network, outputs = Network(), []
    for stride in (8, 16, CELL):
        cells = SIDE // stride
        network.pool("input", stride, stride, f"means_{stride}")
        white = np.full((1, 3), (stride == CELL) / (3 * 255))
        box = np.array([0.5, 0.5, np.log(64 / stride), np.log(64 / stride)])
        points = np.array([1, 0.5, 0, 0.5, 0.5, 0.7, 0.9, 0.9, 0.1, 0.9])  # one eye, the other, nose, mouth
        heads = {"cls": (white, np.zeros(1)), "obj": (white, np.zeros(1)),
                 "bbox": (np.zeros((4, 3)), box), "kps": (np.zeros((10, 3)), points)}  # fmt: skip
        for name, (weights, bias) in heads.items():
            network.convolve(f"means_{stride}", weights, bias, f"{name}_{stride}_map")
            network.add("Transpose", [f"{name}_{stride}_map"], f"{name}_{stride}_last", perm=[0, 2, 3, 1])
            network.reshape(f"{name}_{stride}_last", [1, cells * cells, len(bias)], f"{name}_{stride}")
    for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        outputs += [(f"{name}_{stride}", [1, (SIDE // stride) ** 2, width]) for stride in (8, 16, CELL)]
    network.write(path, ("input", [1, 3, SIDE, SIDE]), outputs)


def write_people_network(path: Path) -> None:
    """A person of 200 x 300 pixels, ten cells to the right of every white cell of 32 x 32."""
    network = Network()
    for stride in (8, 16, CELL):
        network.pool("images", stride, stride, f"means_{stride}")
        weights, bias = np.zeros((85, 3)), np.zeros(85)
        bias[:6] = 10.5, 0.5, np.log(200 / stride), np.log(300 / stride), -1, 1
        weights[4] = 2 / (3 * 255) * (stride == CELL)  # white 1, grey and black below 0
        network.convolve(f"means_{stride}", weights, bias, f"map_{stride}")
        network.reshape(f"map_{stride}", [1, 85, (SIDE // stride) ** 2], f"rows_{stride}")
    network.add("Concat", [f"rows_{stride}" for stride in (8, 16, CELL)], "joined", axis=2)
    network.add("Transpose", ["joined"], "output", perm=[0, 2, 1])
    network.write(path, ("images", [1, 3, SIDE, SIDE]), [("output", [1, 8400, 85])])


def write_points_network(path: Path) -> None:
    """Point i where the red, green or blue dot is: that of i modulo 3."""
    network = Network()
    weights = 20 * np.eye(3)[np.arange(133) % 3]
    for name, (height, width) in {"x": (384, 1), "y": (1, 288)}.items():
        length = 288 if name == "x" else 384
        network.pool("input", height, width, f"means_{name}")
        network.convolve(f"means_{name}", weights, np.full(133, 40.0), f"map_{name}")
        network.reshape(f"map_{name}", [1, 133, length, 1], f"column_{name}")
        network.add("Concat", [f"column_{name}"] * 2, f"pairs_{name}", axis=3)
        network.reshape(f"pairs_{name}", [1, 133, 2 * length], f"simcc_{name}")
    outputs = [("simcc_x", [1, 133, 576]), ("simcc_y", [1, 133, 768])]
    network.write(path, ("input", [1, 3, 384, 288]), outputs)


def cells(*places: tuple[int, int], size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """White cells on black, by column and row."""
    image = Image.new("RGB", size)
    for column, row in places:
        image.paste("white", (CELL * column, CELL * row, CELL * (column + 1), CELL * (row + 1)))
    return image


def test_face_is_found_in_the_picture_s_own_pixels(folder: Path) -> None:
    wide = cells((10, 3), size=(640, 320))
    for picture, scale in ((wide, 1.0), (wide.resize((320, 160)), 0.5)):
        (face,) = YuNet(folder)(picture)
        assert np.allclose(face.box, np.array((304, 80, 368, 144)) * scale, atol=1)
        assert np.allclose((face.left_eye, face.right_eye), np.array(((320, 112), (352, 112))) * scale, atol=1)


@pytest.mark.parametrize(("count", "words"), [(0, "no faces were found"), (5, "5 faces were found")])
def test_pictures_with_other_than_one_face_are_told(folder: Path, count: int, words: str) -> None:
    picture = cells(*((3 * i, 5) for i in range(1, count + 1)))
    with pytest.raises(ValueError, match=words):
        find_face(picture, YuNet(folder / YUNET))
    assert find_face(cells((4, 4)), YuNet(folder)).size == (64, 64)


BOX = (268, 154, 468, 454)  # of the person that the cell (1, 9) stands for


def somebody() -> Image.Image:
    """One person for both networks: a cell, and the dots in its person's box."""
    image = cells((1, 9))
    for (x, y), colour in zip(DOTS, ((255, 0, 0), (0, 255, 0), (0, 0, 255)), strict=True):
        x, y = BOX[0] + x, BOX[1] + y
        image.paste(colour, (x - 6, y - 6, x + 6, y + 6))
    return image


def test_two_people_are_two_boxes(folder: Path) -> None:
    estimator, two = DWPose(folder), cells((4, 6), (2, 13))
    truth = [[300, 282, 500, 582], [364, 58, 564, 358]]
    assert np.allclose(sorted(estimator.boxes(two).tolist()), truth, atol=1)
    assert np.allclose(estimator.boxes(somebody().resize((320, 320))), np.array([BOX]) / 2, atol=1)
    assert not len(estimator.boxes(cells()))
    with pytest.raises(ValueError, match="2 people are seen in frame 0"):
        film_points([two], estimator)
    with pytest.raises(ValueError, match="no people are seen in frame 1"):
        film_points([somebody(), cells()], estimator)
    assert len(film_points([two, two], estimator, several=True)) == 2


def test_points_come_in_openpose_s_order_and_the_picture_s_pixels(folder: Path) -> None:
    (person,) = DWPose(folder)(somebody())
    truth = np.array(DOTS) + BOX[:2]
    order = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)  # of COCO's points
    for i, coco in enumerate(order):
        expected = (truth[5 % 3] + truth[6 % 3]) / 2 if coco is None else truth[coco % 3]
        assert np.allclose(person.body[i, :2], expected, atol=7), i  # anywhere on the dot
    assert (person.body[:, 2] > 0.3).all()
    assert np.allclose(person.left_hand[0, :2], truth[91 % 3], atol=7)
    assert np.allclose(person.right_hand[0, :2], truth[112 % 3], atol=7)
    assert np.allclose(person.face[0, :2], truth[23 % 3], atol=7)


def test_missing_and_broken_files_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"get {YUNET} from github.com/opencv"):
        YuNet(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"get {YOLOX} from huggingface.co"):
        DWPose(tmp_path)
    (tmp_path / YUNET).write_bytes(b"no network" * 9)
    with pytest.raises(ValueError, match="OpenCV cannot read"):
        YuNet(tmp_path)
    for name in (YOLOX, SIMCC):
        (tmp_path / name).write_bytes((folder / SIMCC).read_bytes())
    with pytest.raises(ValueError, match=f"{YOLOX} does not take"):
        DWPose(tmp_path)(cells())
