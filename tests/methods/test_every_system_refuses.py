"""What every system refuses, before anything is computed: one table of wrong inputs, every system."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from referencenet.preprocess.parts import PersonPart
from systems import GIVEN, SIZE, System, every_system
from tiny import picture
from traces import pipeline_traces

NOT_A_NUMBER = np.full((24, 32, 3), np.nan, dtype=np.float32)

PICTURES = ("reference", "faces", "person", "garment", "densepose", "pose", "poses", "cameras")
"""Parameters that take pictures, or a film of them."""


@functools.cache
def called(system: System) -> Any:
    """A pipeline that has been called: some text models take attributes at their first call."""
    pipe = system.make()
    system.call(pipe, num_inference_steps=1)
    return pipe


def refused(system: System, pipe: Any, kind: Any, message: str, **changes: Any) -> None:
    """A call is refused with such a message, no network has run, and nothing is left on the pipeline."""
    before = pipeline_traces(pipe)
    ran: list[int] = []
    handle = pipe.unet.register_forward_hook(lambda *_: ran.append(1))
    with pytest.raises(kind, match=message):
        system.call(pipe, **changes)
    handle.remove()
    assert not ran, "the denoiser ran before the input was looked at"
    assert pipeline_traces(pipe) == before


OPTIONS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "an unknown option": ({"guidance": 3}, TypeError, "guidance"),
    "no step": ({"num_inference_steps": 0}, ValueError, "num_inference_steps is 0"),
    "a size of no latent": ({"width": 33}, ValueError, "multiples? of 8"),
    "no width": ({"width": -8}, ValueError, "multiples? of 8"),
    "another output": ({"output_type": "jpeg"}, ValueError, "jpeg"),
    "another tensor for callbacks": ({"callback_on_step_end_tensor_inputs": ["noise"]}, ValueError, "noise"),
    "noise of another shape": ({"latents": torch.zeros(1, 4, 5, 5)}, ValueError, "latents"),
}


@every_system
@pytest.mark.parametrize("option", OPTIONS)
def test_options_out_of_range_are_refused(system: System, option: str) -> None:
    changes, kind, message = OPTIONS[option]
    refused(system, called(system), kind, message, **changes)


WRONG: dict[str, Callable[[], tuple[Any, str]]] = {
    "not a number": lambda: (NOT_A_NUMBER, "NaN"),
    "a number": lambda: (7, "picture|film|int"),
    "nothing": lambda: ([], "empty|no |least|list"),
    "of no size": lambda: (np.zeros((0, 32, 3), np.uint8), "empty|no |shape"),
    "a file that is not there": lambda: ("no/such/hero.png", "hero.png"),
}


@every_system
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_picture_is_refused_wherever_one_is_taken(system: System, wrong: str) -> None:
    pipe = called(system)
    for name in PICTURES:
        if name not in system.given:
            continue
        value, message = WRONG[wrong]()
        if name in ("poses", "cameras"):
            value = [value] if wrong in ("not a number", "a number", "of no size") else value
            value = (value, value) if isinstance(system.given[name], tuple) else value
        refused(system, pipe, (ValueError, TypeError, FileNotFoundError), message, **{name: value})


@every_system
def test_noise_that_is_not_finite_is_refused(system: System) -> None:
    refused(system, called(system), ValueError, "finite", latents=torch.full_like(system.noise(), float("nan")))


@every_system
def test_a_black_mask_is_refused(system: System) -> None:
    pipe, black = called(system), Image.new("L", SIZE)
    if "mask" in system.given:
        refused(system, pipe, ValueError, "black", mask=black)
    elif "parts" in system.given:
        part = PersonPart(picture=picture(1, SIZE), label=GIVEN["parts"][0].label, mask=black)
        refused(system, pipe, ValueError, "black", parts=[part])
    else:
        pytest.skip("it takes no mask")


@every_system
def test_embeddings_that_are_not_finite_are_refused(system: System) -> None:
    pipe = called(system)
    if "prompt_embeds" not in inspect.signature(system.kind.__call__).parameters or "tokenizer_2" in pipe.components:
        pytest.skip("it takes no embeddings of one text model")
    states = torch.full((1, 77, pipe.unet.config.cross_attention_dim), float("nan"))
    words = None if system.name == "flashface" else ""  # it refuses both
    refused(system, pipe, ValueError, "finite", prompt_embeds=states, prompt=words)
