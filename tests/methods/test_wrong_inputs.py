"""Wrong inputs through the public API: converted where a person would expect it, otherwise an error that teaches.

Every error is raised before the pipeline is touched; that is checked for all of them in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, UNet2DModel
from PIL import Image

from referencenet import AdaIN, Concat, Reference, reference, share
from tiny import half_mask, latents, picture, scheduler, tiny
from tolerances import ROUNDING, relative_error
from traces import pipeline_traces

HERO = picture(1)


def run(hero: Any, **options: Any) -> torch.Tensor:
    pipeline = tiny("sd")
    with reference(pipeline.pipe, hero, **options):
        return pipeline(num_inference_steps=1)


# --- pictures that are converted --------------------------------------------------------------------------------------


def rotated_by_exif(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown upright, the picture is rotated by 90 degrees clockwise
    HERO.rotate(90, expand=True).save(path / "rotated.png", exif=exif)
    return path / "rotated.png"


SAME: dict[str, Callable[[Path], Any]] = {
    "array": lambda _: np.array(HERO),
    "float_array": lambda _: np.array(HERO) / 255,
    "sixteen_bit_array": lambda _: np.array(HERO).astype(np.uint16) * 257,
    "tensor": lambda _: torch.from_numpy(np.array(HERO)).permute(2, 0, 1) / 255,
    "array_of_one": lambda _: np.array(HERO)[None],
    "tensor_of_one": lambda _: torch.from_numpy(np.array(HERO)).permute(2, 0, 1)[None] / 255,
    "list_of_one": lambda _: [np.array(HERO)],
    "opaque_rgba": lambda _: HERO.convert("RGBA"),
    "exif": rotated_by_exif,
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_picture_in_another_form_gives_the_same_result(kind: str, tmp_path: Path):
    assert torch.equal(run(SAME[kind](tmp_path)), run(HERO))


def grey() -> np.ndarray:
    return np.array(HERO.convert("L"))


GREY: dict[str, Callable[[], Any]] = {
    "mode_l": lambda: Image.fromarray(grey()),
    "array": grey,
    "array_with_channel": lambda: grey()[..., None],
    "sixteen_bit": lambda: Image.fromarray(grey().astype(np.uint16) * 257),
    "tensor": lambda: torch.from_numpy(grey())[None] / 255,
}


@pytest.mark.parametrize("kind", GREY)
def test_grey_pictures_are_read_as_colour_pictures_without_colour(kind: str):
    expected = Image.merge("RGB", [Image.fromarray(grey())] * 3)
    assert torch.equal(run(GREY[kind]()), run(expected))


def test_transparency_becomes_white():
    clear = HERO.convert("RGBA")
    clear.putalpha(half_mask("left"))
    white = HERO.copy()
    white.paste((255, 255, 255), (32, 0, 64, 64))
    assert torch.equal(run(clear), run(white))


@pytest.mark.parametrize("mode", ["CMYK", "P", "1", "LA", "HSV", "YCbCr"])
def test_every_mode_of_pillow_is_read(mode: str):
    image = HERO.convert("RGB").convert("L").convert(mode) if mode == "LA" else HERO.convert(mode)
    assert relative_error(run(image), run(image.convert("RGB"))) < ROUNDING


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (63, 65), (17, 200), (1000, 9)])
@pytest.mark.parametrize("resize", ["fit", "stretch"])
def test_every_size_is_brought_to_one_that_the_model_takes(size: tuple[int, int], resize: str):
    assert run(picture(1, size=size), resize=resize).isfinite().all()


def test_a_huge_picture_costs_no_more_than_the_result():
    pipeline = tiny("sd")
    tokens: list[int] = []
    with (
        pipeline.unet.conv_in.register_forward_hook(lambda _, args, __: tokens.append(args[0][0, 0].numel())),
        reference(pipeline.pipe, Image.new("RGB", (6000, 4000), "red")),
    ):
        pipeline(num_inference_steps=1)
    assert tokens[0] <= tokens[1] * 1.1


@pytest.mark.parametrize("size", [(16, 16), (64, 48), (333, 200)])
def test_masks_of_another_size_are_taken(size: tuple[int, int]):
    mask = half_mask("left", size)
    assert run(Reference(HERO, mask=mask, result_mask=mask)).isfinite().all()


# --- pictures that are refused ----------------------------------------------------------------------------------------

NOT_PICTURES: dict[str, tuple[Any, type[Exception], str]] = {
    "number": (3, TypeError, "int"),
    "none": (None, ValueError, "picture"),
    "dictionary": ({"image": HERO}, TypeError, "dict"),
    "function": (picture, TypeError, "function"),
    "missing_file": ("no/such/picture.png", FileNotFoundError, "picture.png"),
    "address": ("https://example.com/hero.png", ValueError, "download"),
    "zero_size": (np.zeros((0, 64, 3), np.uint8), ValueError, "empty"),
    "zero_size_pillow": (Image.new("RGB", (0, 5)), ValueError, "empty"),
    "huge": (np.broadcast_to(np.uint8(0), (40_000, 40_000, 3)), ValueError, "million"),
    "two_channels": (np.zeros((8, 8, 2), np.uint8), ValueError, r"\(8, 8, 2\)"),
    "channels_first": (np.zeros((3, 8, 8), np.uint8), ValueError, "last"),
    "batch": (torch.zeros(2, 3, 8, 8), ValueError, "list"),
    "not_a_number": (np.full((8, 8, 3), np.nan), ValueError, "NaN"),
    "range_of_a_model": (torch.linspace(-1, 1, 192).reshape(3, 8, 8), ValueError, "divide by 2"),
    "range_of_bytes": (torch.full((3, 8, 8), 255.0), ValueError, "255"),
    "integers": (np.zeros((8, 8, 3), np.int64), ValueError, "int64"),
}


@pytest.mark.parametrize("kind", NOT_PICTURES)
def test_what_is_no_picture_teaches(kind: str):
    given, error, message = NOT_PICTURES[kind]
    pipeline = tiny("sd")
    before = pipeline_traces(pipeline.pipe)
    with pytest.raises(error, match=message), reference(pipeline.pipe, given):
        pass
    with pytest.raises(error, match=message), reference(pipeline.pipe, [HERO, given]):
        pass
    assert pipeline_traces(pipeline.pipe) == before


def test_a_broken_file_teaches(tmp_path: Path):
    HERO.save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-200])
    (tmp_path / "text.png").write_text("not a picture")
    for name in ("cut.png", "text.png", ""):
        with pytest.raises(ValueError, match=name or "folder"):
            Reference(tmp_path / name)


# --- settings ---------------------------------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "strength_high": (lambda: Reference(HERO, strength=1.5), ValueError, r"strength is 1\.5"),
    "strength_low": (lambda: Reference(HERO, strength=-1), ValueError, "strength is -1"),
    "strength_nan": (lambda: Reference(HERO, strength=float("nan")), ValueError, "strength is nan"),
    "weight_zero": (lambda: Reference(HERO, weight=0), ValueError, "weight is 0"),
    "weight_infinite": (lambda: Reference(HERO, weight=float("inf")), ValueError, "weight is inf"),
    "start_after_end": (lambda: Reference(HERO, start=0.7, end=0.3), ValueError, r"start=0\.7"),
    "end_high": (lambda: Reference(HERO, end=2), ValueError, "end is 2"),
    "nothing": (Reference, ValueError, "exactly one"),
    "both": (lambda: Reference(HERO, latents=latents(1)), ValueError, "exactly one"),
    "nan_latents": (lambda: Reference(latents=latents(1) * float("nan")), ValueError, "NaN"),
    "infinite_latents": (lambda: Reference(latents=latents(1) / 0), ValueError, "infinite"),
    "latents_without_batch": (lambda: Reference(latents=latents(1)[0]), ValueError, r"\(4, 8, 8\)"),
    "latents_array": (lambda: Reference(latents=latents(1).numpy()), (TypeError, ValueError), "ndarray"),
    "mask_of_text": (lambda: Reference(HERO, mask=3), TypeError, "int"),  # pyright: ignore[reportArgumentType]
    "empty_mask": (lambda: Reference(HERO, mask=np.zeros((0, 4))), ValueError, "empty"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_reference_of_wrong_settings_teaches(kind: str):
    make, error, message = SETTINGS[kind]
    with pytest.raises(error, match=message):
        make()


OPTIONS: dict[str, tuple[dict[str, Any], type[Exception] | tuple[type[Exception], ...], str]] = {
    "style_fidelity": ({"style_fidelity": 2}, ValueError, "style_fidelity is 2"),
    "style_fidelity_nan": ({"style_fidelity": float("nan")}, ValueError, "style_fidelity is nan"),
    "unknown_link": ({"links": "lora"}, ValueError, r"'lora'.*'adain', 'attention'"),
    "unknown_link_in_list": ({"links": ["attention", "magic"]}, ValueError, "'magic'"),
    "no_links": ({"links": []}, ValueError, "no link"),
    "a_link_twice": ({"links": ["adain", AdaIN(weight=0.5)]}, ValueError, "two links of one kind"),
    "link_weight": ({"links": Concat(weight=3)}, ValueError, "weight"),
    "link_of_a_number": ({"links": [1]}, TypeError, "1 is not a link"),
    "noise_name": ({"noise": "none"}, ValueError, "'none'"),
    "resize_name": ({"resize": "crop"}, ValueError, "'crop'"),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_wrong_options_teach_before_anything_is_touched(kind: str):
    options, error, message = OPTIONS[kind]
    pipeline = tiny("sd")
    before = pipeline_traces(pipeline.pipe)
    with pytest.raises(error, match=message), reference(pipeline.pipe, HERO, **options):
        pass
    assert pipeline_traces(pipeline.pipe) == before


@pytest.mark.parametrize("nothing", [[], ()])
def test_no_references_teach(nothing: Any):
    with pytest.raises(ValueError, match="empty"), reference(tiny("sd").pipe, nothing):
        pass


@pytest.mark.parametrize("options", [{"strength": 2.0}, {"weight": 0.0}, {"style_fidelity": -1.0}, {"layers": 2.0}])
def test_wrong_options_of_sharing_teach(options: dict[str, float]):
    pipeline = tiny("sd")
    before = pipeline_traces(pipeline.pipe)
    with pytest.raises(ValueError, match=r"strength|weight|fidelity|layers"), share(pipeline.pipe, **options):
        pass
    assert pipeline_traces(pipeline.pipe) == before


@pytest.mark.parametrize("link", [lambda pipe: reference(pipe, HERO), share], ids=["reference", "share"])
def test_what_is_no_pipeline_of_a_unet_teaches(link: Callable[[Any], Any]):
    unconditional = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    for wrong in (tiny("sd").unet, None, "stable-diffusion", DDIMPipeline(unconditional, scheduler())):
        with pytest.raises(TypeError, match=r"pipeline|UNet"), link(wrong):
            pass


# --- what shows only when the pipeline is called ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hero", "options", "message"),
    [
        (Reference(latents=latents(1, 1, 3, 8, 8)), {}, "channels"),
        (Reference(latents=latents(1, 3, 4, 8, 8)), {}, "3"),
        (Reference(HERO), {"noise": [latents(2)]}, "noise has 1 tensors"),
        (Reference(HERO), {"noise": [latents(2, 1, 4, 4, 4)] * 2}, r"\(1, 4, 4, 4\)"),
        (Reference(HERO), {"noise": [latents(2, 3, 4, 8, 8)] * 2}, r"\(3, 4, 8, 8\)"),
        (Reference(HERO, mask=torch.zeros(8, 8)), {}, "black"),
        (Reference(HERO, result_mask=torch.zeros(8, 8)), {}, "black"),
    ],
    ids=["channels", "latent_rows", "few_noises", "noise_size", "noise_rows", "black_mask", "black_result_mask"],
)
def test_what_does_not_fit_the_call_teaches_and_detaches(hero: Reference, options: dict[str, Any], message: str):
    pipeline = tiny("sd")
    plain = pipeline()
    before = pipeline_traces(pipeline.pipe)
    with pytest.raises(ValueError, match=message), reference(pipeline.pipe, hero, **options):
        pipeline()
    assert pipeline_traces(pipeline.pipe) == before
    assert torch.equal(pipeline(), plain)
