"""MagicAnimate as a user calls it: what is computed once, what is shared, and what is its own."""

from collections import Counter
from typing import Any

import pytest
import torch

from films import SIZE, generator, picture, poses
from referencenet.media.images import to_tensor
from referencenet.methods.magic_animate import MagicAnimatePipeline
from referencenet.methods.tiny import tiny_pipeline
from referencenet.sampling.stream import frame_noise
from referencenet.sampling.windows import Windows
from tolerances import relative_error

FOURS = Windows(size=4, overlap=2)


@pytest.fixture(scope="module")
def tiny() -> MagicAnimatePipeline:
    pipe = tiny_pipeline("magic_animate")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def film(pipe: Any, drawings: Any, **options: Any) -> Any:
    options = {"num_inference_steps": 2, "output_type": "latent", "generator": generator(), "windows": FOURS} | options
    return pipe(options.pop("reference", picture(0)), drawings, **options).frames


def rows_of(pipe: MagicAnimatePipeline, **options: Any) -> Counter[tuple[str, int]]:
    """Network and rows to how often it ran so."""
    found: Counter[tuple[str, int]] = Counter()
    places = {
        "writer": pipe.reference_unet.conv_in,
        "controlnet": pipe.controlnet.conv_in,
        "embedding": pipe.controlnet.controlnet_cond_embedding.conv_in,
        "down": pipe.unet.conv_in,
    }
    handles = [
        module.register_forward_hook(lambda _m, args, _o, name=name: found.update([(name, len(args[0]))]))
        for name, module in places.items()
    ]
    try:
        film(pipe, poses(6), **options)
    finally:
        for handle in handles:
            handle.remove()
    return found


def test_writer_and_controlnet_run_once_a_step_and_halves_share_the_down_path(tiny: MagicAnimatePipeline) -> None:
    found = rows_of(tiny)
    assert found["writer", 1] == 2  # one row, once per step, for both windows
    assert sum(rows * count for (name, rows), count in found.items() if name == "controlnet") == 2 * 6
    assert found["embedding", 6] == 1  # six frames, once in the film
    assert found["down", 4] == 4  # two windows, two steps, one half


def test_other_prompts_and_full_fusion_share_nothing(tiny: MagicAnimatePipeline) -> None:
    assert rows_of(tiny, negative_prompt="a")["down", 8] == 4
    full = MagicAnimatePipeline(**tiny.components, fusion_blocks="full")
    full.set_progress_bar_config(disable=True)
    assert rows_of(full)["down", 8] == 4
    assert relative_error(film(full, poses(3)), film(tiny, poses(3))) > 1e-3
    with pytest.raises(ValueError, match="fusion_blocks is 'down'; expected one of"):
        MagicAnimatePipeline(**tiny.components, fusion_blocks="down")


def test_sharing_changes_nothing(tiny: MagicAnimatePipeline) -> None:
    shared = film(tiny, poses(6))
    states = tiny.text_encoder(tiny.tokenizer("", padding="max_length", return_tensors="pt").input_ids)[0]
    apart = tiny.film(
        picture(0), "poses", poses(6), {"num_inference_steps": 2, "output_type": "latent", "windows": FOURS,
                                        "generator": generator()},
        prompt=(states, states.clone()), poses_scale=1.0,
    ).frames  # fmt: skip
    assert relative_error(shared, apart) < 1e-5


def test_a_written_series_gives_the_film_of_the_picture(tiny: MagicAnimatePipeline) -> None:
    series = tiny.write(picture(0), width=SIZE[0], height=SIZE[1], num_inference_steps=2)
    assert torch.equal(film(tiny, poses(3), reference=series), film(tiny, poses(3)))


def test_the_noise_of_sixteen_frames_is_repeated(tiny: MagicAnimatePipeline) -> None:
    kept: list[torch.Tensor] = []
    settings = tiny.settle({"generator": generator(), "num_inference_steps": 1})
    kept.append(tiny.start((1, 4, 20, 3, 4), settings))
    assert torch.equal(kept[0][:, :, 16:], kept[0][:, :, :4])
    assert not torch.equal(kept[0][:, :, 1], kept[0][:, :, 0])
    stream = tiny.frame_noise(1, range(14, 18), (1, 4, 3, 4))
    assert torch.equal(stream[:, :, 2:], frame_noise(1, range(2), (1, 4, 3, 4)))


def test_a_stream_is_the_film(tiny: MagicAnimatePipeline) -> None:
    drawings = torch.stack([to_tensor(frame) for frame in poses(6)])
    options: dict[str, Any] = {"num_inference_steps": 2, "windows": FOURS, "width": SIZE[0], "height": SIZE[1]}
    pieces = tiny.stream(picture(0), lambda start, stop: [drawings[start:stop]], seed=1, num_frames=6, **options)
    streamed = torch.cat([frames for frames, _ in pieces])
    noise = frame_noise(1, range(6), (1, 4, SIZE[1] // 8, SIZE[0] // 8))
    whole = tiny(picture(0), drawings, latents=noise, output_type="pt", **options).frames[0]
    assert relative_error(streamed, whole) < 1e-5


def test_the_scale_of_the_controlnet_counts(tiny: MagicAnimatePipeline) -> None:
    without = film(tiny, poses(2), controlnet_conditioning_scale=0.0)
    assert relative_error(without, film(tiny, poses(2, seed=7), controlnet_conditioning_scale=0.0)) == 0.0
    assert relative_error(without, film(tiny, poses(2))) > 1e-3


def test_inversion_leads_back(tiny: MagicAnimatePipeline) -> None:
    size = {"width": SIZE[0], "height": SIZE[1]}
    latents = tiny.invert(poses(2), num_inference_steps=4, **size)
    assert latents.shape == (1, 4, 2, SIZE[1] // 8, SIZE[0] // 8)
    assert latents.isfinite().all()


def test_gradient_checkpointing_is_refused(tiny: MagicAnimatePipeline) -> None:
    with pytest.raises(ValueError, match="gradient checkpointing"):
        tiny.unet.enable_gradient_checkpointing()


def test_skeletons_are_refused(tiny: MagicAnimatePipeline) -> None:
    drawing = torch.zeros(2, 3, SIZE[1], SIZE[0])
    for channel in range(3):
        drawing[:, channel, 4:16, 6 + 5 * channel] = 1.0
    with pytest.raises(ValueError, match="look like skeletons"):
        film(tiny, drawing)
