"""StableGarment's released files: read strictly, with a base's parts, converted, and every fault told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from films import generator
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.published import PublishedSet
from referencenet.cli.convert import run_convert
from referencenet.methods.stable_garment import (
    PUBLISHED,
    PUBLISHED_TRYON,
    StableGarmentPipeline,
    StableGarmentTryOnPipeline,
)
from referencenet.methods.tiny import tiny_pipeline
from tiny import half_mask, picture

SIZE = (32, 24)
ENCODER = "garment_encoder/diffusion_pytorch_model.safetensors"
CONTROLNET = "controlnet/diffusion_pytorch_model.safetensors"


def write_released(pipe: Any, published: PublishedSet, folder: Path) -> Path:
    """The released files of a pipeline's weights, and a base folder for the rest."""
    states: dict[str, dict[str, torch.Tensor]] = {}
    for file in published.files:
        states.setdefault(file.path, {}).update(getattr(pipe, file.component).state_dict())
    for path, state in states.items():
        (folder / path).parent.mkdir(parents=True)
        save_file({key: tensor.clone() for key, tensor in state.items()}, folder / path)
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        getattr(pipe, name).save_pretrained(folder / "base" / name)
    return folder


@pytest.fixture
def released(tmp_path: Path) -> Path:
    return write_released(tiny_pipeline("stable_garment"), PUBLISHED_TRYON, tmp_path / "released")


def read(folder: Path) -> StableGarmentTryOnPipeline:
    return StableGarmentTryOnPipeline.from_published(folder, base=folder / "base")


def dress(pipe: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    given = (picture(1, SIZE), picture(2, SIZE), half_mask("top", SIZE), picture(3, SIZE))
    size = {"width": SIZE[0], "height": SIZE[1], "num_inference_steps": 1}
    return pipe(*given, **size, generator=generator(), output_type="latent").images


def test_released_files_give_the_picture_of_the_model_and_so_does_their_conversion(
    released: Path, tmp_path: Path
) -> None:
    expected = dress(tiny_pipeline("stable_garment"))
    assert torch.equal(dress(read(released)), expected)
    out = run_convert("stable_garment", [released], tmp_path / "out", base=released / "base")
    assert torch.equal(dress(StableGarmentTryOnPipeline.from_pretrained(out)), expected)


def test_files_given_one_by_one_are_told_apart_by_their_folders(released: Path) -> None:
    pipe = StableGarmentTryOnPipeline.from_published(
        [released / CONTROLNET, released / ENCODER], base=released / "base"
    )
    assert torch.equal(dress(pipe), dress(read(released)))
    loose = released / "diffusion_pytorch_model.safetensors"
    (released / ENCODER).rename(loose)
    with pytest.raises(CheckpointError, match="could be .*; give the folder that holds them"):
        StableGarmentTryOnPipeline.from_published([loose], base=released / "base")


def test_a_file_of_another_ending_is_found(released: Path) -> None:
    expected = dress(read(released))
    torch.save(load_file(released / ENCODER), (released / ENCODER).with_suffix(".bin"))
    (released / ENCODER).unlink()
    assert torch.equal(dress(read(released)), expected)


def test_text_to_image_reads_its_garment_encoder(tmp_path: Path) -> None:
    tiny = tiny_pipeline("stable_garment.text2img")
    folder = write_released(tiny, PUBLISHED, tmp_path)
    pipe = StableGarmentPipeline.from_published(folder, base=folder / "base")
    state = tiny.reference_unet.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in pipe.reference_unet.state_dict().items())
    assert pipe.config.fusion_blocks == "midup"
    assert StableGarmentPipeline.from_published(folder, base=folder / "base", fusion_blocks="full").link != pipe.link


def test_the_schedule_is_the_bases(released: Path) -> None:
    path = released / "base" / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace('"epsilon"', '"v_prediction"'))
    assert read(released).scheduler.config.prediction_type == "v_prediction"


def change(path: str, how: Any) -> Any:
    """Change a released state dict."""

    def apply(folder: Path) -> None:
        state = load_file(folder / path)
        how(state)
        save_file(state, folder / path)

    return apply


FAULTS: dict[str, tuple[Any, type[Exception], str]] = {
    "no ControlNet": (lambda f: (f / CONTROLNET).unlink(), FileNotFoundError,
                      r"stable_garment.tryon needs controlnet/.*loooooong/StableGarment_tryon \(licence"),
    "no base": (lambda f: (f / "base" / "unet" / "diffusion_pytorch_model.safetensors").unlink(), FileNotFoundError,
                "unet holds no UNet2DConditionModel that can be read"),
    "missing key": (change(ENCODER, lambda s: s.pop("conv_in.bias")), CheckpointError, "lacks 1 of its keys: conv_in"),
    "missing key of the guider": (change(CONTROLNET, lambda s: s.pop("conv_in_extra.1.bias")), CheckpointError,
                                  "lacks 1 of its keys: conv_in_extra.1.bias"),
    "extra key": (change(CONTROLNET, lambda s: s.update(more=torch.zeros(1))), CheckpointError,
                  "1 keys that FeatureControlNet does not have: more"),
    "NaN": (change(CONTROLNET, lambda s: s["conv_in_extra.0.bias"].fill_(torch.nan)), CheckpointError,
            "NaN or infinite weights in conv_in_extra.0.bias"),
    "another network": (lambda f: (f / ENCODER).write_bytes((f / CONTROLNET).read_bytes()), CheckpointError,
                        "keys that ReferenceUNet does not have"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_files_are_told(fault: str, released: Path) -> None:
    damage, error, message = FAULTS[fault]
    damage(released)
    with pytest.raises(error, match=message):
        read(released)
