"""DensePose from files of both exports: what they are shown, what is made of their answers, and its drawing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from densepose_files import Newer, Older, saved
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.preprocess.densepose import BodyParts, DensePose, DensePoseFilm, draw_densepose, part_colours
from referencenet.preprocess.drawing_colours import drawing_kind
from referencenet.preprocess.model_files import DENSEPOSE, DENSEPOSE_ANNOTATORS

pytest.importorskip("cv2", reason="OpenCV has the colour maps")
SIZE = (40, 30)


class Another(torch.nn.Module):
    """No DensePose."""

    def forward(self, image: Tensor) -> Tensor:
        return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("densepose")
    saved(Newer(), folder / DENSEPOSE)
    return folder


def photo(colour: tuple[int, int, int] = (250, 0, 10)) -> Image.Image:
    return Image.new("RGB", SIZE, colour)


def test_parts_are_those_of_both_maps_in_the_persons_box(folder: Path) -> None:
    (person,) = DensePose(folder)(photo())  # the other is doubtful
    assert (person.left, person.top, person.parts.shape) == (4, 6, (20, 16))
    expected = np.zeros((20, 16), dtype=np.uint8)
    expected[:10, :8], expected[:10, 8:] = 3, 20
    assert np.array_equal(person.parts, expected)
    assert person.region.box == (2.0, 6.0, 22.0, 26.0)


def test_the_older_export_sees_the_picture_in_its_own_order(tmp_path: Path) -> None:
    older = DensePose(saved(Older(), tmp_path / DENSEPOSE_ANNOTATORS))
    for colour, seen in (((250, 0, 10), {0, 3, 20}), ((10, 0, 250), {0, 7})):
        first, second = older(photo(colour))
        assert set(np.unique(first.parts)) == {0, 3, 20}
        assert set(np.unique(second.parts)) == seen
    assert len(DensePose(tmp_path)(photo())) == 2  # found in its folder


def test_drawings_have_the_colours_that_systems_were_trained_on(folder: Path) -> None:
    people = DensePose(folder)(photo())
    purple, black = (np.asarray(draw_densepose(people, SIZE, colours)) for colours in ("viridis", "parula"))
    assert purple.shape == (30, 40, 3)
    assert tuple(purple[0, 0]) == (68, 1, 84)
    assert not black[0, 0].any()
    for part, (row, column) in {3: (8, 6), 20: (8, 18)}.items():
        assert tuple(purple[row, column]) == tuple(part_colours("viridis")[part])
        assert tuple(black[row, column]) == tuple(part_colours("parula")[part])
    assert drawing_kind(torch.from_numpy(purple.copy()).permute(2, 0, 1) / 255) == "densepose"
    with pytest.raises(ValueError, match="colours is 'jet'; expected one of viridis, parula"):
        part_colours("jet")  # pyright: ignore[reportArgumentType]


def test_what_reaches_beyond_the_picture_is_cut_off_and_later_people_lie_above() -> None:
    one = BodyParts.of(30, 25, np.full((20, 20), 1, dtype=np.uint8))
    half = np.zeros((10, 10), dtype=np.uint8)
    half[:5] = 24
    two = BodyParts.of(30, 20, half)
    assert np.array_equal(two.parts, half)
    drawn = np.asarray(draw_densepose([one, two], SIZE))
    table = part_colours("viridis")
    assert [tuple(drawn[row, 35]) for row in (19, 22, 27)] == [tuple(table[part]) for part in (0, 24, 1)]
    assert len(BodyParts.of(0, 0, np.kron(half, np.ones((64, 64), np.uint8))).packed) < 640**2 / 100
    film = DensePoseFilm(people=[one, two], size=SIZE)
    assert len(film) == len(list(film)) == 2


def test_wrong_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"s1x_fp32\.pt; get .*dajes/DensePose-TorchScript"):
        DensePose(tmp_path)
    (tmp_path / "prose.pt").write_text("no network")
    with pytest.raises(ValueError, match="is not a TorchScript archive"):
        DensePose(tmp_path / "prose.pt")
    with pytest.raises(ValueError, match="answers with .*it is not DensePose"):
        DensePose(saved(Another(), tmp_path / "another.pt"))(photo())
    broken: Any = Newer()
    broken.scale.data.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="NaN or infinite weights in scale"):
        DensePose(saved(broken, tmp_path / "nan.pt"))


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision brings the operators")
def test_a_missing_torchvision_is_told(tmp_path: Path) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # as long as it lives, the operator is known
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    class Calls(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.ops.torchvision.nms(image, image, 0.5)

    path = saved(Calls(), tmp_path / "calls.pt")
    library._destroy()
    with pytest.raises(ImportError, match="calls operators of torchvision; install the release that fits your torch"):
        DensePose(path)
