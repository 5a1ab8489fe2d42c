"""Weight files that are not what they claim, through `refnet convert` and a command that reads them."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from hostile.case import Table
from hostile.made import (
    LFS,
    PAGE,
    Make,
    bytes_at,
    cut,
    json_at,
    link_in_tar,
    once,
    pipe_at,
    removed,
    saved_at,
    with_holes,
)

TABLE = Table("weights")
GUIDER, UNET, REFERENCE, MOTION = (
    f"released/{name}.pth" for name in ("pose_guider", "denoising_unet", "reference_unet", "motion_module")
)
VAE = "released/sd-vae-ft-mse"
CLIP = "released/image_encoder"
CONVERT = ("convert", "animate_anyone", "released", "--base", "released/base", "--out", "out")


def refused(name: str, says: str, *damage: Make, **rest: Any) -> None:
    """Add a folder of released files that is damaged."""
    TABLE.add(name, once("released"), *damage, says=says, **({"typed": CONVERT} | rest))


def state(name: str, change: Callable[[dict[str, Any]], Any], **options: Any) -> Make:
    """Change a pickled state dict: in place, or to what is returned."""

    def make(folder: Path) -> None:
        found = torch.load(folder / name, weights_only=True)
        torch.save(change(found) or found, folder / name, **options)

    return make


def part(name: str, change: Callable[[dict[str, Any]], Any]) -> Make:
    """Change the safetensors of a part."""

    def make(folder: Path) -> None:
        path = next((folder / name).glob("*.safetensors"))
        found = load_file(path)
        change(found)
        save_file(found, path, {"format": "pt"})

    return make


def config(name: str, **changes: Any) -> Make:
    """Change what a configuration says."""

    def make(folder: Path) -> None:
        path = folder / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return make


def first(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any]], None]:
    """Change the first tensor of floating-point numbers that has two axes or more."""

    def apply(found: dict[str, Any]) -> None:
        key = next(key for key, value in found.items() if value.is_floating_point() and value.ndim > 1)
        found[key] = change(found[key])

    return apply


def one(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Put a value into a tensor."""

    def apply(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return apply


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file with such a header."""
    return struct.pack("<Q", len(header)) + header + data


def entry(dtype: str, shape: list[int], end: int) -> bytes:
    """A safetensors header of one tensor."""
    return json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()


def repacked(name: str, method: int) -> Make:
    """The same archive, its members packed."""

    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / name) as archive:
            held = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(folder / name, "w", method) as archive:
            for member, content in held.items():
                archive.writestr(member, content)

    return make


def swollen(folder: Path) -> None:
    """A pickled state whose one storage is gigabytes of packed zeros."""
    path = folder / GUIDER
    torch.save({"conv_in.weight": torch.zeros(2)}, path)
    with zipfile.ZipFile(path) as archive:
        held = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member, content in held.items():
            with archive.open(member, "w", force_zip64=True) as file:
                for block in [bytes(2**24)] * 192 if member.endswith("/data/0") else [content]:
                    file.write(block)


def knotted(found: dict[str, Any]) -> dict[str, Any]:
    """Dictionaries in dictionaries: forty, of which each holds the next one twice."""
    nested: dict[str, Any] = {"weight": next(iter(found.values()))}
    for _ in range(40):
        nested = {"a": nested, "b": nested}
    return nested


def circle(found: dict[str, Any]) -> dict[str, Any]:
    """A dictionary that holds itself."""
    found["layers"] = found
    return found


class Code:
    """Pickles as a call."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("this-ran"),)


# --- files that are something else ------------------------------------------------------------------------------------

refused("a Git LFS pointer", r"pose_guider\.pth is a Git LFS pointer.*git lfs pull", bytes_at(GUIDER, LFS))
refused("a web page", r"pose_guider\.pth is a web page.*download", bytes_at(GUIDER, PAGE))
refused("a web page behind blank lines", r"pose_guider\.pth is a web page", bytes_at(GUIDER, b"\n \n" + PAGE))
refused(
    "an error as JSON",
    r"pose_guider\.pth is JSON, perhaps the error of a failed download",
    bytes_at(GUIDER, '{"error": "Repository not found"}'),
)
refused(
    "prose",
    r"pose_guider\.pth is not a weight file: it begins with b'Dear cus'",
    bytes_at(GUIDER, "Dear customer,\nyour files are gone.\n"),
)
refused("nothing in the file", r"pose_guider\.pth is empty", bytes_at(GUIDER, b""))
refused("one byte", r"pose_guider\.pth cannot be read as weights", bytes_at(GUIDER, b"\x80"))
refused("zeros", r"pose_guider\.pth is not a weight file", bytes_at(GUIDER, bytes(4096)))
refused("zeros of a terabyte", r"pose_guider\.pth is not a weight file", with_holes(GUIDER, b"", 2**40))
refused("a picture", r"pose_guider\.pth is not a weight file", bytes_at(GUIDER, b"\x89PNG\r\n\x1a\n" + bytes(64)))
refused("GGUF", r"pose_guider\.pth is a GGUF file", bytes_at(GUIDER, b"GGUF\x03\0\0\0" + bytes(64)))
refused("a folder in its place", r"pose_guider\.pth", removed(GUIDER), lambda f: (f / GUIDER).mkdir())
refused("a named pipe", r"needs pose_guider\.pth, not found", removed(GUIDER), pipe_at(GUIDER))
refused(
    "a link to nowhere",
    r"needs pose_guider\.pth, not found",
    removed(GUIDER),
    lambda f: (f / GUIDER).symlink_to("gone.pth"),
)
refused(
    "a link to itself",
    r"needs pose_guider\.pth, not found",
    removed(GUIDER),
    lambda f: (f / GUIDER).symlink_to("pose_guider.pth"),
)
refused("an archive of links", r"pose_guider\.pth.*(tar|archive)", link_in_tar(GUIDER, "/etc/passwd"))
refused(
    "a zip of something else",
    r"pose_guider\.pth is not a weight file",
    lambda f: zipfile.ZipFile(f / GUIDER, "w").writestr("letter.txt", "Dear customer"),
)

# --- cut short, and headers that lie ----------------------------------------------------------------------------------

refused("half a file", r"pose_guider\.pth.*cut short.*download it again", cut(GUIDER))
refused("all but the last bytes", r"pose_guider\.pth.*cut short", cut(GUIDER, 0.999))
refused(
    "half a safetensors file",
    r"pose_guider\.pth is not a complete safetensors file",
    lambda f: save_file(torch.load(f / GUIDER), f / GUIDER),
    cut(GUIDER),
)
refused(
    "a header longer than the file",
    r"pose_guider\.pth is not a complete safetensors file",
    bytes_at(GUIDER, struct.pack("<Q", 2**40) + b"{}"),
)
refused(
    "a tensor beyond the file",
    r"pose_guider\.pth is not a complete safetensors file",
    bytes_at(GUIDER, safetensors(entry("F32", [2**20, 2**20], 2**42))),
)
refused(
    "a header of another kind",
    r"pose_guider\.pth is not a complete safetensors file",
    bytes_at(GUIDER, safetensors(b'{"w": [1, 2, 3]}')),
)
refused(
    "a header nested without end",
    r"pose_guider\.pth is not a complete safetensors file",
    bytes_at(GUIDER, safetensors(b'{"a":' * 50_000)),
)
refused("no tensor in safetensors", r"pose_guider\.pth.*(no tensor|empty)", bytes_at(GUIDER, safetensors(b"{}")))
refused(
    "float8", r"pose_guider\.pth.*float8.*convert", bytes_at(GUIDER, safetensors(entry("F8_E4M3", [2], 2), b"\0\0"))
)
refused("whole numbers", r"pose_guider\.pth.*int64", state(GUIDER, first(lambda t: t.long())))
refused("complex numbers", r"pose_guider\.pth.*complex64", state(GUIDER, first(lambda t: t.to(torch.complex64))))
refused("a sparse tensor", r"pose_guider\.pth.*sparse", state(GUIDER, first(lambda t: t.flatten(1).to_sparse())))
refused(
    "a tensor without numbers",
    r"pose_guider\.pth.*without numbers|pose_guider\.pth.*meta",
    state(GUIDER, first(lambda t: t.to("meta"))),
)
refused(
    "an expanded tensor",
    r"pose_guider\.pth holds .* as an expanded tensor",
    state(GUIDER, first(lambda t: t.view(-1)[:1].expand(60_000, 50_000))),
)
refused(
    "overlapping windows of one tensor",
    r"pose_guider\.pth holds .* as an expanded tensor",
    saved_at(GUIDER, {f"k{i}": v.as_strided((300, 300), (1, 1)) for i, v in enumerate([torch.zeros(600)] * 300)}),
)
refused("packed members", r"pose_guider\.pth.*is packed", repacked(GUIDER, zipfile.ZIP_DEFLATED))
refused("gigabytes of packed zeros", r"pose_guider\.pth.*is packed", swollen, slow=True)

# --- pickles ----------------------------------------------------------------------------------------------------------

refused("code", r"pose_guider\.pth holds more than tensors", state(GUIDER, lambda s: s | {"x": Code()}))
refused("a bare pickle of code", r"pose_guider\.pth", lambda f: (f / GUIDER).write_bytes(pickle.dumps(Code())))
refused("a list", r"pose_guider\.pth holds a list, expected a dictionary of tensors", saved_at(GUIDER, [1]))
refused("no key", r"pose_guider\.pth.*expected a dictionary of tensors", saved_at(GUIDER, {}))
refused("words among the tensors", r"values that are not tensors \(note\)", state(GUIDER, lambda s: s | {"note": "hi"}))
refused("keys that are no words", r"pose_guider\.pth.*key", state(GUIDER, lambda s: s | {7: torch.zeros(1)}))
refused("dictionaries by the billion", r"pose_guider\.pth nests dictionaries deeper", state(GUIDER, knotted))
refused("a dictionary in itself", r"pose_guider\.pth nests dictionaries deeper", state(GUIDER, circle))
refused("a NumPy array", r"pose_guider\.pth", state(GUIDER, lambda s: s | {"x": np.zeros(3)}))
refused(
    "the former format, cut short",
    r"pose_guider\.pth.*cut short",
    state(GUIDER, lambda s: s, _use_new_zipfile_serialization=False),
    cut(GUIDER),
)

# --- tensors that do not fit ------------------------------------------------------------------------------------------

refused("NaN", r"pose_guider\.pth holds NaN or infinite weights in", state(GUIDER, first(one(float("nan")))))
refused("infinity", r"motion_module\.pth holds NaN or infinite", state(MOTION, first(one(float("inf")))))
refused("another shape", r"pose_guider\.pth does not fit.*expected", state(GUIDER, first(lambda t: t[:1])))
refused(
    "a key too few", r"pose_guider\.pth lacks 1 of its keys", state(GUIDER, lambda s: {k: s[k] for k in list(s)[1:]})
)
refused(
    "a key too many",
    r"keys that PoseGuider does not have: surprise",
    state(GUIDER, lambda s: s | {"surprise": torch.zeros(1)}),
)
refused("a key without a name", r"pose_guider\.pth", state(GUIDER, lambda s: s | {"": torch.zeros(1)}))
refused(
    "another file of the same folder",
    r"pose_guider\.pth does not fit.*By its keys it is",
    lambda f: shutil.copy(f / REFERENCE, f / GUIDER),
)
refused("a LoRA", r"By its keys it is a LoRA", saved_at(GUIDER, {"unet.down.lora_A.weight": torch.zeros(2, 2)}))
refused(
    "two files that could be meant",
    r"pose_guider\.pth could be",
    lambda f: (f / GUIDER).rename(f / "released/pose_guider-1000.pth"),
    lambda f: shutil.copy(f / "released/pose_guider-1000.pth", f / "released/pose_guider-2000.pth"),
)
refused(
    "a shard without the others",
    r"there is no weight file .*00002-of-00002",
    lambda f: (f / GUIDER).rename(f / "released/pose_guider-00001-of-00002.pth"),
)
refused(
    "a shard of ninety thousand",
    r"there is no weight file .*00002-of-90000",
    lambda f: (f / GUIDER).rename(f / "released/pose_guider-00001-of-90000.pth"),
)
refused(
    "the first shard of none",
    r"pose_guider-00001-of-00000\.pth",
    lambda f: (f / GUIDER).rename(f / "released/pose_guider-00001-of-00000.pth"),
)

# --- parts in their libraries' own layout -----------------------------------------------------------------------------

refused("NaN in the autoencoder", r"sd-vae-ft-mse holds NaN or infinite", part(VAE, first(one(float("nan")))))
refused(
    "an autoencoder without its weights", r"sd-vae-ft-mse", lambda f: next((f / VAE).glob("*.safetensors")).unlink()
)
refused(
    "half an autoencoder's file",
    r"sd-vae-ft-mse",
    lambda f: cut(str(next((f / VAE).glob("*.safetensors")).relative_to(f)))(f),
)
refused(
    "half of an image encoder's tensors",
    r"image_encoder does not fit.*tensors missing",
    part(CLIP, lambda s: [s.pop(key) for key in sorted(s)[::2]]),
)
refused(
    "an image encoder's pointer",
    r"image_encoder.*LFS pointer",
    lambda f: next((f / CLIP).glob("*.safetensors")).write_bytes(LFS),
)
refused("a configuration that is not JSON", r"image_encoder", bytes_at(f"{CLIP}/config.json", "{"))
refused("a configuration that is a list", r"sd-vae-ft-mse", json_at(f"{VAE}/config.json", [1, 2]))
refused("an empty configuration", r"sd-vae-ft-mse", bytes_at(f"{VAE}/config.json", b""))
refused("a layer as wide as memory", r"sd-vae-ft-mse", config(VAE, block_out_channels=[2**30, 8, 8, 8]))
refused("layers without end", r"image_encoder", config(CLIP, num_hidden_layers=2**31))
refused("a word for a width", r"image_encoder", config(CLIP, hidden_size="wide"))
refused(
    "an index that leads outside",
    r"sd-vae-ft-mse.*outside|sd-vae-ft-mse.*\.\./",
    json_at(
        f"{VAE}/diffusion_pytorch_model.safetensors.index.json",
        {"metadata": {}, "weight_map": {"encoder.conv_in.weight": "../pose_guider.pth"}},
    ),
    lambda f: (f / VAE / "diffusion_pytorch_model.safetensors").unlink(),
)
