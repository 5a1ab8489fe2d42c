"""CatVTON by its description: no outputs were recorded, so an independent plain computation stands in their place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.utils.torch_utils import randn_tensor
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file

from referencenet.checkpoints.keymap import CheckpointError
from referencenet.methods.catvton import PUBLISHED, CatVTONPipeline
from referencenet.networks.layout import SD15_SCHEDULE, SD15_UNET
from released import released_states, write_released
from tiny import half_mask, picture, tiny_pipeline
from tolerances import ROUNDING, relative_error

SIZE = (32, 24)
LATENT = (3, 4)  # height, width of the result's
FILE = PUBLISHED.files[0]


@pytest.fixture
def pipe() -> CatVTONPipeline:
    pipe = tiny_pipeline("catvton")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def given(**changes: Any) -> dict[str, Any]:
    pictures = {"person": picture(1, SIZE), "garment": picture(2, SIZE), "mask": half_mask("top", SIZE)}
    options = {"num_inference_steps": 3, "generator": seeded(), "output_type": "latent"}
    return pictures | options | {"width": SIZE[0], "height": SIZE[1]} | changes


def draw(pipe: CatVTONPipeline, **changes: Any) -> torch.Tensor:
    return pipe(**given(**changes)).images


# --- what it computes -------------------------------------------------------------------------------------------------


class Skips(AttnProcessor):
    """The published way of leaving out a cross-attention: the layer is there, and gives its input or, wrongly, zero."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, _attn: Attention, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden_states * self.factor


def plain_unet(pipe: CatVTONPipeline, factor: float = 1.0) -> UNet2DConditionModel:
    """diffusers' own UNet with the pipeline's weights, and processors that skip."""
    unet = UNet2DConditionModel(**PUBLISHED.tiny_config)
    missing, unexpected = unet.load_state_dict(pipe.unet.state_dict(), strict=False)
    assert not unexpected
    assert all(".attn2." in key for key in missing)
    processors = {name: Skips(factor) if "attn2" in name else AttnProcessor() for name in unet.attn_processors}
    unet.set_attn_processor(processors)
    return unet.eval()


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


@torch.no_grad()
def plainly(
    pipe: CatVTONPipeline, unet: UNet2DConditionModel, *, scale: float = 2.5, eta: float = 1.0, steps: int = 3
) -> torch.Tensor:
    """The whole call, written down again from its description."""
    generator, scheduler = seeded(), DDIMScheduler(**SD15_SCHEDULE)
    mask = torch.zeros(1, 1, SIZE[1], SIZE[0])
    mask[:, :, : SIZE[1] // 2] = 1

    def encoded(image: torch.Tensor) -> torch.Tensor:
        return pipe.vae.encode(image).latent_dist.sample(generator) * pipe.vae.config.scaling_factor

    person = encoded(pixels(picture(1, SIZE)) * (mask < 0.5))
    garment = encoded(pixels(picture(2, SIZE)))
    small = torch.nn.functional.interpolate(mask, size=LATENT)
    white = torch.cat([small, torch.zeros_like(small)], dim=-2)
    latents = randn_tensor((1, 4, 2 * LATENT[0], LATENT[1]), generator=generator)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        guesses = [
            unet(torch.cat([latents, white, torch.cat([person, below], dim=-2)], dim=1), t, None).sample
            for below in (torch.zeros_like(garment), garment)
        ]
        guess = guesses[0] + scale * (guesses[1] - guesses[0])
        latents = scheduler.step(guess, t, latents, eta=eta, generator=generator).prev_sample
    return latents[:, :, : LATENT[0]]


def test_a_call_is_what_the_description_says(pipe: CatVTONPipeline) -> None:
    assert relative_error(draw(pipe), plainly(pipe, plain_unet(pipe))) < ROUNDING


def test_skipped_cross_attentions_add_the_normalised_input_and_not_zero(pipe: CatVTONPipeline) -> None:
    assert relative_error(plainly(pipe, plain_unet(pipe, factor=0.0)), draw(pipe)) > 1e-2
    assert not any(".attn2." in key for key in pipe.unet.state_dict())


def test_steps_are_stochastic_by_default_and_their_noise_is_the_generators(pipe: CatVTONPipeline) -> None:
    assert torch.equal(draw(pipe, eta=1.0), draw(pipe))
    assert relative_error(draw(pipe, eta=0.0), draw(pipe)) > 1e-2
    assert relative_error(draw(pipe, eta=0.0), plainly(pipe, plain_unet(pipe), eta=0.0)) < ROUNDING


class Seen(list[torch.Tensor]):
    """What a module was called with."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        module.register_forward_pre_hook(lambda _module, args: self.append(args[0].clone()))


def test_the_garment_lies_below_the_person_in_nine_channels(pipe: CatVTONPipeline) -> None:
    seen = Seen(pipe.unet.conv_in)
    draw(pipe)
    assert [len(rows) for rows in seen] == [1] * 6  # three steps, both halves of guidance one after the other
    height = LATENT[0]
    for without, with_garment in zip(*(torch.cat(seen[half::2]) for half in (0, 1)), strict=True):
        assert without.shape == (9, 2 * height, LATENT[1])
        assert torch.equal(without[:5], with_garment[:5])
        assert torch.equal(without[:, :height], with_garment[:, :height])
        assert not with_garment[4, height:].any()  # nothing of the garment is repainted
        assert not without[5:, height:].any()
        assert with_garment[5:, height:].any()
    assert set(seen[1][0, 4, :height].unique().tolist()) == {0.0, 1.0}


def test_without_guidance_one_pass_sees_the_garment(pipe: CatVTONPipeline) -> None:
    seen = Seen(pipe.unet.conv_in)
    draw(pipe, guidance_scale=1.0)
    assert [len(rows) for rows in seen] == [1, 1, 1]
    assert seen[0][0, 5:, LATENT[0] :].any()


def test_pictures_are_encoded_once_and_only_the_result_is_decoded(pipe: CatVTONPipeline) -> None:
    encoded, decoded = Seen(pipe.vae.encoder), Seen(pipe.vae.decoder)
    draw(pipe, output_type="pt", num_images_per_prompt=2)
    assert [tuple(rows.shape) for rows in encoded] == [(1, 3, *SIZE[::-1])] * 2
    assert [tuple(rows.shape) for rows in decoded] == [(2, 4, *LATENT)]


def test_a_garment_serves_many_persons_or_each_has_its_own(pipe: CatVTONPipeline) -> None:
    persons, masks = [picture(1, SIZE), picture(5, SIZE)], [half_mask("top", SIZE), half_mask("left", SIZE)]
    generators = [seeded(1), seeded(2)]
    both = draw(pipe, person=persons, mask=masks, generator=generators)
    for row, (person, mask) in enumerate(zip(persons, masks, strict=True)):
        alone = draw(pipe, person=person, mask=mask, generator=seeded(row + 1))
        assert relative_error(both[row : row + 1], alone) < ROUNDING
    with pytest.raises(ValueError, match="3 garments were given|for 3 results"):
        draw(pipe, person=persons, mask=masks, garment=[picture(2)] * 3)


def test_a_person_is_cut_to_the_results_proportions_and_a_garment_is_shown_whole(pipe: CatVTONPipeline) -> None:
    wide = Image.new("RGB", (64, 24), "red")
    wide.paste(picture(1, SIZE), (16, 0))
    mask = Image.new("L", (64, 24), 0)
    mask.paste(half_mask("top", SIZE), (16, 0))
    tall = Image.new("RGB", (32, 48), "white")
    tall.paste(picture(2, SIZE), (0, 12))
    assert torch.equal(draw(pipe, person=wide, mask=mask), draw(pipe))
    seen = Seen(pipe.vae.encoder)
    draw(pipe, garment=tall)
    garment = seen[-1][0]
    assert torch.allclose(garment[:, :, :8], torch.ones(3, SIZE[1], 8), atol=1e-2)  # white at its sides
    assert float(garment[:, :, 12:20].mean()) < 0.9


def test_a_mask_of_another_picture_is_refused(pipe: CatVTONPipeline) -> None:
    with pytest.raises(ValueError, match="mask 0 is 24 x 24 pixels, its person 32 x 24"):
        draw(pipe, mask=half_mask("top", (24, 24)))


def test_a_lora_of_a_model_with_words_loads_and_what_it_has_for_them_is_left_out(
    pipe: CatVTONPipeline, tmp_path: Path
) -> None:
    plain, worded = draw(pipe), plain_unet(pipe)
    with torch.random.fork_rng(devices=[]):
        worded.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False))
    state = get_peft_model_state_dict(worded)
    assert any(".attn2." in key for key in state)
    CatVTONPipeline.save_lora_weights(tmp_path, unet_lora_layers=state)
    pipe.load_lora_weights(tmp_path)
    assert relative_error(draw(pipe), plain) > 1e-4
    pipe.unload_lora_weights()
    assert torch.equal(draw(pipe), plain)


# --- released files ---------------------------------------------------------------------------------------------------


class NamedProcessor(torch.nn.Module):
    """The published code's processors are modules, so that the walk finds them."""

    def __call__(self, *_: Any, **__: Any) -> None: ...


def walked(unet: UNet2DConditionModel) -> dict[str, Any]:
    """The published list of modules, as a state dict with every name of every tensor."""
    unet.set_attn_processor({name: NamedProcessor() for name in unet.attn_processors})  # pyright: ignore
    found = torch.nn.ModuleList(module for name, module in unet.named_modules() if "attn1" in name)
    return found.state_dict(keep_vars=True)


def test_every_name_of_every_weight_leads_to_it_at_full_size() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15_UNET | {"in_channels": 9})
    own = {id(tensor): name for name, tensor in unet.named_parameters()}
    names = walked(unet)
    assert len(names) == 16 * (5 + 3 + 2 + 2)
    assert {name: FILE.keymap.name(name) for name in names} == {name: own[id(names[name])] for name in names}
    trained = {id(tensor): tensor.numel() for tensor in names.values()}
    assert round(sum(trained.values()) / 1e6, 2) == 49.57  # the README's


def published_names(pipe: CatVTONPipeline) -> dict[str, torch.Tensor]:
    """All names of the tiny denoiser's self-attentions; tensors are shared."""
    return {name: tensor.detach() for name, tensor in walked(plain_unet(pipe)).items()}


def aliases(names: dict[str, torch.Tensor], choose: Callable[[list[str]], list[str]]) -> dict[str, torch.Tensor]:
    """Those names of each tensor that are chosen."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(FILE.keymap.name(name), []).append(name)
    return {name: names[name].clone() for group in groups.values() for name in choose(group)}


KEPT: dict[str, Callable[[list[str]], list[str]]] = {
    "the outermost": lambda group: group[:1],
    "the innermost": lambda group: group[-1:],
    "the first as words": lambda group: sorted(group)[:1],
    "all": lambda group: group,
}


@pytest.fixture
def released(pipe: CatVTONPipeline, tmp_path: Path) -> Path:
    """Released files over a base whose self-attentions are others."""
    folder = write_released(pipe, PUBLISHED, tmp_path)
    other = UNet2DConditionModel.from_pretrained(folder / "base" / "unet")
    with torch.no_grad():
        for name, tensor in other.named_parameters():
            tensor += 1.0 if ".attn1." in name else 0.0
    other.save_pretrained(folder / "base" / "unet")
    return folder


def read(folder: Path) -> CatVTONPipeline:
    return CatVTONPipeline.from_published(folder, base=folder / "base")


@pytest.mark.parametrize("kept", KEPT)
def test_whichever_name_a_file_keeps_it_replaces_the_bases_self_attentions(
    pipe: CatVTONPipeline, released: Path, kept: str
) -> None:
    save_file(aliases(published_names(pipe), KEPT[kept]), released / FILE.path)
    state = read(released).unet.state_dict()
    expected = pipe.unet.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def broken(pipe: CatVTONPipeline, how: str) -> dict[str, torch.Tensor]:
    """A file of CatVTON's kind that is not CatVTON's."""
    names = published_names(pipe)
    if how == "contradicts itself":
        names = aliases(names, KEPT["all"])
        names["1.weight"] += 1
        return names
    names = aliases(names, KEPT["the outermost"])
    if how == "lacks a layer":
        return {name: tensor for name, tensor in names.items() if not name.startswith("120.to_k")}
    return {f"{int(name.split('.')[0]) // 8 * 7}.{name.split('.', 1)[1]}": tensor for name, tensor in names.items()}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("contradicts itself", r"the keys 0\.to_q\.weight and 1\.weight both become down_blocks\.0\.attentions\.0\."),
        ("lacks a layer", r"lacks 1 of its keys: mid_block\.attentions\.0\.transformer_blocks\.0\.attn1\.to_k\.weight"),
        ("was walked without processors", "keys that ContextFreeUNet does not have"),
    ],
)
def test_a_file_that_does_not_fit_is_told(pipe: CatVTONPipeline, released: Path, how: str, message: str) -> None:
    save_file(broken(pipe, how), released / FILE.path)
    with pytest.raises(CheckpointError, match=message):
        read(released)


def test_without_a_base_or_with_one_that_does_not_inpaint_it_says_so(released: Path) -> None:
    with pytest.raises((CheckpointError, FileNotFoundError), match="base"):
        CatVTONPipeline.from_published(released, vae=released / "base" / "vae")
    with torch.random.fork_rng(devices=[]):
        other = UNet2DConditionModel(**PUBLISHED.tiny_config | {"in_channels": 4})
    other.save_pretrained(released / "base" / "unet")
    with pytest.raises(CheckpointError, match=r"conv_in\.weight is \(4, 4, 3, 3\), expected \(4, 9, 3, 3\)"):
        read(released)


def test_the_release_holds_the_self_attentions_alone(pipe: CatVTONPipeline) -> None:
    ((path, state),) = released_states(pipe, PUBLISHED).items()
    assert path == "attention/model.safetensors"
    assert len(state) == 16 * 5
