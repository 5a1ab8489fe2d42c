"""Composing: one person out of the parts of several; the truth is who has all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from referencenet.builtin.training.observer import aspects_of
from referencenet.evaluation.looking import look
from referencenet.evaluation.scores import mean_psnr, share_seen, share_strayed, squared_error
from referencenet.evaluation.task import Drawing, Measure, Task, as_bytes, unseen
from referencenet.paperdoll.captions import caption
from referencenet.paperdoll.character import Character
from referencenet.paperdoll.maps import PARTS, dense_map, dense_picture, part_mask, segmentation
from referencenet.paperdoll.picture_layouts import part_picture, with_part
from referencenet.paperdoll.pose import ARM_POSES
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.streams import Stream
from referencenet.preprocess.parts import PersonPart

OWN: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "face": ("skin",),
    "hair or headwear": ("hair_style", "hair_colour", "hat"),
    "upper body clothes": ("upper_colour", "pattern", "emblem"),
    "lower body clothes": ("lower", "lower_colour"),
})  # fmt: skip
"""Part to the aspects that it alone tells; each comes from another person. Shoes come with the lower clothes."""
ASPECTS = tuple(aspect for aspects in OWN.values() for aspect in aspects)


class Composed(Task):
    """Parts of four people, a pose, and words that do not tell who; the truth is one person who has all parts."""

    name = "compose"
    measures = (
        Measure(
            name="parts_seen", told="share of aspects that the observer sees as in their own source", better="more"
        ),
        Measure(name="strayed", told="share of aspects seen as in another source of the same picture", better="less"),
        *(
            Measure(name=part.split()[0], told=f"share of aspects of the {part} seen as in their source", better="more")
            for part in OWN
        ),
        Measure(name="error_on_person", told="squared error on the person, of values in [0, 1]", better="less"),
        Measure(name="psnr_on_person", told="PSNR on the person, dB", better="more"),
    )

    def rendered(self) -> np.ndarray:
        """(n, H, W, 3)."""
        people = iter(unseen(self.number * len(OWN), self.seed, lambda character: character.lower != "dress"))
        self.sources = [{part: next(people) for part in OWN} for _ in range(self.number)]
        self.targets = [_target(sources, self.seed) for sources in self.sources]
        self.parts = [_parts(sources, self.size[1], self.seed) for sources in self.sources]
        self.dense = [dense_picture(dense_map(scene, self.size)) for scene in self.targets]
        self.masks = np.stack([part_mask(segmentation(scene, self.size), *PARTS[1:]) for scene in self.targets])
        return np.stack([render(scene, self.size) for scene in self.targets])

    def given(self, case: int, frame: int = 0) -> list[np.ndarray]:  # noqa: ARG002 - of films
        """The parts, and the pose."""
        return [*(np.asarray(part.picture) for part in self.parts[case]), self.dense[case]]

    def draw(self, pipe: Any, drawing: Drawing, *, wrong: bool = False) -> np.ndarray:
        """One call for each person."""
        found: list[np.ndarray] = []
        for case, scene in enumerate(self.targets):
            drawn = pipe(
                self.parts[self.other(case) if wrong else case], Image.fromarray(self.dense[case]),
                caption(scene, identity=False), output_type="np", generator=drawing.noise(case),
                **drawing.options(self.size),
            )  # fmt: skip
            found.append(as_bytes(drawn.images))
            drawing.drawn(1)
        return np.concatenate(found)

    def scores(self, pictures: np.ndarray) -> dict[str, float]:
        """Of every part against its own source, and of all pixels of the person."""
        seen = look(self.observer, pictures).aspects
        asked = [aspects_of(scene) for scene in self.targets]
        others = [_others(sources) for sources in self.sources]
        return {
            "parts_seen": share_seen(seen, asked, ASPECTS),
            "strayed": share_strayed(seen, asked, others, ASPECTS),
            **{part.split()[0]: share_seen(seen, asked, aspects) for part, aspects in OWN.items()},
            "error_on_person": squared_error(pictures, self.truth, self.masks),
            "psnr_on_person": mean_psnr(pictures, self.truth, self.masks),
        }


def _target(sources: Mapping[str, int], seed: int) -> Scene:
    """The person who has all parts, from the front, as a whole."""
    face = sources["face"]
    scene = Scene.from_seeds(
        face, Stream(f"benchmark compose {face}", seed).integer(2**31), view="front", shot="full body"
    )
    character = scene.character
    for part, source in sources.items():
        character = with_part(character, Character.from_seed(source), part)
    return replace(scene, character=character)


def _parts(sources: Mapping[str, int], side: int, seed: int) -> list[PersonPart]:
    """Pictures of the parts, each cut out of a picture of its source."""
    found: list[PersonPart] = []
    for part, character in [*sources.items(), ("shoes", sources["lower body clothes"])]:
        stream = Stream(f"benchmark part {part} {character}", seed)
        shown = Scene.from_seeds(
            character, stream.integer(2**31), view="front", pose=stream.choice(ARM_POSES), shot="full body"
        )
        picture, mask = part_picture(shown, part, side)
        if mask.any():  # a bald head without a hat has no hair to be shown
            found.append(PersonPart(picture=Image.fromarray(picture), label=part, mask=Image.fromarray(mask)))
    return found


def _others(sources: Mapping[str, int]) -> dict[str, set[str]]:
    """Aspect to the values that it has in all sources."""
    seen = [
        aspects_of(Scene.from_seeds(character, 0, view="front", shot="full body")) for character in sources.values()
    ]
    return {aspect: {each[aspect] for each in seen if aspect in each} for aspect in ASPECTS}
