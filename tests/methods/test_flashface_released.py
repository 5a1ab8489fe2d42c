"""FlashFace's released files at tiny size: the golden prediction, other names of parts, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionPipeline,
)
from safetensors.torch import load_file
from transformers import CLIPTextConfig

from golden import GOLDENS, read_content, save_flashface
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.links.attach import attach
from referencenet.links.bank import ReferenceBank
from referencenet.links.second import Second
from referencenet.methods import flashface
from referencenet.methods.flashface import FaceGuidance, FlashFacePipeline
from referencenet.parity.seeded import seeded
from referencenet.pipelines.prediction import Call, predicting
from referencenet.pipelines.spec import Canvas
from tiny import CONTEXT, picture, tiny
from tolerances import ROUNDING, relative_error

CASE = GOLDENS / "flashface-step-two-way"
PLACE = torch.zeros(1, 1, 8, 8)


def predict(pipe: FlashFacePipeline, noisy: torch.Tensor, timestep: int, call: Call) -> torch.Tensor:
    settings = pipe.settle({"guidance_scale": FaceGuidance.text_guidance})
    with torch.no_grad(), pipe.calling(settings), predicting(pipe, call) as prediction:
        return prediction.begin(noisy, timestep)(None)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as it is released, at tiny size: the golden case's weights with the aliases beside them."""
    folder = tmp_path_factory.mktemp("released")
    save_flashface(CASE, folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    pipe: StableDiffusionPipeline = tiny("sd").pipe
    for name in ("vae", "text_encoder", "tokenizer"):
        getattr(pipe, name).save_pretrained(folder / name)
    return folder


def test_released_files_give_the_golden_prediction(released: Path, base: Path):
    pipe = FlashFacePipeline.from_published(released, base=base)
    content, expected = read_content(CASE), load_file(CASE / "outputs.safetensors")
    draw = {
        name: torch.from_numpy(seeded(f"{CASE.name}/input/{name}", spec["shape"], spec["kind"]))
        for name, spec in content["inputs"].items()
    }
    scalars = content["scalars"]
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., slice(*scalars["mask_rows"]), slice(*scalars["mask_cols"])] = 1
    canvas = Canvas(width=128, height=128)
    shown = pipe.faces(
        None, face_latents=draw["ref_latents"], face_weights=[1.0] * 4, negative_prompt_embeds=draw["negative_text"]
    )(canvas)
    given = {"prompt": (draw["prompt_text"], draw["negative_text"]), "place": mask}
    call = Call(canvas=canvas, given=given, guidance=FaceGuidance(), shown=shown)
    noise = predict(pipe, draw["xt"], scalars["timestep"], call)
    assert relative_error(noise, expected["eps_guided"]) < ROUNDING


def test_former_names_give_the_golden_prediction_with_a_warning(released: Path, base: Path, tmp_path: Path):
    with pytest.warns(FutureWarning, match="torch_dtype is called dtype now"):
        pipe = FlashFacePipeline.from_published(released, base=base, torch_dtype=torch.float32)
    content, expected = read_content(CASE), load_file(CASE / "outputs.safetensors")
    draw = {
        name: torch.from_numpy(seeded(f"{CASE.name}/input/{name}", spec["shape"], spec["kind"]))
        for name, spec in content["inputs"].items()
    }
    scalars = content["scalars"]
    mask = torch.zeros(16, 16)
    mask[slice(*scalars["mask_rows"]), slice(*scalars["mask_cols"])] = 1
    with pytest.warns(DeprecationWarning, match="Conditions goes with the next release"):
        conditions = flashface.Conditions(
            faces=draw["ref_latents"], face_weights=[1.0] * 4, prompt=draw["prompt_text"],
            negative=draw["negative_text"], mask=mask,
        )  # fmt: skip
    with pytest.warns(DeprecationWarning, match="is now called FaceGuidance"):
        guidance = flashface.Guidance(text_guidance=7.5)
    with torch.no_grad(), pytest.warns(DeprecationWarning, match="write_bank goes"):
        pipe.write_bank(conditions, scalars["timestep"]).save(tmp_path / "bank.safetensors")
    bank = ReferenceBank.load(tmp_path / "bank.safetensors")
    for known in (None, bank):
        with (
            torch.no_grad(),
            attach(pipe.unet, [Second()]) as link,
            pytest.warns(DeprecationWarning, match="predict_noise"),
        ):
            noise = pipe.predict_noise(link, draw["xt"], scalars["timestep"], conditions, guidance, known)
        assert relative_error(noise, expected["eps_guided"]) < ROUNDING
    with pytest.warns(DeprecationWarning, match="passes goes"):
        assert flashface.passes(800, guidance) == guidance.passes(800, 7.5)
    with torch.no_grad(), pytest.warns(DeprecationWarning, match="encode_faces goes"):
        assert pipe.encode_faces([picture(1)]).shape == (1, 4, 28, 28)
    with torch.no_grad(), pytest.warns(DeprecationWarning, match="encode_prompt goes"):
        assert pipe.encode_prompt(["a knight"], "a hat").shape[::2] == (1, CONTEXT)


def test_released_autoencoder_is_read_if_it_is_there(released: Path, base: Path, tmp_path: Path):
    """The autoencoder's golden case through a file in the released layout; its shape is the base's."""
    case = GOLDENS / "flashface-vae"
    content, expected = read_content(case), load_file(case / "outputs.safetensors")
    part = content["components"]["vae"]
    widths = tuple(part["config"]["dim"] * factor for factor in part["config"]["dim_mult"])
    vae = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=part["config"]["num_res_blocks"],
    )
    shutil.copytree(base, tmp_path / "base")
    vae.save_pretrained(tmp_path / "base" / "vae")
    state = {
        key: torch.from_numpy(seeded(f"{case.name}/vae/{key}", shape)).reshape(tuple(shape))
        for key, shape, _ in part["state_dict"]
    }
    torch.save(state, tmp_path / "sd-v1-vae.pth")
    files = [released / "flashface.ckpt", tmp_path / "sd-v1-vae.pth"]
    pipe = FlashFacePipeline.from_published(files, base=tmp_path / "base")
    latents = torch.from_numpy(seeded(f"{case.name}/input/latents", content["inputs"]["latents"]["shape"], "normal"))
    with torch.no_grad():
        assert relative_error(pipe.vae.decode(latents).sample, expected["decode"]) < ROUNDING
    with pytest.raises(CheckpointError, match=r"sd-v1-vae.pth does not fit"):
        FlashFacePipeline.from_published(files, base=base)  # whose autoencoder is narrower


def test_released_text_encoder_is_read_if_it_is_there(released: Path, base: Path, tmp_path: Path):
    """The text encoder's golden case through a file in the released layout; a tokenizer is enough beside it."""
    case = GOLDENS / "flashface-clip-text"
    content, expected = read_content(case), load_file(case / "outputs.safetensors")
    part = content["components"]["textual"]
    told = part["config"]
    config = CLIPTextConfig(
        vocab_size=told["vocab_size"], max_position_embeddings=told["text_len"], hidden_size=told["dim"],
        intermediate_size=told["dim"] * told["mlp_ratio"], num_attention_heads=told["num_heads"],
        num_hidden_layers=told["num_layers"], hidden_act=told["activation"], bos_token_id=0,
        eos_token_id=told["vocab_size"] - 1,
    )  # fmt: skip
    shutil.copytree(base, tmp_path / "base")
    shutil.rmtree(tmp_path / "base" / "text_encoder")
    config.save_pretrained(tmp_path / "base" / "text_encoder")  # no weights
    state = {
        f"textual.{key}": torch.from_numpy(seeded(f"{case.name}/textual/{key}", shape)).reshape(tuple(shape))
        for key, shape, _ in part["state_dict"]
    }
    torch.save(state | {"log_scale": torch.zeros(())}, tmp_path / "openai-clip-vit-large-14.pth")
    files = [released / "flashface.ckpt", tmp_path / "openai-clip-vit-large-14.pth"]
    pipe = FlashFacePipeline.from_published(files, base=tmp_path / "base")
    with torch.no_grad():
        states = pipe.text_encoder(torch.tensor(content["scalars"]["token_ids"])).last_hidden_state
    assert relative_error(states, expected["context"]) < ROUNDING
    assert type(pipe.vae) is AutoencoderKL  # the base's


def test_parts_may_be_given_in_place_of_the_base(released: Path, base: Path):
    told = {name: base / name for name in ("vae", "text_encoder")}
    tokenizer = tiny("sd").pipe.tokenizer
    pipe = FlashFacePipeline.from_published(released, tokenizer=tokenizer, scrambled_vae=True, **told)
    assert pipe.tokenizer is tokenizer
    assert pipe.config.scrambled_vae
    reader = FlashFacePipeline.from_published(released, tokenizer=tokenizer, reference_unet=None, **told)
    assert reader.reference_unet is None


def changed(released: Path, folder: Path, change: Any) -> Path:
    state = torch.load(released / "flashface.ckpt", weights_only=True)
    change(state)
    torch.save(state, folder / "flashface.ckpt")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("ori_decoder.3.1.blocks.0.self_attn.self_attn_first.q.weight"), "attn1.reference.to_q.weight"),
        (lambda s: s.update({"ori_extra.weight": torch.zeros(2)}), "ori_extra.weight"),
        (lambda s: s.update({"head.2.bias": torch.zeros(5)}), r"\(5,\)"),
        (lambda s: s["head.2.bias"].fill_(torch.nan), "NaN"),
        (lambda s: s.pop("ori_encoder.1.0.layer1.2.weight"), "not a FlashFace checkpoint"),
    ],
    ids=["missing", "extra", "misshapen", "nan", "another-system"],
)
def test_a_faulty_checkpoint_is_refused_by_the_name_of_its_fault(
    change: Any, message: str, released: Path, base: Path, tmp_path: Path
):
    with pytest.raises(CheckpointError, match=message):
        FlashFacePipeline.from_published(changed(released, tmp_path, change), base=base)


def test_missing_files_say_where_to_get_them(base: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="shilongz/FlashFace-SD1.5"):
        FlashFacePipeline.from_published(tmp_path, base=base)
    torch.save({"never": torch.zeros(1)}, tmp_path / "flashface.ckpt")
    with pytest.raises(FileNotFoundError, match=r"also needs tokenizer .* none was given \(base=...\)"):
        FlashFacePipeline.from_published(tmp_path)


def test_case_of_the_golden_step_is_what_these_tests_think():
    assert json.loads((CASE / "case.json").read_text())["scalars"]["lambda_before"] == FaceGuidance().lambda_before
