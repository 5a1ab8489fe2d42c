"""IDM-VTON's pipeline on tiny real networks: what a call gives, what it costs, what it reads and what it refuses."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
)
from PIL import Image
from safetensors.torch import load_file

from referencenet import BankSeries, IDMVTONPipeline
from referencenet.pipelines.passes import reading_plan
from tiny import picture, tiny_pipeline
from tolerances import ROUNDING, relative_error

HEIGHT, WIDTH, STEPS = 48, 32, 2


def quiet(pipe: IDMVTONPipeline) -> IDMVTONPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe() -> IDMVTONPipeline:
    return quiet(tiny_pipeline("idm_vton"))


def half_white(size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0], size[1] // 2))
    return mask


def inputs(**changes: Any) -> dict[str, Any]:
    size = (WIDTH, HEIGHT)
    given = {
        "person": picture(1, size),
        "garment": picture(2, size),
        "mask": half_white(),
        "densepose": picture(3, size),
        "garment_description": "red shirt",
        "height": HEIGHT,
        "width": WIDTH,
        "num_inference_steps": STEPS,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "pt",
    }
    return given | changes


def dress(pipe: IDMVTONPipeline, **changes: Any) -> torch.Tensor:
    images = pipe(**inputs(**changes)).images
    assert isinstance(images, torch.Tensor)
    return images


def fixed(rows: int = 1, seed: int = 5) -> torch.Tensor:
    shape = (1, 4, HEIGHT // 8, WIDTH // 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).repeat(rows, 1, 1, 1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def deterministic(pipe: IDMVTONPipeline) -> IDMVTONPipeline:
    """No noise but the start's, so that rows can be compared."""
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    return pipe


def ready(persons: int = 1, seed: int = 9) -> dict[str, Any]:
    """Conditions without the VAE's sampling, alike for all persons."""
    generator = torch.Generator().manual_seed(seed)
    names = ("masked_image_latents", "densepose_latents", "garment_latents")
    latents = {name: torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=generator) for name in names}
    alike = {name: value.repeat(persons, 1, 1, 1) for name, value in latents.items() if name != "garment_latents"}
    return alike | {"garment_latents": latents["garment_latents"], "person": None, "densepose": None}


@pytest.mark.parametrize(
    "change",
    [
        {"garment": picture(7, (WIDTH, HEIGHT))},
        {"densepose": picture(7, (WIDTH, HEIGHT))},
        {"person": picture(7, (WIDTH, HEIGHT))},
        {"garment_description": "blue coat"},
        {"negative_prompt": "ugly"},
        {"guidance_scale": 3.0},
        {"guidance_rescale": 0.7},
        {"mask": Image.new("L", (WIDTH, HEIGHT), 255)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_input_matters(pipe: IDMVTONPipeline, change: dict[str, Any]) -> None:
    assert relative_error(dress(pipe, **change), dress(pipe)) > 1e-5


@pytest.mark.parametrize("guided", [True, False])
def test_with_a_generator_each_every_picture_is_what_it_is_alone(pipe: IDMVTONPipeline, guided: bool) -> None:
    """Also what is drawn of persons and garments, each from its own generator."""
    size = (WIDTH, HEIGHT)
    people = [{"person": picture(i, size), "densepose": picture(10 + i, size), "mask": half_white()} for i in (1, 2, 3)]
    options: dict[str, Any] = {"guidance_scale": 2.0 if guided else 1.0}

    def run(rows: list[int], garments: Any) -> torch.Tensor:
        given = {name: [people[i][name] for i in rows] for name in people[0]}
        return dress(pipe, **given, garment=garments, generator=[generator(i) for i in rows], **options)

    for garments in ([picture(20 + i, size) for i in range(3)], picture(20, size)):  # one each, or one for all
        each = garments if isinstance(garments, list) else [garments] * 3
        alone = torch.cat([run([i], each[i]) for i in range(3)])
        assert relative_error(run([0, 1, 2], garments), alone) < ROUNDING


def test_with_a_generator_each_several_pictures_of_a_person_are_those_of_it_alone(pipe: IDMVTONPipeline) -> None:
    alone = torch.cat([dress(pipe, generator=generator(i)) for i in range(2)])
    together = dress(pipe, generator=[generator(0), generator(1)], num_images_per_prompt=2)
    assert relative_error(together, alone) < ROUNDING


def test_several_pictures_of_a_person_are_those_of_one(pipe: IDMVTONPipeline) -> None:
    single = dress(deterministic(pipe), latents=fixed(), **ready())
    double = dress(pipe, latents=fixed(2), num_images_per_prompt=2, **ready())
    assert relative_error(double, single.expand_as(double)) < ROUNDING


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_persons_who_share_a_garment_are_dressed_as_alone(pipe: IDMVTONPipeline, guidance_scale: float) -> None:
    masks = [half_white(), Image.new("L", (WIDTH, HEIGHT), 255)]
    settings: dict[str, Any] = {"guidance_scale": guidance_scale}
    deterministic(pipe)
    alone = [dress(pipe, latents=fixed(seed=i), mask=mask, **ready(), **settings) for i, mask in enumerate(masks)]
    latents = torch.cat([fixed(seed=0), fixed(seed=1)])
    together = dress(pipe, latents=latents, mask=masks, **ready(2), **settings)
    assert relative_error(together, torch.cat(alone)) < ROUNDING


def test_each_person_may_have_a_garment_of_their_own(pipe: IDMVTONPipeline) -> None:
    deterministic(pipe)
    garments = [ready(seed=seed)["garment_latents"] for seed in (9, 10)]
    states = [torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    blank = torch.zeros(1, 6, 8)

    def run(chosen: list[int]) -> torch.Tensor:
        conditions = ready(len(chosen)) | {
            "garment_latents": torch.cat([garments[i] for i in chosen]),
            "image_states": torch.cat([states[i] for i in chosen]),
            "negative_image_states": blank,
            "garment": None,
            "mask": [half_white()] * len(chosen),
        }
        return dress(pipe, latents=fixed(len(chosen)), **conditions)

    assert relative_error(run([0, 1]), torch.cat([run([0]), run([1])])) < ROUNDING


def test_a_garment_of_another_size_can_be_read(pipe: IDMVTONPipeline) -> None:
    garment = torch.randn(1, 4, 10, 6, generator=torch.Generator().manual_seed(3))
    assert dress(pipe, **ready() | {"garment_latents": garment}).shape == (1, 3, HEIGHT, WIDTH)


def test_nothing_is_computed_twice(pipe: IDMVTONPipeline) -> None:
    """Garment tokens are projected once per step and row, GarmentNet stops early, encoders run once."""
    calls: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    handles = []

    def count(name: str, module: torch.nn.Module) -> None:
        def hook(_module: Any, args: Any, _output: Any) -> None:
            calls[name] += 1
            rows[name] += args[0].shape[0]

        handles.append(module.register_forward_hook(hook))

    first = "mid_block.attentions.0.transformer_blocks.0.attn1"
    count("key", pipe.unet.get_submodule(f"{first}.to_k"))
    count("query", pipe.unet.get_submodule(f"{first}.to_q"))
    count("value", pipe.unet.get_submodule(f"{first}.to_v"))
    count("garment", pipe.reference_unet.get_submodule(f"{first}.to_k"))
    count("garment's head", pipe.reference_unet.conv_out)
    count("garment's last block", pipe.reference_unet.up_blocks[-1].resnets[0])
    count("resampler", pipe.image_projection.proj_in)
    count("picture", pipe.image_encoder.vision_model.embeddings.patch_embedding)
    count("vae", pipe.vae.encoder.conv_in)
    try:
        dress(pipe)
    finally:
        for handle in handles:
            handle.remove()
    assert rows["key"] == rows["value"] == STEPS * (2 + 1)  # two halves, and the garment's one row
    assert rows["query"] == STEPS * 2
    assert calls["garment"] == rows["garment"] == STEPS
    assert calls["garment's head"] == calls["garment's last block"] == 0
    assert calls["picture"] == 1
    assert rows["resampler"] == 2  # the blank picture and the garment
    assert calls["vae"] == 3


def test_without_guidance_there_is_one_half(pipe: IDMVTONPipeline) -> None:
    seen: list[int] = []
    handle = pipe.unet.conv_in.register_forward_hook(lambda _module, args, _output: seen.append(args[0].shape[0]))
    try:
        dress(pipe, guidance_scale=1.0)
    finally:
        handle.remove()
    assert seen == [1] * STEPS


def test_a_written_garment_serves_without_garment_net_and_clip(pipe: IDMVTONPipeline, tmp_path: Path) -> None:
    conditions = ready() | {"latents": fixed()}
    garment = pipe.garment(picture(2, (WIDTH, HEIGHT)), "red shirt", garment_latents=conditions.pop("garment_latents"))
    expected = dress(deterministic(pipe), garment=garment, **conditions)
    written = pipe.write(garment, width=WIDTH, height=HEIGHT, num_inference_steps=STEPS)
    written.save(tmp_path / "shirt.safetensors")
    loaded = BankSeries.load(tmp_path / "shirt.safetensors")
    pipe.register_modules(reference_unet=None, image_encoder=None)
    assert relative_error(dress(pipe, garment=loaded, **conditions), expected) < ROUNDING
    with pytest.raises(ValueError, match="this pipeline has no reference_unet, so it can read saved banks only"):
        dress(pipe)
    with pytest.raises(ValueError, match="the series was written for 2 steps"):
        dress(pipe, garment=loaded, num_inference_steps=3, **conditions)


def test_names_of_the_last_release_work_and_warn(pipe: IDMVTONPipeline) -> None:
    conditions = ready() | {"latents": fixed()}
    expected = dress(deterministic(pipe), **conditions)
    latents = conditions.pop("garment_latents")
    options: dict[str, Any] = {"garment_latents": latents, "garment_description": "red shirt"}
    with pytest.warns(FutureWarning, match="write_garment_banks is write"):
        banks = pipe.write_garment_banks(**options, num_inference_steps=STEPS, width=WIDTH, height=HEIGHT)
    with pytest.warns(FutureWarning, match="give what was written as the garment"):
        again = dress(pipe, garment_banks=dict(banks), **conditions)
    assert relative_error(again, expected) < ROUNDING
    with (
        pytest.warns(FutureWarning, match="give what was written"),
        pytest.raises(ValueError, match="garment_banks has no bank for the timesteps"),
    ):
        dress(pipe, garment_banks=dict(banks), num_inference_steps=3, **conditions)
    with pytest.raises(ValueError, match="the image prompt needs a garment picture and an image_encoder"):
        dress(pipe, garment=banks, **conditions)  # written without the garment's picture
    with pytest.warns(FutureWarning, match="garment_unet is called reference_unet now"):
        assert pipe.garment_unet is pipe.reference_unet
    parts = {**pipe.components}
    net = parts.pop("reference_unet")
    with pytest.warns(FutureWarning, match="IDMVTONPipeline's garment_unet is called reference_unet now"):
        assert IDMVTONPipeline(garment_unet=net, **parts).reference_unet is net
    with pytest.warns(FutureWarning, match="garment_unet"):
        pipe.garment_unet = None
    assert pipe.reference_unet is None


def test_a_folder_of_the_last_release_is_read(pipe: IDMVTONPipeline, tmp_path: Path) -> None:
    expected = dress(pipe)
    pipe.save_pretrained(tmp_path)
    (tmp_path / "reference_unet").rename(tmp_path / "garment_unet")
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["garment_unet"] = index.pop("reference_unet")
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"requires_aesthetics_score": False}))
    keys = load_file(tmp_path / "unet/diffusion_pytorch_model.safetensors")
    assert "mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_ip.0.weight" in keys  # as always
    assert relative_error(dress(quiet(IDMVTONPipeline.from_pretrained(tmp_path))), expected) < ROUNDING


def test_the_unconditional_pass_reads_zeros_and_sees_no_prompt() -> None:
    blank, full = IDMVTONPipeline.spec.guidance.passes(1, 2.0)
    assert blank.reads == "zeros"
    assert blank.blind == {"prompt", "image", "added"}
    assert (full.reads, full.blind) == ("reference", frozenset())
    plan = reading_plan([blank, full], 6, 2)
    assert [(s.start, s.stop, s.bank_start, s.bank_stop, s.reads_zeros) for s in plan.sections] == [
        (0, 6, 0, 2, True),
        (6, 12, 0, 2, False),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"person": None}, "no person was given"),
        ({"garment": None}, "no garment was given"),
        ({"mask": None}, "no mask was given"),
        ({"densepose": None}, "no densepose was given"),
        ({"masked_image_latents": fixed()}, "person was given twice"),
        ({"mask": Image.new("L", (WIDTH, HEIGHT))}, "mask 0 is black everywhere"),
        ({"height": 50}, "the size is 32 x 50; width and height must be multiples of 8"),
        ({"person": [picture(1)] * 3, "mask": [half_white()] * 2}, "2 masks were given for 3 results"),
        ({"garment": [picture(1)] * 3, "person": [picture(1)] * 2}, "2 persons were given for 3 results"),
        ({"garment_description": ["one"] * 3, "person": [picture(1)] * 2}, "2 persons were given for 3 results"),
        ({"negative_prompt": ["a", "b"], "prompt": ["a", "b", "c"]}, "2 negative prompts were given for 3 prompts"),
        ({"garment_prompt": ["a", "b"]}, "2 garment prompts were given for 1 garments"),
        ({"prompt_embeds": torch.zeros(1, 7, 32)}, "give prompt_embeds and pooled_prompt_embeds together"),
        ({"masked_image_latents": torch.zeros(1, 4, 3, 3), "person": None}, r"expected \(persons, 4, 6, 4\)"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, r"has \['noise'\]; expected some of \['latents'\]"),
        ({"generator": [torch.Generator()] * 2}, "2 generators were given for 1"),
        ({"latents": torch.zeros(1, 4, 9, 9)}, r"latents have shape \(1, 4, 9, 9\); expected \(1, 4, 6, 4\)"),
        ({"output_type": "pill"}, "output_type is 'pill'"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; expected at least 1"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_wrong_inputs_are_explained(pipe: IDMVTONPipeline, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dress(pipe, **change)
