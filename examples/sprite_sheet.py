"""A sprite sheet for a game: one character, eight directions, six poses, transparent, with an atlas that engines read.

    python examples/sprite_sheet.py --reference hero.png --out sprites --workers 2

Draws with the built-in pose ReferenceNet, a job of `refnet batch` for each sprite: a run that was cut short goes on
where it stopped, and another character in the same folder draws only what is new. `sheet.json` is an atlas in
TexturePacker's JSON hash, which Phaser, PixiJS, Unity's and Godot's importers read; a sprite is named
`walking/south-east`.

The built-in model was trained on people seen from the front, from 42 degrees to both sides, and from behind; what lies
between it has to guess from the skeleton.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from referencenet.batch import Result, read_jobs, run_batch
from referencenet.batch.team import Processes
from referencenet.paperdoll import Character, Pose, Scene, render, skeleton
from referencenet.paperdoll.palette import PLAIN
from referencenet.version import __version__

SIZE = 64
POSES = ("standing", "waving", "walking", "running", "jumping", "crouching")
DIRECTIONS = {  # towards the viewer is south; degrees that the body is turned by, and the words of a caption for it
    "south": (0.0, "facing front"),
    "south-west": (-42.0, "facing left"),
    "west": (-75.0, "facing left"),
    "north-west": (-135.0, "seen from behind"),
    "north": (180.0, "seen from behind"),
    "north-east": (135.0, "seen from behind"),
    "east": (75.0, "facing right"),
    "south-east": (42.0, "facing right"),
}
PROMPT = "full body, {pose}, {view}, plain {colour} background"
GROUNDS = ("green", "pink", "blue", "yellow", "purple")
NEAR, FAR, DARKEST = 26.0, 60.0, 0.65
"""How far from the ground's colour a pixel is still ground, and is surely not; how dark its shadow may be."""


def write_jobs(reference: Path, folder: Path) -> dict[str, Path]:
    """Write a skeleton for each sprite, and jobs.jsonl; the names of the sprites, in the order of the jobs."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(reference) as picture:
        ground = ground_for(picture)
    figure = Character.from_seed(0)  # only its build is drawn
    names: dict[str, Path] = {}
    jobs: list[dict[str, Any]] = []
    for pose in POSES:
        for direction, (yaw, view) in DIRECTIONS.items():
            stance = Pose.named(pose)
            turned = Scene(character=figure, pose=Pose(**(vars(stance) | {"yaw": yaw})))
            file = folder / f"{pose}-{direction}.png"
            Image.fromarray(skeleton(turned, SIZE)).save(file)
            names[f"{pose}/{direction}"] = file
            prompt = PROMPT.format(pose=pose, view=view, colour=ground)
            jobs.append({
                "command": "generate", "prompt": prompt, "reference": [str(reference.absolute())], "seed": 1,
                "link": "referencenet", "control": [f"pose={file.absolute()}"],
            })  # fmt: skip
    (folder / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs), encoding="utf-8")
    return names


def ground_for(reference: Image.Image) -> str:
    """The coloured ground that the figure of a picture is least like."""
    pixels = np.asarray(reference.convert("RGB"), dtype=np.float32)
    return min(GROUNDS, key=lambda name: (_away(pixels, np.array(ImageColor.getrgb(PLAIN[name]))) < FAR).mean())


def cut_out(picture: Image.Image) -> Image.Image:
    """The figure without the ground and its shadow, as RGBA; the figure's edge is blended."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    ground = np.median(np.concatenate([pixels[0], pixels[:, 0], pixels[:, -1]]), axis=0)
    away = _away(pixels, ground)
    near = Image.fromarray(np.pad(away < NEAR, 1, constant_values=True).astype(np.uint8))
    ImageDraw.floodfill(near, (0, 0), 2)  # what reaches the border; eyes and buttons do not
    outside = (np.asarray(near)[1:-1, 1:-1] == 2) | (np.abs(pixels - ground).max(axis=2) < NEAR / 2)
    beside = np.asarray(Image.fromarray(outside).convert("L").filter(ImageFilter.MaxFilter(3))) > 0
    opacity = np.where(outside, 0.0, np.where(beside, np.clip((away - NEAR) / (FAR - NEAR), 0.0, 1.0), 1.0))[..., None]
    figure = np.clip(
        (pixels - ground * (1 - opacity)) / np.maximum(opacity, 1e-3), 0, 255
    )  # without what shines through
    layers = np.concatenate([np.where(opacity > 0, figure, 0), opacity * 255], axis=2)
    return Image.fromarray(layers.round().astype(np.uint8), "RGBA")


def _away(pixels: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """How far pixels (h, w, 3) are from a ground's colour; a shadow on it is the same colour, but darker."""
    shade = np.clip(pixels @ ground / (ground @ ground), DARKEST, 1.1)
    return np.abs(pixels - shade[..., None] * ground).max(axis=2)


def pack(sprites: dict[str, Image.Image], image: str) -> tuple[Image.Image, dict[str, Any]]:
    """All sprites in a grid, poses in rows, and their atlas."""
    columns = len(DIRECTIONS)
    sheet = Image.new("RGBA", (columns * SIZE, -(-len(sprites) // columns) * SIZE))
    frames: dict[str, Any] = {}
    for i, (name, sprite) in enumerate(sprites.items()):
        left, top = i % columns * SIZE, i // columns * SIZE
        sheet.paste(sprite, (left, top))
        box = sprite.getbbox() or (0, 0, 1, 1)  # what is left when transparent borders are cut off
        size = {"w": box[2] - box[0], "h": box[3] - box[1]}
        frames[name] = {
            "frame": {"x": left + box[0], "y": top + box[1], **size},
            "rotated": False,
            "trimmed": True,
            "spriteSourceSize": {"x": box[0], "y": box[1], **size},
            "sourceSize": {"w": SIZE, "h": SIZE},
            "pivot": {"x": 0.5, "y": 1.0},
        }
    meta = {
        "app": "referencenet",
        "version": __version__,
        "image": image,
        "format": "RGBA8888",
        "size": {"w": sheet.width, "h": sheet.height},
        "scale": "1",
    }
    return sheet, {"frames": frames, "meta": meta}


def drawn(result: Result) -> Image.Image:
    """The picture of a job."""
    if result.folder is None:
        raise SystemExit(f"line {result.job.line} of jobs.jsonl failed: {result.reason}")
    with Image.open(result.folder / "seed-1.png") as picture:
        return picture.convert("RGB")


def main() -> None:
    """Draw, cut out, pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="the character; by default one that paperdoll draws")
    parser.add_argument("--out", type=Path, default=Path("sprites"))
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    reference = given.reference
    if reference is None:
        reference = given.out / "hero.png"
        given.out.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render(Scene.from_seeds(3, 3, pose="standing", view="front", shot="full body"))).save(reference)
    names = write_jobs(reference, given.out / "skeletons")
    jobs = read_jobs(given.out / "skeletons" / "jobs.jsonl")
    results = run_batch(jobs, given.out / "batch", partial(team, given.workers))
    sprites = {name: cut_out(drawn(result)) for name, result in zip(names, results, strict=True)}
    sheet, atlas = pack(sprites, "sheet.png")
    sheet.save(given.out / "sheet.png")
    (given.out / "sheet.json").write_text(json.dumps(atlas, indent=1) + "\n", encoding="utf-8")
    print(f"{len(sprites)} sprites in {given.out / 'sheet.png'} and sheet.json")


def team(size: int | None, most: int) -> Processes:
    """Processes that draw."""
    return Processes(size, most=most)


if __name__ == "__main__":
    main()
