"""Try-on: people of the test split in another one's garment, as VITON-HD's unpaired test has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch.nn.functional import max_pool2d

from referencenet.builtin.load import GUIDANCE, load
from referencenet.builtin.training.observer import aspects_of
from referencenet.builtin.training.vae import encode
from referencenet.evaluation.looking import look
from referencenet.evaluation.scores import colour_error, masked_ssim, mean_psnr, share_seen, squared_error
from referencenet.evaluation.task import Drawing, Measure, Task, as_bytes, unseen
from referencenet.media.images import to_tensor
from referencenet.methods.reference_only import reference as reading
from referencenet.paperdoll.captions import caption
from referencenet.paperdoll.character import Character
from referencenet.paperdoll.maps import dense_map, dense_picture, garment_mask
from referencenet.paperdoll.pose import ARM_POSES
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.streams import Stream
from referencenet.paperdoll.tryon import GREY, agnostic_mask, flat_lay

WORN = ("upper", "upper_colour", "pattern", "pattern_colour", "emblem", "emblem_colour")
"""What of a character is the garment."""


class TryOn(Task):
    """Person, mask, DensePose and another one's garment, laid flat; the truth is that person in that garment."""

    name = "tryon"
    measures = (
        Measure(name="error_in_mask", told="squared error in the mask, of values in [0, 1]", better="less"),
        Measure(name="psnr_in_mask", told="PSNR in the mask, dB", better="more", aim=16.0),
        Measure(name="ssim_in_mask", told="SSIM in the mask", better="more"),
        Measure(name="garment_colour", told="error of the garment's mean colour, 0 to 255", better="less"),
        Measure(
            name="garment_seen", told="share of pictures whose colour and pattern the observer sees", better="more"
        ),
        Measure(name="psnr_outside", told="PSNR outside of the mask, dB", better="more"),
    )

    def rendered(self) -> np.ndarray:
        """(n, H, W, 3); people with dresses are left out, whose garment is no upper one."""
        people = unseen(self.number, self.seed, lambda character: character.lower != "dress")
        self.people = [scene_of(character, self.seed) for character in people]
        self.worn = [self.people[self.other(i)].character for i in range(self.number)]
        self.dressed = [wearing(*pair) for pair in zip(self.people, self.worn, strict=True)]
        self.pictures = np.stack([render(scene, self.size) for scene in self.people])
        self.masks = np.stack([agnostic_mask(scene, self.size) for scene in self.people])
        self.dense = np.stack([dense_picture(dense_map(scene, self.size)) for scene in self.people])
        self.flat = np.stack([flat_lay(character, self.size) for character in self.worn])
        self.garments = np.stack([garment_mask(scene, self.size) for scene in self.dressed])
        return np.stack([render(scene, self.size) for scene in self.dressed])

    def given(self, case: int, frame: int = 0) -> list[np.ndarray]:  # noqa: ARG002 - of films
        """The person without the garment, and another one's garment."""
        hidden = np.where(self.masks[case][..., None], np.uint8(GREY), self.pictures[case])
        return [hidden, self.flat[case]]

    def draw(self, pipe: Any, drawing: Drawing, *, wrong: bool = False) -> np.ndarray:
        """People dressed, the whole picture drawn anew as published."""
        found: list[np.ndarray] = []
        for part in self.places():
            cases = range(self.number)[part]
            garments = [Image.fromarray(self.flat[self.other(i) if wrong else i]) for i in cases]
            masks = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in self.masks[part]]
            people, dense = (list(map(Image.fromarray, kind[part])) for kind in (self.pictures, self.dense))
            options = drawing.options(self.size) | {"generator": [drawing.noise(i) for i in cases]}
            drawn = pipe(person=people, garment=garments, mask=masks, densepose=dense, output_type="np", **options)
            found.append(as_bytes(drawn.images))
            drawing.drawn(len(cases))
        return np.concatenate(found)

    def further(self, pipe: Any, drawing: Drawing) -> Iterator[tuple[str, np.ndarray]]:  # noqa: ARG002 - untrained
        """The built-in base model, which reads the garment by attention; what is outside of the mask is put back."""
        yield "training_free", self._training_free(drawing)

    def _training_free(self, drawing: Drawing) -> np.ndarray:
        base = load("base")
        base.set_progress_bar_config(disable=True)
        width, height = self.size
        found: list[np.ndarray] = []
        for i, scene in enumerate(self.people):
            keep = _Kept(base, self.pictures[i], self.masks[i], drawing.noise(i))
            with reading(base, Image.fromarray(self.flat[i]), links=["attention"], style_fidelity=1.0):
                drawn = base(
                    caption(scene, identity=False), num_inference_steps=drawing.steps, guidance_scale=GUIDANCE,
                    width=width, height=height, output_type="np", generator=drawing.noise(i),
                    callback_on_step_end=keep,
                )  # fmt: skip
            found.append(as_bytes(drawn.images))
            drawing.drawn(1)
        return np.concatenate(found)

    def scores(self, pictures: np.ndarray) -> dict[str, float]:
        """In the mask, of the garment, and outside."""
        seen = look(self.observer, pictures).aspects
        asked = [aspects_of(scene) for scene in self.dressed]
        return {
            "error_in_mask": squared_error(pictures, self.truth, self.masks),
            "psnr_in_mask": mean_psnr(pictures, self.truth, self.masks),
            "ssim_in_mask": masked_ssim(pictures, self.truth, self.masks),
            "garment_colour": colour_error(pictures, self.truth, self.garments),
            "garment_seen": share_seen(seen, asked, ("upper_colour", "pattern")),
            "psnr_outside": mean_psnr(pictures, self.truth, ~self.masks),
        }


class _Kept:
    """Puts what lies outside of a mask back behind every step, noised as far as the step is."""

    def __init__(self, base: Any, picture: np.ndarray, mask: np.ndarray, generator: Any) -> None:
        self.known = encode(base.vae, picture[None])
        self.noise = randn_tensor(self.known.shape, generator=generator)
        hidden = to_tensor(Image.fromarray(mask.astype(np.uint8) * 255)).unsqueeze(0)
        self.hidden = max_pool2d(hidden, picture.shape[0] // self.known.shape[2])

    def __call__(self, base: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        times = base.scheduler.timesteps
        known = self.known
        if step + 1 < len(times):
            known = base.scheduler.add_noise(known, self.noise, times[step + 1].view(1))
        return {"latents": (1 - self.hidden) * known + self.hidden * tensors["latents"]}


def scene_of(character: int, seed: int) -> Scene:
    """A person who stands before a plain ground and looks ahead, as in the layout `viton-hd`."""
    stream = Stream(f"benchmark try-on {character}", seed)
    shot = "upper body" if stream.chance(0.6) else "full body"
    pose = stream.choice(ARM_POSES)
    return Scene.from_seeds(character, stream.integer(2**31), view="front", pose=pose, shot=shot, background="plain")


def wearing(scene: Scene, other: Character) -> Scene:
    """The same scene with the upper garment of another character."""
    return replace(scene, character=replace(scene.character, **{name: getattr(other, name) for name in WORN}))
