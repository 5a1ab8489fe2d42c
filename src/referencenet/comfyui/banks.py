"""Nodes of banks: a reference written once, kept as a file, read any number of times."""

# ComfyUI is no dependency: it imports this
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io

from referencenet.comfyui.values import CATEGORY, FACE, Bank, Model, References, picture, pictures, portrait_of
from referencenet.links.bank import ReferenceBank
from referencenet.links.series import BankSeries
from referencenet.methods.reference_only import Reference
from referencenet.pipelines.clips import ClipPipeline

FOLDER = "referencenet"
"""Of banks, in ComfyUI's output folder."""


class WriteBank(io.ComfyNode):
    """What is needed of a reference, written once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetWriteBank",
            display_name="Write bank",
            category=CATEGORY,
            description="Write a reference once and read it any number of times. Of training-free links the encoded "
            "pictures are kept; of systems what their reference network saw.",
            inputs=[
                Model.Input("model"),
                io.Image.Input("image", optional=True, tooltip="Portrait, garment or faces of a system."),
                References.Input("references", optional=True, tooltip="For Refer."),
                io.Int.Input("width", default=512, min=8, max=8192, step=8),
                io.Int.Input("height", default=512, min=8, max=8192, step=8),
                io.Int.Input("steps", default=0, min=0, max=1000,
                             tooltip="Of the calls, where the reference network runs at every step. 0: the default."),
                io.Int.Input("seed", default=42, min=0, max=2**32 - 1),
                io.String.Input("face", default="", optional=True, tooltip=FACE),
            ],
            outputs=[Bank.Output("bank")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: Any,
        width: int,
        height: int,
        steps: int,
        seed: int,
        image: torch.Tensor | None = None,
        references: list[Reference] | None = None,
        face: str = "",
    ) -> io.NodeOutput:
        """Write it."""
        generator = torch.Generator().manual_seed(seed)
        if hasattr(model, "write"):
            if image is None:
                raise ValueError(f"{type(model).__name__} is a system: connect an image, not references.")
            several = pictures(image)
            given: Any = several[0] if len(several) == 1 else several
            if isinstance(model, ClipPipeline):
                given = portrait_of(picture(image), face)
            bank = model.write(
                given, width=width, height=height, num_inference_steps=steps or None, generator=generator
            )
            return io.NodeOutput(bank)
        if references is None:
            if image is None:
                raise ValueError("connect references, or an image.")
            references = [Reference(one) for one in pictures(image)]
        return io.NodeOutput([one.encode(model, width=width, height=height, generator=generator) for one in references])


class SaveBank(io.ComfyNode):
    """A bank as a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetSaveBank",
            display_name="Save bank",
            category=CATEGORY,
            inputs=[Bank.Input("bank"), io.String.Input("name", default="hero")],
            outputs=[io.String.Output("path")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, bank: Any, name: str) -> io.NodeOutput:
        """Write it into ComfyUI's output folder."""
        if isinstance(bank, list):
            if len(bank) != 1:
                raise ValueError(f"the bank holds {len(bank)} references; save each by itself.")
            bank = bank[0]
        path = bank_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        bank.save(path)
        return io.NodeOutput(str(path))


class LoadBank(io.ComfyNode):
    """A bank from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetLoadBank",
            display_name="Load bank",
            category=CATEGORY,
            inputs=[io.String.Input("name", default="hero", tooltip="As Save bank was told.")],
            outputs=[Bank.Output("bank")],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str) -> float:
        """Load again when the file has changed."""
        return bank_path(name).stat().st_mtime

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        """Read it, whichever kind it is."""
        path, reasons = bank_path(name), []
        if not path.is_file():
            raise ValueError(f"there is no bank {path}; save one with Save bank.")
        for kind in (Reference, ReferenceBank, BankSeries):
            try:
                bank = kind.load(path)
            except ValueError as error:
                reasons.append(str(error))
            else:
                return io.NodeOutput([bank] if isinstance(bank, Reference) else bank)
        raise ValueError(f"{path} is not a bank: {reasons[-1]}")


def bank_path(name: str) -> Path:
    """Where a bank of this name lies: never outside of ComfyUI's output folder.

    Raises:
        ValueError: If the name leads elsewhere.
    """
    folder = (Path(folder_paths.get_output_directory()) / FOLDER).resolve()
    path = (folder / f"{name.removesuffix('.safetensors')}.safetensors").resolve()
    if not path.is_relative_to(folder) or path.parent != folder or not name.strip():
        raise ValueError(f"{name!r} is not a name of a bank; give a plain name, without folders.")
    return path


NODES = [WriteBank, SaveBank, LoadBank]
