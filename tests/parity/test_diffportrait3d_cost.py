"""What a step of DiffPortrait3D costs at its published size, by shapes only, beside the published way's count."""

from typing import Any

import measuring
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from referencenet.checkpoints.diffportrait3d import PUBLISHED
from referencenet.methods.diffportrait3d import SPEC, DiffPortrait3DPipeline
from referencenet.parity.system import assembled
from referencenet.pipelines import prediction
from referencenet.pipelines.prediction import Call, predicting
from referencenet.pipelines.spec import Canvas, Shown
from referencenet.sampling.stream import denoise_step
from tiny import picture, tiny_pipeline

PUBLISHED_FLOPS = 34.7e12  # of 8 views at 512 x 512, counted on the official classes
NETWORKS = ("unet", "reference_unet", "controlnet")


def step_flops(views: int) -> int:
    """A guided step of so many views, the reference's writing and all."""
    with FakeTensorMode():
        parts: Any = {name: PUBLISHED.build[name](PUBLISHED.base_config).eval() for name in NETWORKS}
        pipe = assembled(DiffPortrait3DPipeline, **parts, scheduler=SPEC.scheduler())
        context, x = torch.empty(1, 77, 768), torch.empty(1, 4, views, 64, 64)
        call = Call(
            canvas=Canvas(width=512, height=512, frames=views),
            given={
                "prompt": (context, context),
                "cameras": lambda start, stop: [torch.empty(stop - start, 3, 512, 512)],
                "middle": False,
            },
            guidance=SPEC.guidance,
            shown=Shown(latents=torch.empty(1, 4, 64, 64), context=context),
        )
        windows: Any = SPEC.windows

        def step() -> None:
            with torch.no_grad(), predicting(pipe, call) as predict:
                predict.admit(0, views)
                denoise_step(predict.begin(x, 501), x, windows.of(views))

        return measuring.flops(step)


@pytest.mark.slow
def test_a_step_costs_at_most_078_of_the_published_and_a_second_group_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "check_finite_input", lambda *_: None)  # there are no numbers to look at
    one, two = step_flops(8), step_flops(16)
    assert one <= 0.78 * PUBLISHED_FLOPS
    assert two - one <= one - 0.75e12  # the reference was written for both


@pytest.mark.slow
def test_memory_grows_with_the_views_by_their_pictures_alone() -> None:
    pipe, side = tiny_pipeline("diffportrait3d"), 128
    pipe.set_progress_bar_config(disable=True)
    options: Any = {"width": side, "height": side, "num_inference_steps": 2, "output_type": "latent"}

    def peak(views: int) -> int:
        def draw() -> None:
            given = [picture(i, (side, side)) for i in range(views)]
            pipe(given[0], given, proxies=given, generator=torch.Generator().manual_seed(0), **options)

        return measuring.peak_bytes(draw, torch.device("cpu"))

    cameras_and_proxies = 2 * 3 * side * side * 4
    assert peak(32) - peak(8) <= 24 * cameras_and_proxies * 1.1
