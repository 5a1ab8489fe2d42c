"""Fingerprints of what decides a film, so that a film that is resumed is proved to be the one that was begun.

Pictures and banks are hashed in full. Of every weight its shape, its type, the sum of all its bits and a sample of its
numbers go into the hash: gigabytes are looked at where they lie, in a fraction of the time that loading took.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from accelerate.utils.modeling import get_state_dict_offloaded_model
from PIL import Image
from torch import Tensor, nn

from referencenet.version import __version__

SAMPLED = 1024  # numbers of a weight
LIBRARIES = ("torch", "diffusers", "transformers")
"""Whose versions may move a film's numbers."""


def fingerprint(value: Any) -> str:
    """A hash of pictures, tensors, banks, and of whatever holds them; of other values, of what they print."""
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(value):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def frame_print(frame: Image.Image) -> bytes:
    """Eight bytes that tell a frame from others."""
    digest = hashlib.blake2b(f"{frame.mode} {frame.size}".encode(), digest_size=8)
    digest.update(frame.tobytes())
    return digest.digest()


def fingerprints_of(pipe: Any, reference: Any, interpolator: Any = None) -> dict[str, str]:
    """What a film is made of beside its settings and poses, by name.

    Args:
        pipe: Draws it.
        reference: A picture or a bank.
        interpolator: Inserts frames; None: nothing does.
    """
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    schedule = {name: value for name, value in pipe.scheduler.config.items() if not name.startswith("_")}
    found = {
        "reference": fingerprint(reference),
        "weights": fingerprint({name: weights_print(network) for name, network in networks.items()}),
        "dtype": ", ".join(sorted({str(network.dtype) for network in networks.values() if hasattr(network, "dtype")})),
        "scheduler": fingerprint([type(pipe.scheduler).__name__, schedule]),
        "versions": ", ".join([f"referencenet {__version__}", *(f"{name} {version(name)}" for name in LIBRARIES)]),
    }
    inserting = getattr(interpolator, "network", interpolator)
    if isinstance(inserting, nn.Module):
        found["interpolator"] = weights_print(inserting)
    return found


@torch.no_grad()
def weights_print(network: nn.Module) -> str:
    """A hash of a network's weights, wherever they rest."""
    state = network.state_dict()
    if any(isinstance(tensor, Tensor) and tensor.is_meta for tensor in state.values()):  # accelerate keeps them
        state = get_state_dict_offloaded_model(network)
    scales = {name: dict(module.scaling) for name, module in network.named_modules()
              if isinstance(getattr(module, "scaling", None), dict)}  # fmt: skip  # of LoRA layers
    return fingerprint({"weights": {name: _summed(weight) for name, weight in sorted(state.items())}, "scales": scales})


def _summed(weight: Any) -> str:
    """A weight's shape, type, the sum of its bits and a sample of them."""
    if not isinstance(weight, Tensor):
        return fingerprint(weight)
    kept = weight.detach().contiguous()
    is_plain = type(weight) in (Tensor, nn.Parameter) and not kept.is_complex() and not kept.is_quantized
    if not is_plain or kept.layout != torch.strided or not kept.numel():
        return repr((str(kept.dtype), tuple(kept.shape)))
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = kept.view(kinds[kept.dtype.itemsize]).flatten()
    sample = bits[:: max(1, len(bits) // SAMPLED)].cpu().numpy().tobytes()
    total = int(bits.sum(dtype=torch.int64))
    return f"{kept.dtype} {tuple(kept.shape)} {total} {hashlib.blake2b(sample, digest_size=8).hexdigest()}"


def _parts(value: Any) -> Iterator[bytes]:
    """Bytes that a value consists of; each kind begins with its name."""
    if isinstance(value, Tensor):
        kept = value.detach().cpu().contiguous()
        yield f"tensor {kept.dtype} {tuple(kept.shape)}".encode()
        yield kept.flatten().view(torch.uint8).numpy().tobytes() if kept.numel() else b""
    elif isinstance(value, np.ndarray):
        yield f"array {value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Image.Image):
        yield f"picture {value.mode} {value.size}".encode()
        yield value.tobytes()
    elif isinstance(value, Mapping):
        yield b"mapping"
        for key in sorted(value, key=str):
            yield str(key).encode()
            yield from _parts(value[key])
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        for field in fields(value):
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield f"sequence {len(value)}".encode()
        for part in value:
            yield from _parts(part)
    else:
        yield f"{type(value).__name__} {value}".encode()
