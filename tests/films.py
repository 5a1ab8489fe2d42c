"""What film tests share: poses, references and released files of a tiny model."""

from __future__ import annotations

import warnings
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from referencenet.checkpoints.published import PublishedSet
from referencenet.networks.motion import SpatioTemporalUNet

SIZE = (32, 24)  # width, height: latents of 4 x 3


def picture(seed: int) -> Image.Image:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)


def poses(count: int, seed: int = 100) -> list[Image.Image]:
    """Pictures for pose frames."""
    return [picture(seed + i) for i in range(count)]


def generator(seed: int = 1) -> torch.Generator:
    """A generator."""
    return torch.Generator().manual_seed(seed)


def published_motion(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A denoiser's state dict under the released names."""
    released: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        if "motion_modules." not in key:
            released[key] = tensor
            continue
        head, tail = key.split("motion_modules.")
        index, rest = tail.split(".", 1)
        for ours, theirs in (
            ("pos_embed.pe", "attention_blocks.0.pos_encoder.pe"),
            ("attn1.", "attention_blocks.0."),
            ("attn2.", "attention_blocks.1."),
            ("norm1.", "norms.0."),
            ("norm2.", "norms.1."),
            ("norm3.", "ff_norm."),
        ):
            rest = rest.replace(ours, theirs)
        released[f"{head}motion_modules.{index}.temporal_transformer.{rest}"] = tensor
        if rest.endswith("attention_blocks.0.pos_encoder.pe"):
            second = rest.replace("attention_blocks.0", "attention_blocks.1")
            released[f"{head}motion_modules.{index}.temporal_transformer.{second}"] = tensor.clone()
    return released


def write_released(pipe: Any, published: PublishedSet, folder: Path) -> Path:
    """Write a pipeline's weights as the publisher lays them out, with a base folder for the tiny configuration."""
    for file in published.files:
        network = getattr(pipe, file.component)
        state = network.state_dict()
        if isinstance(network, SpatioTemporalUNet):
            state = published_motion(state)
            if len(published.files_of(file.component)) > 1:
                wants_motion = "motion" in file.path
                state = {key: value for key, value in state.items() if ("motion_modules." in key) == wants_motion}
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        write = save_file if file.path.endswith(".safetensors") else torch.save
        write({key: tensor.contiguous() for key, tensor in state.items()}, folder / file.path)
    for name, part in published.further.items():
        if part.default is None:
            getattr(pipe, name).save_pretrained(
                folder / "base" / name if part.in_base else folder / (part.folder or name)
            )
    (folder / "base" / "unet").mkdir(parents=True)
    (folder / "base" / "unet" / "config.json").write_text(
        dumps({"_class_name": "UNet2DConditionModel", **published.tiny_config})
    )
    return folder


class Between(torch.nn.Module):
    """A straight line from a frame to another."""

    def forward(self, a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return a + (b - a) * t


def write_interpolator(path: Path) -> None:
    """Write a network that inserts frames, as FILM is released."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises another format
        torch.jit.save(torch.jit.script(Between()), path)
