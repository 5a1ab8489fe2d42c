"""IDM-VTON's pipeline on tiny real networks: what a call gives, what it costs, what it reads and what it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from peft import LoraConfig
from PIL import Image
from safetensors.torch import save_file

from golden import GOLDENS
from referencenet import IDMVTONPipeline, ReferenceBank
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.methods.idm_vton import reading_plan
from referencenet.methods.random_tiny import tiny_idm_vton
from referencenet.parity.cases import Case, load_case
from referencenet.parity.systems.idm_vton import TRAINED_ELSEWHERE, resampler_config
from tiny import picture
from tolerances import BFLOAT16, ROUNDING, relative_error

HEIGHT, WIDTH, STEPS = 48, 32, 2


def quiet(pipe: IDMVTONPipeline) -> IDMVTONPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe() -> IDMVTONPipeline:
    return quiet(tiny_idm_vton())


def half_white(size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0], size[1] // 2))
    return mask


def inputs(**changes: Any) -> dict[str, Any]:
    size = (WIDTH, HEIGHT)
    given = {
        "person": picture(1, size),
        "garment": picture(2, size),
        "mask": half_white(),
        "densepose": picture(3, size),
        "garment_description": "red shirt",
        "height": HEIGHT,
        "width": WIDTH,
        "num_inference_steps": STEPS,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "pt",
    }
    return given | changes


def dress(pipe: IDMVTONPipeline, **changes: Any) -> torch.Tensor:
    images = pipe(**inputs(**changes)).images
    assert isinstance(images, torch.Tensor)
    return images


def fixed(rows: int = 1, seed: int = 5) -> torch.Tensor:
    shape = (1, 4, HEIGHT // 8, WIDTH // 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).repeat(rows, 1, 1, 1)


def deterministic(pipe: IDMVTONPipeline) -> IDMVTONPipeline:
    """No noise but the start's, so that rows can be compared."""
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    return pipe


def ready(persons: int = 1, seed: int = 9) -> dict[str, Any]:
    """Conditions without the VAE's sampling, alike for all persons."""
    generator = torch.Generator().manual_seed(seed)
    names = ("masked_image_latents", "densepose_latents", "garment_latents")
    latents = {name: torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=generator) for name in names}
    alike = {name: value.repeat(persons, 1, 1, 1) for name, value in latents.items() if name != "garment_latents"}
    return alike | {"garment_latents": latents["garment_latents"], "person": None, "densepose": None}


def test_the_same_generator_gives_the_same_picture(pipe: IDMVTONPipeline) -> None:
    first, second = dress(pipe), dress(pipe)
    assert first.shape == (1, 3, HEIGHT, WIDTH)
    assert torch.equal(first, second)
    assert not torch.equal(first, dress(pipe, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(
    "change",
    [
        {"garment": picture(7, (WIDTH, HEIGHT))},
        {"densepose": picture(7, (WIDTH, HEIGHT))},
        {"person": picture(7, (WIDTH, HEIGHT))},
        {"garment_description": "blue coat"},
        {"negative_prompt": "ugly"},
        {"guidance_scale": 3.0},
        {"guidance_rescale": 0.7},
        {"mask": Image.new("L", (WIDTH, HEIGHT), 255)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_input_matters(pipe: IDMVTONPipeline, change: dict[str, Any]) -> None:
    assert relative_error(dress(pipe, **change), dress(pipe)) > 1e-5


def test_latents_are_given_back_as_latents(pipe: IDMVTONPipeline) -> None:
    """The published pipeline gives its input back here."""
    latents = dress(pipe, output_type="latent")
    assert latents.shape == (1, 4, HEIGHT // 8, WIDTH // 8)
    assert relative_error(dress(pipe), pipe._decode(latents, "pt")) < ROUNDING


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler])
def test_other_schedulers_work(pipe: IDMVTONPipeline, scheduler: Any) -> None:
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=False)
    assert bool(dress(pipe).isfinite().all())


def test_several_pictures_of_a_person_are_those_of_one(pipe: IDMVTONPipeline) -> None:
    single = dress(deterministic(pipe), latents=fixed(), **ready())
    double = dress(pipe, latents=fixed(2), num_images_per_prompt=2, **ready())
    assert relative_error(double, single.expand_as(double)) < ROUNDING


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_persons_who_share_a_garment_are_dressed_as_alone(pipe: IDMVTONPipeline, guidance_scale: float) -> None:
    masks = [half_white(), Image.new("L", (WIDTH, HEIGHT), 255)]
    settings: dict[str, Any] = {"guidance_scale": guidance_scale}
    deterministic(pipe)
    alone = [dress(pipe, latents=fixed(seed=i), mask=mask, **ready(), **settings) for i, mask in enumerate(masks)]
    latents = torch.cat([fixed(seed=0), fixed(seed=1)])
    together = dress(pipe, latents=latents, mask=masks, **ready(2), **settings)
    assert relative_error(together, torch.cat(alone)) < ROUNDING


def test_each_person_may_have_a_garment_of_their_own(pipe: IDMVTONPipeline) -> None:
    deterministic(pipe)
    garments = [ready(seed=seed)["garment_latents"] for seed in (9, 10)]
    states = [torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    blank = torch.zeros(1, 6, 8)

    def run(chosen: list[int]) -> torch.Tensor:
        conditions = ready(len(chosen)) | {
            "garment_latents": torch.cat([garments[i] for i in chosen]),
            "image_states": torch.cat([states[i] for i in chosen]),
            "negative_image_states": blank,
            "garment": None,
            "mask": [half_white()] * len(chosen),
        }
        return dress(pipe, latents=fixed(len(chosen)), **conditions)

    assert relative_error(run([0, 1]), torch.cat([run([0]), run([1])])) < ROUNDING


def test_a_garment_of_another_size_can_be_read(pipe: IDMVTONPipeline) -> None:
    garment = torch.randn(1, 4, 10, 6, generator=torch.Generator().manual_seed(3))
    assert dress(pipe, **ready() | {"garment_latents": garment}).shape == (1, 3, HEIGHT, WIDTH)


def test_nothing_is_computed_twice(pipe: IDMVTONPipeline) -> None:
    """Garment tokens are projected once per step and row, GarmentNet stops early, encoders run once."""
    calls: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    handles = []

    def count(name: str, module: torch.nn.Module) -> None:
        def hook(_module: Any, args: Any, _output: Any) -> None:
            calls[name] += 1
            rows[name] += args[0].shape[0]

        handles.append(module.register_forward_hook(hook))

    first = "mid_block.attentions.0.transformer_blocks.0.attn1"
    count("key", pipe.unet.get_submodule(f"{first}.to_k"))
    count("query", pipe.unet.get_submodule(f"{first}.to_q"))
    count("value", pipe.unet.get_submodule(f"{first}.to_v"))
    count("garment", pipe.garment_unet.get_submodule(f"{first}.to_k"))
    count("garment's head", pipe.garment_unet.conv_out)
    count("garment's last block", pipe.garment_unet.up_blocks[-1].resnets[0])
    count("resampler", pipe.image_projection.proj_in)
    count("picture", pipe.image_encoder.vision_model.embeddings.patch_embedding)
    count("vae", pipe.vae.encoder.conv_in)
    try:
        dress(pipe)
    finally:
        for handle in handles:
            handle.remove()
    assert rows["key"] == rows["value"] == STEPS * (2 + 1)  # two halves, and the garment's one row
    assert rows["query"] == STEPS * 2
    assert calls["garment"] == rows["garment"] == STEPS
    assert calls["garment's head"] == calls["garment's last block"] == 0
    assert calls["picture"] == 1
    assert rows["resampler"] == 2  # the blank picture and the garment
    assert calls["vae"] == 3


def test_without_guidance_there_is_one_half(pipe: IDMVTONPipeline) -> None:
    seen: list[int] = []
    handle = pipe.unet.conv_in.register_forward_hook(lambda _module, args, _output: seen.append(args[0].shape[0]))
    try:
        dress(pipe, guidance_scale=1.0)
    finally:
        handle.remove()
    assert seen == [1] * STEPS


def test_saved_banks_serve_without_garment_net(pipe: IDMVTONPipeline, tmp_path: Path) -> None:
    deterministic(pipe)
    conditions = ready()
    expected = dress(pipe, latents=fixed(), **conditions)
    garment = conditions.pop("garment_latents")
    banks = pipe.write_garment_banks(
        garment_latents=garment, garment_description="red shirt", num_inference_steps=STEPS
    )
    for timestep, bank in banks.items():
        bank.save(tmp_path / f"{timestep}.safetensors")
    loaded = {int(path.stem): ReferenceBank.load(path) for path in tmp_path.glob("*.safetensors")}
    pipe.register_modules(garment_unet=None)
    assert relative_error(dress(pipe, latents=fixed(), garment_banks=loaded, **conditions), expected) < ROUNDING
    with pytest.raises(ValueError, match="no garment_unet; load one, or give garment_banks"):
        dress(pipe)
    with pytest.raises(ValueError, match="no bank for timestep"):
        dress(pipe, garment_banks=loaded, num_inference_steps=3, **conditions)


def test_a_saved_pipeline_draws_the_same(pipe: IDMVTONPipeline, tmp_path: Path) -> None:
    expected = dress(pipe)
    pipe.save_pretrained(tmp_path)
    assert relative_error(dress(quiet(IDMVTONPipeline.from_pretrained(tmp_path))), expected) < ROUNDING


def test_half_precision_stays_close(pipe: IDMVTONPipeline) -> None:
    deterministic(pipe)
    expected = dress(pipe, latents=fixed(), output_type="latent", **ready())
    ours = dress(pipe.to(torch.bfloat16), latents=fixed(), output_type="latent", **ready())
    assert relative_error(ours.float(), expected) < 3 * BFLOAT16  # two guided steps of a tiny network


def test_lora_and_callbacks_work(pipe: IDMVTONPipeline) -> None:
    expected = dress(pipe)
    seen: list[int] = []

    def stop(running: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(step)
        running._interrupt = True
        return tensors

    dress(pipe, callback_on_step_end=stop)
    assert seen == [0]
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"], init_lora_weights=False))
    assert relative_error(dress(pipe), expected) > 1e-5


def test_the_model_is_as_before_afterwards(pipe: IDMVTONPipeline) -> None:
    before = {name: type(processor) for name, processor in pipe.unet.attn_processors.items()}
    dress(pipe)
    assert {name: type(processor) for name, processor in pipe.unet.attn_processors.items()} == before


def test_the_plan_puts_zeros_in_front() -> None:
    plan = reading_plan(persons=2, garments=2, images_per_person=3, guided=True)
    assert [(s.start, s.stop, s.bank_start, s.bank_stop, s.reads_zeros) for s in plan.sections] == [
        (0, 6, 0, 2, True),
        (6, 12, 0, 2, False),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"person": None}, "no person was given"),
        ({"garment": None}, "no garment was given"),
        ({"mask": None}, "no mask was given"),
        ({"densepose": None}, "no densepose was given"),
        ({"masked_image_latents": fixed()}, "person was given twice"),
        ({"mask": Image.new("L", (WIDTH, HEIGHT))}, "mask 0 is black everywhere"),
        ({"height": 50}, "height 50 and width 32 must be multiples of 8"),
        ({"person": [picture(1), picture(2)]}, "there are {'person': 2, 'densepose': 1, 'mask': 1}"),
        ({"garment": [picture(1)] * 3}, "image prompts were given for 1 persons|garments were given for 1"),
        ({"garment_description": ["one", "two"]}, "2 texts were given for 1"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, r"there is \['latents'\]"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_wrong_inputs_are_explained(pipe: IDMVTONPipeline, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dress(pipe, **change)


# Released files, at tiny size: names and layout as published.


def published_folder(folder: Path, case: Case, pipe: IDMVTONPipeline) -> dict[str, Any]:
    """Write the released files of a tiny model; returns the configurations that differ from the released."""
    parts: dict[str, Any] = {
        "image_encoder": pipe.image_encoder,
        "text_encoder": pipe.text_encoder,
        "text_encoder_2": pipe.text_encoder_2,
    }
    for name in ("unet", "unet_encoder", "vae", *parts):
        (folder / name).mkdir(parents=True)
    torch.save(case.published_state("tryon_net"), folder / "unet/diffusion_pytorch_model.bin")
    save_file(case.published_state("garment_net"), folder / "unet_encoder/diffusion_pytorch_model.safetensors")
    save_file(pipe.vae.state_dict(), folder / "vae/diffusion_pytorch_model.safetensors")
    for name, part in parts.items():
        state = part.state_dict()
        if name == "text_encoder":
            state = {f"text_model.{key}": value for key, value in state.items()}
        save_file(state, folder / name / "model.safetensors")
    for name in ("tokenizer", "tokenizer_2"):
        getattr(pipe, name).save_pretrained(folder / name)
    config = case.components["tryon_net"]["config"]
    return {
        "unet": {key: value for key, value in config.items() if key not in TRAINED_ELSEWHERE},
        "image_projection": resampler_config(config["resampler"]),
        "garment_unet": case.components["garment_net"]["config"],
        "vae": dict(pipe.vae.config),
        **{name: part.config.to_dict() for name, part in parts.items()},
    }


@pytest.fixture
def released(tmp_path: Path, pipe: IDMVTONPipeline) -> tuple[Path, dict[str, Any]]:
    return tmp_path, published_folder(tmp_path, load_case(GOLDENS / "idm_vton-tryonnet"), pipe)


def test_released_files_become_a_pipeline(released: tuple[Path, dict[str, Any]], pipe: IDMVTONPipeline) -> None:
    folder, configs = released
    ours = IDMVTONPipeline.from_published(folder, configs=configs)
    case = load_case(GOLDENS / "idm_vton-tryonnet").published_state("tryon_net")
    assert torch.equal(ours.unet.conv_in.weight, case["conv_in.weight"])
    layer = ours.image_projection.layers[1].attn
    joined = torch.cat([layer.to_k.weight, layer.to_v.weight])
    assert torch.equal(joined, case["encoder_hid_proj.layers.1.0.to_kv.weight"])
    for name in ("image_encoder", "text_encoder", "text_encoder_2", "vae"):
        theirs = getattr(pipe, name).state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in getattr(ours, name).state_dict().items())
    assert ours.scheduler.config["rescale_betas_zero_snr"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("conv_in.bias"), "lacks 1 of its keys: conv_in.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 keys that .* does not have: extra"),
        (lambda state: state.update({"conv_in.bias": torch.zeros(3)}), r"conv_in.bias is \(3,\), expected \(32,\)"),
        (lambda state: state["conv_in.bias"].fill_(float("nan")), "NaN or infinite weights in conv_in.bias"),
        (lambda state: state.pop("encoder_hid_proj.latents"), "it has no 'encoder_hid_proj.latents'"),
    ],
    ids=["missing", "extra", "misshapen", "nan", "resampler"],
)
def test_faulty_files_are_refused(
    released: tuple[Path, dict[str, Any]], change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    folder, configs = released
    path = folder / "unet/diffusion_pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        IDMVTONPipeline.from_published(folder, configs=configs)


def test_missing_files_say_where_to_get_them(released: tuple[Path, dict[str, Any]]) -> None:
    folder, configs = released
    (folder / "unet_encoder/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"needs unet_encoder/.*huggingface.co/yisol/IDM-VTON.*CC BY-NC-SA"):
        IDMVTONPipeline.from_published(folder, configs=configs)
