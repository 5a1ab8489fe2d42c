"""FlashFace's names of before it led the shared life of pipelines; they warn, and go with the next release."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from referencenet.links.bank import ReferenceBank
from referencenet.links.link import Link
from referencenet.pipelines.passes import Pass
from referencenet.pipelines.prediction import Call, Prediction
from referencenet.pipelines.spec import Canvas, Seat, Shown


def _warn(former: str, now: str) -> None:
    warnings.warn(f"FlashFace's {former} goes with the next release; use {now}.", DeprecationWarning, stacklevel=3)


def passes(timestep: float, guidance: Any) -> list[Pass]:
    """The passes of a step, by its timestep and a `FaceGuidance`."""
    _warn("passes", "FaceGuidance.passes")
    return guidance.passes(timestep, guidance.text_guidance)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a call was asked for, as the networks take it.

    Attributes:
        faces: Latents of the faces, (faces, 4, h, w), all of one size.
        face_weights: How many times each face counts.
        prompt: (b, tokens, channels).
        negative: (1, tokens, channels); also the reference network's context.
        mask: Where the face should be, (height, width) of the latents.
    """

    faces: Tensor
    face_weights: Sequence[float]
    prompt: Tensor
    negative: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        _warn("Conditions", "pipe.faces(...) and referencenet.pipelines.prediction.Call")


class FormerFaces:
    """Methods that `FlashFacePipeline` had."""

    def encode_prompt(self: Any, prompts: list[str], suffix: str = "") -> Tensor:
        """Texts to the text encoder's last hidden states, (prompts, tokens, channels)."""
        _warn("encode_prompt", "referencenet.pipelines.encoders.text_states")
        return self._states(prompts, suffix, True, None)

    def encode_faces(self: Any, faces: Any) -> Tensor:
        """Cut-out faces to the autoencoder's scaled mean latents, (faces, 4, 28, 28)."""
        _warn("encode_faces", "pipe.show(faces, canvas).latents")
        return self.show(faces, Canvas(width=0, height=0)).latents

    def write_bank(self: Any, conditions: Conditions, timestep: Tensor | float) -> ReferenceBank:
        """What the faces offer at a timestep: a bank with a row per face."""
        _warn("write_bank", "pipe.write or pipe.bank_of, which join the faces to one row")
        context = conditions.negative.expand(len(conditions.faces), -1, -1)
        shown = Shown(latents=conditions.faces, context=context)
        return self.spec.write.bank(self.reference_unet, shown, timestep, self.link)

    def predict_noise(self: Any, link: Link, latents: Tensor, timestep: Tensor | float, conditions: Conditions,
                      guidance: Any, bank: ReferenceBank | None = None) -> Tensor:  # fmt: skip
        """The guided prediction of one step.

        Args:
            link: `attach(pipe.unet, [Second()])`.
            latents: (b, 4, height, width), scaled as the scheduler wants them.
            timestep: Of the step.
            conditions: Of the call, with b prompts.
            guidance: Of the call.
            bank: What `write_bank` gave; None: it is written now.
        """
        _warn("predict_noise", "referencenet.pipelines.prediction.predicting")
        told = self.faces(
            None, face_latents=conditions.faces, face_weights=conditions.face_weights,
            negative_prompt_embeds=conditions.negative,
        )  # fmt: skip
        height, width = (side * self.vae_scale_factor for side in latents.shape[-2:])
        canvas = Canvas(width=width, height=height, samples=len(latents))
        given = {"prompt": (conditions.prompt, conditions.negative), "place": conditions.mask[None, None]}
        shown = told(canvas)
        if bank is not None:
            bank = bank.joined()
            bank.context.update(shown.kept)
        call = Call(canvas=canvas, given=given, guidance=guidance, bank=bank, shown=shown)
        settings = self.settle({"guidance_scale": guidance.text_guidance})
        with self.calling(settings), ExitStack() as stack:
            prediction = Prediction(self, call, link, {c.name: Seat() for c in self.spec.conditions}, stack)
            return prediction.begin(latents, timestep)(None)
