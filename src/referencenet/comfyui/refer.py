"""Nodes of the training-free links: a model, references, pictures that refer to them."""

# ComfyUI is no dependency: it imports this
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io

from referencenet.bases.devices import DTYPES, check_offload, choose_device, choose_dtype, place
from referencenet.bases.load import load_base
from referencenet.bases.names import is_hub_name, is_single_file
from referencenet.builtin.load import load as load_builtin
from referencenet.builtin.start import is_shipped
from referencenet.builtin.start import load_system as load_shipped
from referencenet.comfyui.values import (
    CATEGORY,
    Bank,
    Model,
    References,
    draw,
    mask,
    picture,
    sampling,
)  # fmt: skip
from referencenet.methods.reference_only import NAMED_LINKS, Reference, reference
from referencenet.methods.systems import UnknownSystem
from referencenet.methods.systems import load as load_system

BASE = "builtin"
BUILTIN = {BASE: "base", "builtin pose": "referencenet"}


def sampling_inputs(steps: int = 0, guidance: float = -1.0) -> list[io.Input]:
    """The widgets of every node that draws; by default all is the model's own."""
    side = {"default": 0, "min": 0, "max": 8192, "step": 8, "tooltip": "0: the model's own size."}
    return [
        io.Int.Input("width", **side),
        io.Int.Input("height", **side),
        io.Int.Input("steps", default=steps, min=0, max=1000, tooltip="0: the model's own number."),
        io.Float.Input("guidance", default=guidance, min=-1.0, max=30.0, step=0.1, tooltip="-1: the model's own."),
        io.Int.Input("seed", default=42, min=0, max=2**32 - 1, control_after_generate=True),
    ]


class LoadModel(io.ComfyNode):
    """A pipeline from whatever a model lies in."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetLoadModel",
            display_name="Load model (referencenet)",
            category=CATEGORY,
            description="The built-in model; a checkpoint of Stable Diffusion 1, 2 or XL from models/checkpoints, or a "
            "diffusers folder, for Refer; or a system's folder that `refnet convert` wrote.",
            inputs=[
                io.String.Input("folder", default="builtin",
                                tooltip="builtin, builtin pose, builtin and a system's name, a file of "
                                "models/checkpoints, a path, or a hub name."),
                io.Combo.Input("device", options=["auto", "cpu", "cuda"], default="auto"),
                io.Combo.Input("dtype", options=["auto", *DTYPES], default="auto",
                               tooltip="auto: half precision on CUDA."),
                io.String.Input("config", default="", optional=True,
                                tooltip="For a file: a diffusers folder or hub name of its family, for the "
                                "configuration. Empty: the family's own on the hub."),
                io.String.Input("loras", default="", multiline=True, optional=True,
                                tooltip="A file of models/loras, or a path, a line; :0.8 behind it is its scale."),
                io.String.Input("scheduler", default="", optional=True,
                                tooltip="euler a, dpm++ 2m karras, ... Empty: the model's own."),
                io.Combo.Input("offload", options=["none", "model", "group", "sequential"], default="none",
                               optional=True, tooltip="Whose weights wait in the CPU's memory."),
                io.Boolean.Input("vae_tiling", default=False, optional=True, tooltip="Less memory, other pixels."),
            ],
            outputs=[Model.Output("model")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        folder: str,
        device: str,
        dtype: str,
        config: str = "",
        loras: str = "",
        scheduler: str = "",
        offload: str = "none",
        vae_tiling: bool = False,
    ) -> io.NodeOutput:
        """Load it."""
        target = choose_device(device)
        kind = choose_dtype(dtype, target)
        waits: Any = None if offload == "none" else offload
        own = None if folder == BASE else _own(folder, kind)
        if own is None:
            pipe = load_base(
                _in("checkpoints", folder),
                config=config.strip() or None,
                loras=[_in("loras", line.strip()) for line in loras.splitlines() if line.strip()],
                scheduler=scheduler.strip() or None,
                device=target,
                dtype=kind,
                offload=waits,
                vae_tiling=vae_tiling,
            )
            return io.NodeOutput(pipe)
        if config.strip() or loras.strip() or scheduler.strip():
            raise ValueError(f"{folder} is a system; config, loras and scheduler are for models of Refer.")
        check_offload(waits, target)
        return io.NodeOutput(place(own, target, offload=waits, vae_tiling=vae_tiling))


class MakeReference(io.ComfyNode):
    """A picture and how it is read."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        share = {"min": 0.0, "max": 1.0, "step": 0.01}
        return io.Schema(
            node_id="RefnetReference",
            display_name="Reference",
            category=CATEGORY,
            description="A picture to refer to. Chain several through `others`.",
            inputs=[
                io.Image.Input("image"),
                io.Mask.Input("image_mask", optional=True, tooltip="Which of its pixels may be read."),
                io.Mask.Input("result_mask", optional=True, tooltip="Where in the result it may be read."),
                References.Input("others", optional=True),
                io.Float.Input("strength", default=1.0, **share),
                io.Float.Input("weight", default=1.0, min=0.01, max=100.0, step=0.01,
                               tooltip="How many times it counts beside other references."),
                io.Float.Input("start", default=0.0, tooltip="Share of steps before which it is not read.", **share),
                io.Float.Input("end", default=1.0, tooltip="Share of steps after which it is not read.", **share),
            ],
            outputs=[References.Output("references")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        strength: float,
        weight: float,
        start: float,
        end: float,
        image_mask: torch.Tensor | None = None,
        result_mask: torch.Tensor | None = None,
        others: list[Reference] | None = None,
    ) -> io.NodeOutput:
        """Put it behind the others."""
        made = Reference(
            picture(image),
            strength=strength,
            weight=weight,
            start=start,
            end=end,
            mask=None if image_mask is None else mask(image_mask),
            result_mask=None if result_mask is None else mask(result_mask),
        )
        return io.NodeOutput([*(others or []), made])


class Refer(io.ComfyNode):
    """Pictures that refer to pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetRefer",
            display_name="Refer",
            category=CATEGORY,
            description="Draw with any Stable Diffusion model so that the picture refers to others, without training.",
            inputs=[
                Model.Input("model"),
                References.Input("references", optional=True),
                Bank.Input("bank", optional=True, tooltip="Instead of references: written ones."),
                io.String.Input("prompt", multiline=True, default="full body, facing front, plain blue background"),
                io.String.Input("negative_prompt", multiline=True, default=""),
                io.Combo.Input("link", options=list(NAMED_LINKS), default="attention"),
                io.Float.Input("style_fidelity", default=0.5, min=0.0, max=1.0, step=0.01),
                io.Int.Input("count", default=1, min=1, max=64),
                *sampling_inputs(20, 3.0),
            ],
            outputs=[io.Image.Output("images")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        prompt: str,
        negative_prompt: str,
        link: str,
        style_fidelity: float,
        count: int,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        seed: int,
        references: list[Reference] | None = None,
        bank: Any = None,
    ) -> io.NodeOutput:
        """Draw one at a time, each from its own seed, so that a picture does not depend on how many are asked for."""
        if (references is None) == (bank is None):
            raise ValueError("connect either references or a bank.")
        if bank is not None and not isinstance(bank, list):
            raise ValueError(
                "this bank was written by a system; Refer reads banks that Write bank wrote for its model."
            )
        with reference(model, references or bank, links=NAMED_LINKS[link], style_fidelity=style_fidelity):  # pyright: ignore
            drawn = [
                draw(
                    model,
                    prompt,
                    seed=seed + number,
                    negative_prompt=negative_prompt,
                    **sampling(width=width, height=height, steps=steps, guidance=guidance),
                )
                for number in range(count)
            ]
        return io.NodeOutput(torch.cat(drawn))


def _own(folder: str, dtype: torch.dtype) -> Any:
    """A pipeline of this library, on the CPU; None if the folder holds another."""
    if folder in BUILTIN:
        return load_builtin(BUILTIN[folder], dtype=dtype)  # pyright: ignore
    if is_shipped(system := folder.removeprefix(f"{BASE} ")):
        return load_shipped(system).to(dtype)
    path = Path(folder).expanduser()
    if is_single_file(folder) or not (is_hub_name(folder) or (path / "model_index.json").is_file()):
        return None
    try:
        return load_system(str(path) if path.is_dir() else folder, dtype=dtype)
    except (UnknownSystem, OSError):  # what else it is, or that it is not there, is said by who reads it next
        return None


def _in(kind: str, name: str) -> str:
    """Where a file lies: in ComfyUI's own folder of a kind, or where its path says; :SCALE behind it stays."""
    head, colon, tail = name.rpartition(":")
    for file, scale in ((name, ""), (head, f"{colon}{tail}")):
        found = folder_paths.get_full_path(kind, file) if file and not Path(file).expanduser().exists() else None
        if found is not None:
            return f"{found}{scale}"
    return name


NODES = [LoadModel, MakeReference, Refer]
