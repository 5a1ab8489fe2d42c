"""What golden cases of a kind share: other sizes and scalars run, and a case that lacks something says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from golden import GOLDENS, copy_case
from referencenet.parity import kinds
from referencenet.parity.cases import CaseError, load_case
from referencenet.parity.record import cut
from referencenet.parity.verify import verify_case

Change = Callable[[dict[str, Any]], Any]


def wider(*names: str) -> Change:
    """Twice as wide inputs."""

    def change(content: dict[str, Any]) -> None:
        for name in names:
            content["inputs"][name]["shape"][-1] *= 2
        if "width" in content.get("scalars", {}):
            content["scalars"]["width"] *= 2

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("stable_garment-garment-encoder", wider("garment_latents")),
        ("magicpose-appearance-write", wider("reference_latent")),
        ("parts2whole-pose-guider", wider("pose")),
        ("magic_animate-motion", wider("x")),
        ("aniportrait-step-cfg", wider("latents", "ref_latents", *(f"pose_{i}" for i in range(5)))),
        ("parts2whole-read-nocfg", wider("latents", "pose")),
        ("flashface-step-two-way", wider("xt")),
        ("stable_garment-t2i-sample", wider("latents", "garment_latents")),
        ("idm_vton-sample-noguidance", wider("latents", "cloth_latents", "masked_image_latents", "pose_latents",
                                             "mask_image", *(f"variance_noise_{i}" for i in range(3)))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_case_of_another_size_runs(name: str, change: Change, tmp_path: Path) -> None:
    """The expected outputs belong to the size before, so they differ; but everything runs."""
    result = verify_case(copy_case(name, tmp_path / "a", change))
    assert result.error is None
    assert result.status == "failed"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("magicpose-appearance-write", {"timestep": 333}),
        ("idm_vton-tryonnet", {"guidance_scale": 2.5}),
        ("stable_garment-read", {"timestep": 333}),
        ("flashface-step-three-way", {"lambda_feat": 0.7}),
        ("animate_anyone-train", {"snr_gamma": 2.0}),
        ("stable_garment-t2i-sample", {"style_fidelity": 0.5}),
        ("parts2whole-reference-write", {"timestep": 7}),
    ],
)
def test_each_scalar_of_the_case_is_read(name: str, change: dict[str, Any], tmp_path: Path) -> None:
    result = verify_case(copy_case(name, tmp_path / "a", lambda content: content["scalars"].update(change)))
    assert result.error is None
    assert result.status == "failed"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("magicpose-appearance-write", lambda c: c["components"].clear(), r"needs appearance"),
        ("magicpose-appearance-write", lambda c: c["inputs"].pop("context"), r"has no input 'context'"),
        ("magicpose-appearance-write", lambda c: c["scalars"].clear(), r"has no scalar 'timestep'"),
        ("magicpose-stage1", lambda c: c["components"]["unet"]["state_dict"].pop(), r"lacks 1 parameters"),
        ("magicpose-stage1", lambda c: c["components"]["unet"]["config"].pop("num_heads"), r"unet refuses .*num_heads"),
        ("animate_anyone-train", lambda c: c["scalars"].pop("scheduler"), r"scheduler is None; the kind 'train' needs"),
        (
            "animate_anyone-train",
            lambda c: c["scalars"]["scheduler"].update({"class": "Clock"}),
            r"'Clock' is not a sched",
        ),
        (
            "idm_vton-sample",
            lambda c: c["scalars"]["scheduler"].update({"class": "DDIMScheduler"}),
            r"takes DDPMScheduler",
        ),
        ("stable_garment-t2i-sample", lambda c: c["scalars"].pop("guidance_scale"), r"has no guidance_scale; add it"),
        ("stable_garment-t2i-sample", lambda c: c["scalars"].update(eta=0.5), r"eta is 0.5; expected 0"),
        ("stable_garment-t2i-sample", lambda c: c["scalars"].update(width=72), r"latents are of {'width': 64"),
        ("animate_anyone-loop", lambda c: c["scalars"].update(context_batch_size=2), r"context_batch_size must be 1"),
    ],
)
def test_case_that_lacks_something_says_what(name: str, change: Change, message: str, tmp_path: Path) -> None:
    result = verify_case(copy_case(name, tmp_path / "a", change))
    assert result.status == "unreadable", result
    with pytest.raises(CaseError, match=message):
        raise CaseError(result.error)


def test_an_output_is_cut_along_its_axes_only_where_a_case_stores_less() -> None:
    case = load_case(GOLDENS / "animate_anyone-pose")
    (name, stored), *_ = case.expected.items()
    whole = torch.zeros(*(size + 1 for size in stored.shape))
    found = cut(case, {name: whole, "other": whole, "flat": whole.flatten()})
    assert [tuple(value.shape) for value in found.values()] == [stored.shape, whole.shape, (whole.numel(),)]


def test_banks_are_named_by_site_block_place_or_order() -> None:
    site = "mid_block.attentions.0.transformer_blocks.0.attn1"
    forms = ("{site}", "{block}", "{place}", "bank.{index:02}", str.upper)
    assert [kinds.named(form, site, 3) for form in forms] == [
        site, site.removesuffix(".attn1"), "mid_block.attentions.0", "bank.03", site.upper(),
    ]  # fmt: skip
