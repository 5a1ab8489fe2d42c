"""A folder in which the documentation's commands are typed: what `refnet demo` leaves, and tiny files in the place of
published ones, made for the commands that name them."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from films import write_interpolator
from house.source import ROOT
from referencenet.checkpoints.audio2lmk import AUDIO2LMK
from referencenet.media.films import Film, write_film
from referencenet.methods.registry import named, names_of
from referencenet.methods.systems import pipelines
from referencenet.methods.tiny import tiny_pipeline as fresh_pipeline
from referencenet.methods.tiny import tiny_speech_model, tiny_talking_face
from referencenet.paperdoll.examples import SQUARE, write_examples
from referencenet.paperdoll.layouts import write_dataset
from referencenet.preprocess.face_geometry import pose_matrices
from referencenet.training.recipes.index import configuration, recipe_of
from referencenet.training.run import Order, train
from released import write_released
from talking import face_points
from tiny import tiny, tiny_pipeline

DEFAULTS = {"animate": "animate_anyone", "talk": "aniportrait", "tryon": "idm_vton", "face": "flashface",
            "compose": "parts2whole", "turn": "diffportrait3d"}  # fmt: skip
ALWAYS_WHOLE = {"flashface", "emo", "hallo", "aniportrait"}
"""Systems whose tiny files stand in as a converted folder also where the page gives released ones with --base: no tiny
release of them can be made, or a part beside it has one size only."""


def lay_out(folder: Path) -> Path:
    """What every page may name: the files of the demonstration, models for `generate`, and what a user brings along."""
    write_examples(folder)
    tiny("sd").pipe.save_pretrained(folder / "my-model")
    shutil.copytree(folder / "my-model", folder / "stable-diffusion-v1-5" / "stable-diffusion-v1-5")
    tiny("controlnet").pipe.controlnet.save_pretrained(folder / "my-net")
    shutil.copy(folder / "voice.wav", folder / "song.wav")
    for name in ("cameras", "renderings"):
        write_film(list(Film(folder / "dance.mp4"))[:2], folder / name)
    landmarks = face_points(SQUARE) / SQUARE
    for name, frames in (("photo-landmarks", 1), ("landmarks", 8)):
        np.savez(folder / f"{name}.npz", landmarks=np.stack([landmarks] * frames), rate=12)
    for name, frames in (("portrait", 1), ("driver", 8)):
        write_track(folder / f"{name}.npz", frames)
    shutil.copy(folder / "portrait.png", folder / "photo.png")
    np.save(folder / "portrait.npy", np.ones(512, dtype=np.float32))
    np.save(folder / "pose_temp.npy", np.zeros((8, 6), dtype=np.float32))
    write_interpolator(folder / "film_net_fp16.pt")
    write_segmenter(folder / "segformer_b2_clothes")
    (folder / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder


def write_track(path: Path, frames: int) -> None:
    """A face track whose mesh, 30 before the camera, is seen where `face_points` has it."""
    focal = 1 / np.tan(np.radians(31.5))
    flat = (face_points(2)[:, :2] - 1) * 30 / focal
    vertices = np.concatenate([flat * (1, -1), np.zeros((468, 1))], axis=1)
    matrices = pose_matrices(np.array([[0, i, 0, 0, 0, -30.0] for i in range(frames)]))
    np.savez(path, vertices=np.stack([vertices] * frames), matrices=matrices, width=SQUARE, height=SQUARE, rate=12)


def write_segmenter(folder: Path) -> None:
    """A tiny SegFormer that takes everything for a shoe."""
    names = ["Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Left-shoe",
             "Right-shoe", "Face"]  # fmt: skip
    config = SegformerConfig(
        num_encoder_blocks=1, depths=[1], sr_ratios=[1], hidden_sizes=[4], patch_sizes=[7], strides=[4],
        num_attention_heads=[1], decoder_hidden_size=4, id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )  # fmt: skip
    model = SegformerForSemanticSegmentation(config)
    with torch.no_grad():
        model.decode_head.classifier.weight.zero_()
        model.decode_head.classifier.bias.copy_(torch.tensor([float(name == "Left-shoe") for name in names]))
    model.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def bring(folder: Path, words: list[str]) -> list[str]:
    """Make the weights that a command names, and give the command as it is typed then.

    Released files of tiny networks lie in --checkpoint, with the rest in --base; where the page gives no --base, what
    `refnet convert` makes of them.
    """
    given = dict(zip(words, [*words[1:], ""], strict=True))
    task = words[0]
    if task == "export":
        make_run(folder / words[1])
    if task == "train":
        return make_start(folder, words, given)
    if "--checkpoint" not in given or task not in DEFAULTS:
        return words
    method = named(given.get("--method", DEFAULTS[task]), names_of(task)) or ""
    kind: Any = pipelines(task)[method]
    checkpoint, base = folder / given["--checkpoint"], given.get("--base")
    if checkpoint.exists():
        if task == "talk" and base is None:
            write_hearing(folder, checkpoint, tiny_pipeline(kind))
        return words if base is None or method not in ALWAYS_WHOLE else without(words, "--base")
    pipe = tiny_pipeline(kind)
    if base is not None and method not in ALWAYS_WHOLE:
        write_released(pipe, kind.published, checkpoint)
        (folder / base).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(checkpoint / "base", folder / base, dirs_exist_ok=True)
        return words
    pipe.save_pretrained(checkpoint)
    if task == "talk":
        write_hearing(folder, checkpoint, pipe)
    return without(words, "--base")


def write_hearing(folder: Path, checkpoint: Path, pipe: Any) -> None:
    """What `talk` hears by: the speech model of clips, or AniPortrait's networks."""
    if hasattr(pipe, "audio_projection"):
        for place in (folder / "wav2vec2-base-960h", checkpoint / "wav2vec" / "wav2vec2-base-960h"):
            tiny_speech_model(pipe).save_pretrained(place)
        return
    face = tiny_talking_face()
    for name in AUDIO2LMK.components:
        torch.save(getattr(face, name).state_dict(), checkpoint / f"{name}.pt")


def make_start(folder: Path, words: list[str], given: dict[str, str]) -> list[str]:
    """What a training begins with: a pipeline of tiny networks for released files, a folder for the data, a file."""
    start, data = given.get("--from", "tiny"), folder / given.get("--data", "data")
    if start != "tiny" and not (folder / start).exists():
        fresh_pipeline(recipe_of(words[1]).pipeline).save_pretrained(folder / start)  # weight norm cannot be copied
    data.mkdir(parents=True, exist_ok=True)
    if words[2].endswith(".toml"):
        shutil.copy(configuration(words[1], "paperdoll"), folder / words[2])
    return without(words, "--base")


def make_run(folder: Path) -> None:
    """A run of one step, where no earlier command has left one: try-on, or a film for what is called so."""
    if folder.exists():
        return
    films = folder.name in ("ubc", "dances")
    data = write_dataset(folder.with_name(f"{folder.name}-data"), 3, "ubc" if films else "viton-hd", 64, 3)
    system = {"system": "animate_anyone", "stage": "image"} if films else {"system": "idm_vton"}
    changes = ("steps=1", "batch=1", "validate_every=0", "optimizer.muon=[]", "data.workers=0")
    train(Order(config="paperdoll", start="tiny", quiet=True, data=data, out=folder, changes=changes, **system))


def without(words: list[str], option: str) -> list[str]:
    """A command without an option and its value."""
    if option not in words:
        return words
    place = words.index(option)
    return words[:place] + words[place + 2 :]


def commands_of(block: str) -> list[list[str]]:
    """The words of every `refnet` command of a console block, lines joined that a backslash breaks."""
    lines = [line.removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("refnet ")]
