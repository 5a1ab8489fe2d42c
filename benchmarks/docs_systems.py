"""Draws what every system is given and what is right, in the drawn world.

`python benchmarks/docs_systems.py [NAME ...]`

They go to docs/images as WebP without loss: the tasks that the small networks are trained on and measured by. No model
draws here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from referencenet.media.files import written_whole
from referencenet.media.sheets import contact_sheet
from referencenet.paperdoll import (
    Background,
    Character,
    Scene,
    agnostic,
    dance,
    dense_map,
    dense_picture,
    flat_lay,
    render,
    skeleton,
    talk,
)
from referencenet.paperdoll.cameras import HeadCamera, seen_from
from referencenet.paperdoll.mesh import face_mesh
from referencenet.paperdoll.picture_layouts import part_picture
from referencenet.paperdoll.tryon_layouts import wearing
from referencenet.preprocess.face_mesh import draw_face_mesh

IMAGES = Path(__file__).parents[1] / "docs" / "images"
HERO, FRIEND = 1_000_003, 1_000_007
SIDE, UPRIGHT, FRAMES = 112, (96, 128), 5
BLUE = Background(name="plain", colour="blue")
FRONT = {"view": "front", "shot": "full body", "pose": "standing", "background": "plain"}
Row = list[tuple[str, np.ndarray]]


def moved(draw: Callable[[Scene], np.ndarray], what: str) -> Image.Image:
    """A person, drawings of a film, and the film."""
    film = dance(HERO, 5, num_frames=40, fps=16, background=BLUE).scenes[:: 40 // FRAMES][:FRAMES]
    hero = render(Scene.from_seeds(HERO, 1, **FRONT), SIDE)
    return table(
        [(what, np.full_like(hero, 255)), *[("", draw(scene)) for scene in film]],
        [("reference", hero), *[("", render(scene, SIDE)) for scene in film]],
    )


def skeletons() -> Image.Image:
    """Of Animate Anyone and MagicPose."""
    return moved(lambda scene: skeleton(scene, SIDE), "skeletons:")


def dense_poses() -> Image.Image:
    """Of MagicAnimate."""
    return moved(lambda scene: dense_picture(dense_map(scene, SIDE)), "DensePose:")


def face_meshes() -> Image.Image:
    """Of AniPortrait."""
    scenes = talk(HERO, 6, num_frames=50).scenes[:: 50 // FRAMES][:FRAMES]
    blank = np.full((SIDE, SIDE, 3), 255, np.uint8)
    return table(
        [("face meshes:", blank), *[("", draw_face_mesh(face_mesh(scene, SIDE), SIDE, SIDE)) for scene in scenes]],
        [("reference", render(scenes[0], SIDE)), *[("", render(scene, SIDE)) for scene in scenes]],
    )


def sounds() -> Image.Image:
    """Of Hallo and EMO."""
    film = talk(HERO, 6, num_frames=50)
    assert film.audio is not None  # a talking film has sound
    shown = range(0, 50, 50 // FRAMES)
    around = film.sample_rate // film.fps * 5
    pieces = [film.audio[max(0, frame * film.sample_rate // film.fps - around) :][: 2 * around] for frame in shown]
    return table(
        [("sound:", np.full((SIDE, SIDE, 3), 255, np.uint8)), *[("", wave(piece)) for piece in pieces]],
        [("portrait", render(film.scenes[0], SIDE)), *[("", render(film.scenes[frame], SIDE)) for frame in shown]],
    )


def wave(samples: np.ndarray) -> np.ndarray:
    """A sound's swing, column by column."""
    drawn = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for column, part in enumerate(np.array_split(samples, SIDE)):
        reach = round(float(np.abs(part).max(initial=0)) * SIDE * 0.45)
        drawn[SIDE // 2 - reach : SIDE // 2 + reach + 1, column] = (60, 70, 160)
    return drawn


def garments() -> Image.Image:
    """Of CatVTON and StableGarment."""
    rows: Row = []
    for seed, other in ((HERO, FRIEND), (FRIEND, HERO)):
        person, garment = Scene.from_seeds(seed, 3, **FRONT), Character.from_seed(other)
        dressed = replace(person, character=wearing(person.character, garment))
        rows += [
            ("garment", flat_lay(garment, UPRIGHT)), ("grey is repainted", agnostic(person, UPRIGHT)),
            ("DensePose", dense_picture(dense_map(person, UPRIGHT))), ("right", render(dressed, UPRIGHT)),
        ]  # fmt: skip
    return sheet(rows, 8)


def parts() -> Image.Image:
    """Of Parts2Whole."""
    scene = Scene.from_seeds(FRIEND, 3, view="front", shot="full body", pose="waving", background="plain")
    labels = ("face", "hair or headwear", "upper body clothes", "lower body clothes", "shoes")
    near = Scene.from_seeds(FRIEND, 2, **FRONT)
    cut = {label: part_picture(near, label, SIDE) for label in labels}
    shown = [
        (label, np.where(mask[..., None], picture, 255).astype(np.uint8)) for label, (picture, mask) in cut.items()
    ]
    pose = [("pose", dense_picture(dense_map(scene, SIDE))), ("right", render(scene, SIDE))]
    return sheet([*shown, *pose], len(shown) + 2)


def faces() -> Image.Image:
    """Of FlashFace."""
    near = [Scene.from_seeds(HERO, seed, shot="portrait", view="front") for seed in (2, 9, 14)]
    asked = Scene.from_seeds(HERO, 21, shot="upper body", view="front", pose="waving", background=BLUE)
    shown = [(f"face {i + 1}", render(scene, SIDE)) for i, scene in enumerate(near)]
    return sheet([*shown, ("right: waving, on blue", render(asked, SIDE))], 4)


def cameras() -> Image.Image:
    """Of DiffPortrait3D."""
    portrait = Scene.from_seeds(HERO, 2, shot="portrait", view="front", pose="standing", background=BLUE)
    other = Scene.from_seeds(FRIEND, 2, shot="portrait", view="front", pose="standing", background=BLUE)
    around = [HeadCamera(yaw=yaw) for yaw in (-54.0, -27.0, 0.0, 27.0, 54.0)]
    blank = np.full((SIDE, SIDE, 3), 255, np.uint8)
    return table(
        [("cameras:", blank), *[("", render(seen_from(other, camera), SIDE)) for camera in around]],
        [("portrait", render(portrait, SIDE)), *[("", render(seen_from(portrait, camera), SIDE)) for camera in around]],
    )


def table(given: Row, right: Row) -> Image.Image:
    """What is given above what is right."""
    return sheet([*given, *right], len(given))


def sheet(shown: Sequence[tuple[str, np.ndarray]], columns: int) -> Image.Image:
    """Pictures side by side."""
    pictures = [Image.fromarray(picture) for _, picture in shown]
    return contact_sheet(pictures, captions=[name for name, _ in shown], columns=columns, gutter=6, font_size=12)


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "skeletons": skeletons, "dense-poses": dense_poses, "face-meshes": face_meshes, "sounds": sounds,
    "garments": garments, "parts": parts, "faces": faces, "cameras": cameras,
}  # fmt: skip


def main() -> None:
    """Draw those that were named, or all."""
    for name in sys.argv[1:] or PICTURES:
        drawn = PICTURES[name]()
        with written_whole(IMAGES / f"{name}.webp") as file:
            drawn.save(file, lossless=True, method=4)
        print(f"{name}.webp: {drawn.width} x {drawn.height}, {(IMAGES / f'{name}.webp').stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
