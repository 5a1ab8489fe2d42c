"""The pose ReferenceNet pipeline on tiny random parts: lifecycle, banks, batches, guidance, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from referencenet.builtin.training.base import make_scheduler
from referencenet.builtin.training.text import LENGTH, make_tokenizer
from referencenet.links.bank import ReferenceBank
from referencenet.methods.referencenet import ReferenceNetPipeline
from referencenet.networks.pose_guider import PoseGuider
from tiny import picture

RUN = {"num_inference_steps": 2, "output_type": "np"}


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=4,
    )


@pytest.fixture
def pipe() -> ReferenceNetPipeline:
    tokenizer = make_tokenizer(["waving, facing front, city background"])
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=LENGTH, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8), norm_num_groups=2, latent_channels=4, mid_block_add_attention=False,
    )  # fmt: skip
    guider = PoseGuider(conditioning_embedding_channels=8, block_out_channels=(4, 6))
    nn.init.normal_(guider.conv_out.weight, std=0.5)
    pipe = ReferenceNetPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(config).eval(),
        tokenizer=tokenizer,
        unet=unet().eval(),
        scheduler=make_scheduler(),
        pose_guider=guider,
        reference_unet=unet().eval(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(pipe: ReferenceNetPipeline, **arguments: Any) -> np.ndarray:
    images = pipe(generator=generator(), **(RUN | arguments)).images
    assert isinstance(images, np.ndarray)
    return images


def test_reference_pose_and_prompt_each_change_the_picture(pipe: ReferenceNetPipeline) -> None:
    given = {"reference": picture(0), "pose": picture(1), "prompt": "waving"}
    plain = draw(pipe, **given)
    assert plain.shape == (1, 64, 64, 3)
    assert np.array_equal(plain, draw(pipe, **given))
    for name, other in {"reference": picture(2), "pose": picture(3), "prompt": "city background"}.items():
        assert not np.allclose(plain, draw(pipe, **(given | {name: other})), atol=1e-5)


def test_saved_bank_draws_the_same_without_reference_unet(pipe: ReferenceNetPipeline, tmp_path: Path) -> None:
    expected = draw(pipe, reference=picture(0), pose=picture(1))
    pipe.encode_reference(picture(0)).save(tmp_path / "hero.safetensors")
    pipe.reference_unet = None
    bank = ReferenceBank.load(tmp_path / "hero.safetensors")
    assert np.allclose(draw(pipe, reference=bank, pose=picture(1)), expected, atol=1e-6)
    with pytest.raises(ValueError, match="no reference_unet"):
        draw(pipe, reference=picture(0), pose=picture(1))


def test_pipeline_survives_its_folder(pipe: ReferenceNetPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    again = ReferenceNetPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    given = {"reference": picture(0), "pose": picture(1)}
    assert np.allclose(draw(again, **given), draw(pipe, **given), atol=1e-6)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
def test_batch_is_its_pictures_one_by_one(pipe: ReferenceNetPipeline, guidance_scale: float) -> None:
    references, poses, prompts = [picture(0), picture(1)], [picture(2), picture(3)], ["waving", "city background"]
    noise = torch.randn(2, 4, 32, 32, generator=generator())
    options = RUN | {"guidance_scale": guidance_scale}
    together = pipe(references, poses, prompts, latents=noise, **options).images
    for i in range(2):
        alone = pipe(references[i], poses[i], prompts[i], latents=noise[i : i + 1], **options).images
        assert np.allclose(together[i], alone[0], atol=1e-4)


def test_several_pictures_per_pose_stand_together(pipe: ReferenceNetPipeline) -> None:
    noise = torch.randn(1, 4, 32, 32, generator=generator()).expand(6, -1, -1, -1)
    poses = [picture(1), picture(2), picture(3)]
    images = pipe(picture(0), poses, num_images_per_prompt=2, latents=noise, **RUN).images
    assert images.shape == (6, 64, 64, 3)
    assert np.allclose(images[0], images[1], atol=1e-5)
    assert not np.allclose(images[1], images[2], atol=1e-4)


def test_callback_sees_every_step(pipe: ReferenceNetPipeline) -> None:
    seen: list[int] = []

    def callback(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(step)
        return {"latents": torch.zeros_like(tensors["latents"])}

    latents = pipe(
        picture(0), picture(1), output_type="latent", num_inference_steps=3, callback_on_step_end=callback
    ).images
    assert seen == [0, 1, 2]
    assert not latents.any()


def test_pipeline_is_as_before_after_a_call(pipe: ReferenceNetPipeline) -> None:
    before = {name: type(processor) for name, processor in pipe.unet.attn_processors.items()}
    draw(pipe, reference=picture(0), pose=picture(1))
    assert {name: type(processor) for name, processor in pipe.unet.attn_processors.items()} == before
    assert not pipe.unet.conv_in._forward_hooks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reference": picture(0)}, "no pose was given"),
        ({"pose": picture(0)}, "neither of reference and bank"),
        ({"reference": [], "pose": picture(0)}, "empty list"),
        ({"reference": picture(0), "pose": picture(1), "width": 65}, "multiples of 4"),
        ({"reference": [picture(0)] * 2, "pose": [picture(1)] * 3}, "2 references were given for 3"),
        ({"reference": picture(0), "pose": picture(1), "latents": torch.zeros(1, 4, 8, 8)}, "latents have shape"),
        (
            {"reference": picture(0), "pose": picture(1), "callback_on_step_end_tensor_inputs": ["noise"]},
            "expected some of",
        ),
    ],
)
def test_wrong_inputs_teach(pipe: ReferenceNetPipeline, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(**(RUN | arguments))


def test_a_bank_by_its_former_name_is_warned_about(pipe: ReferenceNetPipeline) -> None:
    bank = pipe.write(picture(0), width=64, height=64)
    with pytest.warns(FutureWarning, match="reference=bank"):
        old = draw(pipe, bank=bank, pose=picture(1))
    assert np.array_equal(old, draw(pipe, reference=bank, pose=picture(1)))


def test_a_callback_stops_the_call_and_changes_its_guidance(pipe: ReferenceNetPipeline) -> None:
    seen: list[tuple[int, bool]] = []

    def stop(running: Any, step: int, _timestep: Any, _tensors: Any) -> None:
        seen.append((step, running.do_classifier_free_guidance))
        running._guidance_scale = 1.0
        running._interrupt = step == 1

    given = {"reference": picture(0), "pose": picture(1)}
    pipe(**given, **(RUN | {"num_inference_steps": 4}), guidance_scale=2.0, callback_on_step_end=stop)
    assert seen == [(0, True), (1, False)]
    assert (pipe.guidance_scale, pipe.num_timesteps, pipe.interrupt) == (pipe.spec.scale, 4, False)
