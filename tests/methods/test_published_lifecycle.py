"""The published systems' pipelines lead the life of a diffusers pipeline: one set of claims, every system.

Tiny networks with random weights; what a system computes is tested in its own file and against golden cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, UniPCMultistepScheduler
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image

from films import picture as frame
from films import poses
from referencenet.methods.tiny import tiny_pipeline
from referencenet.pipelines.lifecycle import ReferencePipeline
from tiny import half_mask, picture
from tolerances import ROUNDING, relative_error
from traces import pipeline_traces

SIZE = (32, 24)  # width, height


def noise(*shape: int, seed: int = 3) -> torch.Tensor:
    """Seeded normal noise; by default of the shape of a picture's latents."""
    shape = shape or (1, 4, SIZE[1] // 8, SIZE[0] // 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class System:
    """A system's tiny pipeline and how it is called.

    Attributes:
        name: Of the system.
        pictures: What a call needs.
        encoded: Instead of some of the pictures their latents: faster, and a generator draws the start noise only.
        several: Name of the option that asks for several results of one call.
        denoiser: Name of the network that LoRAs are for.
    """

    name: str
    pictures: dict[str, Any]
    encoded: dict[str, Any]
    several: str = "num_images_per_prompt"
    denoiser: str = "unet"

    def make(self) -> Any:
        pipe = tiny_pipeline(self.name)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def call(self, pipe: Any, *, from_pictures: bool = False, seed: int = 0, **changes: Any) -> Any:
        """The results of two steps, as latents unless told otherwise."""
        given = self.pictures if from_pictures else self.pictures | self.encoded
        common = {"num_inference_steps": 2, "output_type": "latent", "generator": torch.Generator().manual_seed(seed)}
        return pipe(**given | common | {"width": SIZE[0], "height": SIZE[1]} | changes)[0]


FACE = System(
    "flashface",
    pictures={"faces": [picture(1), picture(2)], "prompt": "a knight"},
    encoded={"faces": None, "face_latents": noise(2, 4, 5, 5)},
)
GARMENT = System(
    "idm_vton",
    pictures={
        "person": picture(1, SIZE),
        "garment": picture(2, SIZE),
        "mask": half_mask("top", SIZE),
        "densepose": picture(3, SIZE),
    },
    encoded={
        "person": None,
        "masked_image_latents": noise(seed=4),
        "densepose": None,
        "densepose_latents": noise(seed=5),
        "garment_latents": noise(seed=6),
    },
)
WORDS = System("stable_garment.text2img", pictures={"garment": picture(2, SIZE), "prompt": "a knight"}, encoded={})
ADDED = System(
    "stable_garment",
    pictures={name: GARMENT.pictures[name] for name in ("person", "garment", "mask", "densepose")},
    encoded={"person": None, "agnostic_latents": noise(seed=4)},
)
FILM = System(
    "animate_anyone",
    pictures={"reference": frame(0), "poses": poses(2)},
    encoded={},
    several="num_films",
)
IMAGES = (FACE, GARMENT, WORDS, ADDED)
ALL = (*IMAGES, FILM)
every_system = pytest.mark.parametrize("system", ALL, ids=lambda system: system.name)
every_image_system = pytest.mark.parametrize("system", IMAGES, ids=lambda system: system.name)


# --- results ----------------------------------------------------------------------------------------------------------


@every_system
def test_a_seed_decides_the_result_and_the_global_generator_stays_where_it_was(system: System) -> None:
    state = torch.get_rng_state()
    pipe = system.make()
    first = system.call(pipe)
    assert torch.equal(system.call(pipe), first)
    assert torch.equal(system.call(system.make()), first)
    assert not torch.equal(system.call(pipe, seed=1), first)
    assert torch.equal(torch.get_rng_state(), state)


@every_image_system
def test_a_list_of_generators_makes_each_picture_as_if_alone(system: System) -> None:
    pipe = system.make()
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)  # no noise of its own
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    both = system.call(pipe, generator=generators, num_images_per_prompt=2)
    for row, seed in enumerate((5, 6)):
        alone = system.call(pipe, generator=torch.Generator().manual_seed(seed))
        assert relative_error(both[row : row + 1], alone) < ROUNDING


@every_system
def test_several_results_of_a_call_differ_in_their_noise_only(system: System) -> None:
    pipe = system.make()
    results = system.call(pipe, **{system.several: 3})
    assert results.shape[0] == 3
    assert relative_error(results[1], results[0]) > 1e-2
    assert relative_error(results[2], results[1]) > 1e-2


@every_system
def test_kinds_of_output_are_one_result(system: System) -> None:
    pipe = system.make()
    kinds = {kind: system.call(pipe, num_inference_steps=1, output_type=kind) for kind in ("pt", "np", "pil")}
    tensor, array, pictures = kinds["pt"], kinds["np"], kinds["pil"]
    if system is FILM:
        tensor, array, pictures = tensor[0], array[0], pictures[0]
    assert tensor.shape[-2:] == SIZE[::-1]
    assert all(isinstance(image, Image.Image) for image in pictures)
    assert np.array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    assert np.abs(np.asarray(pictures[0]) / 255 - array[0]).max() <= 0.5 / 255 + 1e-6


@every_system
def test_the_outputs_object_holds_what_the_tuple_holds(system: System) -> None:
    pipe = system.make()
    common = {"width": SIZE[0], "height": SIZE[1], "num_inference_steps": 1, "output_type": "latent"}
    output = pipe(**system.pictures | system.encoded | common, generator=torch.Generator().manual_seed(0))
    results = output.frames if system is FILM else output.images
    assert torch.equal(results, system.call(pipe, num_inference_steps=1, return_dict=False))


@every_system
def test_the_progress_bar_counts_the_steps(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = system.make()
    system.call(pipe, num_inference_steps=3)
    assert not capsys.readouterr().err
    pipe.set_progress_bar_config(disable=False)
    system.call(pipe, num_inference_steps=3)
    assert "3/3" in capsys.readouterr().err


@every_system
@pytest.mark.parametrize("scheduler", [EulerAncestralDiscreteScheduler, UniPCMultistepScheduler])
def test_schedulers_of_diffusers_serve(system: System, scheduler: Any) -> None:
    pipe = system.make()
    published = system.call(pipe, num_inference_steps=3)
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=False)
    other = system.call(pipe, num_inference_steps=3)
    assert other.dtype == published.dtype
    assert 1e-6 < relative_error(other, published) < float("inf")


# --- while it runs ----------------------------------------------------------------------------------------------------


@every_system
def test_a_callback_sees_every_step_and_its_latents_are_taken(system: System) -> None:
    pipe = system.make()
    seen: list[int] = []

    def halve_last(running: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        assert running is pipe
        seen.append(step)
        return {"latents": tensors["latents"] / 2} if step == 2 else {}

    changed = system.call(pipe, num_inference_steps=3, callback_on_step_end=halve_last)
    assert seen == [0, 1, 2]
    assert torch.equal(changed * 2, system.call(pipe, num_inference_steps=3))


@every_image_system
def test_an_interrupted_call_ends_early_and_the_next_is_whole(system: System) -> None:
    pipe = system.make()
    whole = system.call(pipe, num_inference_steps=3)
    kept: list[torch.Tensor] = []

    def interrupt(running: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        kept.append(tensors["latents"])
        running._interrupt = True
        return {}

    early = system.call(pipe, num_inference_steps=3, callback_on_step_end=interrupt)
    assert len(kept) == 1
    assert torch.equal(early, kept[0])
    assert torch.equal(system.call(pipe, num_inference_steps=3), whole)


@every_system
def test_nothing_of_a_call_stays_on_the_networks_also_after_an_exception(system: System) -> None:
    pipe = system.make()
    system.call(pipe)
    before = pipeline_traces(pipe)

    def fail(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        system.call(pipe, callback_on_step_end=fail)
    system.call(pipe)
    assert pipeline_traces(pipe) == before


# --- where and in what it computes ------------------------------------------------------------------------------------


@every_system
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.03), (torch.bfloat16, 0.2)], ids=str)
def test_half_precision_gives_nearly_the_same(system: System, dtype: torch.dtype, tolerance: float) -> None:
    """Also from noise in single precision, as everywhere in diffusers; guided steps amplify the rounding."""
    pipe = system.make()
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=False)
    start = noise() if system is not FILM else noise(1, 4, 2, SIZE[1] // 8, SIZE[0] // 8)
    full = system.call(pipe, latents=start)
    half = system.call(pipe.to(dtype), latents=start)
    assert half.dtype == (torch.float32 if isinstance(pipe, ReferencePipeline) else dtype)  # steps in single precision
    assert relative_error(half.float(), full) < tolerance
    pixels = system.call(pipe, num_inference_steps=1, output_type="pt", from_pictures=True)
    assert bool(pixels.isfinite().all())


@every_system
def test_offloaded_layer_by_layer_it_gives_the_same(system: System) -> None:
    """What enable_sequential_cpu_offload does, with the CPU as the device that computes."""
    pipe = system.make()
    expected = system.call(pipe, num_inference_steps=1, output_type="pt", from_pictures=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            accelerate.cpu_offload(part, execution_device=torch.device("cpu"), offload_buffers=True)
    assert all(parameter.is_meta for parameter in getattr(pipe, system.denoiser).parameters())
    assert torch.equal(system.call(pipe, num_inference_steps=1, output_type="pt", from_pictures=True), expected)


class Resting(ModelHook):
    """Keeps a model's tensors on the meta device, where nothing can be computed, until the model is called."""

    def __init__(self, others: list[Resting]) -> None:
        self.execution_device = torch.device("cpu")
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
    expected = system.call(pipe, num_inference_steps=1, output_type="pt", from_pictures=True)
    hooks: list[Resting] = []
    for name in pipe.model_cpu_offload_seq.split("->"):
        add_hook_to_module(getattr(pipe, name), Resting(hooks))
    assert len(hooks) == sum(isinstance(part, torch.nn.Module) for part in pipe.components.values())
    assert torch.equal(system.call(pipe, num_inference_steps=1, output_type="pt", from_pictures=True), expected)


@every_system
def test_a_sliced_or_tiled_autoencoder_serves(system: System) -> None:
    pipe = system.make()
    options = {"num_inference_steps": 1, "output_type": "pt", "from_pictures": system is not FACE}
    expected = system.call(pipe, **{system.several: 2}, **options)
    pipe.vae.enable_slicing()
    assert relative_error(system.call(pipe, **{system.several: 2}, **options), expected) < ROUNDING
    whole = system.call(pipe, width=64, **options)
    pipe.vae.enable_tiling()
    pipe.vae.tile_sample_min_size, pipe.vae.tile_latent_min_size = 32, 4
    tiled = system.call(pipe, width=64, **options)
    assert 0 < relative_error(tiled, whole) < float("inf")


# --- LoRA, and saving -------------------------------------------------------------------------------------------------


def lora_state(network: Any) -> dict[str, torch.Tensor]:
    """A LoRA of a network, trained somewhere else."""
    with torch.random.fork_rng(devices=[]):
        network.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False))
    state = {key: tensor.clone() for key, tensor in get_peft_model_state_dict(network).items()}
    network.delete_adapters("default")
    return state


@every_image_system
def test_a_lora_file_is_loaded_weighed_and_taken_away(system: System, tmp_path: Path) -> None:
    pipe = system.make()
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


def test_a_lora_on_a_films_denoiser_is_loaded_and_taken_away() -> None:
    pipe = FILM.make()
    plain = FILM.call(pipe)
    network = pipe.unet
    network.load_lora_adapter(lora_state(FILM.make().unet), prefix=None)
    assert relative_error(FILM.call(pipe), plain) > 1e-4
    network.unload_lora()
    assert torch.equal(FILM.call(pipe), plain)


@every_system
def test_a_saved_pipeline_is_read_in_half_precision_too(system: System, tmp_path: Path) -> None:
    pipe = system.make()
    expected = system.call(pipe, num_inference_steps=1)
    pipe.save_pretrained(tmp_path)
    again = type(pipe).from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert relative_error(system.call(again, num_inference_steps=1), expected) < ROUNDING
    half = type(pipe).from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


def test_a_written_garment_and_a_pipeline_without_garment_net_are_saved_and_dress_the_same(tmp_path: Path) -> None:
    pipe = GARMENT.make()
    options: dict[str, Any] = {"garment_description": "a coat"}
    expected = GARMENT.call(pipe, **options)
    told = pipe.garment(GARMENT.pictures["garment"], "a coat", garment_latents=GARMENT.encoded["garment_latents"])
    written = pipe.write(told, width=SIZE[0], height=SIZE[1], num_inference_steps=2)
    small = type(pipe)(**{**pipe.components, "reference_unet": None, "image_encoder": None})
    small.save_pretrained(tmp_path)
    assert not (tmp_path / "reference_unet").exists()
    loaded = type(pipe).from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    ours = GARMENT.call(loaded, garment=written, garment_latents=None, **options)
    assert relative_error(ours, expected) < ROUNDING
