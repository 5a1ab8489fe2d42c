"""Animate Anyone's released files: read strictly, converted, and every fault told."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from films import generator, picture, poses, write_released
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.manifest import KEY_LISTS
from referencenet.checkpoints.published import PublishedSet, share_of
from referencenet.cli.convert import run_convert
from referencenet.cli.manifests import run_manifests
from referencenet.methods.animate_anyone import (
    PUBLISHED,
    PUBLISHED_REENACT,
    AnimateAnyonePipeline,
    FaceReenactmentPipeline,
)
from referencenet.networks.layout import TINY_SD15 as TINY_UNET
from tiny import tiny_pipeline

MANIFESTS = sorted(KEY_LISTS.glob("animate_anyone-*.json.gz"))


def film(pipe: Any, films: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe(picture(0), films, num_inference_steps=1, generator=generator(), output_type="latent").frames


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released(tiny_pipeline("animate_anyone"), PUBLISHED, tmp_path_factory.mktemp("animate_anyone"))


@pytest.fixture
def released(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "released")


def read(folder: Path) -> AnimateAnyonePipeline:
    return AnimateAnyonePipeline.from_published(folder, base=folder / "base")


def test_released_files_give_the_film_of_the_model_and_so_does_their_conversion(released: Path, tmp_path: Path) -> None:
    expected = film(tiny_pipeline("animate_anyone"), poses(2))
    assert torch.equal(film(read(released), poses(2)), expected)
    out = run_convert("animate_anyone", [released], tmp_path / "out", base=released / "base")
    assert torch.equal(film(AnimateAnyonePipeline.from_pretrained(out), poses(2)), expected)
    with pytest.raises(ValueError, match="is there already and not empty"):
        run_convert("animate_anyone", [released], out)
    with pytest.raises(ValueError, match="there is no published system 'animate'"):
        run_convert("animate", [released], tmp_path / "b")


def test_reenactment_files(tmp_path: Path) -> None:
    folder = write_released(tiny_pipeline("animate_anyone.reenact"), PUBLISHED_REENACT, tmp_path)
    pipe = FaceReenactmentPipeline.from_published(folder, base=folder / "base")
    pair = (poses(2), poses(2, seed=7))
    assert torch.equal(film(pipe, pair), film(tiny_pipeline("animate_anyone.reenact"), pair))


def test_safetensors_under_a_pth_name_is_read(released: Path) -> None:
    path = released / "pose_guider.pth"
    save_file(torch.load(path, weights_only=True), path)
    assert torch.equal(film(read(released), poses(1)), film(tiny_pipeline("animate_anyone"), poses(1)))


class Code:
    """Pickles as a call."""

    def __reduce__(self) -> Any:
        return print, ("this ran",)


def change(name: str, how: Any) -> Any:
    """Change a released state dict."""

    def apply(folder: Path) -> None:
        state = torch.load(folder / name, weights_only=True)
        how(state)
        torch.save(state, folder / name)

    return apply


def cut(folder: Path) -> None:
    path = folder / "reference_unet.pth"
    path.write_bytes(path.read_bytes()[:5000])


KEY = "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"
TABLE = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe"
FAULTS: dict[str, tuple[Any, type[Exception], str]] = {
    "no motion module": (lambda f: (f / "motion_module.pth").unlink(), FileNotFoundError,
                         r"needs motion_module.pth.*patrolli/AnimateAnyone \(licence"),
    "no autoencoder": (lambda f: (f / "sd-vae-ft-mse" / "config.json").unlink(), FileNotFoundError,
                       "also needs sd-vae-ft-mse .*stabilityai"),
    "missing key": (change("motion_module.pth", lambda s: s.pop(KEY)), CheckpointError,
                    r"motion_module.pth lacks 1 of its keys: down_blocks.0.motion_modules.0.norm.weight"),
    "extra key": (change("pose_guider.pth", lambda s: s.update(more=torch.zeros(1))), CheckpointError,
                  "1 keys that PoseGuider does not have: more"),
    "misshapen key": (change("pose_guider.pth", lambda s: s.update({"conv_in.bias": torch.zeros(3)})), CheckpointError,
                      r"conv_in.bias is \(3,\), expected \(16,\)"),
    "NaN": (change("denoising_unet.pth", lambda s: s["conv_in.bias"].fill_(torch.nan)), CheckpointError,
            r"denoising_unet.pth holds NaN or infinite weights in conv_in.bias"),
    "other positions": (change("motion_module.pth", lambda s: s[TABLE].add_(1)), CheckpointError,
                        "two different position tables"),
    "cut short": (cut, CheckpointError, "may be cut short"),
    "code": (lambda f: torch.save({"a": Code()}, f / "pose_guider.pth"), CheckpointError, "holds more than tensors"),
    "wrong system": (lambda f: (f / "reference_unet.pth").write_bytes((f / "pose_guider.pth").read_bytes()),
                     CheckpointError, "keys that ReferenceUNet does not have"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_files_are_told(fault: str, released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, error, message = FAULTS[fault]
    damage(released)
    with pytest.raises(error, match=message):
        read(released)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("published", [PUBLISHED, PUBLISHED_REENACT], ids=lambda published: published.name)
def test_every_tensor_is_brought_by_exactly_one_file(published: PublishedSet) -> None:
    for component in published.components:
        network = published.build[component](TINY_UNET)
        shares = [share_of(network, file) for file in published.files_of(component)]
        assert sum(map(len, shares)) == len(network.state_dict()) == len(set().union(*shares))


@pytest.mark.slow
def test_key_lists_at_full_size_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_manifests(MANIFESTS, tmp_path / "manifests.json") == 0
    assert "7 of 7 manifests passed, 3948 keys" in capsys.readouterr().out
    assert (tmp_path / "manifests.json").is_file()


def test_other_key_lists_are_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.json.gz").write_bytes(b"nothing")
    (tmp_path / "unknown.json.gz").write_bytes(MANIFESTS[0].read_bytes())
    assert run_manifests([tmp_path / "broken.json.gz", tmp_path / "unknown.json.gz"]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "is not a key list" in out
    assert "no published file is known by this name; there are" in out
