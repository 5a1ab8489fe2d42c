"""Every pipeline x every link x guidance: the link works, and afterwards it is as if it had never been."""

from __future__ import annotations

import pytest
import torch

from referencenet import Reference, reference
from tiny import KINDS, picture, tiny
from traces import pipeline_traces

LINKS = {"attention": "attention", "adain": "adain", "both": ["attention", "adain"]}


@pytest.mark.parametrize(
    ("links", "guidance_scale"),
    [
        pytest.param("attention", 7.5, marks=pytest.mark.slow),
        pytest.param("adain", 7.5, marks=pytest.mark.slow),
        ("both", 7.5),
        ("both", 1.0),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_link_changes_the_picture_and_leaves_no_trace(kind: str, links: str, guidance_scale: float):
    pipeline = tiny(kind)
    plain = pipeline(guidance_scale=guidance_scale)
    before = pipeline_traces(pipeline.pipe)
    with reference(pipeline.pipe, Reference(picture(1)), links=LINKS[links]):
        linked = pipeline(guidance_scale=guidance_scale)
        again = pipeline(guidance_scale=guidance_scale)
    assert pipeline_traces(pipeline.pipe) == before
    assert torch.equal(pipeline(guidance_scale=guidance_scale), plain)
    assert linked.shape == plain.shape
    assert linked.isfinite().all()
    assert not torch.allclose(linked, plain, rtol=1e-3)
    assert torch.equal(again, linked)


@pytest.mark.parametrize("kind", ["sd", "inpaint9", "multi_controlnet", "ip_adapter", "sdxl", "animatediff"])
def test_pictures_come_out_of_the_whole_pipeline(kind: str):
    pipeline = tiny(kind)
    with reference(pipeline.pipe, picture(1)):
        pictures = pipeline(output_type="np")
    assert pictures.shape[-3:] == (64, 64, 3)
    assert pictures.std() > 0.01


@pytest.mark.parametrize("kind", ["sd", "inpaint9", "guess_mode", "ip_adapter", "sdxl", "sdxl_inpaint9", "animatediff"])
def test_several_prompts_and_pictures_per_prompt(kind: str):
    pipeline = tiny(kind)
    changes = {"prompt": ["a knight", "a very tall wizard"], "negative_prompt": ["blurry", "tiny"]}
    if kind != "animatediff":
        changes["num_images_per_prompt"] = 2
    if kind == "guess_mode":
        changes["image"] = [picture(12)] * 2
    if kind == "ip_adapter":
        changes["ip_adapter_image"] = [picture(14)]
    with reference(pipeline.pipe, picture(1), links=["attention", "adain"]):
        linked = pipeline(**changes)
    assert linked.shape[0] == (2 if kind == "animatediff" else 4)
    assert linked.isfinite().all()
    assert len({row.sum().item() for row in linked}) == linked.shape[0], "two of the pictures are the same"


def test_another_size_than_the_models_own():
    pipeline = tiny("sd")
    with reference(pipeline.pipe, picture(1, size=(80, 48)), links=["attention", "adain"]):
        assert pipeline(height=96, width=40).shape == (1, 4, 12, 5)
        assert pipeline(height=40, width=72).shape == (1, 4, 5, 9)
