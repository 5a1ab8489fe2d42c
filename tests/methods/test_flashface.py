"""FlashFace's pipeline on tiny real networks: what a call gives, what it costs, and what it refuses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden import GOLDENS
from referencenet.links.series import BankSeries
from referencenet.methods.flashface import FaceGuidance, FlashFacePipeline
from referencenet.pipelines.passes import Pass
from referencenet.pipelines.prediction import Call, predicting, rounded
from referencenet.pipelines.spec import Canvas, Shown
from tiny import CONTEXT, latents, picture, tiny, tiny_pipeline
from tolerances import ROUNDING, relative_error

CASE = GOLDENS / "flashface-step-two-way"
PLACE = torch.zeros(1, 1, 8, 8)


@pytest.fixture
def pipe() -> FlashFacePipeline:
    base = tiny("sd").pipe
    parts = {name: getattr(base, name) for name in ("vae", "text_encoder", "tokenizer")}
    pipe = FlashFacePipeline(**tiny_pipeline("flashface").components | parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make(pipe: FlashFacePipeline, **changes: Any) -> torch.Tensor:
    arguments: dict[str, Any] = {
        "faces": [picture(1), picture(2, (48, 64))],
        "prompt": "a knight",
        "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
    }
    return pipe(**(arguments | changes)).images


# --- what a call gives ------------------------------------------------------------------------------------------------


def test_pictures_of_a_batch_are_those_made_one_by_one(pipe: FlashFacePipeline):
    start = latents(3, 3, 4, 8, 8)
    together = make(pipe, prompt=["a knight", "a dragon", "a knight"], latents=start)
    for i, prompt in enumerate(["a knight", "a dragon", "a knight"]):
        assert relative_error(together[i : i + 1], make(pipe, prompt=prompt, latents=start[i : i + 1])) < ROUNDING


def test_faces_change_the_picture_and_their_order_does_not(pipe: FlashFacePipeline):
    pictures = [picture(1), picture(2), picture(4)]
    some = make(pipe, faces=pictures)
    assert relative_error(make(pipe, faces=pictures[::-1]), some) < ROUNDING
    assert relative_error(make(pipe, faces=pictures[:1]), some) > 1e-3


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fewer_faces_count_as_the_four_of_training(pipe: FlashFacePipeline, count: int):
    """The published filling with copies, where it can be even: one face four times, two twice."""
    pictures = [picture(seed) for seed in range(count)]
    assert relative_error(make(pipe, faces=pictures), make(pipe, faces=pictures * (4 // count))) < ROUNDING


def test_a_face_that_counts_twice_is_given_twice(pipe: FlashFacePipeline):
    pictures = [picture(1), picture(2), picture(3)]
    twice = make(pipe, faces=[*pictures, pictures[1]], face_weights=[1, 1, 1, 1])
    assert relative_error(make(pipe, faces=pictures, face_weights=[1, 2, 1]), twice) < ROUNDING


def test_more_than_four_faces_are_read(pipe: FlashFacePipeline):
    assert make(pipe, faces=[picture(seed) for seed in range(6)]).shape == (1, 4, 8, 8)


def test_the_face_box_moves_the_picture(pipe: FlashFacePipeline):
    free = make(pipe)
    assert torch.equal(free, make(pipe, face_box=(0, 0, 0, 0)))
    assert not torch.equal(free, make(pipe, face_box=(0.25, 0.25, 0.75, 0.75)))


def test_the_released_autoencoder_is_an_option_that_is_saved(pipe: FlashFacePipeline, tmp_path: Path):
    plain = make(pipe, output_type="pt", num_inference_steps=1)
    scrambled = FlashFacePipeline(**pipe.components, scrambled_vae=True)
    scrambled.set_progress_bar_config(disable=True)
    other = make(scrambled, output_type="pt", num_inference_steps=1)
    assert not torch.equal(plain, other)
    scrambled.save_pretrained(tmp_path / "saved")
    loaded = FlashFacePipeline.from_pretrained(tmp_path / "saved")
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(make(loaded, output_type="pt", num_inference_steps=1), other)


# --- guidance ---------------------------------------------------------------------------------------------------------


BLIND = frozenset({"prompt"})


def test_passes_are_those_of_the_specification():
    guidance = FaceGuidance()
    assert guidance.passes(751, 7.5) == [
        Pass(factor=7.5, strength=0.85),
        Pass(factor=-6.5, strength=0.85, blind=BLIND),
    ]
    assert guidance.passes(750, 7.5) == [
        Pass(factor=3.2, strength=1.2),
        Pass(factor=4.3, reads=None),
        Pass(factor=-6.5, reads=None, blind=BLIND),
    ]
    assert [p.strength for p in FaceGuidance(face_guidance=0).passes(1, 7.5)] == [1.2, 1.2]


def test_passes_without_effect_are_not_computed():
    assert FaceGuidance().passes(800, 1) == [Pass(factor=1, strength=0.85)]
    assert [p.blind for p in FaceGuidance().passes(1, 1)] == [frozenset()] * 2


def test_the_scale_of_the_prompt_has_the_name_that_it_has_everywhere(pipe: FlashFacePipeline):
    options = {"text_guidance": 3.0, "guide_rescale": 0.2}
    named = {"guidance_scale": 3.0, "guidance_rescale": 0.2}
    assert torch.equal(make(pipe, **named), make(pipe, **options))
    assert not torch.equal(make(pipe, **named), make(pipe))
    with pytest.raises(ValueError, match="guidance_scale was given under both of its names"):
        make(pipe, **options, guidance_scale=3.0)


def test_a_callback_changes_the_scale_and_sees_the_call(pipe: FlashFacePipeline):
    seen: list[Any] = []

    def halve(running: Any, _step: int, _timestep: Any, _values: Any) -> dict[str, Any]:
        seen.append((running.guidance_scale, running.do_classifier_free_guidance, running.num_timesteps))
        running._guidance_scale = 2.0
        return {}

    changed = make(pipe, num_inference_steps=3, callback_on_step_end=halve)
    assert seen == [(7.5, True, 3), (2.0, True, 3), (2.0, True, 3)]
    assert not torch.equal(changed, make(pipe, num_inference_steps=3))
    assert pipe.guidance_scale == 7.5


def test_the_declaration_reads_well(pipe: FlashFacePipeline):
    text = str(pipe.spec)
    for words in ("EachStep(link=Concat", "Second()", "lambda_feat=1.2", "step_to_launch=750", "Channels('place')"):
        assert words in text
    assert "0x" not in text


# --- noise, and other autoencoders ------------------------------------------------------------------------------------


def test_one_face_is_one_face_in_every_form(pipe: FlashFacePipeline):
    face = picture(1)
    expected = make(pipe, faces=face)
    for form in ([face], np.asarray(face), np.asarray(face)[None]):
        assert torch.equal(make(pipe, faces=form), expected)


# --- faces that were written before -----------------------------------------------------------------------------------


def written(pipe: FlashFacePipeline, *faces: Any, **told: Any) -> Any:
    return pipe.write(pipe.faces(list(faces), **told), width=64, height=64, num_inference_steps=2)


def test_written_faces_give_the_same_picture_without_the_reference_network(pipe: FlashFacePipeline, tmp_path: Path):
    faces, told = (picture(1), picture(2), picture(3)), {"face_weights": [1, 2, 1], "negative_prompt": "a hat"}
    expected = make(pipe, faces=list(faces), **told)
    series = written(pipe, *faces, **told)
    series.save(tmp_path / "her.safetensors")
    reader = FlashFacePipeline(**pipe.components | {"reference_unet": None})
    reader.set_progress_bar_config(disable=True)
    for reference in (series, BankSeries.load(tmp_path / "her.safetensors")):
        assert torch.equal(make(reader, faces=reference, negative_prompt="a hat"), expected)
    with pytest.raises(ValueError, match="has no reference_unet"):
        make(reader)
    with pytest.raises(ValueError, match="face_weights belong to what is written"):
        make(pipe, faces=series, face_weights=[1, 1, 1])
    with pytest.raises(ValueError, match="the series was written for 2 steps"):
        make(reader, faces=series, num_inference_steps=3)


def test_what_is_shown_serves_as_the_faces(pipe: FlashFacePipeline):
    faces = [picture(1), picture(2)]
    assert torch.equal(make(pipe, faces=pipe.faces(faces)), make(pipe, faces=faces))
    with torch.no_grad():
        assert torch.equal(make(pipe, faces=pipe.faces(faces)(Canvas(width=64, height=64))), make(pipe, faces=faces))


def test_a_bank_in_half_precision_is_rounded_at_every_step(pipe: FlashFacePipeline):
    half = make(pipe, half_precision_bank=True)
    assert not torch.equal(half, make(pipe))
    series = written(pipe, picture(1), picture(2, (48, 64)))
    halved = BankSeries({t: rounded(bank) for t, bank in series.items()}, series.schedule)
    assert torch.equal(make(pipe, faces=halved), half)
    assert torch.equal(make(pipe, faces=series, half_precision_bank=True), half)


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_a_step_computes_nothing_twice(pipe: FlashFacePipeline):
    """Three passes, two pictures, three faces: rows of the down path and the middle, and projections of the faces."""
    rows: dict[str, list[int]] = {}
    calls: Counter[str] = Counter()

    def record(name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:  # noqa: ARG001
            rows.setdefault(name, []).append(args[0].shape[0])
            calls[name] += 1

        return hook

    unet, writer = pipe.unet, pipe.reference_unet
    site = "mid_block.attentions.0.transformer_blocks.0"
    watched = {
        "down": unet.down_blocks[0].resnets[0],
        "middle": unet.mid_block.resnets[1],
        "own layer": unet.get_submodule(f"{site}.attn1.to_k"),
        "second layer's keys": unet.get_submodule(f"{site}.attn1.reference.to_k"),
        "second layer's queries": unet.get_submodule(f"{site}.attn1.reference.to_q"),
        "writer": writer.mid_block.resnets[0],
        "writer's last self-attention": writer.up_blocks[1].attentions[-1].transformer_blocks[0].attn1.to_k,
        "writer's output": writer.conv_out,
    }
    hooks = [module.register_forward_hook(record(name)) for name, module in watched.items()]
    negative = latents(3, 1, 7, CONTEXT)
    call = Call(
        canvas=Canvas(width=64, height=64, samples=2),
        given={"prompt": (latents(2, 2, 7, CONTEXT), negative), "place": PLACE},
        guidance=FaceGuidance(),
        shown=Shown(latents=latents(1, 3, 4, 6, 6), context=negative.expand(3, -1, -1)),
    )
    predict(pipe, latents(4, 2, 4, 8, 8), 500, call)
    for hook in hooks:
        hook.remove()
    assert rows["down"] == [4]  # two texts, two pictures: equal rows once
    assert rows["middle"] == [6]  # three passes behind the fork
    assert rows["own layer"] == [6]
    assert rows["second layer's keys"] == [1, 6]  # all faces as one row, then the own tokens
    assert rows["second layer's queries"] == [6]
    assert rows["writer"] == [3]  # one row per face, never per picture or pass
    assert "writer's last self-attention" not in rows
    assert "writer's output" not in rows


def predict(pipe: FlashFacePipeline, noisy: torch.Tensor, timestep: int, call: Call) -> torch.Tensor:
    settings = pipe.settle({"guidance_scale": FaceGuidance.text_guidance})
    with torch.no_grad(), pipe.calling(settings), predicting(pipe, call) as prediction:
        return prediction.begin(noisy, timestep)(None)


# --- wrong inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"faces": []}, ValueError, "no face was given but an empty list"),
        ({"faces": None}, ValueError, "neither was given"),
        ({"face_latents": torch.zeros(1, 4, 6, 6)}, ValueError, "both were given"),
        ({"prompt": None}, ValueError, "neither was given"),
        ({"negative_prompt": ["a", "b"]}, TypeError, "one text as negative_prompt"),
        ({"height": 63}, ValueError, "multiples of 8"),
        ({"face_box": (0.5, 0.2, 0.4, 0.6)}, ValueError, "left, top, right, bottom"),
        ({"face_weights": [1.0]}, ValueError, "for 2 faces"),
        ({"face_weights": [1.0, 0.0]}, ValueError, "above 0"),
        ({"lambda_feat": -1.0}, ValueError, "lambda_feat is -1"),
        ({"guide_rescale": 1.5}, ValueError, "guide_rescale is 1.5"),
        ({"text_guidance": -1.0}, ValueError, "text_guidance is -1"),
        ({"prompt": []}, ValueError, "no prompt was given"),
        ({"output_type": "pill"}, ValueError, "output_type is 'pill'"),
        ({"guidence_scale": 2}, TypeError, "did you mean 'guidance_scale'"),
        ({"num_inference_steps": 0}, ValueError, "at least 1"),
        ({"num_inference_steps": 1001}, ValueError, "1 to 1000"),
        ({"latents": torch.zeros(2, 4, 8, 8)}, ValueError, r"expected \(1, 4, 8, 8\)"),
        ({"faces": "no-such-face.png"}, FileNotFoundError, "no-such-face.png"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_wrong_inputs_are_refused_with_what_to_do(
    pipe: FlashFacePipeline, changes: dict[str, Any], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        make(pipe, **changes)
