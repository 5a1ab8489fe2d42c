"""What frozen encoders make of pictures and words, kept by content: the same picture is encoded once in a run.

Of autoencoders the posterior is kept, so that drawing from it stays random. What is missing is encoded one by one:
results do not depend on what else was in a batch, so a run that goes on with an empty cache computes the same bits. A
changed picture, as by augmentation, is another picture. When the limit is reached, nothing more is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from referencenet.media.files import written_whole
from referencenet.pipelines.fingerprints import weights_print

Row = tuple[Tensor, ...]
Encode = Callable[[Any], Row]
"""From contents, a list of texts or a tensor of pictures, to tensors with a row for each."""


class EncodedCache:
    """Rows by content.

    Args:
        place: `memory`, or a folder, which other runs may share.
        limit: Bytes that are kept at most.
    """

    def __init__(self, place: str, limit: int) -> None:
        self.folder = None if place == "memory" else Path(place)
        self.limit, self.size = limit, 0
        if self.folder is not None:
            self.size = sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))
        self.kept: dict[str, Row] = {}
        self.num_encoded = 0
        self._prints: dict[tuple[nn.Module, ...], str] = {}

    @torch.no_grad()
    def rows(self, kind: str, networks: tuple[nn.Module, ...], contents: Sequence[str] | Tensor, encode: Encode) -> Row:
        """What encoders make of contents, as `encode` gives it for all of them.

        Args:
            kind: What is encoded how: the same network may be asked for several things.
            networks: The encoders, frozen.
            contents: Texts, or pictures (r, 3, H, W).
            encode: Does it.
        """
        found: list[Row] = []
        for i, content in enumerate(contents):
            key = self._key(kind, networks, content)
            row = self._get(key)
            if row is None:
                row = tuple(part.detach().clone() for part in encode(contents[i : i + 1]))
                self.num_encoded += 1
                self._put(key, row)
            found.append(row)
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def _key(self, kind: str, networks: tuple[nn.Module, ...], content: str | Tensor) -> str:
        """Of a content, the weights that encode it, and the precision that they do it in."""
        if networks not in self._prints:
            self._prints[networks] = " ".join(map(weights_print, networks))
        device = next(networks[0].parameters()).device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        if isinstance(content, str):
            told, data = "text", content.encode()
        else:
            array = content.detach().float().contiguous().cpu()
            told, data = f"{tuple(array.shape)}", array.numpy().tobytes()
        digest = hashlib.blake2b(f"{kind} {self._prints[networks]} {half} {told} ".encode(), digest_size=16)
        digest.update(data)
        return digest.hexdigest()

    def _get(self, key: str) -> Row | None:
        if self.folder is None:
            return self.kept.get(key)
        path = self.folder / f"{key}.safetensors"
        if not path.is_file():
            return None
        saved = load_file(path)
        return tuple(saved[str(i)] for i in range(len(saved)))

    def _put(self, key: str, row: Row) -> None:
        size = sum(part.numel() * part.element_size() for part in row)
        if self.size + size > self.limit:
            return
        self.size += size
        if self.folder is None:
            self.kept[key] = row
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self.folder / f"{key}.safetensors") as temporary:
            save_file({str(i): part.contiguous().cpu() for i, part in enumerate(row)}, temporary)
