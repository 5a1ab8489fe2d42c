"""The sprite sheet of examples/: its jobs are right, figures are cut out whole, and the atlas says where each lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from referencenet.batch import read_jobs
from referencenet.paperdoll import Background, Scene, render, segmentation
from scripts import example

sprite_sheet = example("sprite_sheet")


def scene(character: int, ground: str, **given: Any) -> Scene:
    return Scene.from_seeds(character, 3, shot="full body", background=Background(name="plain", colour=ground), **given)


def test_there_is_a_checked_job_for_every_sprite_and_all_share_a_model(tmp_path):
    Image.fromarray(render(scene(3, "pink"))).save(tmp_path / "hero.png")
    names = sprite_sheet.write_jobs(tmp_path / "hero.png", tmp_path / "skeletons")
    jobs = read_jobs(tmp_path / "skeletons" / "jobs.jsonl")
    assert len(names) == len(jobs) == len({job.address for job in jobs}) == 48
    assert len({job.model for job in jobs}) == 1


@pytest.mark.parametrize("character", range(6))
def test_a_figure_is_cut_out_of_the_ground_that_is_least_like_it(character):
    reference = Image.fromarray(render(scene(character, "white", view="front", pose="standing")))
    turned = scene(character, sprite_sheet.ground_for(reference), view="left", pose="jumping")
    sprite = np.asarray(sprite_sheet.cut_out(Image.fromarray(render(turned, 128))))
    opaque, figure = sprite[..., 3] > 127, segmentation(turned, 128) > 0
    assert (opaque & figure).sum() / (opaque | figure).sum() > 0.93
    assert not sprite[0].any(), "what is transparent is black"


def test_the_atlas_says_where_each_sprite_lies():
    sprites = {
        f"standing/{direction}": sprite_sheet.cut_out(Image.fromarray(render(scene(i, "white", view="front"))))
        for i, direction in enumerate(sprite_sheet.DIRECTIONS)
    }
    sheet, atlas = sprite_sheet.pack(sprites, "sheet.png")
    assert atlas["meta"]["size"] == {"w": sheet.width, "h": sheet.height}
    for name, sprite in sprites.items():
        entry = atlas["frames"][name]
        frame, trimmed = entry["frame"], entry["spriteSourceSize"]
        cut = sheet.crop((frame["x"], frame["y"], frame["x"] + frame["w"], frame["y"] + frame["h"]))
        whole = Image.new("RGBA", (entry["sourceSize"]["w"], entry["sourceSize"]["h"]))
        whole.paste(cut, (trimmed["x"], trimmed["y"]))
        assert whole.tobytes() == sprite.tobytes()
