"""References that an autoencoder has encoded already, kept between calls.

What is kept is the posterior, not a sample of it: every call draws its own, so results are the same to the bit. An
encoding is found by the content of the picture and of the autoencoder's weights, so it is never one of other weights,
however they were changed. Replicas and pipelines that share weights, or have equal ones, share encodings.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

MOST_BYTES = 64 * 2**20
"""Of all that is kept: some hundred pictures of 1024 x 1024."""

SWITCHES = ("use_tiling", "use_slicing", "tile_sample_min_size", "tile_latent_min_size", "tile_overlap_factor")
"""Of an autoencoder: what changes its result beside its weights."""


class Encodings:
    """Posteriors by content, the least recently used ones forgotten first. Threads may share it.

    Args:
        most_bytes: Of all posteriors together; 0 keeps nothing.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.hits = self.misses = 0
        self._kept: OrderedDict[bytes, tuple[Any, Tensor]] = OrderedDict()
        self._lock = Lock()

    def of(self, vae: Any, pixels: Tensor) -> DiagonalGaussianDistribution | Tensor:
        """What an autoencoder makes of pictures, now or when it was asked before.

        Args:
            vae: An autoencoder of diffusers.
            pixels: (r, 3, H, W) in [-1, 1], on the device and in the type that it encodes in.

        Returns:
            The posterior; of a tiny autoencoder, which has none, its latents (r, c, h, w).
        """
        is_off = self.most_bytes == 0 or torch.is_grad_enabled() or pixels.is_meta
        key = None if is_off or torch.is_autocast_enabled(pixels.device.type) else _key(vae, pixels)
        if key is None:
            return posterior_of(vae, pixels)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                self.hits += 1
        if kept is None:
            found = posterior_of(vae, pixels)
            kind, tensor = (Tensor, found) if isinstance(found, Tensor) else (type(found), found.parameters)
            if kind not in (Tensor, DiagonalGaussianDistribution):
                return found
            with torch.inference_mode(False):
                kept = kind, tensor.detach().clone()
            self._keep(key, *kept)
        kind, tensor = kept
        return tensor if kind is Tensor else kind(tensor)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()

    def _keep(self, key: bytes, kind: Any, tensor: Tensor) -> None:
        with self._lock:
            self.misses += 1
            self._kept[key] = kind, tensor
            while sum(each.nbytes for _, each in self._kept.values()) > self.most_bytes:
                self._kept.popitem(last=False)


ENCODINGS = Encodings()
"""Of this process."""

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a number to the type that its bits are summed as."""


def weights_sum(network: nn.Module) -> bytes | None:
    """A hash of the sums of the bits of all weights, with names, shapes, types and how often they were written to.

    All sums are fetched at once, so that an accelerator is waited for once.

    Returns:
        None where weights are not to be seen: those that rest elsewhere (offloaded layer by layer) or are quantised.
    """
    names: list[str] = []
    sums: list[Tensor] = []
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        is_plain = type(tensor) in (Tensor, nn.Parameter) and not tensor.is_quantized and not tensor.is_complex()
        if not is_plain or tensor.is_meta or tensor.layout != torch.strided:
            return None
        written = None if tensor.is_inference() else tensor._version  # pyright: ignore[reportPrivateUsage]
        names.append(f"{name} {tensor.dtype} {tuple(tensor.shape)} {written}")
        bits = tensor.detach().contiguous().view(INTEGERS[tensor.dtype.itemsize])
        sums.append(bits.sum(dtype=torch.int64))
    digest = hashlib.blake2b("\n".join(names).encode(), digest_size=16)
    by_device: dict[torch.device, list[Tensor]] = {}
    for each in sums:
        by_device.setdefault(each.device, []).append(each)
    for each in by_device.values():
        digest.update(torch.stack(each).cpu().numpy().tobytes())
    return digest.digest()


def posterior_of(vae: Any, pixels: Tensor) -> Any:
    """The posterior of pictures (r, 3, H, W) in [-1, 1], or a tiny autoencoder's latents (r, c, h, w)."""
    encoded = vae.encode(pixels)
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist


def _key(vae: Any, pixels: Tensor) -> bytes | None:
    """A hash of pictures and of what encodes them; None if that is not to be seen."""
    weights = weights_sum(vae)
    if weights is None:
        return None
    switches = [(name, getattr(vae, name, None)) for name in SWITCHES]
    encode = getattr(vae.encode, "__func__", vae.encode)
    processors = sorted({type(each).__name__ for each in getattr(vae, "attn_processors", {}).values()})
    said = (type(vae).__name__, sorted(map(str, vae.config.items())), switches, processors, id(encode), vae.training)
    digest = hashlib.blake2b(repr((said, pixels.dtype, str(pixels.device), tuple(pixels.shape))).encode())
    digest.update(pixels.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes())
    digest.update(weights)
    return digest.digest()
