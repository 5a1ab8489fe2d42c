"""Where weights rest, in how many bits, and what is compiled: the same claims for every system. Slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module

from systems import System, every_system
from tolerances import ROUNDING, relative_error

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def networks(pipe: Any) -> dict[str, torch.nn.Module]:
    """The pipeline's parts that compute."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def pixels(system: System, pipe: Any) -> torch.Tensor:
    """A result of one step, in pixels."""
    return system.call(pipe, num_inference_steps=1, output_type="pt")


@every_system
def test_offloaded_layer_by_layer_it_gives_the_same(system: System) -> None:
    """What enable_sequential_cpu_offload does, with the CPU as the device that computes."""
    pipe = system.make()
    expected = pixels(system, pipe)
    for part in networks(pipe).values():
        accelerate.cpu_offload(part, execution_device=CPU, offload_buffers=True)
    assert all(parameter.is_meta for parameter in pipe.unet.parameters())
    assert torch.equal(pixels(system, pipe), expected)


class Resting(ModelHook):
    """Keeps a model's tensors on the meta device, where nothing can be computed, until the model is called."""

    def __init__(self, others: list[Resting]) -> None:
        self.execution_device = CPU
        self.others = others
        others.append(self)

    def init_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        self.module = module
        self.tensors = {
            (owner, name): tensor
            for owner in module.modules()
            for kind in (owner._parameters, owner._buffers)
            for name, tensor in kind.items()
            if tensor is not None
        }
        return module.to("meta")

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - accelerate's
        for other in self.others:
            if other is not self:
                other.module.to("meta")
        for (owner, name), tensor in self.tensors.items():
            (owner._parameters if name in owner._parameters else owner._buffers)[name] = tensor
        return args, kwargs


@every_system
def test_offloaded_model_by_model_it_gives_the_same(system: System) -> None:
    """What enable_model_cpu_offload does: one model at a time is where it can compute, from its call on."""
    pipe = system.make()
    expected = pixels(system, pipe)
    hooks: list[Resting] = []
    for name in pipe.model_cpu_offload_seq.split("->"):
        add_hook_to_module(getattr(pipe, name), Resting(hooks))
    assert len(hooks) == len(networks(pipe))
    assert torch.equal(pixels(system, pipe), expected)


@every_system
@pytest.mark.parametrize("level", ["block_level", "leaf_level"])
def test_offloaded_in_groups_it_gives_the_same(system: System, level: str, tmp_path: Path) -> None:
    """Groups rest on disk, so a layer that runs while its group is away has no weights."""
    pipe = system.make()
    expected = pixels(system, pipe)
    blocks = {"num_blocks_per_group": 1} if level == "block_level" else {}
    for name in system.unets:
        getattr(pipe, name).enable_group_offload(
            CPU, CPU, offload_type=level, offload_to_disk_path=str(tmp_path / name), **blocks
        )
    assert relative_error(pixels(system, pipe), expected) < ROUNDING
    assert relative_error(pixels(system, pipe), expected) < ROUNDING


@every_system
def test_weights_stored_in_eight_bits_compute_in_the_type_they_are_told(system: System) -> None:
    pipe = system.make()
    expected = system.call(pipe, latents=system.noise())
    for name in system.unets:
        getattr(pipe, name).enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    ours = system.call(pipe, latents=system.noise())
    assert 0 < relative_error(ours, expected) < 0.5  # of random weights an eighth of the digits is left


@every_system
def test_integer_weights_of_torchao_serve(system: System) -> None:
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    pipe = system.make()
    expected = system.call(pipe, latents=system.noise())
    for name in system.unets:
        quantization.quantize_(getattr(pipe, name), quantization.Int8WeightOnlyConfig())
    ours = system.call(pipe, latents=system.noise())
    assert 0 < relative_error(ours, expected) < 0.2


@every_system
def test_the_repeated_blocks_compile(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever backend: `eager` shows that the blocks are found, traced whole and right."""
    pipe = system.make()
    expected = system.call(pipe)
    torch._dynamo.reset()
    # a graph for every width and kind of block, of both networks: torch's limit of eight is for one function
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 16)
    pipe.unet.compile_repeated_blocks(backend="eager", fullgraph=True)
    if system.writes:
        pipe.reference_unet.compile_repeated_blocks(backend="eager")  # a write pass leaves from inside its last block
    try:
        assert relative_error(system.call(pipe), expected) < ROUNDING
    finally:
        torch._dynamo.reset()
