"""Hallo as its users call it: clips that go on from each other, what is computed once, and what is refused."""

from __future__ import annotations

import gc
import warnings
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from referencenet.checkpoints.manifest import KEY_LISTS
from referencenet.cli.manifests import run_manifests
from referencenet.methods.hallo import HalloPipeline
from referencenet.networks.audio_attention import AudioTransformer, Heard, Held
from referencenet.parity.verify import verify
from referencenet.pipelines.talking import contexts_of
from referencenet.preprocess import FaceRegions, Portrait
from systems import SQUARE, embedding, landmarks, speech
from tiny import fill, picture, tiny_pipeline
from tolerances import ROUNDING, relative_error

GOLDENS = sorted((Path(__file__).parents[1] / "goldens").glob("hallo-*"))
MANIFESTS = sorted(KEY_LISTS.glob("hallo-*.json.gz"))

PORTRAIT = Portrait(picture=picture(1, SQUARE), landmarks=landmarks(SQUARE), face=embedding())
SITE = "up_blocks.3.attentions.0.transformer_blocks.0"


def make(clip_frames: int = 4, **settings: Any) -> HalloPipeline:
    """A tiny pipeline with short clips."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = HalloPipeline(**tiny_pipeline("hallo").components, clip_frames=clip_frames, **settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe() -> HalloPipeline:
    return make()


def options(seed: int = 0, **changes: Any) -> dict[str, Any]:
    common = {"width": 32, "height": 32, "num_inference_steps": 2, "output_type": "latent"}
    return common | {"generator": torch.Generator().manual_seed(seed)} | changes


def talk(pipe: HalloPipeline, frames: int = 6, portrait: Any = PORTRAIT, **changes: Any) -> torch.Tensor:
    return pipe(portrait, speech(frames), **options(**changes)).frames  # pyright: ignore


class Counts:
    """Rows with which modules are called."""

    def __init__(self, **modules: torch.nn.Module) -> None:
        self.rows: dict[str, list[int]] = {name: [] for name in modules}
        self.undo = ExitStack()
        for name, module in modules.items():
            hook = module.register_forward_hook(lambda _m, args, _o, name=name: self.rows[name].append(len(args[0])))
            self.undo.callback(hook.remove)


@pytest.mark.parametrize("folder", GOLDENS, ids=lambda folder: folder.name)
def test_golden_case_is_reproduced(folder: Path) -> None:
    (result,) = verify([folder])
    assert result.error is None
    assert [output.name for output in result.outputs if not output.passed] == []


@pytest.mark.slow
def test_key_lists_at_full_size_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_manifests(MANIFESTS) == 0
    assert "6 of 6 manifests passed" in capsys.readouterr().out


# --- what is computed, in counts --------------------------------------------------------------------------------------


def test_the_portrait_is_written_once_and_of_later_clips_their_motion_frames_alone(pipe: HalloPipeline) -> None:
    reference: Any = pipe.reference_unet
    tail = reference.get_submodule("up_blocks.3.attentions.1.transformer_blocks.0")
    counts = Counts(written=reference.conv_in, encoded=pipe.vae.encoder, tail=tail.attn2)
    talk(pipe, frames=12)
    assert counts.rows == {"written": [2, 4, 4], "encoded": [1, 2, 2], "tail": []}  # portrait and frames, two contexts
    counts.rows["written"].clear()
    talk(pipe, frames=12, guidance_scale=1.0)
    assert counts.rows["written"] == [1, 2, 2]


def test_what_a_film_or_a_clip_shares_is_made_once(pipe: HalloPipeline) -> None:
    counts = Counts(
        locator=pipe.face_locator.conv_in, face=pipe.face_projection.proj, audio=pipe.audio_projection.proj1
    )
    talk(pipe, frames=10)
    assert counts.rows == {"locator": [1], "face": [2], "audio": [4, 4, 2]}


def test_keys_and_values_are_made_once_a_clip(pipe: HalloPipeline) -> None:
    block: Any = pipe.unet.get_submodule(SITE)
    audio: Any = pipe.unet.get_submodule("up_blocks.3.motion_modules.0.audio")
    counts = Counts(portrait=block.attn1.to_k, face=block.attn2.to_k, lip=audio.attn2[2].to_k)
    talk(pipe, frames=8, num_inference_steps=3)
    assert counts.rows["portrait"] == [2, 8, 8, 8] * 2  # two bank rows, then the frames of both passes
    assert counts.rows["face"] == [1, 1] * 2
    assert counts.rows["lip"] == [4] * 2


def test_no_attention_is_computed_twice_and_none_of_silence(pipe: HalloPipeline) -> None:
    block: Any = pipe.unet.get_submodule(SITE)
    audio: Any = pipe.unet.get_submodule("up_blocks.3.motion_modules.0.audio")
    counts = Counts(own=block.attn1.to_q, lip=audio.attn2[2].to_q, norm=audio.norm2)
    talk(pipe, frames=4)
    assert counts.rows == {"own": [8, 8], "lip": [4, 4], "norm": [4, 4]}


def test_for_latents_only_the_motion_frames_are_decoded(pipe: HalloPipeline) -> None:
    counts = Counts(decoded=pipe.vae.decoder)
    talk(pipe, frames=8)
    assert sum(counts.rows["decoded"]) == 2


def test_blocks_without_attention_have_no_motion_modules(pipe: HalloPipeline) -> None:
    assert not [
        name for name in pipe.unet.state_dict() if "up_blocks.0.motion" in name or "down_blocks.3.motion" in name
    ]


def test_silence_is_what_tokens_of_zero_give() -> None:
    layer = fill(AudioTransformer(16, 8, heads=2, audio_channels=6, groups=4), 0)
    hidden = torch.randn(4, 16, 5, 3, generator=torch.Generator().manual_seed(1))
    masks = {15: torch.rand(3, 1, 15, generator=torch.Generator().manual_seed(2))}
    with torch.no_grad():
        silent, zero = (
            layer(
                hidden,
                Heard(tokens=[None if is_silent else Held(torch.zeros(4, 7, 6))], masks=masks, weights=(1, 2, 3)),
            )
            for is_silent in (True, False)
        )
    assert relative_error(silent, zero) < ROUNDING
    with pytest.raises(ValueError, match=r"masks of \[15\] tokens, but features of 2 x 2"):
        layer(hidden[:, :, :2, :2], Heard(tokens=[None], masks=masks))


# --- films ------------------------------------------------------------------------------------------------------------


def test_a_film_is_cut_into_clips_and_to_the_frames_asked_for(pipe: HalloPipeline) -> None:
    assert pipe.cuts(10, 10) == [(0, 4), (4, 8), (8, 10)]
    assert pipe.cuts(10, 4) == [(0, 4)]
    whole = talk(pipe, frames=8)
    assert torch.equal(talk(pipe, frames=8, num_frames=7), whole[:, :, :7])
    with pytest.raises(ValueError, match="9 frames were asked for, but the audio has 8"):
        talk(pipe, frames=8, num_frames=9)


def test_a_clip_goes_on_from_the_last_frames_of_the_one_before(pipe: HalloPipeline) -> None:
    noise = torch.randn(1, 4, 8, 4, 4, generator=torch.Generator().manual_seed(4))
    both = talk(pipe, frames=8, latents=noise)
    changed = noise.clone()
    changed[:, :, :4] = -changed[:, :, :4]
    assert relative_error(talk(pipe, frames=8, latents=changed)[:, :, 4:], both[:, :, 4:]) > 1e-3
    changed[:, :, 4:] = -changed[:, :, 4:]
    assert torch.equal(talk(make(), frames=8, latents=noise), both)


def test_a_stream_gives_the_frames_of_the_call_and_goes_on_where_it_was_left(pipe: HalloPipeline) -> None:
    plain = options(output_type="pt")
    film = pipe(PORTRAIT, speech(10), **plain, num_frames=9).frames[0]
    del plain["generator"]
    streamed = list(pipe.stream(PORTRAIT, speech(10), **plain, num_frames=9))
    assert [len(frames) for frames, _ in streamed] == [4, 4, 1]
    assert torch.equal(torch.cat([frames for frames, _ in streamed]), film)
    for done in (1, 2, 3):
        rest = make().stream(PORTRAIT, speech(10), **plain, num_frames=9, state=streamed[done - 1][1]())
        assert torch.equal(torch.cat([film[: 4 * done], *(frames for frames, _ in rest)]), film)
    with pytest.raises(ValueError, match="behind clip 3 with 1 generators, but the film has 1 clips"):
        list(pipe.stream(PORTRAIT, speech(4), **plain, state=streamed[2][1]()))
    with pytest.raises(ValueError, match="num_films is 2"):
        list(pipe.stream(PORTRAIT, speech(4), **plain, num_films=2))


def test_a_stream_keeps_no_clip(pipe: HalloPipeline) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    for frames, _ in pipe.stream(PORTRAIT, speech(20), **options(output_type="pt", num_inference_steps=1)):
        alive.append(weakref.ref(frames))
        del frames
        gc.collect()
        assert sum(each() is not None for each in alive) <= 1


def test_steps_are_told_and_an_interrupted_film_ends_with_its_clip(pipe: HalloPipeline) -> None:
    steps: list[int] = []
    list(pipe.stream(PORTRAIT, speech(8), **options(), step_done=lambda: steps.append(1)))
    assert len(steps) == 4

    def interrupt(running: Any, *_: Any) -> dict[str, Any]:
        running._interrupt = True
        return {}

    assert talk(pipe, frames=12, callback_on_step_end=interrupt).shape[2] == 4


def test_several_films_of_several_clips_are_each_as_if_alone() -> None:
    pipe = make().to(torch.float64)  # in float32 a second clip turns rounding of 1e-7 into 2e-4 on some CPUs
    both = talk(pipe, num_films=2, generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)])
    for row, seed in enumerate((5, 6)):
        assert relative_error(both[row : row + 1], talk(pipe, seed=seed)) < ROUNDING


def test_a_bank_serves_one_clip_without_the_writer_and_asks_for_it_at_the_next(pipe: HalloPipeline) -> None:
    bank = pipe.write(PORTRAIT, width=32, height=32)
    expected = talk(pipe, frames=8)
    assert torch.equal(talk(pipe, frames=8, portrait=bank), expected)
    without = HalloPipeline(**pipe.components | {"reference_unet": None}, clip_frames=4)
    without.set_progress_bar_config(disable=True)
    assert torch.equal(talk(without, frames=8, num_frames=4, portrait=bank), expected[:, :, :4])
    with pytest.raises(ValueError, match="8 frames are 2 clips"):
        talk(without, frames=8, portrait=bank)
    with pytest.raises(ValueError, match="written at 32 x 32"):
        talk(pipe, portrait=bank, width=64, height=64)


# --- conditions -------------------------------------------------------------------------------------------------------


def test_every_condition_counts(pipe: HalloPipeline) -> None:
    plain = talk(pipe, frames=4)
    others = {
        "audio": pipe(PORTRAIT, speech(4, seed=1), **options()).frames,
        "face": talk(pipe, frames=4, portrait=Portrait(picture=PORTRAIT.picture, landmarks=PORTRAIT.landmarks)),
        "masks": talk(pipe, frames=4, portrait=Portrait(
            picture=PORTRAIT.picture, landmarks=landmarks(SQUARE) / 2, face=embedding())),
        "picture": talk(pipe, frames=4, portrait=Portrait(
            picture=picture(2, SQUARE), landmarks=PORTRAIT.landmarks, face=embedding())),
        "pose": talk(pipe, frames=4, pose_weight=0.5),
        "face_weight": talk(pipe, frames=4, face_weight=0.5),
        "lip": talk(pipe, frames=4, lip_weight=0.5),
    }  # fmt: skip
    for name, other in others.items():
        assert relative_error(other, plain) > 1e-4, name


def test_audio_sees_two_neighbours_on_either_side(pipe: HalloPipeline) -> None:
    features = speech(12)
    seen: list[torch.Tensor] = []
    handle = pipe.audio_projection.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    pipe(PORTRAIT, features, **options(num_inference_steps=1))
    handle.remove()
    assert torch.equal(seen[1], features[torch.arange(4, 8)[:, None] + torch.arange(-2, 3)])
    assert torch.equal(seen[0][0], features[[0, 0, 0, 1, 2]])
    assert torch.equal(seen[2][3], features[[9, 10, 11, 11, 11]])


def test_contexts_take_turns_as_published() -> None:
    assert contexts_of(2, guided=True, tiled=True) == [[0, 1, 0], [1, 0, 1]]
    assert contexts_of(1, guided=True, tiled=True) == [[0, 1], [0, 1]]
    assert contexts_of(2, guided=True, tiled=False) == [[0, 0, 0], [1, 1, 1]]
    assert contexts_of(2, guided=False, tiled=True) == [[1, 1, 1]]


def test_tiling_changes_guided_films_only(pipe: HalloPipeline) -> None:
    untiled = make(tiled=False)
    assert relative_error(talk(untiled), talk(pipe)) > 1e-3
    assert torch.equal(talk(untiled, guidance_scale=1.0), talk(pipe, guidance_scale=1.0))


def test_guidance_of_one_is_nearly_guidance_of_hardly_more_without_tiling() -> None:
    pipe = make(tiled=False)
    assert relative_error(talk(pipe, guidance_scale=1.0 + 1e-9), talk(pipe, guidance_scale=1.0)) < 1e-3
    assert torch.equal(talk(pipe, guidance_scale=0.0), talk(pipe, guidance_scale=1.0))


def test_guidance_cannot_begin_in_the_midst_of_a_clip(pipe: HalloPipeline) -> None:
    def begin(running: Any, *_: Any) -> dict[str, Any]:
        running._guidance_scale = 3.5
        return {}

    with pytest.raises(ValueError, match="the call began without guidance"):
        talk(pipe, guidance_scale=1.0, callback_on_step_end=begin)


def test_guidance_that_a_callback_lowers_is_back_at_the_next_clip(pipe: HalloPipeline) -> None:
    def lower(running: Any, *_: Any) -> dict[str, Any]:
        running._guidance_scale = 0.0
        return {}

    counts = Counts(out=pipe.unet.conv_out)
    talk(pipe, frames=8, callback_on_step_end=lower)
    assert counts.rows["out"] == [8, 4, 8, 4]


def test_a_bank_of_another_system_is_refused(pipe: HalloPipeline) -> None:
    bank = pipe.write(PORTRAIT, width=32, height=32)
    bank.context.clear()
    with pytest.raises(ValueError, match="has no 'face' in its context"):
        talk(pipe, portrait=bank)


def test_audio_and_face_come_from_files_as_from_numbers(pipe: HalloPipeline, tmp_path: Path) -> None:
    np.save(tmp_path / "audio.npy", speech(6).numpy())
    np.save(tmp_path / "face.npy", embedding().numpy())
    portrait = Portrait(picture=PORTRAIT.picture, landmarks=PORTRAIT.landmarks, face=tmp_path / "face.npy")
    assert torch.equal(pipe(portrait, tmp_path / "audio.npy", **options()).frames, talk(pipe))


def test_regions_may_be_drawn(pipe: HalloPipeline) -> None:
    found = FaceRegions.of(PORTRAIT.landmarks, SQUARE)
    drawn = FaceRegions.of_pictures(found.place, found.pose, found.face, found.lip)
    assert torch.equal(
        talk(pipe, portrait=Portrait(picture=PORTRAIT.picture, regions=drawn, face=embedding())), talk(pipe)
    )


# --- training ---------------------------------------------------------------------------------------------------------


def test_checkpointed_gradients_are_those_of_a_plain_pass(pipe: HalloPipeline) -> None:
    unet = pipe.unet.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    sample, face, audio = (torch.randn(*s, generator=generator) for s in ((1, 4, 3, 8, 8), (1, 4, 16), (3, 3, 16)))
    masks = {side**2: torch.rand(3, 1, side**2, generator=generator) for side in (8, 4, 2, 1)}
    found: list[dict[str, torch.Tensor]] = []
    for checkpointed in (False, True):
        unet.zero_grad()
        if checkpointed:
            unet.enable_gradient_checkpointing()
        unet.train()
        unet(sample, 7, [Held(face)], heard=Heard(tokens=[Held(audio)], masks=masks)).sample.square().sum().backward()
        found.append({name: each.grad.clone() for name, each in unet.named_parameters() if each.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(relative_error(found[1][name], grad) < 1e-3 for name, grad in found[0].items() if grad.norm() > 1e-3)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_other_numbers_of_motion_frames_are_warned_about_and_work() -> None:
    with pytest.warns(UserWarning, match="motion_frames is 3; the released weights were trained with 2"):
        pipe = HalloPipeline(**tiny_pipeline("hallo").components, clip_frames=4, motion_frames=3)
    pipe.set_progress_bar_config(disable=True)
    assert bool(talk(pipe, frames=8).isfinite().all())


WRONG: dict[str, tuple[dict[str, Any], Any, str]] = {
    "not square": ({"height": 64}, ValueError, "the size is 32 x 64; the model draws squares"),
    "a picture alone": ({"portrait": picture(1, SQUARE)}, TypeError, "the portrait is a Image; give a .*Portrait"),
    "no landmarks": ({"portrait": Portrait(picture=picture(1, SQUARE))}, ValueError, "neither was given"),
    "a portrait that is not square": (
        {"portrait": Portrait(picture=picture(1, (32, 24)), landmarks=landmarks(SQUARE))},
        ValueError, "32 x 24; crop it"),
    "other landmarks": (
        {"portrait": Portrait(picture=picture(1, SQUARE), landmarks=np.zeros((68, 2)))}, ValueError, r"\(68, 2\)"),
    "landmarks elsewhere": (
        {"portrait": Portrait(picture=picture(1, SQUARE), landmarks=landmarks(SQUARE) * 0)}, ValueError, "is empty"),
    "another embedding": (
        {"portrait": Portrait(picture=picture(1, SQUARE), landmarks=landmarks(SQUARE), face=np.zeros(128))},
        ValueError, r"\(128,\); expected 512 numbers"),
    "an embedding that is not finite": (
        {"portrait": Portrait(picture=picture(1, SQUARE), landmarks=landmarks(SQUARE), face=np.full(512, np.nan))},
        ValueError, "not finite"),
    "other features": ({"audio": torch.zeros(4, 3, 4)}, ValueError, r"\(4, 3, 4\); expected \(frames, 2, 4\)"),
    "no audio": ({"audio": torch.zeros(0, 2, 4)}, ValueError, "expected"),
    "audio that is none": ({"audio": 7}, TypeError, "a int; give features"),
    "audio that is not finite": ({"audio": torch.full((4, 2, 4), torch.nan)}, ValueError, "not finite"),
    "a weight that is no number": ({"lip_weight": float("nan")}, ValueError, "weights of pose, face and lip"),
    "windows": ({"windows": None}, TypeError, "windows"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_is_refused_before_the_denoiser_runs(pipe: HalloPipeline, wrong: str) -> None:
    changes, kind, message = WRONG[wrong]
    counts = Counts(unet=pipe.unet)
    given = {"portrait": PORTRAIT, "audio": speech(4)} | options() | changes
    with pytest.raises(kind, match=message):
        pipe(**given)
    assert counts.rows == {"unet": []}


def test_clips_must_fit_the_motion_modules() -> None:
    with pytest.raises(ValueError, match="31 frames with 2 motion frames"):
        talk(make(clip_frames=31), frames=31)
    with pytest.raises(ValueError, match="expected both at least 1"):
        make(motion_frames=0)
