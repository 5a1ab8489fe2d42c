"""`refnet convert` as it is typed, for FlashFace and IDM-VTON: tiny files in the released layout, whole and faulty."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from golden import GOLDENS, save_flashface
from referencenet import FlashFacePipeline, IDMVTONPipeline
from referencenet.cli.app import app
from referencenet.methods.tiny import filled, tiny_pipeline
from referencenet.networks.image_prompt import ImagePromptResampler
from tiny import half_mask, picture, tiny
from tolerances import ROUNDING, relative_error

CASE = GOLDENS / "flashface-step-two-way"
UNET = "unet/diffusion_pytorch_model.bin"
GARMENT_NET = "unet_encoder/diffusion_pytorch_model.safetensors"
State = dict[str, torch.Tensor]
Fault = tuple[Callable[[Path], object], str]


class Code:
    """Pickles as a call."""

    def __reduce__(self) -> Any:
        return print, ("this ran",)


def changed(name: str, how: Callable[[State], object]) -> Callable[[Path], None]:
    """Change a pickled state dict of a folder."""

    def apply(folder: Path) -> None:
        state = torch.load(folder / name, weights_only=True)
        how(state)
        torch.save(state, folder / name)

    return apply


def cut(name: str) -> Callable[[Path], None]:
    """Keep half of a file."""

    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return apply


def typed(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    return result.exit_code, result.output


def assert_refused(arguments: tuple[object, ...], out: Path, message: str) -> None:
    """Told in one line what is wrong; nothing is run and nothing stays behind."""
    status, output = typed(*arguments, "--out", out)
    lines = [line for line in output.splitlines() if line.startswith("error:")]
    assert status == 2, output
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in output
    assert "this ran" not in output
    assert not list(out.parent.glob(f"*{out.name}*"))


# --- FlashFace --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def face_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`flashface.ckpt` with a golden case's weights, and a base of diffusers' layout."""
    folder = tmp_path_factory.mktemp("flashface")
    save_flashface(CASE, folder)
    for name in ("vae", "text_encoder", "tokenizer"):
        getattr(tiny("sd").pipe, name).save_pretrained(folder / "base" / name)
    return folder


def test_flashface_is_converted_to_what_its_files_hold(face_files: Path, tmp_path: Path) -> None:
    base, out = face_files / "base", tmp_path / "made" / "flashface"
    status, output = typed("flashface", face_files, "--base", base, "--out", out)
    assert status == 0, output
    assert f"converted: {out}" in output
    direct, converted = FlashFacePipeline.from_published(face_files, base=base), FlashFacePipeline.from_pretrained(out)
    for name in ("unet", "reference_unet", "vae", "text_encoder"):
        expected, ours = getattr(direct, name).state_dict(), getattr(converted, name).state_dict()
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[key], expected[key]) for key in expected)
    assert converted.config.scrambled_vae is False
    assert type(converted.scheduler) is type(direct.scheduler)


CKPT = "flashface.ckpt"
FACE_FAULTS: dict[str, Fault] = {
    "missing key": (changed(CKPT, lambda s: s.pop("ref_encoder.1.0.layer1.2.bias")), "down_blocks.0.resnets.0.conv1"),
    "extra key": (changed(CKPT, lambda s: s.update(more=torch.zeros(1))), "does not have: more"),
    "misshapen key": (changed(CKPT, lambda s: s.update({"head.2.bias": torch.zeros(5), "ori_encoder.0.0.bias":
                      torch.zeros(5)})), "is (5,), expected ("),
    "NaN": (changed(CKPT, lambda s: s["head.2.bias"].fill_(torch.nan)), "holds NaN or infinite weights in head.2.bias"),
    "cut short": (cut(CKPT), "may be cut short: download it again"),
    "code": (lambda folder: torch.save({"a": Code()}, folder / CKPT), "holds more than tensors (code could run"),
    "no tensors": (lambda folder: torch.save({"epoch": 3}, folder / CKPT), "holds values that are not tensors (epoch)"),
    "wrong system": (lambda folder: torch.save({"conv_in.weight": torch.zeros(1)}, folder / CKPT),
                     "this is not a FlashFace checkpoint: it has no 'ori_encoder.1.0.layer1.2.weight'"),
    "missing file": (lambda folder: (folder / CKPT).unlink(), "Get the files from huggingface.co/shilongz"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FACE_FAULTS)
def test_faulty_files_of_flashface_are_told_in_one_line(fault: str, face_files: Path, tmp_path: Path) -> None:
    damage, message = FACE_FAULTS[fault]
    (tmp_path / "files").mkdir()
    shutil.copy(face_files / CKPT, tmp_path / "files")
    damage(tmp_path / "files")
    assert_refused(("flashface", tmp_path / "files", "--base", face_files / "base"), tmp_path / "converted", message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "flashface.sd15 also needs tokenizer (a folder with configuration and weights)"),
        (("--image-encoder", "tests"), "flashface takes no --image-encoder: its release or its --base brings it"),
    ],
    ids=["no base", "image encoder"],
)
def test_options_that_flashface_needs_or_does_not_know_are_told(
    options: tuple[str, ...], message: str, face_files: Path, tmp_path: Path
) -> None:
    assert_refused(("flashface", face_files, *options), tmp_path / "converted", message)


# --- IDM-VTON ---------------------------------------------------------------------------------------------------------


def released_resampler(state: State) -> State:
    """A resampler's state dict under the released names."""
    released: State = {}
    for key, tensor in state.items():
        for ours, theirs in (
            (".ln0.", ".0.norm1."),
            (".ln1.", ".0.norm2."),
            (".attn.to_out.0.", ".0.to_out."),
            (".attn.to_k.", ".0.to_kv."),
            (".attn.", ".0."),
            (".ff.0.", ".1.0."),
            (".ff.1.net.0.proj.", ".1.1."),
            (".ff.1.net.2.", ".1.3."),
        ):
            if ours in key:
                key = key.replace(ours, theirs)
                break
        released[f"encoder_hid_proj.{key}"] = tensor
    for key in [key for key in released if ".to_kv." in key]:
        released[key] = torch.cat([released[key], released.pop(key.replace(".to_kv.", ".to_v."))])
    return released


def tiny_model() -> IDMVTONPipeline:
    """IDM-VTON with a resampler whose heads have the released width."""
    pipe = tiny_pipeline("idm_vton")
    with torch.random.fork_rng(devices=[]):
        resampler = ImagePromptResampler(
            embed_dims=8, output_dims=32, hidden_dims=8, depth=2, dim_head=64, heads=1, num_queries=4, ffn_ratio=3
        )
    pipe.register_modules(image_projection=filled(resampler, 6))
    return pipe


@pytest.fixture(scope="module")
def tryon_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `yisol/IDM-VTON` is, with its configurations."""
    folder, pipe = tmp_path_factory.mktemp("idm_vton"), tiny_model()
    for name, part in (("unet", pipe.unet), ("unet_encoder", pipe.reference_unet), ("vae", pipe.vae)):
        part.save_config(folder / name)
    unet = {key.replace("_ip.0.", "_ip."): tensor for key, tensor in pipe.unet.state_dict().items()}
    torch.save(unet | released_resampler(pipe.image_projection.state_dict()), folder / UNET)
    added = {f"add_embedding.linear_{i}.{kind}": torch.zeros(3) for i in (1, 2) for kind in ("weight", "bias")}
    save_file(pipe.reference_unet.state_dict() | added, folder / GARMENT_NET)
    save_file(pipe.vae.state_dict(), folder / "vae" / "diffusion_pytorch_model.safetensors")
    for name in ("image_encoder", "text_encoder", "text_encoder_2"):
        part = getattr(pipe, name)
        part.config.save_pretrained(folder / name)
        prefix = "text_model." if name == "text_encoder" else ""
        state = {f"{prefix}{key}": tensor.contiguous() for key, tensor in part.state_dict().items()}
        save_file(state, folder / name / "model.safetensors")
    for name in ("tokenizer", "tokenizer_2"):
        getattr(pipe, name).save_pretrained(folder / name)
    return folder


def dressed(pipe: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    pictures = {name: picture(i, (32, 24)) for i, name in enumerate(("person", "garment", "densepose"))}
    options = {"width": 32, "height": 24, "num_inference_steps": 1, "output_type": "latent"}
    generator = torch.Generator().manual_seed(0)
    return pipe(**pictures, mask=half_mask("top", (32, 24)), **options, generator=generator).images


def test_idm_vton_is_converted_to_what_dresses_the_same(tryon_files: Path, tmp_path: Path) -> None:
    """Sizes come from the folder's own configurations and the resampler's shapes."""
    out = tmp_path / "made" / "idm-vton"
    status, output = typed("idm_vton", tryon_files, "--out", out)
    assert status == 0, output
    assert f"converted: {out}" in output
    assert relative_error(dressed(IDMVTONPipeline.from_pretrained(out)), dressed(tiny_model())) < ROUNDING


TRYON_FAULTS: dict[str, Fault] = {
    "missing key": (changed(UNET, lambda s: s.pop("conv_in.bias")), "lacks 1 of its keys: conv_in.bias"),
    "missing resampler": (changed(UNET, lambda s: s.pop("encoder_hid_proj.latents")),
                          "this is not a UNet of IDM-VTON: it has no 'encoder_hid_proj.latents'"),
    "extra key": (changed(UNET, lambda s: s.update(more=torch.zeros(1))), "ImagePromptUNet does not have: more"),
    "misshapen key": (changed(UNET, lambda s: s.update({"conv_in.bias": torch.zeros(3)})),
                      "conv_in.bias is (3,), expected (8,)"),
    "NaN": (changed(UNET, lambda s: s["conv_in.bias"].fill_(torch.nan)), "NaN or infinite weights in conv_in.bias"),
    "cut short": (cut(GARMENT_NET), "is not a complete safetensors file"),
    "code": (lambda folder: torch.save({"a": Code()}, folder / UNET), "holds more than tensors (code could run"),
    "wrong system": (lambda folder: torch.save({"ori_encoder.0.0.bias": torch.zeros(1)}, folder / UNET),
                     "this is not a UNet of IDM-VTON"),
    "files of two models": (lambda folder: shutil.copy(folder / "vae/diffusion_pytorch_model.safetensors",
                            folder / GARMENT_NET), "keys that UNet2DConditionModel does not have: decoder."),
    "missing file": (lambda folder: (folder / GARMENT_NET).unlink(), f"needs {GARMENT_NET}, not found in"),
    "no tokenizer": (lambda folder: shutil.rmtree(folder / "tokenizer_2"), "idm_vton.viton_hd also needs tokenizer_2"),
    "damaged configuration": (lambda folder: (folder / "unet/config.json").write_text("{"),
                              "unet/config.json is not a configuration"),
}  # fmt: skip


@pytest.mark.parametrize("fault", TRYON_FAULTS)
def test_faulty_files_of_idm_vton_are_told_in_one_line(fault: str, tryon_files: Path, tmp_path: Path) -> None:
    damage, message = TRYON_FAULTS[fault]
    folder = shutil.copytree(tryon_files, tmp_path / "files")
    damage(folder)
    assert_refused(("idm_vton", folder), tmp_path / "converted", message)


def test_files_of_idm_vton_one_by_one_are_told_apart_by_their_folders(tryon_files: Path, tmp_path: Path) -> None:
    """The tokenizers, which are no such files, come from a base; configurations lie beside the files."""
    files = [path for ending in ("bin", "safetensors") for path in tryon_files.glob(f"*/*.{ending}")]
    assert_refused(("idm_vton", *files), tmp_path / "refused", "also needs tokenizer")
    out = tmp_path / "made"
    status, output = typed("idm_vton", *files, "--base", tryon_files, "--out", out)
    assert status == 0, output
    assert relative_error(dressed(IDMVTONPipeline.from_pretrained(out)), dressed(tiny_model())) < ROUNDING
