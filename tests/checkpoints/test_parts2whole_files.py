"""Parts2Whole's released files: read strictly, and every fault told."""

from json import dumps
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.manifest import KEY_LISTS
from referencenet.checkpoints.published import share_of
from referencenet.cli.manifests import run_manifests
from referencenet.methods.parts2whole import PUBLISHED, Parts2WholePipeline
from referencenet.methods.tiny import tiny_pipeline

MANIFESTS = sorted(KEY_LISTS.glob("parts2whole-*.json.gz"))
KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_dc.weight"


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """The tiny pipeline as its publisher lays files out, all of them safetensors, whatever they are called."""
    pipe = tiny_pipeline("parts2whole")
    for file in PUBLISHED.files:
        state = getattr(pipe, file.component).state_dict()
        names = [name for name in state if "processor" in name or file.path != "decoupled_attn.pth"]
        path = tmp_path / file.path
        path.parent.mkdir(exist_ok=True)
        save_file({name.replace("_ip.0.", "_dc."): state[name].contiguous() for name in names}, path)
    for name, folder in {"vae": "sd-vae-ft-mse", "image_encoder": "image_encoder", "text_encoder": "base/text_encoder",
                         "tokenizer": "base/tokenizer"}.items():  # fmt: skip
        getattr(pipe, name).save_pretrained(tmp_path / folder)
    config = {"_class_name": "UNet2DConditionModel", **PUBLISHED.tiny_config}
    (tmp_path / "base" / "unet").mkdir()
    (tmp_path / "base" / "unet" / "config.json").write_text(dumps(config))
    return tmp_path


def read(folder: Path) -> Parts2WholePipeline:
    return Parts2WholePipeline.from_published(folder, base=folder / "base")


def test_released_files_give_the_networks_back(released: Path) -> None:
    pipe, expected = read(released), tiny_pipeline("parts2whole")
    for name in PUBLISHED.components:
        state, theirs = getattr(pipe, name).state_dict(), getattr(expected, name).state_dict()
        assert state.keys() == theirs.keys()
        assert all(torch.equal(state[key], theirs[key]) for key in state)
    assert pipe.scheduler.config["beta_schedule"] == "linear"


def change(name: str, how: Any) -> Any:
    def apply(folder: Path) -> None:
        state = load_file(folder / name)
        how(state)
        (folder / name).unlink()
        save_file(state, folder / name)

    return apply


FAULTS: dict[str, tuple[Any, type[Exception], str]] = {
    "no attention": (lambda f: (f / "decoupled_attn.pth").unlink(), FileNotFoundError, "needs decoupled_attn.pth"),
    "missing key": (change("decoupled_attn.pth", lambda s: s.pop(KEY)), CheckpointError,
                    "decoupled_attn.pth lacks 1 of its keys"),
    "NaN": (change("decoupled_attn.pth", lambda s: s[KEY].fill_(torch.nan)), CheckpointError, "holds NaN"),
    "tail": (change("reference_unet/diffusion_pytorch_model.safetensors",
                    lambda s: s.update({"conv_out.weight": torch.zeros(1)})), CheckpointError, "conv_out.weight"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_files_are_told(fault: str, released: Path) -> None:
    damage, error, message = FAULTS[fault]
    damage(released)
    with pytest.raises(error, match=message):
        read(released)


def test_every_tensor_is_brought_by_exactly_one_file() -> None:
    for component in PUBLISHED.components:
        network = PUBLISHED.build[component](PUBLISHED.tiny_config)
        shares = [share_of(network, file) for file in PUBLISHED.files_of(component)]
        assert sum(map(len, shares)) == len(network.state_dict()) == len(set().union(*shares))


@pytest.mark.slow
def test_key_lists_at_full_size_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_manifests(MANIFESTS) == 0
    assert "4 of 4 manifests passed, 1428 keys" in capsys.readouterr().out
