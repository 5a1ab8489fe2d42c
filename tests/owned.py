"""Tiny models as the pages call those that their readers own: folders, single files, a ControlNet, LoRAs, pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from single_files import write_single
from tiny import half_mask, picture, tiny


def write_owned(folder: Path) -> None:
    """Write the models (`my-model`, `model.safetensors`, `my-sdxl`, `sdxl.safetensors`), parts, LoRAs and pictures."""
    for kind, name, file in (("sd", "my-model", "model"), ("sdxl", "my-sdxl", "sdxl")):
        single, config, pipe = write_single(kind, folder)
        single.rename(folder / f"{file}.safetensors")
        config.rename(folder / name)
        if kind == "sd":
            for number, lora in enumerate(("style", "detail")):
                _write_lora(folder / f"{lora}.safetensors", pipe.unet, number)
    tiny("controlnet").pipe.controlnet.save_pretrained(folder / "my-net")
    tiny("animatediff").pipe.motion_adapter.save_pretrained(folder / "my-motion")
    for number, name in enumerate(("sketch", "scene")):
        picture(20 + number).save(folder / f"{name}.png")
    half_mask().save(folder / "face.png")


def _write_lora(path: Path, unet: torch.nn.Module, seed: int) -> None:
    """A LoRA of rank 2 on the values of self-attentions."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith("attn1.to_v"):
            state[f"unet.{name}.lora_A.weight"] = torch.randn(2, module.in_features, generator=generator)
            state[f"unet.{name}.lora_B.weight"] = torch.randn(module.out_features, 2, generator=generator)
    save_file(state, path)
