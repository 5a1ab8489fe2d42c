"""Results over the persons who were given: outside of the mask nothing moves, inside nothing is left."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from referencenet.methods.catvton import CatVTONPipeline
from referencenet.methods.idm_vton import IDMVTONPipeline
from referencenet.methods.stable_garment import StableGarmentTryOnPipeline
from referencenet.pipelines.composite import composited
from tiny import picture, tiny_pipeline

SIZE = (96, 128)  # width, height of results
KINDS = [IDMVTONPipeline, StableGarmentTryOnPipeline, CatVTONPipeline]
every_system = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def mask_of(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


@every_system
def test_outside_stays_inside_is_new_and_the_border_fades(kind: type) -> None:
    person, mask = picture(1, SIZE), mask_of(SIZE, (20, 30, 80, 110))
    results = [Image.new("RGB", SIZE, "red"), Image.new("RGB", SIZE, "blue")]
    red, blue = (np.asarray(made, dtype=int) for made in composited(tiny_pipeline(kind), person, mask, results, 8))
    inside = np.asarray(mask) > 0
    assert np.array_equal(red[~inside], np.asarray(person)[~inside])
    assert np.array_equal(red[50:90, 40:60], np.broadcast_to([255, 0, 0], (40, 20, 3)))
    assert np.array_equal(blue[50:90, 40:60], np.broadcast_to([0, 0, 255], (40, 20, 3)))
    share = (blue - red)[70, :, 2] / 255  # how much of the result is seen along a row
    assert np.array_equal(share[:20], np.zeros(20))
    assert (np.diff(share[19:40]) >= 0).all()
    assert 0 < share[20] < share[23] < share[26] < 1


@every_system
def test_without_a_border_the_mask_is_the_edge(kind: type) -> None:
    person, mask = picture(1, SIZE), mask_of(SIZE, (20, 30, 80, 110))
    (made,) = composited(tiny_pipeline(kind), person, mask, [Image.new("RGB", SIZE, "red")], 0)
    expected = np.where((np.asarray(mask) > 0)[..., None], [255, 0, 0], np.asarray(person))
    assert np.array_equal(np.asarray(made), expected)


def test_a_person_of_other_proportions_stands_where_each_system_sees_it() -> None:
    person, mask = picture(1, (200, 128)), mask_of((200, 128), (90, 50, 110, 80))
    result = [Image.new("RGB", SIZE, "red")]
    corner = np.s_[:20, :20]
    stretched = composited(tiny_pipeline(IDMVTONPipeline), person, mask, result)[0]
    cut = composited(tiny_pipeline(CatVTONPipeline), person, mask, result)[0]
    assert np.array_equal(
        np.asarray(stretched)[corner], np.asarray(person.resize(SIZE, Image.Resampling.LANCZOS))[corner]
    )
    middle = ImageOps.fit(person, SIZE, Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(cut)[corner], np.asarray(middle)[corner])


def test_a_border_below_zero_teaches() -> None:
    with pytest.raises(ValueError, match="border is -1"):
        composited(tiny_pipeline(IDMVTONPipeline), picture(1), picture(1, mode="L"), [picture(2)], -1)
