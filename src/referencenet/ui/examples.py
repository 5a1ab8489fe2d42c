"""Example files: a drawn character with all that is known of it, made when the page starts."""

from __future__ import annotations

import wave
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from referencenet.media.films import write_film
from referencenet.media.sheets import write_image
from referencenet.paperdoll.character import Character
from referencenet.paperdoll.film import dance
from referencenet.paperdoll.landmarks import face_box
from referencenet.paperdoll.maps import dense_map, dense_picture, part_mask, segmentation
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.skeleton import skeleton
from referencenet.paperdoll.tryon import agnostic_mask, flat_lay
from referencenet.paperdoll.voice import SAMPLE_RATE, speech
from referencenet.preprocess.face_mesh import NUM_LANDMARKS
from referencenet.preprocess.face_outline import LIPS, OVAL
from referencenet.preprocess.face_track import FaceTrack
from referencenet.preprocess.metric_face import APPROXIMATE, metric_face
from referencenet.ui.given import INK
from referencenet.ui.models import Model

SIDE = 512  # pixels: as wide as the page paints
HERO, OTHER = 3, 11
"""Seeds of the two characters."""
FACE_WIDTH = 14.94
"""Centimetres between the edges of the canonical face."""
PROMPT = "full body, waving, facing front, smiling, plain blue background"


def write_examples(folder: Path) -> Mapping[str, dict[str, Any]]:
    """Write the files, and say what each tab's example is.

    Args:
        folder: Where they go; made if it is missing.

    Returns:
        Tab to values by the names of its inputs; system to values in which its example differs from its tab's.
    """
    standing = Scene.from_seeds(HERO, 0, view="front", pose="standing", shot="full body", background="plain")
    waving = Scene.from_seeds(OTHER, 1, view="front", pose="waving", shot="full body", background="plain")
    close = Scene.from_seeds(HERO, 2, view="front", pose="standing", shot="portrait", background="plain")
    made = {name: folder / f"{name}.png" for name in (
        "hero", "skeleton", "person", "repainted", "densepose", "garment", "portrait", "head", "hair", "clothes",
        "clothed", "pose",
    )}  # fmt: skip
    pictures = {
        "hero": render(standing, SIDE), "skeleton": skeleton(waving, SIDE), "person": render(waving, SIDE),
        "repainted": _paint(agnostic_mask(waving, SIDE)), "densepose": dense_picture(dense_map(waving, SIDE)),
        "garment": flat_lay(Character.from_seed(HERO), SIDE), "portrait": render(close, SIDE),
        "hair": _paint(part_mask(segmentation(close, SIDE), "face", "nose", "mouth", "right eye", "left eye")),
        "head": render(close, SIDE), "clothes": render(standing, SIDE),
        "clothed": _paint(part_mask(segmentation(standing, SIDE), "upper garment")),
        "pose": dense_picture(dense_map(standing, SIDE)),
    }  # fmt: skip
    for name, pixels in pictures.items():
        write_image(Image.fromarray(pixels), made[name])
    moves = dance(OTHER, 4, num_frames=8, fps=8)
    films = {
        name: str(write_film(map(Image.fromarray, drawn), folder / f"{name}.mp4", Fraction(8)))
        for name, drawn in {
            "skeletons": (skeleton(scene, SIDE) for scene in moves.scenes),
            "dense": (dense_picture(dense_map(scene, SIDE)) for scene in moves.scenes),
        }.items()
    }
    voice, face = _write_voice(folder / "voice.wav"), _write_face(close, folder / "face.npz")
    tried = {"size": "64x64", "steps": 4}  # soon done by tiny weights
    return {
        "refer": {"reference": _painted(made["hero"]), "prompt": PROMPT, "pose": str(made["skeleton"])},
        "compose": {
            "part_1": _painted(made["head"], [made["hair"]]), "label_1": "face",
            "part_2": _painted(made["clothes"], [made["clothed"]]), "label_2": "upper body clothes",
            "pose": str(made["pose"]), "garment": str(made["garment"]), "prompt": "a person in a meadow", **tried,
        },
        "dress": {
            "person": _painted(made["person"], [made["repainted"]]), "garment": str(made["garment"]),
            "densepose": str(made["densepose"]), "garment_description": "a shirt", **tried,
        },
        "face": {"faces": [str(made["portrait"])], "prompt": "a young person in a meadow", **tried},
        "animate": {"reference": str(made["hero"]), "poses": films["skeletons"], **tried},
        "talk": {"reference": str(made["portrait"]), "sound": str(voice), **tried},
        **dict.fromkeys(("aniportrait", "hallo", "emo"), {"face": str(face)}),
        "magic_animate": {"poses": films["dense"]},
        "animate_anyone.reenact": {"poses_2": films["skeletons"]},
        "turn": {"reference": str(made["portrait"]), "views": 8, **tried},
    }  # fmt: skip


def example_of(examples: Mapping[str, dict[str, Any]], tab: str, model: Model) -> dict[str, Any]:
    """What is filled in for a model: its tab's example and its own; built-in weights have their own size and steps.

    Args:
        examples: As `write_examples` gives them.
        tab: Its tab.
        model: The row.
    """
    if model.kind == "built in":
        return {key: value for key, value in examples[tab].items() if key not in ("size", "steps")}
    return examples[tab] | examples.get(str(model.system), {})


def _painted(background: Path, layers: Sequence[Path] = ()) -> Mapping[str, Any]:
    """A picture and what is painted on it, as the page shows it."""
    return {"background": str(background), "layers": [*map(str, layers)], "composite": str(background)}


def _paint(mask: np.ndarray) -> np.ndarray:
    """Where a picture is painted over, (H, W) bool, as the page paints it: (H, W, 4) uint8."""
    ink = np.array([*ImageColor.getrgb(INK), 255], dtype=np.uint8)
    return mask[..., None] * ink


def _write_voice(path: Path) -> Path:
    """One second of a voice."""
    samples = (speech(HERO, 1.0) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    return path


def _write_face(scene: Scene, path: Path) -> Path:
    """The face track of a drawn portrait: a canonical face, as wide as the drawn one and in its place."""
    mesh = np.tile(APPROXIMATE.places.mean(axis=0), (NUM_LANDMARKS, 1))
    for edge, width, height, low in ((OVAL, 7.0, 9.0, 0.0), (LIPS, 2.5, 1.0, -4.0)):
        around = np.linspace(0, 2 * np.pi, len(edge), endpoint=False)
        mesh[list(edge)] = np.stack([width * np.sin(around), height * np.cos(around) + low, 0 * around], axis=1)
    mesh[APPROXIMATE.landmarks] = APPROXIMATE.places
    left, top, right, bottom = np.array(face_box(scene, SIDE)) * SIDE
    middle = np.array([(left + right) / 2, (top + bottom) / 2, 0])
    points = mesh * (1, -1, -1) * (right - left) / FACE_WIDTH + middle
    vertices, matrix = metric_face(points, (SIDE, SIDE), APPROXIMATE)
    track = FaceTrack(vertices=vertices[None], matrices=matrix[None], width=SIDE, height=SIDE)
    np.savez(path, **track.document())  # pyright: ignore[reportArgumentType]
    return path
