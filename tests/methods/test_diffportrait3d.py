"""DiffPortrait3D as its users call it: views in groups, what they begin with, and what is computed once."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from films import generator, picture, poses
from referencenet.checkpoints.manifest import KEY_LISTS
from referencenet.cli.manifests import run_manifests
from referencenet.links.bank import ReferenceBank
from referencenet.methods.diffportrait3d import DiffPortrait3DPipeline
from referencenet.parity.verify import verify
from referencenet.pipelines.conditions import StepResiduals
from referencenet.pipelines.spec import Canvas, Shown
from referencenet.pipelines.views import CLEAN
from referencenet.preprocess.head_proxy import HeadFilm, swing
from referencenet.sampling.windows import Window, Windows
from tiny import tiny_pipeline
from tolerances import ROUNDING, relative_error

GOLDENS = sorted((Path(__file__).parents[1] / "goldens").glob("diffportrait3d-*"))
MANIFESTS = sorted(KEY_LISTS.glob("diffportrait3d-*.json.gz"))


@pytest.fixture
def pipe() -> DiffPortrait3DPipeline:
    pipe = tiny_pipeline("diffportrait3d")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, cameras: Any, *, reference: Any = None, **options: Any) -> torch.Tensor:
    given = {"width": 32, "height": 24, "num_inference_steps": 2, "generator": generator(), "output_type": "latent"}
    return pipe(picture(0) if reference is None else reference, cameras, **{**given, **options}).frames


def noise(views: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(1, 4, views, 3, 4, generator=torch.Generator().manual_seed(seed))


@contextmanager
def rows(**modules: torch.nn.Module) -> Generator[dict[str, list[int]]]:
    """How many rows each module is given, call by call."""
    counted: dict[str, list[int]] = {name: [] for name in modules}
    handles = [
        module.register_forward_hook(lambda _m, args, _o, name=name: counted[name].append(len(args[0])))
        for name, module in modules.items()
    ]
    yield counted
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("folder", GOLDENS, ids=lambda folder: folder.name)
def test_golden_case_is_reproduced(folder: Path) -> None:
    (result,) = verify([folder])
    assert result.error is None
    assert [output.name for output in result.outputs if not output.passed] == []


# --- views ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [1, 3, 9, 33])
def test_any_number_of_views_is_drawn(pipe: DiffPortrait3DPipeline, views: int) -> None:
    drawn = draw(pipe, poses(views), num_inference_steps=1)
    assert drawn.shape == (1, 4, views, 3, 4)
    assert bool(drawn.isfinite().all())


def test_groups_are_of_eight_and_a_last_one_changes_nothing_before_it(pipe: DiffPortrait3DPipeline) -> None:
    options: dict[str, Any] = {"eta": 0.0, "start": "noise"}
    whole = draw(pipe, poses(9), latents=noise(9), **options)
    first = draw(pipe, poses(8), latents=noise(9)[:, :, :8], **options)
    assert relative_error(whole[:, :, :8], first) < ROUNDING
    with rows(unet=pipe.unet.conv_in) as counted:
        draw(pipe, poses(9))
    assert counted["unet"] == [8] * 8  # both passes of both groups, in two steps


def test_views_of_a_group_are_mixed_and_those_of_others_are_not(pipe: DiffPortrait3DPipeline) -> None:
    latents, options = noise(16), {"eta": 0.0, "start": "noise"}
    before = draw(pipe, poses(16), latents=latents, **options)
    latents = latents.clone()
    latents[:, :, 0] += 1
    after = draw(pipe, poses(16), latents=latents, **options)
    assert relative_error(after[:, :, 7], before[:, :, 7]) > 1e-4
    assert relative_error(after[:, :, 8:], before[:, :, 8:]) < ROUNDING


def test_larger_groups_are_an_option_up_to_the_table(pipe: DiffPortrait3DPipeline) -> None:
    with rows(unet=pipe.unet.conv_in) as counted:
        draw(pipe, poses(9), windows=Windows(size=12, overlap=0, filled=True))
    assert counted["unet"] == [12] * 4
    with pytest.raises(ValueError, match="33 frames exceed the motion modules' 32 positions"):
        draw(pipe, poses(33), windows=Windows(size=33, overlap=0, filled=True))


# --- what is computed once --------------------------------------------------------------------------------------------


def test_the_reference_is_written_once_a_step_and_the_controlnet_sees_every_view_once(
    pipe: DiffPortrait3DPipeline,
) -> None:
    writer: Any = pipe.reference_unet
    with rows(writer=writer.conv_in, controlnet=pipe.controlnet.conv_in) as counted:
        draw(pipe, poses(17))
    assert counted["writer"] == [1, 1]
    assert counted["controlnet"] == [8, 8, 1] * 2  # what fills the last group up has been seen


def test_keys_and_values_of_the_bank_are_projected_once_for_a_group(pipe: DiffPortrait3DPipeline) -> None:
    site = pipe.unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k")
    with rows(site=site) as counted:
        draw(pipe, poses(16), num_inference_steps=1)
    assert sorted(counted["site"]) == [1, 1, 8, 8, 8, 8]  # both passes of both groups, and the bank


def test_residuals_are_let_go_behind_a_frames_last_window() -> None:
    groups = ([0, 1, 2], [3, 4, 5], [4, 5, 6, 6])
    ran: list[int] = []

    def run(latents: torch.Tensor, *_: Any) -> list[torch.Tensor]:
        ran.extend(latents.flatten().int().tolist())
        return [latents]

    class Moment:
        timestep = 1
        windows = [Window(tuple(frames), (1.0,) * len(frames)) for frames in groups]

        @staticmethod
        def of(frames: Any) -> torch.Tensor:
            return torch.tensor(frames, dtype=torch.float32).view(1, 1, -1, 1, 1)

    class Pictures:
        @staticmethod
        def of(frames: Any) -> torch.Tensor:
            return torch.zeros(len(frames), 3, 1, 1)

    residuals = StepResiduals(run, Pictures(), torch.zeros(1), Moment())  # pyright: ignore[reportArgumentType]
    for frames, kept in zip(groups, (set(), {4, 5}, set()), strict=True):
        (level,) = residuals.of(frames)
        assert level.flatten().tolist() == frames
        assert set(residuals.kept) == kept
    assert ran == list(range(7))


def test_the_middle_view_module_runs_where_nothing_is_read(pipe: DiffPortrait3DPipeline) -> None:
    norm = pipe.unet.get_submodule("mid_block.motion_modules.0.norm")
    for options, groups in (
        ({}, [1]), ({"middle_everywhere": True}, [1, 1]), ({"guidance_scale": 1.0}, []),
        ({"balance": True, "prompt": "a b"}, []), ({"middle_everywhere": True, "guidance_scale": 1.0}, [1]),
    ):  # fmt: skip
        with rows(norm=norm) as counted:
            draw(pipe, poses(8), num_inference_steps=1, **options)
        assert counted["norm"] == groups, options
    released = draw(pipe, poses(8))
    assert relative_error(draw(pipe, poses(8), middle_everywhere=True), released) > 1e-5


# --- what views begin with --------------------------------------------------------------------------------------------


def test_views_begin_over_proxies_the_reference_or_nothing(pipe: DiffPortrait3DPipeline) -> None:
    cameras, begun = poses(3), []
    inner = pipe.scheduler.scale_model_input

    def kept(sample: torch.Tensor, timestep: Any) -> torch.Tensor:
        begun.append(sample)
        return inner(sample, timestep)

    pipe.scheduler.scale_model_input = kept  # pyright: ignore[reportAttributeAccessIssue]
    clean = torch.randn(1, 4, 3, 4, generator=torch.Generator().manual_seed(5))
    proxies = torch.randn(3, 4, 3, 4, generator=torch.Generator().manual_seed(6))
    context = torch.zeros(1, 7, 16)
    shown = Shown(latents=clean, context=context)
    options: dict[str, Any] = {"reference": shown, "prompt_embeds": context, "latents": noise(3)}
    a = pipe.scheduler.alphas_cumprod[999]
    for further, below in (
        ({"start": "noise"}, None), ({}, clean.unsqueeze(2)), ({"proxies": proxies}, proxies.transpose(0, 1)[None])
    ):  # fmt: skip
        begun.clear()
        draw(pipe, cameras, **options, **further)
        expected = noise(3) if below is None else a.sqrt() * below + (1 - a).sqrt() * noise(3)
        assert relative_error(begun[0], expected) < ROUNDING


def test_proxies_are_pictures_encoded_one_by_one(pipe: DiffPortrait3DPipeline) -> None:
    plain = draw(pipe, poses(3))
    with rows(encoder=pipe.vae.encoder) as counted:
        proxied = draw(pipe, poses(3), proxies=[picture(i) for i in range(1, 4)])
    assert counted["encoder"] == [1, 1, 1]  # every proxy; the reference's encoding is kept from the call before
    assert relative_error(proxied, plain) > 1e-3
    with pytest.raises(ValueError, match="2 proxies were given for 3 cameras"):
        draw(pipe, poses(3), proxies=poses(2))
    with pytest.raises(ValueError, match="start is 'head'; expected one of"):
        draw(pipe, poses(3), start="head")


def test_a_written_reference_brings_what_views_begin_with(pipe: DiffPortrait3DPipeline) -> None:
    series = pipe.write(picture(0), width=32, height=24, num_inference_steps=2, generator=generator())
    bank = next(iter(series.values()))
    assert bank.context[CLEAN].shape == (1, 4, 3, 4)
    shown = pipe.show(picture(0), Canvas(width=32, height=24, generator=generator()))
    options: dict[str, Any] = {"latents": noise(2), "eta": 0.0}
    written = draw(pipe, poses(2), reference=series, **options)
    assert relative_error(written, draw(pipe, poses(2), reference=shown, **options)) < ROUNDING
    bare = ReferenceBank(**{**vars(bank), "context": {}})
    with pytest.raises(ValueError, match="no clean latents in its context"):
        draw(pipe, poses(2), reference=bare)
    assert draw(pipe, poses(2), reference=bare, start="noise").shape == (1, 4, 2, 3, 4)


# --- guidance, steps, cameras -----------------------------------------------------------------------------------------


def test_the_unconditional_pass_sees_neither_reference_nor_camera(pipe: DiffPortrait3DPipeline) -> None:
    heard: list[torch.Tensor] = []
    handle = pipe.unet.register_forward_hook(lambda _m, _a, output: heard.append(output[0][0]))
    draw(pipe, poses(2), start="noise", latents=noise(2), num_inference_steps=1)
    draw(pipe, [picture(7), picture(8)], reference=picture(5), start="noise", latents=noise(2), num_inference_steps=1)
    handle.remove()
    blind, seen, other_blind, other_seen = heard
    assert relative_error(other_blind, blind) < ROUNDING
    assert relative_error(other_seen, seen) > 1e-3


def test_balance_guides_by_the_prompts_alone(pipe: DiffPortrait3DPipeline) -> None:
    same = draw(pipe, poses(2), balance=True)
    assert relative_error(same, draw(pipe, poses(2), guidance_scale=1)) < ROUNDING
    told = draw(pipe, poses(2), prompt="a b", balance=True, proxies=poses(2))
    assert relative_error(told, draw(pipe, poses(2), prompt="a b", guidance_scale=1, proxies=poses(2))) > 1e-4
    with pytest.raises(ValueError, match="counts with balance=True only"):
        draw(pipe, poses(2), negative_prompt="a")


def test_steps_are_the_published_list_and_eta_is_the_published_one(pipe: DiffPortrait3DPipeline) -> None:
    assert relative_error(draw(pipe, poses(2), eta=0.5), draw(pipe, poses(2))) == 0
    assert relative_error(draw(pipe, poses(2), eta=0.0), draw(pipe, poses(2))) > 1e-3
    draw(pipe, poses(2), num_inference_steps=6)
    assert pipe.num_timesteps == 7
    with pytest.raises(ValueError, match="3 steps cannot be taken"):
        draw(pipe, poses(2), num_inference_steps=3)


def test_the_controlnet_sees_cameras_from_minus_one_to_one(pipe: DiffPortrait3DPipeline) -> None:
    seen: list[torch.Tensor] = []
    embedding = pipe.controlnet.controlnet_cond_embedding
    handle = embedding.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    draw(pipe, np.stack([np.zeros((24, 32, 3), np.uint8), np.full((24, 32, 3), 255, np.uint8)]))
    handle.remove()
    assert [float(view.unique()) for view in seen[0]] == [-1.0, 1.0]


def test_drawn_heads_are_cameras(pipe: DiffPortrait3DPipeline) -> None:
    heads = HeadFilm(swing(2, yaw=(-30, 30)), (32, 24))
    assert relative_error(draw(pipe, heads, proxies=heads), draw(pipe, list(heads), proxies=list(heads))) == 0


def test_one_picture_is_one_camera(pipe: DiffPortrait3DPipeline) -> None:
    one = draw(pipe, picture(3), proxies=picture(4))
    assert relative_error(one, draw(pipe, [picture(3)], proxies=[picture(4)])) == 0


@pytest.mark.slow
def test_key_lists_at_full_size_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_manifests(MANIFESTS) == 0
    assert "5 of 5 manifests passed" in capsys.readouterr().out
