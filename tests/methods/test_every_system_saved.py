"""Every system with LoRA and textual inversions, and from a folder that it was saved to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

import referencenet
from systems import System, every_system_in_time
from tolerances import ROUNDING, relative_error


def lora_state(network: Any) -> dict[str, torch.Tensor]:
    """A LoRA of a network, trained somewhere else."""
    with torch.random.fork_rng(devices=[]):
        network.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False))
    state = {key: tensor.clone() for key, tensor in get_peft_model_state_dict(network).items()}
    network.delete_adapters("default")
    return state


@every_system_in_time
def test_a_lora_file_is_loaded_weighed_and_taken_away(system: System, tmp_path: Path) -> None:
    pipe = system.make()
    assert isinstance(pipe, StableDiffusionLoraLoaderMixin | StableDiffusionXLLoraLoaderMixin)
    plain = system.call(pipe)
    type(pipe).save_lora_weights(tmp_path, unet_lora_layers=lora_state(system.make().unet))
    pipe.load_lora_weights(tmp_path, adapter_name="style")
    styled = system.call(pipe)
    assert relative_error(styled, plain) > 1e-4
    pipe.set_adapters(["style"], [0.0])
    assert relative_error(system.call(pipe), plain) < ROUNDING
    pipe.set_adapters(["style"], [1.0])
    assert torch.equal(system.call(pipe), styled)
    pipe.unload_lora_weights()
    assert torch.equal(system.call(pipe), plain)


@every_system_in_time
def test_a_textual_inversion_gives_a_word_a_meaning(system: System) -> None:
    pipe = system.make()
    if "tokenizer" not in pipe.components or "tokenizer_2" in pipe.components:
        pytest.skip("it reads no text, or by two text models, where diffusers takes a pair of embeddings")
    plain = system.call(pipe, prompt="a <hero>")
    width = pipe.text_encoder.get_input_embeddings().weight.shape[1]
    pipe.load_textual_inversion({"<hero>": torch.ones(2, width)}, token="<hero>")
    assert relative_error(system.call(pipe, prompt="a <hero>"), plain) > 1e-6


@every_system_in_time
def test_a_saved_folder_is_read_by_its_class_by_load_and_by_diffusers(system: System, tmp_path: Path) -> None:
    pipe = system.make()
    expected = system.call(pipe, num_inference_steps=1)
    pipe.save_pretrained(tmp_path)
    ways = {
        "class": system.kind.from_pretrained(tmp_path),
        "load": referencenet.load(tmp_path),
        "diffusers": DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True),
    }
    for way, read in ways.items():
        assert type(read) is system.kind, way
        read.set_progress_bar_config(disable=True)
        assert relative_error(system.call(read, num_inference_steps=1), expected) < ROUNDING, way
    half = referencenet.load(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


def test_a_folder_of_another_pipeline_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ValueError, match="StableDiffusionPipeline"):
        referencenet.load(tmp_path)
