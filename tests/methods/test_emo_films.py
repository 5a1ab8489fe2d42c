"""EMO's films, files and training: the invariants of its specification that speak of whole calls."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from typer.testing import CliRunner

import referencenet
from referencenet import EMOPipeline
from referencenet.checkpoints.emo import (
    NEW,
    PUBLISHED,
    build_audio,
    build_denoiser,
    build_locator,
    build_reference,
    start_denoiser,
    start_reference,
)
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.manifest import KEY_LISTS
from referencenet.checkpoints.motion_keys import MOTION_KEYS
from referencenet.cli.app import app
from referencenet.cli.convert import run_convert
from referencenet.methods.emo import ZERO_SNR
from referencenet.methods.tiny import filled, tiny_pipeline
from referencenet.networks.layout import SD15_UNET, picture_config
from referencenet.networks.projected_tokens import AudioProjection
from referencenet.training.emo import Clips, Kept, clip_loss, learning
from systems import GIVEN, SQUARE, speech

PORTRAIT = GIVEN["portrait"]
TINY = PUBLISHED.tiny_config


def pipeline(**settings: Any) -> Any:
    """Clips of 4 frames behind 2 motion frames."""
    pipe = tiny_pipeline("emo")
    pipe.register_to_config(clip_frames=4, motion_frames=2, **settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: Any, audio: Tensor, *, steps: int = 2, seed: int = 0, **changes: Any) -> Tensor:
    options = {"output_type": "latent", "width": SQUARE[0], "height": SQUARE[1], "num_inference_steps": steps}
    return pipe(PORTRAIT, audio, generator=torch.Generator().manual_seed(seed), **options | changes).frames


def counted(module: Any) -> list[Any]:
    """What is put into a module from now on."""
    seen: list[Any] = []
    module.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    return seen


@pytest.mark.parametrize("steps", [1, 3])
def test_07_22_27_the_writer_runs_once_a_clip_and_the_locator_once_a_film(steps: int) -> None:
    pipe = pipeline()
    shown, located, predicted = counted(pipe.reference_unet), counted(pipe.face_locator), counted(pipe.unet)
    sounds, speeds = counted(pipe.audio_projection), counted(pipe.speed_projection)
    latents = call(pipe, speech(10), steps=steps)
    assert latents.shape == (1, 4, 10, 4, 4)
    assert [len(x) for x in shown] == [1, 2, 2]  # the portrait, then the motion frames of the second and third clip
    assert (len(located), len(predicted), len(speeds)) == (1, 3 * steps, 3)
    assert [len(x) for x in sounds] == [6, 8, 4]  # frames of sound that a clip's frames see, each once
    for clip in (1, 2):
        before = latents[:, :, 4 * clip - 2 : 4 * clip].transpose(1, 2).flatten(0, 1)
        assert torch.equal(shown[clip], before)


def test_08_without_guidance_there_is_one_half() -> None:
    pipe = pipeline()
    rows = counted(pipe.unet)
    call(pipe, speech(4), guidance_scale=1.0)
    call(pipe, speech(4), guidance_scale=2.0)
    assert [len(x) for x in rows] == [1, 1, 2, 2]


def test_a_bank_serves_calls_and_clips_go_on_where_a_stream_was_left() -> None:
    pipe, audio = pipeline(), speech(10)
    whole = call(pipe, audio, output_type="pt")[0]
    bank = pipe.write(PORTRAIT, width=SQUARE[0], height=SQUARE[1])
    options = {"width": SQUARE[0], "height": SQUARE[1], "num_inference_steps": 2}
    first = pipe.stream(bank, audio, **options)
    frames, state = next(first)
    rest = [part for part, _ in pipe.stream(bank, audio, state=state(), **options)]
    assert torch.equal(torch.cat([frames, *rest]), whole)
    assert torch.equal(call(pipe, audio, output_type="pt", num_frames=7)[0], whole[:7])


def test_banks_of_another_size_or_system_are_refused() -> None:
    pipe, options = pipeline(), {"width": 64, "height": 64, "num_inference_steps": 1}
    bank = pipe.write(PORTRAIT, width=SQUARE[0], height=SQUARE[1])
    with pytest.raises(ValueError, match="written at 32 x 32, but 64 x 64"):
        pipe(bank, speech(2), **options)
    bank.context.clear()
    with pytest.raises(ValueError, match="of no portrait"):
        pipe(bank, speech(2), **options)


def test_30_a_seed_decides_and_steps_draw_no_noise() -> None:
    pipe, audio = pipeline(), speech(4)
    one = call(pipe, audio)
    assert torch.equal(one, call(pipe, audio))
    assert not torch.equal(one, call(pipe, audio, seed=1))
    assert torch.equal(one, call(pipe, audio, latents=noise_of(4)))


def noise_of(frames: int) -> Tensor:
    return torch.randn(1, 4, frames, 4, 4, generator=torch.Generator().manual_seed(0))


def test_choices_are_options() -> None:
    audio, plain = speech(4), call(pipeline(), speech(4))
    for feature in ("norm1", "attn1_residual"):
        assert not torch.equal(call(pipeline(reference_feature=feature), audio), plain)
    pipe = tiny_pipeline("emo")
    locator = filled(build_locator(TINY, "conv_in"), 1)
    behind = EMOPipeline(**pipe.components | {"face_locator": locator}, face_locator_target="conv_in")
    other = EMOPipeline(**behind.components | {"face_locator": filled(build_locator(TINY, "conv_in"), 2)},
                        face_locator_target="conv_in")  # fmt: skip
    assert not torch.equal(call(behind, audio), call(other, audio))
    small = {"layers": 2, "channels": 4, "hidden_dim": 8, "num_tokens": 3, "cross_attention_dim": 16}
    tokens = filled(AudioProjection(**small), 1)
    assert call(EMOPipeline(**pipe.components | {"audio_projection": tokens}), audio).isfinite().all()
    zero = EMOPipeline(**pipe.components | {"scheduler": DDIMScheduler(**ZERO_SNR)})
    assert zero.scheduler.alphas_cumprod[-1] == 0
    assert call(zero, audio).isfinite().all()
    with pytest.raises(ValueError, match="gives 4 channels"):
        EMOPipeline(**pipe.components, face_locator_target="conv_in")
    with pytest.raises(ValueError, match="feature of a reference is 'norm2'"):
        EMOPipeline(**pipe.components, reference_feature="norm2")


@pytest.mark.parametrize("head_speed", [-1.0, float("nan"), [0.5, 0.5]])
def test_speeds_that_cannot_be_are_refused(head_speed: Any) -> None:
    with pytest.raises(ValueError, match="head_speed is"):
        call(pipeline(), speech(4), head_speed=head_speed)


def test_a_speed_for_every_frame_is_followed() -> None:
    pipe, audio = pipeline(), speech(4)
    assert torch.equal(call(pipe, audio, head_speed=[0.5] * 4), call(pipe, audio))
    assert not torch.equal(call(pipe, audio, head_speed=[0.0, 1.0, 2.0, 5.0]), call(pipe, audio))


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder of a narrow Stable Diffusion 1.5 with AnimateDiff's motion modules beside it."""
    folder = tmp_path / "base"
    filled(UNet2DConditionModel(**picture_config(TINY)), 3).save_pretrained(folder / "unet")
    tiny_pipeline("emo").vae.save_pretrained(folder / "vae")
    state = tiny_pipeline("emo").unet.state_dict()
    motion = {key: x for key, x in state.items() if re.fullmatch(PUBLISHED.files[0].share, key)}
    names = (
        (".pos_embed.pe", ".attention_blocks.0.pos_encoder.pe"), (".attn1.", ".attention_blocks.0."),
        (".attn2.", ".attention_blocks.1."), (".norm1.", ".norms.0."), (".norm2.", ".norms.1."),
        (".norm3.", ".ff_norm."),
    )  # fmt: skip
    published = {}
    for key, x in motion.items():
        for own, theirs in names:
            key = key.replace(own, theirs)
        published[re.sub(r"(motion_modules\.\d)\.", r"\1.temporal_transformer.", key)] = x
    torch.save(published, tmp_path / "mm_sd_v15_v2.ckpt")
    return folder


def test_29_a_starting_point_is_converted_and_read_back(base: Path, tmp_path: Path) -> None:
    out = run_convert("emo", [base.parent / "mm_sd_v15_v2.ckpt"], tmp_path / "emo", base=str(base))
    pipe = referencenet.load(out)
    pipe.set_progress_bar_config(disable=True)
    again = EMOPipeline.from_published(base.parent, base=base)
    assert type(pipe) is EMOPipeline
    for name, part in again.components.items():
        if isinstance(part, torch.nn.Module):
            state = getattr(pipe, name).state_dict()
            assert state.keys() == part.state_dict().keys()
            assert all(torch.equal(state[key], x) for key, x in part.state_dict().items()), name
    again.set_progress_bar_config(disable=True)
    assert torch.equal(call(pipe, speech(2)), call(again, speech(2)))
    spatial = UNet2DConditionModel.from_pretrained(base, subfolder="unet").state_dict()
    block = pipe.unet.down_blocks[0].attentions[0].transformer_blocks[0]
    prefix = "down_blocks.0.attentions.0.transformer_blocks.0"
    assert torch.equal(block.attn2.to_k.weight, spatial[f"{prefix}.attn1.to_k.weight"])
    assert torch.equal(block.attn2.to_q.weight, spatial[f"{prefix}.attn2.to_q.weight"])
    other = EMOPipeline.from_published(
        base.parent, base=base, seed=1, zero_snr=True, face_locator_target="conv_in", centres=[0.5, 2], radii=[0.5, 1]
    )
    assert not torch.equal(other.audio_projection.proj_in.weight, again.audio_projection.proj_in.weight)
    assert other.speed_projection.config.centres == [0.5, 2]
    assert other.scheduler.config.prediction_type == "v_prediction"
    assert call_quietly(other).isfinite().all()


def test_choices_are_options_of_the_command_and_stay_in_the_folder(base: Path, tmp_path: Path) -> None:
    typed = ["convert", "emo", str(base.parent / "mm_sd_v15_v2.ckpt"), "--base", str(base), "-o", str(tmp_path / "emo")]
    choices = [
        "--reference-feature",
        "norm1",
        "--face-locator-target",
        "conv_in",
        "--speed-edges",
        "0,1,3",
        "--zero-snr",
    ]
    result = CliRunner().invoke(app, [*typed, *choices])
    assert result.exit_code == 0, result.output
    pipe = referencenet.load(tmp_path / "emo")
    assert pipe.config.reference_feature == "norm1"
    assert pipe.config.face_locator_target == "conv_in"
    assert (pipe.speed_projection.config.centres, pipe.speed_projection.config.radii) == ([0.5, 2.0], [0.5, 1.0])
    assert pipe.scheduler.alphas_cumprod[-1] == 0
    assert call_quietly(pipe).isfinite().all()
    for further, message in (
        (["--speed-edges", "0,2,1"], "expected at least two rising numbers"),
        (["--speed-edges", "slow"], "--speed-edges is 'slow'; expected rising numbers"),
    ):
        result = CliRunner().invoke(app, [*typed[:-1], str(tmp_path / "no"), *further])
        assert (result.exit_code, message in " ".join(result.output.split())) == (2, True), result.output
    result = CliRunner().invoke(app, ["convert", "hallo", str(base), "-o", str(tmp_path / "no"), "--zero-snr"])
    assert "--zero-snr is for emo; hallo does not take it" in " ".join(result.output.split())


def call_quietly(pipe: Any) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    return call(pipe, speech(2))


def test_29_what_is_new_is_named_at_full_size() -> None:
    with torch.device("meta"):
        unet, reference = build_denoiser(SD15_UNET), build_reference(SD15_UNET)
        spatial = UNet2DConditionModel(**picture_config(SD15_UNET)).state_dict()
    listed = KEY_LISTS / "animate_anyone-motion_module.json.gz"
    with gzip.open(listed, "rt", encoding="utf-8") as file:  # AnimateDiff's layout: 21 modules, 32 positions
        shapes = json.load(file)["keys"]
    motion = MOTION_KEYS.convert({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    missing = start_denoiser(unet, spatial, motion)
    assert missing == {key for key in unet.state_dict() if re.fullmatch(NEW, key)}
    assert start_reference(reference, spatial) == set()
    assert len(unet.places) == 21
    with pytest.raises(CheckpointError, match="would be left unset"):
        start_denoiser(unet, spatial, {key: x for key, x in motion.items() if "mid_block" not in key})
    assert build_audio(SD15_UNET).config.cross_attention_dim == 768


# --- training ---------------------------------------------------------------------------------------------------------


def clips(frames: int, samples: int = 2) -> Clips:
    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))

    place = torch.zeros(samples, 1, *SQUARE)
    place[..., 8:24, 8:24] = 1
    return Clips(
        latents=drawn(samples, 4, frames, 4, 4), reference=drawn(samples, 4, 4, 4), place=place, start=2,
        motion=drawn(samples, 2, 4, 4, 4), sound=drawn(samples, frames + 4, 2, 4),
        speeds=drawn(samples, frames + 4).abs(),
    )  # fmt: skip


def loss(pipe: Any, batch: Clips, stage: Any, kept: Kept | None = None) -> Tensor:
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(9))
    return clip_loss(pipe, batch, stage, noise=noise, timesteps=torch.tensor([10, 700]), kept=kept)


EXPECTED = {
    "image": {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", "face_locator.conv_out.weight",
              "reference_unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight"},
    "video": {"unet.mid_block.motion_modules.0.proj_in.weight", "audio_projection.proj_in.weight",
              "unet.down_blocks.0.attentions.0.transformer_blocks.0.audio_attn.to_k.weight"},
    "speed": {"unet.mid_block.motion_modules.0.transformer_blocks.0.speed_attn.to_k.weight",
              "unet.mid_block.motion_modules.0.proj_in.weight", "speed_projection.proj_in.weight"},
}  # fmt: skip


@pytest.mark.parametrize("stage", EXPECTED)
def test_24_25_a_stage_moves_its_own_parts_alone(stage: Any) -> None:
    pipe = pipeline()
    parameters = learning(pipe, stage)
    before = {name: {k: x.clone() for k, x in part.state_dict().items()} for name, part in parts(pipe).items()}
    optimiser = torch.optim.AdamW(parameters.values(), lr=1e-2)
    loss(pipe, clips(1 if stage == "image" else 4), stage).backward()
    reached = {name for name, parameter in parameters.items() if parameter.grad is not None and parameter.grad.any()}
    assert reached >= EXPECTED[stage]
    if stage == "image":
        unread = re.compile(r"up_blocks\.1\.attentions\.1\.(proj_out|.*norm3|.*\.ff\.)")
        for name in parameters:
            if name.startswith("reference_unet."):
                assert name in reached or unread.search(name), name
    optimiser.step()
    moved = {
        f"{name}.{key}" for name, part in parts(pipe).items() for key, x in part.state_dict().items()
        if not torch.equal(x, before[name][key])
    }  # fmt: skip
    assert moved <= parameters.keys()
    assert not any("audio" in name for name in moved) or stage == "video"


def parts(pipe: Any) -> dict[str, Any]:
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def test_26_only_the_new_frames_are_learned() -> None:
    pipe, batch = pipeline(), clips(4)
    learning(pipe, "speed")
    assert batch.motion is not None
    assert loss(pipe, batch, "speed").shape == ()
    silenced = Kept(
        reference=torch.tensor([True, True]), sound=torch.tensor([True, True]), motion=torch.tensor([False] * 2)
    )
    one = loss(pipe, batch, "speed", silenced)
    batch.motion.mul_(3)  # what it would be for motion frames to be learned from
    assert torch.equal(loss(pipe, batch, "speed", silenced), one)


def test_samples_go_without_what_is_dropped() -> None:
    pipe, batch = pipeline(), clips(4)
    whole = loss(pipe, batch, "speed")
    for name in ("reference", "sound", "motion"):
        kept = {each: torch.tensor([True, each != name]) for each in ("reference", "sound", "motion")}
        assert not torch.equal(loss(pipe, batch, "speed", Kept(**kept)), whole)
    drawn = Kept.drawn(4000, torch.Generator().manual_seed(0))
    assert abs(1 - drawn.motion.float().mean() - 0.2) < 0.02
    with pytest.raises(ValueError, match="'video' also needs motion and sound"):
        loss(pipe, Clips(latents=batch.latents, reference=batch.reference, place=batch.place), "video")
    with pytest.raises(ValueError, match="the stage is 'third'"):
        learning(pipe, "third")  # pyright: ignore[reportArgumentType]
