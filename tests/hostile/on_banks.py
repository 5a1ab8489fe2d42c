"""Banks, series and encoded references that are not what they claim."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hostile.case import Table
from hostile.made import LFS, PAGE, Make, bytes_at, cut, once, pipe_at, tensors_at, with_holes
from referencenet.links.bank import ReferenceBank
from referencenet.links.series import BankSeries
from referencenet.sampling.references import Reference

TABLE = Table("banks")
FORM = {"format": "referencenet-bank-1"}
SERIES = {"format": "referencenet-series-1"}
REFERENCE = {"format": "referencenet-reference-1"}
SITE = "hidden/mid_block.attentions.0.transformer_blocks.0"


def rows(*shape: int, **options: Any) -> torch.Tensor:
    return torch.zeros(shape, **options)


def refused(
    name: str, says: str, *make: Make, call: Callable[[], Any] = lambda: ReferenceBank.load("b.safetensors")
) -> None:
    """Add a file that is not a bank."""
    TABLE.add(name, *make, call=call, says=says)


def of(says: str, name: str, tensors: dict[str, torch.Tensor], form: dict[str, str] | None = None) -> None:
    """Add a file of other tensors."""
    refused(name, rf"b\.safetensors.*{says}", tensors_at("b.safetensors", tensors, FORM if form is None else form))


def header(entries: dict[str, Any], data: bytes = b"", form: Any = FORM) -> bytes:
    """A safetensors file that says so of itself."""
    text = json.dumps({"__metadata__": form} | entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def lying(name: str, says: str, content: bytes) -> None:
    """Add a file whose header lies."""
    refused(name, rf"b\.safetensors.*{says}", bytes_at("b.safetensors", content))


def entry(shape: list[Any], begin: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


refused("no file", "there is no bank file at b.safetensors")
refused("a folder", "b.safetensors is a folder", lambda f: (f / "b.safetensors").mkdir())
refused("a named pipe", "b.safetensors is a pipe", pipe_at("b.safetensors"))
lying("nothing in the file", "is empty", b"")
lying("a Git LFS pointer", "Git LFS pointer.*git lfs pull", LFS)
lying("a web page", "web page.*download", PAGE)
lying("a header of exabytes", "claim.* a header of", struct.pack("<Q", 2**63) + b"{}")
lying("a header of the bound, in a file without it", "header", struct.pack("<Q", 2**24) + b"{}")
lying("a header that is not JSON", "not a complete safetensors file", struct.pack("<Q", 8) + b"{ not it")
lying("a header nested without end", "not a complete safetensors file", struct.pack("<Q", 400_000) + b'{"a":' * 80_000)
lying("a tensor of terabytes", "not a complete safetensors file", header({SITE: entry([2**20, 2**18, 4], 0, 2**42)}))
lying(
    "a shape whose product overflows",
    "not a complete safetensors file",
    header({SITE: entry([2**32, 2**32, 4], 0, 16)}, bytes(16)),
)
lying("offsets backwards", "not a complete safetensors file", header({SITE: entry([1, 2, 2], 16, 0)}, bytes(16)))
lying(
    "offsets that leave a hole", "not a complete safetensors file", header({SITE: entry([1, 2, 2], 16, 32)}, bytes(32))
)
lying(
    "two tensors on one place",
    "not a complete safetensors file",
    header({SITE: entry([1, 2, 2], 0, 16), SITE + ".1": entry([1, 2, 2], 0, 16)}, bytes(16)),
)
lying("a shape of words", "not a complete safetensors file", header({SITE: entry(["1", 2, 2], 0, 16)}, bytes(16)))
lying("a negative size", "not a complete safetensors file", header({SITE: entry([-1, 2, 2], 0, 16)}, bytes(16)))
lying("metadata that is no text", "not a complete safetensors file", header({}, form={"format": ["bank"]}))
lying(
    "bytes behind the last tensor",
    "not a complete safetensors file",
    header({SITE: entry([1, 2, 2], 0, 16)}, bytes(4096)),
)
refused(
    "a sparse file of a terabyte",
    r"b\.safetensors.*not a complete safetensors file",
    with_holes("b.safetensors", header({SITE: entry([1, 2, 2], 0, 16)}, bytes(16)), 2**40),
)
of("its format is None", "weights of a network", {"conv_in.weight": rows(4, 4, 3, 3)}, {})
of("is not a reference bank: its format is 'pt'", "weights with torch's mark", {"a": rows(1, 2, 2)}, {"format": "pt"})
of(
    "is not a reference bank: its format is 'referencenet-bank-9'",
    "a later form",
    {SITE: rows(1, 2, 2)},
    {"format": "referencenet-bank-9"},
)
of("differ in rows, or there is none", "no entry", {})
of("is unknown", "an entry of another kind", {"gradient/mid": rows(1, 2, 2)})
of("has 2 dimensions instead of 3", "an input of two axes", {SITE: rows(2, 2)})
of("dimensions above 0", "an empty tensor", {SITE: rows(1, 0, 2)})
of("1 to 6 dimensions", "a tensor of nine axes", {SITE: rows(*[1] * 9)})
of("1 to 6 dimensions", "a tensor of none", {"context/x": torch.tensor(1.0)})
of("is I64", "whole numbers", {SITE: rows(1, 2, 2, dtype=torch.int64)})
of("is BOOL", "truth values", {SITE: rows(1, 2, 2, dtype=torch.bool)})
of("is F8_E4M3", "float8", {SITE: rows(1, 2, 2).to(torch.float8_e4m3fn)})
of("is C64", "complex numbers", {SITE: rows(1, 2, 2, dtype=torch.complex64)})
of("not finite in", "NaN", {SITE: rows(1, 2, 2).fill_(float("nan"))})
of("not finite in", "infinity in half precision", {SITE: rows(1, 2, 2).fill_(float("inf")).half()})
of("it has 'key/mid' but not 'value/mid'", "keys without values", {"key/mid": rows(1, 2, 2)})
of(
    "'key/mid' and 'value/mid' differ in shape",
    "keys and values of two shapes",
    {"key/mid": rows(1, 2, 2), "value/mid": rows(1, 3, 2)},
)
of("differ in rows", "sites of two numbers of rows", {SITE: rows(1, 2, 2), "hidden/up": rows(2, 2, 2)})
refused(
    "a hundred thousand entries and one",
    r"b\.safetensors has 100001 entries; a bank has at most 100000",
    bytes_at(
        "b.safetensors",
        header({f"hidden/{i}": entry([1, 1, 1], 4 * i, 4 * i + 4) for i in range(100_001)}, bytes(400_004)),
    ),
)


def _series(folder: Path) -> None:
    """A whole series, to be damaged."""
    made_for = {"scheduler": "DDIM", "digest": "0", "timesteps": [981, 1], "width": 64, "height": 64}
    tensors = {f"{t}/{SITE}": rows(1, 2, 2) for t in (981, 1)}
    tensors_at("b.safetensors", tensors, SERIES | {"made_for": json.dumps(made_for)})(folder)


def series(
    name: str, says: str, made_for: str | dict[str, Any], tensors: dict[str, torch.Tensor] | None = None
) -> None:
    """Add a series that does not say rightly for what it was made."""
    text = (
        made_for
        if isinstance(made_for, str)
        else json.dumps({"scheduler": "DDIM", "digest": "0", "timesteps": [1], "width": 64, "height": 64} | made_for)
    )
    stored = {f"1/{SITE}": rows(1, 2, 2)} if tensors is None else tensors
    refused(
        name,
        rf"b\.safetensors.*{says}",
        tensors_at("b.safetensors", stored, SERIES | {"made_for": text}),
        call=lambda: BankSeries.load("b.safetensors"),
    )


series("a series without a schedule", "does not say for which schedule", "")
series("a series of a nested schedule", "does not say for which schedule", '{"timesteps":' + "[" * 20_000)
series("a series of a million steps", "claims|does not say", {"timesteps": list(range(200_000))})
series("a series of no step", "claims 0 steps", {"timesteps": []})
series("a series of words for steps", "does not say for which schedule", {"timesteps": ["first"]})
series("a series of an infinite step", "does not say for which schedule", '{"timesteps": [Infinity]}')
series("a series of a negative size", "claims 1 steps of -8", {"width": -8})
series("a bank of a step outside of the schedule", "is of no step of its schedule", {}, {f"7/{SITE}": rows(1, 2, 2)})
series("a bank of no step", "is of no step of its schedule", {}, {f"first/{SITE}": rows(1, 2, 2)})
refused(
    "half a series", r"b\.safetensors", _series, cut("b.safetensors"), call=lambda: BankSeries.load("b.safetensors")
)
refused("a series for a bank", "is not a reference bank: its format is 'referencenet-series-1'", _series)


def encoded(name: str, says: str, settings: str | dict[str, Any], **tensors: torch.Tensor) -> None:
    """Add an encoded reference."""
    text = settings if isinstance(settings, str) else json.dumps(settings)
    refused(
        name,
        rf"b\.safetensors.*{says}",
        tensors_at("b.safetensors", {"latents": rows(1, 4, 8, 8)} | tensors, REFERENCE | {"settings": text}),
        call=lambda: Reference.load("b.safetensors"),
    )


encoded("a reference of unknown settings", "is not an encoded reference", {"loudness": 1})
encoded("a reference of words for numbers", "is not an encoded reference", {"strength": "full"})
encoded("a reference beyond its range", "is not an encoded reference", {"strength": 7})
encoded("a reference of NaN", "is not an encoded reference", '{"strength": NaN}')
encoded("a reference of a list", "is not an encoded reference", [1])
encoded("a reference of nested settings", "is not an encoded reference", "[" * 20_000)
encoded("a reference without axes", "is not an encoded reference", {}, latents=rows(4))

TABLE.add(
    "a bank of another system on the command line",
    once("hero"),
    once("poses"),
    tensors_at("b.safetensors", {"hidden/nowhere": rows(1, 2, 2)}, FORM),
    says="no 'image_token' in its context",
    typed=("animate", "-r", "b.safetensors", "-p", "poses", "--random-tiny", "-o", "o.mp4"),
)
TABLE.add(
    "weights for a bank on the command line",
    once("poses"),
    tensors_at("b.safetensors", {"conv_in.weight": rows(2, 2)}),
    says=r"b\.safetensors is not a reference bank: its format is None",
    typed=("animate", "-r", "b.safetensors", "-p", "poses", "--random-tiny", "-o", "o.mp4"),
)
