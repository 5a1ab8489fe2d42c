"""Drawings are told apart by their colours: DensePose, on its own ground or another, and skeletons."""

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from films import picture, poses
from referencenet.media.images import to_tensor
from referencenet.methods.tiny import tiny_pipeline
from referencenet.preprocess.body import BodyPoints, draw_body
from referencenet.preprocess.drawing_colours import VIRIDIS, check_densepose, check_skeleton, drawing_kind

PURPLE = (68, 1, 84)


def densepose(ground: tuple[int, int, int]) -> Tensor:
    """Parts in colours of viridis on a ground, (3, 64, 48)."""
    drawing = (torch.tensor(ground).float() / 255).view(3, 1, 1).repeat(1, 64, 48)
    for i, colour in enumerate(VIRIDIS[2:]):
        drawing[:, 8 + 6 * i : 14 + 6 * i, 16:32] = colour.view(3, 1, 1) / 255
    return drawing


def skeleton() -> Tensor:
    """A body as DWPose draws it, (3, 256, 192)."""
    points = np.random.default_rng(3).uniform((20, 20), (170, 230), (18, 2))
    body = BodyPoints(body=np.column_stack([points, np.ones(18)]))
    return to_tensor(draw_body(body, (192, 256)))


def test_kinds_are_told_apart() -> None:
    assert drawing_kind(densepose(PURPLE)) == "densepose"
    assert drawing_kind(densepose((65, 0, 81))) == "densepose"  # as compression leaves it
    assert drawing_kind(densepose((0, 0, 0))) == "densepose on another ground"
    assert drawing_kind(skeleton()) == "skeleton"
    assert drawing_kind(to_tensor(picture(0))) is None


def test_densepose_systems_refuse_skeletons_and_warn_of_other_grounds() -> None:
    with pytest.raises(ValueError, match="look like skeletons .*such as animate_anyone"):
        check_densepose(skeleton())
    with pytest.warns(UserWarning, match=r"ground of these DensePose drawings is \(0, 0, 0\).*\(68, 1, 84\)"):
        check_densepose(densepose((0, 0, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_densepose(densepose(PURPLE))
        check_densepose(to_tensor(picture(0)))


@pytest.mark.parametrize("ground", [PURPLE, (0, 0, 0)])
def test_skeleton_systems_refuse_densepose(ground: tuple[int, int, int]) -> None:
    check_skeleton(skeleton())
    with pytest.raises(ValueError, match="look like DensePose .*such as magic_animate"):
        check_skeleton(densepose(ground))


def test_animate_anyone_looks_at_its_drawings() -> None:
    pipe = tiny_pipeline("animate_anyone")
    with pytest.raises(ValueError, match="look like DensePose"):
        pipe(picture(0), densepose(PURPLE).unsqueeze(0), num_inference_steps=1)
    pipe.set_progress_bar_config(disable=True)
    assert len(pipe(picture(0), poses(1), num_inference_steps=1).frames[0]) == 1
