"""Animate Anyone as a user calls it, on a tiny model with random weights; golden cases hold its numbers elsewhere."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from films import SIZE, generator, picture, poses
from referencenet.links.bank import ReferenceBank
from referencenet.methods.animate_anyone import AnimateAnyonePipeline, FaceReenactmentPipeline
from referencenet.pipelines.encoders import IMAGE_TOKEN
from referencenet.pipelines.films import drawing_tensor
from referencenet.pipelines.passes import reading_plan
from referencenet.pipelines.prediction import Call, predicting
from referencenet.pipelines.spec import Canvas
from referencenet.sampling.stream import frame_noise
from referencenet.sampling.windows import Windows
from tiny import tiny_pipeline
from tolerances import ROUNDING, relative_error

REFERENCE = picture(0)
WIDTH, HEIGHT = SIZE


@pytest.fixture
def pipe() -> AnimateAnyonePipeline:
    return quiet(tiny_pipeline("animate_anyone"))


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(pipe: Any, *, reference: Any = REFERENCE, frames: int = 3, **changes: Any) -> torch.Tensor:
    """A film's latents."""
    options = {"num_inference_steps": 2, "generator": generator(), "output_type": "latent"} | changes
    return pipe(reference, options.pop("poses", poses(frames)), **options).frames


# --- results ----------------------------------------------------------------------------------------------------------


def test_film_follows_reference_poses_and_generator(pipe: AnimateAnyonePipeline) -> None:
    film = latents(pipe)
    assert torch.equal(latents(pipe), film)
    assert not torch.equal(latents(pipe, generator=generator(2)), film)
    assert relative_error(latents(pipe, reference=picture(1)), film) > 1e-3
    assert relative_error(latents(pipe, poses=poses(3, seed=50)), film) > 1e-3


def test_kinds_of_poses_give_the_same_film(pipe: AnimateAnyonePipeline) -> None:
    film = latents(pipe)
    array = np.stack([np.asarray(pose) for pose in poses(3)])
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(latents(pipe, poses=array), film)
    assert relative_error(latents(pipe, poses=tensor), film) <= ROUNDING
    assert torch.equal(latents(pipe, poses=poses(5), num_frames=3), film)
    assert torch.equal(latents(pipe, poses=(pose for pose in poses(3))), film)  # the size is that of the first


def test_films_of_one_call_are_those_of_single_calls(pipe: AnimateAnyonePipeline) -> None:
    noise = torch.randn((2, 4, 3, HEIGHT // 8, WIDTH // 8), generator=generator())
    both = latents(pipe, latents=noise, num_films=2)
    for i in range(2):
        assert relative_error(both[i : i + 1], latents(pipe, latents=noise[i : i + 1])) <= ROUNDING


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_every_number_of_frames_works_in_windows_of_four(pipe: AnimateAnyonePipeline, frames: int) -> None:
    film = latents(pipe, frames=frames, windows=Windows(size=4, overlap=1))
    assert film.shape[2] == frames
    assert bool(film.isfinite().all())


def test_unconditional_half_reads_nothing(pipe: AnimateAnyonePipeline) -> None:
    """Guidance u + s (c - u) with u from a pass without any reference."""
    noise = torch.randn((1, 4, 2, 3, 4), generator=generator())
    bank = pipe.write(REFERENCE, width=WIDTH, height=HEIGHT)
    drawings = drawing_tensor(poses(2), WIDTH, HEIGHT)
    t, token, frames = torch.tensor(500), bank.context[IMAGE_TOKEN], [0, 1]
    given = {"poses": lambda start, stop: [drawings[start:stop]]}
    canvas = Canvas(width=WIDTH, height=HEIGHT, frames=2)
    found: dict[float, torch.Tensor] = {}
    with torch.no_grad():
        condition = pipe.pose_guider(drawings).transpose(0, 1).unsqueeze(0)
        plain = pipe.unet(noise, t, torch.zeros_like(token), condition=condition).sample
        for scale in (1.0, 2.5):
            pipe._guidance_scale = scale
            call = Call(canvas=canvas, given=given, guidance=pipe.spec.guidance, bank=bank)
            with predicting(pipe, call) as prediction:
                prediction.admit(0, 2)
                found[scale] = prediction.begin(noise, t)(frames)
    reading, guided = found[1.0], found[2.5]
    assert relative_error(guided, plain + 2.5 * (reading - plain)) <= ROUNDING
    assert relative_error(reading, plain) > 1e-3


def test_stream_gives_the_film_of_the_call(pipe: AnimateAnyonePipeline) -> None:
    windows, frames = Windows(size=4, overlap=1), poses(9)
    noise = frame_noise(7, range(9), (1, 4, HEIGHT // 8, WIDTH // 8))
    whole = pipe(REFERENCE, frames, num_inference_steps=2, latents=noise, windows=windows, output_type="pt").frames[0]
    stream = pipe.stream(
        REFERENCE,
        lambda start, stop: [drawing_tensor(frames[start:stop], WIDTH, HEIGHT)],
        num_frames=9,
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=2,
        windows=windows,
        seed=7,
    )
    assert relative_error(torch.cat([part for part, _ in stream]), whole) <= ROUNDING


# --- nothing twice ----------------------------------------------------------------------------------------------------


def test_reference_is_written_and_projected_once_and_poses_are_guided_once(pipe: AnimateAnyonePipeline) -> None:
    steps, frames, calls = 5, 7, Counter[str]()
    tokens = Counter[str]()
    hooks = []
    for name in ("image_encoder", "reference_unet", "pose_guider", "unet"):
        hooks.append(getattr(pipe, name).register_forward_pre_hook(lambda *_, name=name: calls.update([name])))
    for name, module in pipe.unet.named_modules():
        if ".attentions." in name and name.endswith("attn1.to_k"):
            hooks.append(
                module.register_forward_hook(
                    lambda _m, args, _o, name=name: tokens.update({name: args[0].shape[0] * args[0].shape[1]})
                )
            )
    windows = Windows(size=4, overlap=1)
    latents(pipe, frames=frames, num_inference_steps=steps, windows=windows)
    for hook in hooks:
        hook.remove()
    plan = windows.of(frames)
    assert calls == {"image_encoder": 1, "reference_unet": 1, "pose_guider": 1, "unet": steps * len(plan)}
    rows = 2 * steps * sum(len(window.frames) for window in plan)  # both guidance halves of each frame
    assert set(tokens.values()) == {(rows + 1) * 12, (rows + 1) * 4}  # tokens of either level, and the bank's once


def test_writer_stops_behind_the_last_site_and_runs_one_row(pipe: AnimateAnyonePipeline) -> None:
    rows: list[int] = []
    pipe.reference_unet.register_forward_pre_hook(lambda _m, args: rows.append(args[0].shape[0]))
    last = pipe.reference_unet.up_blocks[-1].attentions[-1].transformer_blocks[0]
    ran: list[str] = []
    last.ff.register_forward_hook(lambda *_: ran.append("ff"))
    pipe.write(REFERENCE, width=WIDTH, height=HEIGHT)
    assert rows == [1]
    assert not ran


def test_single_context_token_needs_no_queries(pipe: AnimateAnyonePipeline) -> None:
    asked: list[str] = []
    for name, module in pipe.unet.named_modules():
        if ".attentions." in name and name.endswith(("attn2.to_q", "attn2.to_k")):
            module.register_forward_hook(lambda *_, name=name: asked.append(name))
    latents(pipe, num_inference_steps=1)
    assert not asked


# --- banks ------------------------------------------------------------------------------------------------------------


def test_saved_bank_replaces_the_networks_that_wrote_it(pipe: AnimateAnyonePipeline, tmp_path: Any) -> None:
    film = latents(pipe)
    pipe.write(REFERENCE, width=WIDTH, height=HEIGHT).save(tmp_path / "hero.safetensors")
    parts = pipe.components | {"reference_unet": None, "image_encoder": None, "image_processor": None}
    small = quiet(AnimateAnyonePipeline(**parts))
    small.save_pretrained(tmp_path / "small")
    loaded = quiet(AnimateAnyonePipeline.from_pretrained(tmp_path / "small"))
    again = latents(loaded, reference=ReferenceBank.load(tmp_path / "hero.safetensors"))
    assert torch.equal(again, film)
    with pytest.raises(ValueError, match="it can read saved banks only"):
        latents(loaded)


def test_half_precision_bank_is_an_option_that_moves_little(pipe: AnimateAnyonePipeline) -> None:
    difference = relative_error(latents(pipe, half_precision_bank=True), latents(pipe))
    assert 0 < difference < 1e-2


def test_a_folder_with_the_former_name_of_the_denoiser_is_read(pipe: AnimateAnyonePipeline, tmp_path: Any) -> None:
    pipe.save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace('"unet"', '"denoising_unet"'))
    (tmp_path / "unet").rename(tmp_path / "denoising_unet")
    again = quiet(AnimateAnyonePipeline.from_pretrained(tmp_path))
    assert torch.equal(latents(again, num_inference_steps=1), latents(pipe, num_inference_steps=1))


# --- other ways to run ------------------------------------------------------------------------------------------------


# --- re-enactment -----------------------------------------------------------------------------------------------------


def test_reenactment_adds_two_guiders_and_both_halves_read() -> None:
    pipe = quiet(tiny_pipeline("animate_anyone.reenact"))
    pair = (poses(3), poses(3, seed=40))
    film = latents(pipe, poses=pair)
    assert relative_error(latents(pipe, poses=(poses(3), poses(3, seed=41))), film) > 1e-4
    assert reading_plan(pipe.spec.guidance.passes(500.0, 2.0), 1, 2, has_blank=True).sections[0].amount == 1.0
    bank = pipe.write(REFERENCE, width=WIDTH, height=HEIGHT)
    assert bank.rows == 2
    unguided = latents(pipe, poses=pair, reference=bank, guidance_scale=1.0)
    bank.hidden = {site: torch.cat([torch.zeros_like(rows[:1]), rows[1:]]) for site, rows in bank.hidden.items()}
    assert torch.equal(latents(pipe, poses=pair, reference=bank, guidance_scale=1.0), unguided)
    assert not torch.equal(latents(pipe, poses=pair, reference=bank), film)


# --- wrong inputs -----------------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_frames": 4}, r"have \[3\] frames; expected num_frames=4"),
    ({"poses": []}, "a film without frames"),
    ({"width": 30}, "the size is 30 x 24; width and height must be multiples of 8"),
    ({"num_inference_steps": 0}, "num_inference_steps is 0; expected at least 1"),
    ({"num_films": 0}, "num_films is 0; expected at least 1"),
    ({"output_type": "gif"}, "output_type is 'gif'"),
    ({"windows": Windows(size=33)}, "windows of 33 frames exceed the motion modules' 32 positions"),
    ({"latents": torch.zeros(1, 4, 2, 3, 4)}, r"latents have shape \(1, 4, 2, 3, 4\); expected \(1, 4, 3, 3, 4\)"),
    ({"reference": ReferenceBank(hidden={"a": torch.zeros(1, 2, 3)})}, "so it is not of this system"),
    ({"callback_on_step_end_tensor_inputs": ["noise"]}, "expected some of"),
    ({"across_processes": True}, "this one was started alone; .* `accelerate launch"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message[:24] for _, message in WRONG])
def test_wrong_arguments_are_told(pipe: AnimateAnyonePipeline, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        latents(pipe, **changes)


def test_reenactment_wants_two_films_of_one_length() -> None:
    pipe: FaceReenactmentPipeline = quiet(tiny_pipeline("animate_anyone.reenact"))
    with pytest.raises(ValueError, match="takes 2 films of drawings; give a tuple of so many"):
        latents(pipe)
    with pytest.raises(ValueError, match=r"have \[2, 3\] frames; expected equally many"):
        latents(pipe, poses=(poses(3), poses(2)))


def test_stream_refuses_published_windows(pipe: AnimateAnyonePipeline) -> None:
    stream = pipe.stream(REFERENCE, lambda *_: [], num_frames=3, width=32, height=24, windows=Windows(published=True))
    with pytest.raises(ValueError, match="published windows wrap around the film's end"):
        next(stream)
