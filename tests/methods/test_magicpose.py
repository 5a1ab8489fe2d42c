"""MagicPose as its users call it: poses by themselves from one noise, and what is computed once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from films import generator, picture, poses
from referencenet.checkpoints.manifest import KEY_LISTS
from referencenet.cli.manifests import run_manifests
from referencenet.methods.magicpose import MagicPoseAppearancePipeline, MagicPosePipeline, squared
from referencenet.parity.verify import verify
from referencenet.sampling.windows import Windows
from tiny import tiny_pipeline

GOLDENS = sorted((Path(__file__).parents[1] / "goldens").glob("magicpose-*"))
MANIFESTS = sorted(KEY_LISTS.glob("magicpose-*.json.gz"))


@pytest.fixture
def pipe() -> MagicPosePipeline:
    pipe = tiny_pipeline("magicpose")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, films: Any, **options: Any) -> torch.Tensor:
    given = {"width": 32, "height": 24, "num_inference_steps": 2, "generator": generator(), "output_type": "latent"}
    return pipe(picture(0), films, **{**given, **options}).frames


def test_densepose_is_refused(pipe: MagicPosePipeline) -> None:
    drawing = Image.new("RGB", (48, 64), (68, 1, 84))
    drawing.paste((253, 231, 37), (16, 8, 32, 56))
    with pytest.raises(ValueError, match="look like DensePose"):
        draw(pipe, drawing)


def calls(module: torch.nn.Module, counted: list[int]) -> Any:
    return module.register_forward_hook(lambda _module, args, _output: counted.append(len(args[0])))


@pytest.mark.parametrize("folder", GOLDENS, ids=lambda folder: folder.name)
def test_golden_case_is_reproduced(folder: Path) -> None:
    (result,) = verify([folder])
    assert result.error is None
    assert [output.name for output in result.outputs if not output.passed] == []


def test_every_pose_is_drawn_by_itself_from_one_noise(pipe: MagicPosePipeline) -> None:
    films = poses(3)
    together = draw(pipe, films)
    assert torch.allclose(draw(pipe, films, windows=Windows(size=2, overlap=0)), together, rtol=1e-4, atol=1e-5)
    assert torch.allclose(draw(pipe, films[2])[:, :, 0], together[:, :, 2], rtol=1e-4, atol=1e-5)
    twins = draw(pipe, [films[0], films[0]])
    assert torch.allclose(twins[:, :, 0], twins[:, :, 1], rtol=1e-4, atol=1e-5)


def test_the_reference_is_written_once_a_step_and_the_controlnet_sees_every_pose_once(pipe: MagicPosePipeline) -> None:
    written: list[int] = []
    first = pipe.reference_unet.conv_in  # pyright: ignore[reportOptionalMemberAccess]
    handles = [calls(first, written), calls(pipe.controlnet.conv_in, seen := [])]
    handles.append(calls(pipe.controlnet.controlnet_cond_embedding.conv_in, embedded := []))
    draw(pipe, poses(3), windows=Windows(size=2, overlap=0))
    for handle in handles:
        handle.remove()
    assert written == [1, 1]
    assert seen == [2, 1, 2, 1]
    assert embedded == [3]  # in the whole call


def test_the_unconditional_pass_sees_neither_pose_nor_reference_but_the_prompt(pipe: MagicPosePipeline) -> None:
    blind = draw(pipe, poses(1), guidance_scale=1e-9 + 1)  # nearly the conditional pass
    assert torch.allclose(blind, draw(pipe, poses(1), guidance_scale=1), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(draw(pipe, poses(1)), draw(pipe, poses(1), prompt="a b"))
    with pytest.raises(ValueError, match="counts with balance=True only"):
        draw(pipe, poses(1), negative_prompt="a")


def test_balance_guides_by_the_prompt_alone(pipe: MagicPosePipeline) -> None:
    same = draw(pipe, poses(1), balance=True)
    assert torch.allclose(same, draw(pipe, poses(1), guidance_scale=1), rtol=1e-5, atol=1e-6)
    told = draw(pipe, poses(1), prompt="a b", balance=True)
    assert not torch.allclose(told, draw(pipe, poses(1), prompt="a b", guidance_scale=1))


def test_steps_that_the_published_code_crashes_at_are_refused(pipe: MagicPosePipeline) -> None:
    with pytest.raises(ValueError, match="3 steps cannot be taken: their stride of 333 divides 999"):
        draw(pipe, poses(1), num_inference_steps=3)
    steps: list[int] = []
    draw(pipe, poses(1), num_inference_steps=6, callback_on_step_end=lambda _p, i, _t, _k: steps.append(i))
    assert len(steps) == 7


def test_a_written_series_is_read_like_the_picture(pipe: MagicPosePipeline) -> None:
    series = pipe.write(picture(0), width=32, height=24, num_inference_steps=2)
    assert (
        draw(pipe, poses(1)).shape
        == pipe(series, poses(1), width=32, height=24, num_inference_steps=2, output_type="latent").frames.shape
    )


def test_a_stream_gives_frames_of_one_noise(pipe: MagicPosePipeline) -> None:
    pose = torch.rand(1, 3, 24, 32, generator=generator())
    options = {"width": 32, "height": 24, "num_frames": 3, "num_inference_steps": 2}
    found = [
        f for f, _ in pipe.stream(picture(0), lambda start, stop: [pose.expand(stop - start, -1, -1, -1)], **options)
    ]
    frames = torch.cat(found)
    assert frames.shape == (3, 3, 24, 32)
    assert torch.allclose(frames[0], frames[2], atol=1e-4)


def test_the_first_stage_draws_without_poses() -> None:
    stage1 = tiny_pipeline(MagicPoseAppearancePipeline)
    stage1.set_progress_bar_config(disable=True)
    images = stage1(
        picture(0), width=32, height=24, num_inference_steps=2, num_images_per_prompt=2, output_type="latent",
        generator=generator(),
    ).images  # fmt: skip
    assert images.shape == (2, 4, 3, 4)


def test_pictures_are_cropped_in_the_middle() -> None:
    assert squared(picture(0), (24, 24)).tobytes() == picture(0).crop((4, 0, 28, 24)).tobytes()


@pytest.mark.slow
def test_key_lists_at_full_size_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_manifests(MANIFESTS) == 0
    assert "14 of 14 manifests passed" in capsys.readouterr().out
