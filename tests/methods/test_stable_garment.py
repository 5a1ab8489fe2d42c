"""StableGarment as its users call it: what reads the garment, what the ControlNet sees, and what is computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from films import generator
from referencenet.checkpoints.manifest import KEY_LISTS
from referencenet.cli.manifests import run_manifests
from referencenet.links.attach import attach, write
from referencenet.methods.stable_garment import LINKS, StableGarmentPipeline, StableGarmentTryOnPipeline
from referencenet.methods.tiny import tiny_pipeline
from referencenet.parity.verify import verify
from referencenet.pipelines.garments import GREY, magnified
from referencenet.pipelines.passes import Pass, reading_plan
from tiny import half_mask, latents, picture
from tolerances import ROUNDING, relative_error

TESTS = Path(__file__).parents[1]
GOLDENS = sorted((TESTS / "goldens").glob("stable_garment-*"))
MANIFESTS = sorted(KEY_LISTS.glob("stable_garment-*.json.gz"))
SIZE = (32, 24)
COMMON = {"width": 32, "height": 24, "num_inference_steps": 2, "output_type": "latent"}
MASK = half_mask("top", SIZE)


@pytest.fixture
def words() -> StableGarmentPipeline:
    pipe = tiny_pipeline("stable_garment.text2img")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def tryon() -> StableGarmentTryOnPipeline:
    pipe = tiny_pipeline("stable_garment")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, garment: Any = None, **options: Any) -> torch.Tensor:
    garment = picture(2, SIZE) if garment is None else garment
    return pipe(garment, **{"prompt": "a b", "generator": generator(), **COMMON, **options}).images


def dress(pipe: Any, garment: Any = None, **options: Any) -> torch.Tensor:
    given = {
        "person": picture(1, SIZE),
        "garment": picture(2, SIZE) if garment is None else garment,
        "mask": MASK,
        "densepose": picture(3, SIZE),
        "generator": generator(),
    }
    return pipe(**{**given, **COMMON, **options}).images


def rows_seen(module: torch.nn.Module, seen: list[int]) -> Any:
    return module.register_forward_hook(lambda _module, args, _output: seen.append(len(args[0])))


@pytest.mark.parametrize("folder", GOLDENS, ids=lambda folder: folder.name)
def test_golden_case_is_reproduced(folder: Path) -> None:
    (result,) = verify([folder])
    assert result.error is None
    assert [output.name for output in result.outputs if not output.passed] == []


def test_key_lists_at_full_size_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_manifests(MANIFESTS) == 0
    assert "4 of 4 manifests passed" in capsys.readouterr().out  # the ControlNet's file fills two components


class PlainAdded:
    """The link as the paper has it, by hand: x + attn1(n, n) + attn1(n, r), both whole calls of the layer."""

    def __init__(self, original: Any, reference: torch.Tensor, fidelity: float) -> None:
        self.original, self.reference, self.fidelity = original, reference, fidelity

    def __call__(self, attn: Any, hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:
        plain = self.original(attn, hidden_states)
        blank, conditional = plain.chunk(2)
        term = self.original(attn, hidden_states.chunk(2)[1], self.reference)
        return torch.cat([blank + (1 - self.fidelity) * term, conditional + term])


@pytest.mark.parametrize("fidelity", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("blocks", LINKS)
def test_the_link_is_the_papers_sum(words: StableGarmentPipeline, blocks: str, fidelity: float) -> None:
    unet, link = words.unet, LINKS[blocks]
    sample, context = latents(0, 1, 4, 3, 4), latents(1, 2, 5, 16)
    bank = write(
        words.reference_unet, latents(2, 1, 4, 3, 4), timestep=7, encoder_hidden_states=context[1:], links=[link]
    )
    passes = [Pass(factor=0.0, reads=None), Pass(factor=1.0)]
    both = sample.repeat(2, 1, 1, 1)
    with (
        torch.no_grad(),
        attach(unet, [type(link)(stages=link.stages, fidelity=fidelity)]) as linked,
        linked.reading(bank, plan=reading_plan(passes, 1, 1)),
    ):
        ours = unet(both, 7, context).sample
    originals = {site: unet.get_submodule(site).processor for site in bank.hidden}
    for site, tokens in bank.hidden.items():
        unet.get_submodule(site).set_processor(PlainAdded(originals[site], tokens, fidelity))
    plain = unet(both, 7, context).sample
    assert relative_error(ours, plain) < ROUNDING
    assert any("down_blocks" in site for site in bank.hidden) == (blocks == "full")


def test_style_fidelity_counts_with_guidance_only(words: StableGarmentPipeline) -> None:
    assert not torch.allclose(draw(words), draw(words, style_fidelity=0.5))
    alone = draw(words, guidance_scale=1)
    assert torch.equal(alone, draw(words, guidance_scale=1, style_fidelity=0.5))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        draw(words, style_fidelity=1.5)


def test_fusion_blocks_are_a_setting_of_the_pipeline(words: StableGarmentPipeline, tryon: Any) -> None:
    assert words.link == LINKS["midup"]
    assert tryon.link == LINKS["full"]
    full = StableGarmentPipeline(**words.components, fusion_blocks="full")
    full.set_progress_bar_config(disable=True)
    assert not torch.allclose(draw(words), draw(full))
    with pytest.raises(ValueError, match="fusion_blocks is 'all'; expected one of"):
        StableGarmentPipeline(**words.components, fusion_blocks="all")


def test_text_to_image_magnifies_the_garment_by_four_thirds() -> None:
    garment = Image.new("RGB", (384, 512), "white")
    garment.paste((255, 0, 0), (48, 64, 336, 448))  # its middle three quarters
    assert magnified(garment, (384, 512)).size == (384, 512)
    corners = magnified(garment, (384, 512)).crop((2, 2, 382, 510)).getcolors()
    assert corners == [(380 * 508, (255, 0, 0))]
    assert magnified(picture(1, SIZE), (24, 24)).size == (24, 24)


def test_magnifying_is_an_option_of_text_to_image(words: StableGarmentPipeline) -> None:
    assert not torch.allclose(draw(words), draw(words, magnify=False))
    fitted = words.garment(picture(2, SIZE), magnify=False)
    assert torch.equal(draw(words, fitted), draw(words, magnify=False))


def test_the_guider_runs_once_a_call_and_the_encoder_and_the_controlnet_once_a_step(tryon: Any) -> None:
    guided, written, controlled = [], [], []
    handles = [
        rows_seen(tryon.guider.conv_in_extra, guided),
        rows_seen(tryon.guider.controlnet_cond_embedding.conv_in, guided),
        rows_seen(tryon.reference_unet.conv_in, written),
        rows_seen(tryon.controlnet.conv_in, controlled),
    ]
    dress(tryon, negative_prompt="c", num_images_per_prompt=2)
    for handle in handles:
        handle.remove()
    assert guided == [1, 1]
    assert written == [1, 1]
    assert controlled == [4, 4]


def test_one_prompt_for_both_passes_lets_the_controlnet_run_for_one(tryon: Any) -> None:
    seen: list[int] = []
    handle = rows_seen(tryon.controlnet.conv_in, seen)
    same = dress(tryon, prompt="a", negative_prompt="a")
    handle.remove()
    assert seen == [1, 1]
    embeds = tryon.text_encoder(tryon.tokenizer(["a"], padding="max_length", return_tensors="pt").input_ids)[0]
    twice = dress(tryon, prompt_embeds=embeds, negative_prompt_embeds=embeds.clone())
    assert relative_error(same, twice) < ROUNDING


def test_the_control_window_leaves_steps_without_the_controlnet(tryon: Any) -> None:
    seen: list[int] = []
    handle = rows_seen(tryon.controlnet.conv_in, seen)
    dress(tryon, control_guidance_end=0.5)
    assert len(seen) == 1
    dress(tryon, control_guidance_start=0.6)
    assert len(seen) == 1
    never = dress(tryon, controlnet_conditioning_scale=0)
    handle.remove()
    assert len(seen) == 1
    assert torch.equal(never, dress(tryon, control_guidance_start=1.0))
    with pytest.raises(ValueError, match="window is from 0.7 to 0.3"):
        dress(tryon, control_guidance_start=0.7, control_guidance_end=0.3)


def test_guess_mode_hides_the_person_from_the_unconditional_pass(tryon: Any) -> None:
    seen: list[int] = []
    handle = rows_seen(tryon.controlnet.conv_in, seen)
    guessed = dress(tryon, guess_mode=True)
    handle.remove()
    assert seen == [1, 1]
    assert not torch.allclose(guessed, dress(tryon))


def test_the_masked_place_does_not_matter_and_the_rest_does(tryon: Any) -> None:
    person = picture(1, SIZE)
    other = person.copy()
    other.paste((9, 200, 30), (0, 0, SIZE[0], SIZE[1] // 2))  # below the mask
    assert torch.equal(dress(tryon), dress(tryon, person=other))
    grey = person.copy()
    grey.paste((128, 128, 128), (0, 0, SIZE[0], SIZE[1] // 2))
    assert torch.allclose(dress(tryon), dress(tryon, person=grey, is_agnostic=True), atol=1e-5)
    assert not torch.allclose(dress(tryon), dress(tryon, person=picture(7, SIZE)))
    assert GREY == pytest.approx(128 / 255 * 2 - 1)


@pytest.mark.parametrize("kind", ["words", "tryon"])
def test_a_written_garment_is_read_like_its_picture(kind: str, request: pytest.FixtureRequest) -> None:
    pipe = request.getfixturevalue(kind)
    call = draw if kind == "words" else dress
    told = pipe.garment(picture(2, SIZE), "a c")
    series = pipe.write(told, width=32, height=24, num_inference_steps=2)
    expected = call(pipe, garment_prompt="a c")
    assert torch.equal(call(pipe, told), expected)
    pipe.register_modules(reference_unet=None)
    assert torch.equal(call(pipe, series), expected)
    with pytest.raises(ValueError, match="no reference_unet"):
        call(pipe)


def test_several_prompts_and_garments_are_drawn_together(words: StableGarmentPipeline) -> None:
    noise = latents(5, 2, 4, 3, 4)
    both = draw(words, [picture(2, SIZE), picture(3, SIZE)], prompt=["a", "b"], latents=noise)
    for i, (seed, prompt) in enumerate(((2, "a"), (3, "b"))):
        alone = draw(words, picture(seed, SIZE), prompt=prompt, latents=noise[i : i + 1])
        assert relative_error(both[i : i + 1], alone) < ROUNDING
    assert draw(words, prompt=["a", "b"], num_images_per_prompt=2).shape == (4, 4, 3, 4)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no person": ({"person": None}, "no person was given"),
    "no mask": ({"mask": None}, "no mask was given"),
    "person twice": ({"agnostic_latents": latents(0, 1, 4, 3, 4)}, "given twice"),
    "an empty mask": ({"mask": Image.new("L", SIZE)}, "black everywhere"),
    "a mask of another picture": ({"mask": half_mask("top", (24, 32))}, "mask 0 is 24 x 32 pixels, its person 32 x 24"),
    "two against three": ({"person": [picture(1, SIZE)] * 2, "mask": [MASK] * 3}, "2 persons were given for 3"),
    "NaN in DensePose": ({"densepose": torch.full((1, 3, 24, 32), torch.nan)}, "not finite"),
    "latents of another size": (
        {"person": None, "agnostic_latents": latents(0, 1, 4, 4, 4)}, r"expected \(persons, 4, 3, 4\)",
    ),
    "an odd size": ({"width": 30}, "must be multiples of 8"),
    "no finite scale": ({"controlnet_conditioning_scale": float("nan")}, "expected a finite number"),
    "a misspelt option": ({"num_inference_step": 2}, "did you mean 'num_inference_steps'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_are_refused_before_the_first_step(tryon: Any, case: str) -> None:
    given, message = BAD[case]
    with (
        tryon.unet.register_forward_hook(lambda *_: pytest.fail("the denoiser ran")),
        pytest.raises((TypeError, ValueError), match=message),
    ):
        dress(tryon, **given)
