"""`load_base`: from any model, with LoRAs, schedulers, ControlNets and tasks, to a pipeline that a reference moves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers import KarrasDiffusionSchedulers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from referencenet import load_base, reference
from referencenet.bases.devices import place
from referencenet.bases.names import parse_lora
from referencenet.bases.schedulers import CLASSES, KNOWN, SPACINGS, find_scheduler, with_scheduler
from referencenet.checkpoints.keymap import CheckpointError
from single_files import write_single
from tiny import SIZE, fill, half_mask, picture, tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model as a folder and as a file, a ControlNet, and LoRAs in both layouts."""
    folder = tmp_path_factory.mktemp("models")
    _, _, pipe = write_single("sd", folder)
    tiny("controlnet").pipe.controlnet.save_pretrained(folder / "net")
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"]))
    fill(pipe.unet, 31, only="lora_")
    state = get_peft_model_state_dict(pipe.unet)
    pipe.save_lora_weights(folder, unet_lora_layers=state, weight_name="lora.safetensors")
    kohya: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        name, _, part = key.removesuffix(".weight").rpartition(".lora_")
        kohya[f"lora_unet_{name.replace('.', '_')}.lora_{'down' if part == 'A' else 'up'}.weight"] = tensor
        kohya[f"lora_unet_{name.replace('.', '_')}.alpha"] = torch.tensor(2.0)
    save_file(kohya, folder / "kohya.safetensors")
    save_file({"lora_unet_none_to_q.lora_down.weight": torch.zeros(2, 2)}, folder / "foreign.safetensors")
    return folder


def drawn(pipe: Any, **further: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"prompt": "a", "num_inference_steps": 2, "output_type": "pt"} | further
    with reference(pipe, picture(1)):
        return pipe(**given, generator=torch.Generator().manual_seed(1)).images


def loaded(models: Path, *, model: str = "sd", **options: Any) -> Any:
    return load_base(models / model, device="cpu", **options)


def test_a_folder_and_a_file_draw_the_same(models: Path) -> None:
    pipe = loaded(models, model="sd.safetensors", config=models / "sd")
    assert torch.equal(drawn(pipe), drawn(loaded(models)))


def test_loras_move_the_picture_by_their_scale_in_both_layouts(models: Path) -> None:
    plain = drawn(loaded(models))
    lora = str(models / "lora.safetensors")
    full = drawn(loaded(models, loras=[lora]))
    assert not torch.equal(full, plain)
    assert torch.allclose(drawn(loaded(models, loras=[str(models / "kohya.safetensors")])), full, atol=1e-5)
    assert torch.allclose(drawn(loaded(models, loras=[f"{lora}:0"])), plain, atol=1e-6)
    halves = drawn(loaded(models, loras=[f"{lora}:0.5", f"{lora}:0.5"]))
    assert torch.allclose(halves, full, atol=1e-4)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ("{}/nothing.safetensors", "there is no LoRA"),
        ("{}/lora.safetensors:much", "has the scale 'much'; expected a number"),
        ("{}/lora.safetensors:nan", "has the scale 'nan'"),
        ("{}", "is a folder; give the weight file in it"),
        ("{}/sd.safetensors", "is no LoRA for this|changes nothing"),
        ("{}/foreign.safetensors", "is no LoRA for this|changes nothing"),
    ],
)
def test_what_is_no_lora_is_said(models: Path, lora: str, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        loaded(models, loras=[lora.format(models)])


@pytest.mark.parametrize("layout", ["lora", "kohya"])
def test_weights_of_a_lora_are_finite_and_whole(models: Path, layout: str, tmp_path: Path) -> None:
    state = load_file(models / f"{layout}.safetensors")
    half = next(key for key in state if re.search(r"lora[._](B|up)\.", key))
    broken, cut = tmp_path / "broken.safetensors", tmp_path / "cut.safetensors"
    save_file(state | {half: torch.full_like(state[half], torch.nan)}, broken)
    save_file({key: tensor for key, tensor in state.items() if key != half}, cut)
    with pytest.raises(CheckpointError, match=r"broken.safetensors holds NaN or infinite weights"):
        loaded(models, loras=[str(broken)])
    with pytest.raises(CheckpointError, match=r"cut.safetensors (lacks 1 of its tensors|is no LoRA for this)"):
        loaded(models, loras=[str(cut)])


def test_a_colon_belongs_to_a_path_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "a:2").touch()
    assert parse_lora(f"{tmp_path}/a:2") == (f"{tmp_path}/a:2", 1.0)
    assert parse_lora(f"{tmp_path}/a:2:0.5") == (f"{tmp_path}/a:2", 0.5)
    assert parse_lora("owner/name:-1") == ("owner/name", -1.0)


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # diffusers' own tables
@pytest.mark.filterwarnings("ignore:Should have ta>=t0:UserWarning")  # torchsde's rounding
@pytest.mark.parametrize("name", [*KNOWN, "DDIMScheduler", "dpm++ 2m karras"])
def test_a_reference_is_read_under_every_scheduler(name: str) -> None:
    if name == "dpm++ sde":
        pytest.importorskip("torchsde")
    pipe = with_scheduler(tiny("sd").pipe, name)
    assert type(pipe.scheduler).__name__ == find_scheduler(name)[0]
    assert bool(torch.isfinite(drawn(pipe, num_inference_steps=3)).all())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DPM++ 2M Karras", ("DPMSolverMultistepScheduler", "use_karras_sigmas")),
        ("dpmpp_2m_sde", ("DPMSolverMultistepScheduler", "algorithm_type")),
        ("euler_ancestral", ("EulerAncestralDiscreteScheduler", None)),
        ("k_euler_a", ("EulerAncestralDiscreteScheduler", None)),
        ("Uni-PC", ("UniPCMultistepScheduler", None)),
        ("k_dpm_2_ancestral", ("KDPM2AncestralDiscreteScheduler", None)),
        ("EulerAncestralDiscrete", ("EulerAncestralDiscreteScheduler", None)),
        ("ddim trailing", ("DDIMScheduler", "timestep_spacing")),
        *((name, (name, None)) for name in CLASSES),
    ],
)
def test_people_write_schedulers_in_many_ways(name: str, expected: tuple[str, str | None]) -> None:
    kind, changes = find_scheduler(name)
    assert kind == expected[0]
    assert expected[1] is None or expected[1] in changes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eular", "no scheduler 'eular'.*Did you mean 'euler'"),
        ("", "there is no scheduler ''"),
        ("lcm karras", "LCMScheduler does not know use_karras_sigmas"),
    ],
)
def test_unknown_schedulers_are_said_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_scheduler(tiny("sd").pipe, name)


def test_every_scheduler_of_stable_diffusion_has_a_name() -> None:
    assert {kind.name for kind in KarrasDiffusionSchedulers} <= set(CLASSES)


def test_spacings_are_taken_over() -> None:
    for spacing, changes in SPACINGS.items():
        config = with_scheduler(tiny("sd").pipe, f"euler {spacing}").scheduler.config
        assert all(config[name] == value for name, value in changes.items())


def test_tasks_take_a_picture_and_a_mask(models: Path) -> None:
    image, size = picture(5), {"width": SIZE, "height": SIZE}
    plain = drawn(loaded(models), **size)
    again = drawn(loaded(models, task="image"), image=image, strength=0.5)
    painted = drawn(loaded(models, task="inpaint"), image=image, mask_image=half_mask(), strength=1.0)
    assert not torch.equal(plain, again)
    assert not torch.equal(plain, painted)
    controlled = loaded(models, task="image", controlnets={"pose": str(models / "net")})
    assert type(controlled).__name__ == "StableDiffusionControlNetImg2ImgPipeline"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "paint"}, "task is 'paint'; expected one of text, image, inpaint"),
        ({"config": "somewhere"}, "--config is for a model in a single file"),
        ({"scheduler": "magic"}, "there is no scheduler 'magic'"),
        ({"dtype": "float8"}, "dtype is 'float8'"),
        ({"offload": "model"}, "--offload model keeps weights in the CPU's memory"),
        ({"offload": "model", "compiled": True}, "give one of the two"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_base("builtin", device="cpu", **options)


def test_an_inpainting_model_draws_with_a_mask_only(tmp_path: Path) -> None:
    file, folder, _ = write_single("inpaint9", tmp_path)
    with pytest.raises(ValueError, match="this is an inpainting model"):
        load_base(file, config=folder, device="cpu")
    pipe = load_base(file, config=folder, task="inpaint", device="cpu")
    assert drawn(pipe, image=picture(5), mask_image=half_mask()).shape == (1, 3, SIZE, SIZE)


def test_a_unet_without_blocks_to_compile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny("sd").pipe
    monkeypatch.setattr(type(pipe.unet), "_repeated_blocks", [])
    with pytest.raises(ValueError, match="names no blocks to compile"):
        place(pipe, CPU, compiled=True)


@pytest.mark.slow
def test_compiled_it_draws_the_same(models: Path) -> None:
    assert torch.allclose(drawn(loaded(models, compiled=True)), drawn(loaded(models)), atol=1e-4)
