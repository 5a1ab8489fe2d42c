"""Makers of files that several tables of cases begin with."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from films import picture, poses, write_released
from referencenet.media.films import write_film
from referencenet.methods.animate_anyone import PUBLISHED
from referencenet.methods.tiny import tiny_pipeline
from referencenet.paperdoll.voice import speech
from referencenet.preprocess.face_geometry import pose_matrices
from sounds import write_sound

Make = Callable[[Path], Any]

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3438375973\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Sign in to go on</body></html>\n"


@functools.cache
def folder_of(name: str) -> Path:
    """A folder that is made once for all cases, by one of `ONCE`."""
    made = Path(tempfile.mkdtemp(prefix="hostile-"))
    ONCE[name](made)
    return made


def _released(folder: Path) -> None:
    write_released(tiny_pipeline("animate_anyone"), PUBLISHED, folder / "released")


def _converted(folder: Path) -> None:
    tiny_pipeline("animate_anyone").save_pretrained(folder / "converted")


def _hero(folder: Path) -> None:
    picture(0).save(folder / "hero.png")


def _poses(folder: Path) -> None:
    write_film(poses(3), folder / "poses", 12)


def _said(folder: Path) -> None:
    write_sound(folder / "said.wav", speech(0, 0.3, 44100), 44100)
    np.savez(folder / "face.npz", **track(1))


ONCE: dict[str, Make] = {
    "released": _released,
    "converted": _converted,
    "hero": _hero,
    "poses": _poses,
    "said": _said,
}


def track(num_frames: int, **changes: Any) -> dict[str, Any]:
    """The fields of a face track."""
    vertices = np.random.default_rng(0).normal(size=(num_frames, 468, 3)) * 4
    turns = np.array([5.0, 0, 0, 0, 0, -30]) + np.arange(num_frames)[:, None] * [0, 3, 0, 0, 0, 0]
    known = {"vertices": vertices, "matrices": pose_matrices(turns), "width": 512, "height": 512, "rate": 30}
    return known | changes


def once(name: str) -> Make:
    """Copy what `ONCE` makes into the case's folder."""
    return lambda folder: shutil.copytree(folder_of(name), folder, dirs_exist_ok=True)


def bytes_at(name: str, content: bytes | str) -> Make:
    """Write a file."""

    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def json_at(name: str, document: Any) -> Make:
    """Write a document, NaN and infinities as Python writes them."""
    return bytes_at(name, json.dumps(document))


def with_holes(name: str, start: bytes, size: int) -> Make:
    """A file that begins so, claims many bytes of the disk and holds none of them."""

    def make(folder: Path) -> None:
        (folder / name).write_bytes(start)
        os.truncate(folder / name, size)

    return make


def array_at(name: str, array: Any, **options: Any) -> Make:
    """Write an array as .npy."""
    return lambda folder: np.save(folder / name, array, **options)


def arrays_at(name: str, **arrays: Any) -> Make:
    """Write arrays as .npz."""
    return lambda folder: np.savez(folder / name, **arrays)


def tensors_at(name: str, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Make:
    """Write tensors as safetensors."""
    return bytes_at(name, save(tensors, metadata))


def saved_at(name: str, value: Any, **options: Any) -> Make:
    """Write what torch pickles."""
    return lambda folder: torch.save(value, folder / name, **options)


def cut(name: str, share: float = 0.5) -> Make:
    """Keep the first part of a file."""
    return lambda folder: os.truncate(folder / name, int((folder / name).stat().st_size * share))


def removed(name: str) -> Make:
    """Take a file away."""
    return lambda folder: (folder / name).unlink()


def pipe_at(name: str) -> Make:
    """A named pipe, into which nobody writes."""
    return lambda folder: os.mkfifo(folder / name)


def npy_header(shape: tuple[int, ...], descr: str = "<f8", order: bool = False) -> bytes:
    """The beginning of an .npy file that claims so much."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": order, "shape": shape})
    return file.getvalue()


def zipped(name: str, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Make:
    """An archive."""

    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w", method) as archive:
            for member, content in members.items():
                archive.writestr(member, content)

    return make


def zip_of_zeros(name: str, members: dict[str, tuple[bytes, int]]) -> Make:
    """An archive whose members begin so and go on with so many bytes of zeros, packed to a thousandth."""

    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for member, (start, count) in members.items():
                with archive.open(member, "w", force_zip64=True) as file:
                    file.write(start)
                    for _ in range(count >> 20):
                        file.write(bytes(2**20))

    return make


def link_in_tar(name: str, target: str) -> Make:
    """An archive that holds a link to a place outside of it."""

    def make(folder: Path) -> None:
        with tarfile.open(folder / name, "w") as archive:
            for member in ("storages", "tensors", "pickle"):
                link = tarfile.TarInfo(member)
                link.type, link.linkname = tarfile.SYMTYPE, target
                archive.addfile(link)

    return make
