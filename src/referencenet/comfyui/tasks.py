"""Nodes of the systems: one for each task, on a model that `Load model` read from a system's folder."""

# ComfyUI is no dependency: it imports this
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from referencenet.comfyui.refer import sampling_inputs
from referencenet.comfyui.values import CATEGORY, Bank, Model, Parts, draw, either, mask, picture, pictures, sampling
from referencenet.preprocess.parts import LABELS, PersonPart


class Pose(io.ComfyNode):
    """A person in a given pose."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetPose",
            display_name="Pose a person",
            category=CATEGORY,
            description="The person of a picture in the pose of a skeleton; the model `builtin pose` does it.",
            inputs=[
                Model.Input("model"),
                io.Image.Input("image"),
                io.Image.Input("skeleton", tooltip="OpenPose's colours on black."),
                io.String.Input("prompt", multiline=True, default=""),
                *sampling_inputs(),
            ],
            outputs=[io.Image.Output("images")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        image: torch.Tensor,
        skeleton: torch.Tensor,
        prompt: str,
        *,
        seed: int,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Draw."""
        need(model, "reference", "pose")
        return io.NodeOutput(draw(model, picture(image), picture(skeleton), prompt, seed=seed, **sampling(**widgets)))


class Part(io.ComfyNode):
    """A part of a person."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetPart",
            display_name="Part of a person",
            category=CATEGORY,
            inputs=[
                io.Image.Input("image"),
                io.Mask.Input("image_mask", tooltip="Where the part is."),
                Parts.Input("others", optional=True),
                io.Combo.Input("label", options=list(LABELS)),
            ],
            outputs=[Parts.Output("parts")],
        )

    @classmethod
    def execute(
        cls, image: torch.Tensor, image_mask: torch.Tensor, label: str, others: list[PersonPart] | None = None
    ) -> io.NodeOutput:
        """Put it behind the others."""
        return io.NodeOutput([*(others or []), PersonPart(picture=picture(image), label=label, mask=mask(image_mask))])


class Compose(io.ComfyNode):
    """A person of parts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetCompose",
            display_name="Compose a person",
            category=CATEGORY,
            description="Parts2Whole: a person from pictures of parts, in a pose.",
            inputs=[
                Model.Input("model"),
                Parts.Input("parts"),
                io.Image.Input("pose"),
                io.String.Input("prompt", multiline=True, default=""),
                *sampling_inputs(),
            ],
            outputs=[io.Image.Output("images")],
        )

    @classmethod
    def execute(
        cls, model: Any, parts: list[PersonPart], pose: torch.Tensor, prompt: str, seed: int, **widgets: Any
    ) -> io.NodeOutput:
        """Draw."""
        need(model, "parts", "pose")
        return io.NodeOutput(draw(model, parts, picture(pose), prompt, seed=seed, **sampling(**widgets)))


class Dress(io.ComfyNode):
    """A person in a garment."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetDress",
            display_name="Dress a person",
            category=CATEGORY,
            description="IDM-VTON, StableGarment or CatVTON: the person of a picture in a garment.",
            inputs=[
                Model.Input("model"),
                io.Image.Input("person"),
                io.Mask.Input("person_mask", tooltip="What is repainted."),
                io.Image.Input("garment", optional=True),
                Bank.Input("bank", optional=True, tooltip="Instead of the garment: what was written of it."),
                io.Image.Input("densepose", optional=True, tooltip="Needed by IDM-VTON and StableGarment."),
                io.String.Input("garment_description", default="", tooltip="For IDM-VTON: short sleeve shirt."),
                *sampling_inputs(),
            ],
            outputs=[io.Image.Output("images")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        person: torch.Tensor,
        person_mask: torch.Tensor,
        garment_description: str,
        garment: torch.Tensor | None = None,
        bank: Any = None,
        densepose: torch.Tensor | None = None,
        *,
        seed: int,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Draw."""
        taken = need(model, "person", "garment", "mask")
        given: dict[str, Any] = {
            "person": picture(person),
            "garment": either(garment, bank, "a garment"),
            "mask": mask(person_mask),
        }
        if "densepose" in taken:
            if densepose is None:
                raise ValueError(f"{type(model).__name__} needs densepose: the person's DensePose drawing.")
            given["densepose"] = picture(densepose)
        if "garment_description" in taken and garment_description:
            given["garment_description"] = garment_description
        return io.NodeOutput(draw(model, **given, seed=seed, **sampling(**widgets)))


class Face(io.ComfyNode):
    """The person of face photographs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetFace",
            display_name="Draw a face's person",
            category=CATEGORY,
            description="FlashFace: the person of one or several photographs of a face (a batch), after words.",
            inputs=[
                Model.Input("model"),
                io.Image.Input("faces", optional=True, tooltip="Cropped to the face; a batch counts as one person."),
                Bank.Input("bank", optional=True, tooltip="Instead of faces: what was written of them."),
                io.String.Input("prompt", multiline=True, default="a portrait photograph"),
                io.String.Input("negative_prompt", multiline=True, default=""),
                *sampling_inputs(),
            ],
            outputs=[io.Image.Output("images")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        prompt: str,
        negative_prompt: str,
        faces: torch.Tensor | None = None,
        bank: Any = None,
        *,
        seed: int,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Draw."""
        need(model, "faces", "prompt")
        given = either(faces, bank, "faces", pictures)
        return io.NodeOutput(draw(model, given, prompt, negative_prompt, seed=seed, **sampling(**widgets)))


class Animate(io.ComfyNode):
    """A film of drawings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetAnimate",
            display_name="Animate a person",
            category=CATEGORY,
            description="Animate Anyone, MagicAnimate, MagicPose or AniPortrait: the person of a picture, in the poses "
            "of a film. The sound passes through.",
            inputs=[
                Model.Input("model"),
                io.Image.Input("image", optional=True),
                Bank.Input("bank", optional=True, tooltip="Instead of the picture: what was written of it."),
                io.Image.Input("poses", tooltip="A frame each: skeletons, DensePose or face drawings."),
                io.Audio.Input("sound", optional=True),
                *sampling_inputs(),
            ],
            outputs=[io.Image.Output("frames"), io.Audio.Output("sound_out", display_name="sound")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        poses: torch.Tensor,
        image: torch.Tensor | None = None,
        bank: Any = None,
        sound: Any = None,
        *,
        seed: int,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Draw."""
        need(model, "reference", "poses")
        given = either(image, bank, "a picture")
        return io.NodeOutput(draw(model, given, pictures(poses), seed=seed, **sampling(**widgets)), sound)


class Turn(io.ComfyNode):
    """Other cameras."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetTurn",
            display_name="Turn a portrait",
            category=CATEGORY,
            description="DiffPortrait3D: the person of a portrait from other cameras.",
            inputs=[
                Model.Input("model"),
                io.Image.Input("image", optional=True),
                Bank.Input("bank", optional=True, tooltip="Instead of the picture: what was written of it."),
                io.Image.Input("cameras", tooltip="A portrait of anybody from each camera."),
                *sampling_inputs(),
            ],
            outputs=[io.Image.Output("views")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        cameras: torch.Tensor,
        image: torch.Tensor | None = None,
        bank: Any = None,
        *,
        seed: int,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Draw."""
        need(model, "reference", "cameras")
        given = either(image, bank, "a picture")
        return io.NodeOutput(draw(model, given, pictures(cameras), seed=seed, **sampling(**widgets)))


def need(model: Any, *names: str) -> set[str]:
    """What a model's call takes.

    Raises:
        ValueError: If the model is of another task.
    """
    taken = set(type(model).__call__.__annotations__)
    if missing := [name for name in names if name not in taken]:
        raise ValueError(f"{type(model).__name__} takes no {missing[0]}; load a model of this node's task.")
    return taken


NODES = [Pose, Part, Compose, Dress, Face, Animate, Turn]
