"""Draws the pictures of the documentation with the built-in model: `python benchmarks/docs_pictures.py [NAME ...]`.

They go to docs/images as WebP without loss, pixels enlarged threefold or twofold. A number under a picture is its
identity similarity: the cosine between the observer's embeddings of the picture and of the reference.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from referencenet import Reference, reference
from referencenet.builtin import load, load_observer
from referencenet.builtin.load import GUIDANCE, STEPS
from referencenet.media.files import written_whole
from referencenet.media.sheets import contact_sheet
from referencenet.methods.reference_only import NAMED_LINKS
from referencenet.paperdoll import (
    Background,
    Scene,
    agnostic,
    caption,
    dense_map,
    dense_picture,
    flat_lay,
    garment_mask,
    render,
    segmentation,
    skeleton,
)

IMAGES = Path(__file__).parents[1] / "docs" / "images"
CHARACTER, SEED = 1_000_003, 0  # of the test split: the model was not trained on this person
STRENGTHS, FIDELITIES = (0.25, 0.5, 0.75, 1.0), (0.0, 0.5, 1.0)
POSES = ("waving", "walking", "arms raised", "jumping", "crouching")
BLUE = Background(name="plain", colour="blue")
VIEWS = ("front", "left", "right", "back")
Labelled = list[tuple[str, Image.Image]]


class Artist:
    """The built-in model, a person, and a wish: this person waving, smiling, on blue."""

    def __init__(self) -> None:
        self.pipe, self.net, self.observer = load(), load("referencenet"), load_observer()
        for pipe in (self.pipe, self.net):
            pipe.set_progress_bar_config(disable=True)
        self.hero = Scene.from_seeds(CHARACTER, 1, view="front", shot="full body", pose="standing", background="plain")
        self.picture = Image.fromarray(render(self.hero))
        self.prompt = "full body, waving, facing front, smiling, plain blue background"

    def draw(self, seed: int = SEED, prompt: str | None = None, guidance: float = GUIDANCE) -> Image.Image:
        """A picture of the base model, with whatever is linked."""
        generator = torch.Generator().manual_seed(seed)
        options = {"num_inference_steps": STEPS, "guidance_scale": guidance, "generator": generator}
        return self.pipe(prompt or self.prompt, **options).images[0]

    def refer(self, *references: Any, prompt: str | None = None, seed: int = SEED, **options: Any) -> Image.Image:
        """A picture that refers to others."""
        with reference(self.pipe, list(references) or [self.picture], **options):
            return self.draw(seed, prompt)

    def pose(self, scene: Scene, seed: int = SEED) -> Image.Image:
        """The person as the ReferenceNet draws them in the pose of a scene."""
        pose = Image.fromarray(skeleton(scene))
        prompt = caption(scene, identity=False)
        return self.net(self.picture, pose, prompt, generator=torch.Generator().manual_seed(seed)).images[0]

    def similarity(self, picture: Image.Image) -> float:
        """Of a picture's person to the reference's."""
        pair = torch.from_numpy(np.stack([np.asarray(each.convert("RGB")) for each in (self.picture, picture)]))
        with torch.no_grad():
            first, second = self.observer(pair.permute(0, 3, 1, 2).float() / 127.5 - 1).embedding
        return float((first * second).sum())


def grid(artist: Artist, links: list[str]) -> Image.Image:
    """Strength in rows, style fidelity in columns."""
    shown: Labelled = []
    for strength in STRENGTHS:
        for fidelity in FIDELITIES:
            drawn = artist.refer(Reference(artist.picture, strength=strength), links=links, style_fidelity=fidelity)
            shown.append((f"strength {strength:g}\nsimilarity {artist.similarity(drawn):.2f}", drawn))
    return sheet(shown, columns=len(FIDELITIES), headings=[f"style fidelity {level:g}" for level in FIDELITIES])


def links(artist: Artist) -> Image.Image:
    """The same prompt and seed: without, with each link, and by the ReferenceNet."""
    target = Scene.from_seeds(CHARACTER, 2, view="front", shot="full body", pose="waving", background=BLUE)
    shown: Labelled = [("reference", artist.picture), ("no reference", artist.draw())]
    shown += [(name, artist.refer(links=given, style_fidelity=0.5)) for name, given in NAMED_LINKS.items()]
    shown += [("referencenet", artist.pose(target))]
    scored = [(f"{name}\n{artist.similarity(drawn):.2f}", drawn) for name, drawn in shown[1:]]
    return sheet([(f"{shown[0][0]}\n", shown[0][1]), *scored], columns=6)


def seeds(artist: Artist) -> Image.Image:
    """What `refnet generate --count 4` draws."""
    shown = [(f"seed {seed}", artist.refer(seed=seed, style_fidelity=0.5)) for seed in range(4)]
    return sheet([("reference", artist.picture), *shown], columns=5)


def poses(artist: Artist) -> Image.Image:
    """Skeletons, and the person in them by the ReferenceNet."""
    scenes = [Scene.from_seeds(CHARACTER, 2, pose=pose, view="front", shot="full body", background=BLUE)
              for pose in POSES]  # fmt: skip
    drawings: Labelled = [(pose, Image.fromarray(skeleton(scene))) for pose, scene in zip(POSES, scenes, strict=True)]
    drawn = [(f"{artist.similarity(result):.2f}", result) for result in map(artist.pose, scenes)]
    return sheet(
        [("", Image.new("RGB", (64, 64), "white")), *drawings, ("reference", artist.picture), *drawn], columns=6
    )


def ranges(artist: Artist) -> Image.Image:
    """References that are read in a part of the steps only."""
    parts = ((0.0, 1.0), (0.0, 0.7), (0.0, 0.4), (0.3, 1.0), (0.6, 1.0))
    shown: Labelled = []
    for start, end in parts:
        drawn = artist.refer(Reference(artist.picture, start=start, end=end), style_fidelity=0.5)
        shown.append((f"start {start:g}, end {end:g}\nsimilarity {artist.similarity(drawn):.2f}", drawn))
    return sheet([("reference\n", artist.picture), *shown], columns=6)


def weights(artist: Artist) -> Image.Image:
    """Two references, of which one counts more."""
    other = Scene.from_seeds(CHARACTER + 4, 1, view="front", shot="full body", pose="standing", background="plain")
    second = Image.fromarray(render(other))
    shown: Labelled = [("first", artist.picture), ("second", second)]
    for first, last in ((1.0, 0.0), (1.0, 0.25), (1.0, 1.0), (0.25, 1.0)):
        given = [Reference(artist.picture, weight=first), *([Reference(second, weight=last)] if last else [])]
        shown.append((f"weights {first:g}, {last:g}", artist.refer(*given, style_fidelity=0.5)))
    return sheet(shown, columns=6)


def annotated(_: Artist) -> Image.Image:
    """What paperdoll knows of a picture."""
    scene = Scene.from_seeds(CHARACTER, 4, view="front", shot="full body", pose="waving")
    parts = segmentation(scene, 192).astype(int)
    shown = {
        "render": render(scene, 192),
        "skeleton": skeleton(scene, 192),
        "segmentation": np.stack([parts * 37 % 256, parts * 91 % 256, parts * 151 % 256], axis=2).astype(np.uint8),
        "dense_picture": dense_picture(dense_map(scene, 192)),
        "garment_mask": np.repeat(garment_mask(scene, 192)[..., None] * np.uint8(255), 3, axis=2),
        "agnostic": agnostic(scene, 192),
        "flat_lay": flat_lay(scene.character, 192),
    }
    return sheet([(name, Image.fromarray(drawn)) for name, drawn in shown.items()], columns=7, size=128)


def people(_: Artist) -> Image.Image:
    """Characters, and one of them from four sides."""
    row = [("", Image.fromarray(render(Scene.from_seeds(seed, seed, shot="full body"), 192))) for seed in range(8)]
    turned = [Scene.from_seeds(CHARACTER, 1, view=view, shot="full body", pose="walking") for view in VIEWS]
    framed = [Scene.from_seeds(CHARACTER, 5, shot=shot) for shot in ("upper body", "portrait")]
    felt = [Scene.from_seeds(CHARACTER, 6, shot="portrait", expression=name) for name in ("laughing", "angry")]
    return sheet(
        row + [("", Image.fromarray(render(scene, 192))) for scene in turned + framed + felt], columns=8, size=112
    )


def sheet(
    shown: Sequence[tuple[str, Image.Image]], *, columns: int, headings: Sequence[str] = (), size: int = 128
) -> Any:
    """Pictures side by side, small ones enlarged without smoothing."""
    pictures = [
        drawn.resize((size, size), Image.Resampling.NEAREST if drawn.width < size else Image.Resampling.LANCZOS)
        for _, drawn in shown
    ]
    captions = [label for label, _ in shown] if any(label for label, _ in shown) else ()
    return contact_sheet(pictures, captions=captions, headings=headings, columns=columns, gutter=8, font_size=12)


PICTURES: dict[str, Callable[[Artist], Image.Image]] = {
    "links": links,
    "seeds": seeds,
    "poses": poses,
    "ranges": ranges,
    "weights": weights,
    "annotations": annotated,
    "people": people,
    **{f"grid_{name}": lambda artist, given=given: grid(artist, given) for name, given in NAMED_LINKS.items()},
}


def main() -> None:
    """Draw those that were named, or all."""
    artist = Artist()
    for name in sys.argv[1:] or PICTURES:
        drawn = PICTURES[name](artist)
        with written_whole(IMAGES / f"{name}.webp") as file:
            drawn.save(file, lossless=True, method=6)
        print(f"{name}.webp: {drawn.width} x {drawn.height}, {(IMAGES / f'{name}.webp').stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
