"""Parts2Whole as a user calls it: any subset of parts, masks from three places, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from referencenet.links.bank import ReferenceBank
from referencenet.methods.parts2whole import Parts2WholePipeline
from referencenet.methods.tiny import tiny_pipeline
from referencenet.preprocess.parts import LABELS, PersonPart
from tiny import half_mask, picture
from tolerances import ROUNDING, relative_error

SIZE = {"width": 32, "height": 48}


def part(i: int, **changes: Any) -> PersonPart:
    return PersonPart(
        **{"picture": picture(i), "label": LABELS[i], "mask": half_mask("left" if i % 2 else "top")} | changes
    )


@pytest.fixture(scope="module")
def pipe() -> Parts2WholePipeline:
    pipe = tiny_pipeline("parts2whole")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Parts2WholePipeline, parts: Any, prompt: Any = "a", pose: Any = None, **options: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    pose = picture(9) if pose is None else pose
    settings = SIZE | {"num_inference_steps": 2, "output_type": "latent", "generator": generator} | options
    return pipe(parts, pose, prompt, **settings).images


@pytest.mark.parametrize("count", [1, 3, 6])
def test_every_part_changes_the_picture_and_so_do_prompt_and_pose(pipe: Parts2WholePipeline, count: int) -> None:
    parts = [part(i) for i in range(count)]
    drawn = draw(pipe, parts)
    assert drawn.shape == (1, 4, 6, 4)
    for i in range(count):
        for changed in (part(i, picture=picture(20 + i)), part(i, mask=half_mask("bottom"))):
            assert not torch.equal(draw(pipe, [*parts[:i], changed, *parts[i + 1 :]]), drawn)
    assert not torch.equal(draw(pipe, parts, "b"), drawn)
    assert not torch.equal(draw(pipe, parts, pose=picture(8)), drawn)


def test_what_a_mask_hides_reaches_the_clip_token_only(pipe: Parts2WholePipeline) -> None:
    seen = picture(0)
    hidden = pipe.write([part(0, picture=seen, mask=half_mask("top"))], **SIZE)
    last = hidden.hidden["up_blocks.1.attentions.0.transformer_blocks.0.attn1"].unflatten(1, (6, 4))
    assert last[:, :3].all()  # rows of the mask's half
    assert not last[:, 5:].any()  # behind its soft edge and one row more


def test_a_bank_stands_for_its_parts_without_the_writer(pipe: Parts2WholePipeline, tmp_path: Any) -> None:
    parts = [part(0), part(1)]
    bank = pipe.write(parts, **SIZE)
    assert isinstance(bank, ReferenceBank)
    bank.save(tmp_path / "person.safetensors")
    reader = Parts2WholePipeline(**pipe.components | {"reference_unet": None, "image_encoder": None})
    reader.set_progress_bar_config(disable=True)
    again = draw(reader, ReferenceBank.load(tmp_path / "person.safetensors"))
    assert relative_error(again, draw(pipe, parts)) <= ROUNDING
    with pytest.raises(ValueError, match="it can read saved banks only"):
        draw(reader, parts)


def test_parts_are_written_once_and_the_pose_guided_once(pipe: Parts2WholePipeline) -> None:
    rows: list[tuple[str, int]] = []
    handles = [
        getattr(pipe, name).register_forward_pre_hook(lambda _m, args, name=name: rows.append((name, len(args[0]))))
        for name in ("reference_unet", "pose_guider", "unet")
    ]
    draw(pipe, [part(0), part(1), part(2)], num_inference_steps=4)
    for handle in handles:
        handle.remove()
    assert rows == [("reference_unet", 3), ("pose_guider", 1), *[("unet", 2)] * 4]


def test_transparency_is_a_mask_and_a_segmenter_is_asked_for_opaque_pictures_only(pipe: Parts2WholePipeline) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 16, 64))
    cut = picture(0).convert("RGBA")
    cut.putalpha(mask)
    from_alpha = pipe.write([part(0, picture=cut, mask=None)], **SIZE)
    assert (
        not from_alpha.hidden["up_blocks.1.attentions.0.transformer_blocks.0.attn1"].unflatten(1, (6, 4))[:, :, 3].any()
    )
    asked: list[str] = []

    def segmenter(_picture: Image.Image, label: str) -> Image.Image:
        asked.append(label)
        return mask

    opaque = part(1, mask=None)
    drawn = draw(pipe, [part(0, picture=cut, mask=None), opaque, part(2)], segmenter=segmenter)
    assert asked == [LABELS[1]]
    assert torch.equal(drawn, draw(pipe, [part(0, picture=cut, mask=None), part(1, mask=mask), part(2)]))


def test_the_released_texts_are_an_option(pipe: Parts2WholePipeline) -> None:
    parts = [part(0), part(1)]
    released = draw(pipe, parts, "a", first_label_everywhere=True)
    assert torch.equal(released, draw(pipe, parts, "b", first_label_everywhere=True))
    assert not torch.equal(released, draw(pipe, parts, LABELS[0]))
    assert torch.equal(draw(pipe, parts[:1], "a", first_label_everywhere=True), draw(pipe, parts[:1], LABELS[0]))


def test_several_prompts_and_pictures_share_the_parts(pipe: Parts2WholePipeline) -> None:
    noise = torch.randn(4, 4, 6, 4, generator=torch.Generator().manual_seed(3))
    drawn = draw(pipe, [part(0), part(1)], ["a", "b"], num_images_per_prompt=2, latents=noise)
    alone = draw(pipe, [part(0), part(1)], "b", latents=noise[2:3])
    assert relative_error(drawn[2:3], alone) <= 1e-5
    assert torch.isfinite(draw(pipe, part(0), guidance_scale=1.0)).all()


BAD: dict[str, tuple[Any, str]] = {
    "no part": ([], "0 parts were given; expected 1 to 6"),
    "seven parts": ([part(i % 6) for i in range(7)], "7 parts were given"),
    "a label twice": ([part(0), part(0)], "'upper body clothes' was given twice"),
    "an unknown label": ([part(0, label="hat")], "there is no part 'hat'; expected some of upper body clothes"),
    "no mask": ([part(4, mask=None)], "the picture of 'face' is opaque and has no mask"),
    "opaque alpha": ([part(4, picture=picture(0, mode="RGBA"), mask=None)], "is opaque and has no mask"),
    "an empty mask": ([part(4, mask=Image.new("L", (64, 64)))], "the mask of 'face' is black everywhere"),
    "another size": ([part(4, mask=half_mask(size=(32, 64)))], r"is \(32, 64\), its picture \(64, 64\)"),
    "NaN": ([part(4, picture=np.full((8, 8, 3), np.nan))], "not finite|NaN|finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_parts_are_refused_before_any_work(name: str, pipe: Parts2WholePipeline) -> None:
    parts, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        draw(pipe, parts)


def test_a_saved_pipeline_draws_the_same(pipe: Parts2WholePipeline, tmp_path: Any) -> None:
    pipe.save_pretrained(tmp_path)
    again = Parts2WholePipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert relative_error(draw(again, [part(0), part(1)]), draw(pipe, [part(0), part(1)])) <= ROUNDING
    assert "PartImages('images')" in str(again.spec)
