"""FlashFace (Zhang et al. 2024, arXiv 2403.17008; ali-vilab/FlashFace fff0f07): a person from photographs of the face.

What it is:
    writer   a UNet of its own (with the denoiser's middle block), at every step, on clean latents of the faces at the
             current timestep; its context is the negative prompt; middle and up blocks are written
    link     a second attention beside each self-attention of the denoiser's middle and up blocks reads all faces as
             one sequence
    guidance before the launch the faces act in both passes; from it on they have a pass of their own
    place    a mask of the face's place is the denoiser's fifth input channel
Published and not kept: one step too many at some numbers of steps; random copies of faces to make four; the
autoencoder's scrambled attention (`scrambled_vae=True` brings it back).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Unpack

import torch
from diffusers import AutoencoderKL, ImagePipelineOutput, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from referencenet.checkpoints.flashface import PUBLISHED
from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Concat
from referencenet.links.reading import weighed
from referencenet.links.renamed import renamed
from referencenet.links.second import Second
from referencenet.links.series import BankSeries
from referencenet.links.sites import MID_UP
from referencenet.media.images import Picture
from referencenet.networks.additive_unet import AdditiveUNet
from referencenet.networks.scrambled_attention import ScrambledAttnProcessor
from referencenet.pipelines.adapters import TextAdapters
from referencenet.pipelines.conditions import Channels, Text
from referencenet.pipelines.encoders import check_either, encode_pixels, listed, num_texts, pixels_of, text_states
from referencenet.pipelines.former_faces import Conditions as Conditions
from referencenet.pipelines.former_faces import FormerFaces
from referencenet.pipelines.former_faces import passes as passes
from referencenet.pipelines.options import PictureOptions
from referencenet.pipelines.passes import Guidance as AnyGuidance
from referencenet.pipelines.passes import Pass
from referencenet.pipelines.pictures import PicturePipeline
from referencenet.pipelines.spec import Canvas, EachStep, Shown, Spec
from referencenet.preprocess.faces import FACE_LATENTS, face_mask, square_face
from referencenet.sampling.trailing_ddim import TrailingDDIMScheduler

TRAINED_FACES = 4  # photographs per sample in training; fewer or more share their weight
FACE_WEIGHTS = "face_weights"  # name in a bank's context: how many times each face counts

PROMPT_SUFFIX = "best quality, masterpiece,ultra-detailed, UHD 4K, photographic"  # this and the next as published
NEGATIVE_SUFFIX = (
    "blurry, ugly, tiling, poorly drawn hands, poorly drawn feet, poorly drawn face, out of frame, extra limbs, "
    "disfigured, deformed, body out of frame, bad anatomy, watermark, signature, cut off, low contrast, underexposed, "
    "overexposed, bad art, beginner, amateur, distorted face"
)


@dataclass(frozen=True, kw_only=True)
class FaceGuidance(AnyGuidance):
    """How much is referred to, and when; defaults are those of the released notebook.

    Before the launch, and without face guidance, faces act in both passes and text alone is guided:
    u + text (y - u). From the launch on the faces have a pass r of their own: u + text (y - u) + face (r - y).

    Attributes:
        lambda_feat: Strength of the faces from the launch on.
        lambda_before: Strength of the faces before it.
        face_guidance: Scale of the difference that the faces make; 0: no pass of its own.
        text_guidance: Scale of the difference that the prompt makes, where a call gives none.
        step_to_launch: Timestep at and below which faces are guided.
        guide_rescale: In [0, 1]: how far the guided prediction's deviation goes back to that of the last pass with the
            prompt (Lin et al. 2023, arXiv 2305.08891, section 3.4).
    """

    lambda_feat: float = 1.2
    lambda_before: float = 0.85
    face_guidance: float = 3.2
    text_guidance: float = 7.5
    step_to_launch: float = 750
    guide_rescale: float = 0.5  # fixed in the released program

    def __post_init__(self) -> None:
        for name in ("lambda_feat", "lambda_before", "face_guidance", "text_guidance"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number from 0.")
        if not 0 <= self.guide_rescale <= 1:
            raise ValueError(f"guide_rescale is {self.guide_rescale}; expected 0 (off) to 1.")

    def passes(self, timestep: float, scale: float) -> list[Pass]:
        """The passes of a step, those with the prompt first; what has no effect is left out."""
        launched, face = timestep <= self.step_to_launch, self.face_guidance
        strength, blind = self.lambda_feat if launched else self.lambda_before, frozenset({"prompt"})
        if not self.is_guided(scale):
            return [Pass(factor=1.0, strength=strength)]
        if launched and face > 0:
            found = [
                Pass(factor=face, strength=strength),
                Pass(factor=scale - face, reads=None),
                Pass(factor=1 - scale, reads=None, blind=blind),
            ]
        else:
            found = [Pass(factor=scale, strength=strength), Pass(factor=1 - scale, strength=strength, blind=blind)]
        return [p for p in found if p.factor or not p.blind]

    def combine(self, passes: Sequence[Pass], parts: Sequence[Tensor], rescale: float = 0.0) -> Tensor:  # noqa: ARG002
        """The guided and rescaled prediction of parts (b, c, h, w)."""
        guided = super().combine(passes, parts)
        conditional = parts[max(i for i, p in enumerate(passes) if not p.blind)]
        wanted, found = (part.flatten(1).std(dim=1).view(-1, 1, 1, 1) for part in (conditional, guided))
        return guided * (self.guide_rescale * wanted / (found + 1e-12) + 1 - self.guide_rescale)  # 1e-12 as published

    def is_guided(self, scale: float) -> bool:
        """Whether steps have more than one pass at a scale of the prompt."""
        return scale != 1 or self.face_guidance > 0


SPEC = Spec(
    write=EachStep(link=Concat(stages=MID_UP)),
    link=Second(),
    joins=True,
    guidance=FaceGuidance(),
    conditions=(Text("prompt"), Channels("place")),
    scheduler=TrailingDDIMScheduler,
    steps=35,
    scale=FaceGuidance.text_guidance,
    size=(768, 768),
    defaults="FlashFace, notebook",
)

Faces = Picture | Sequence[Picture] | ReferenceBank | BankSeries | Shown | Callable[[Canvas], Shown]


class FlashFacePipeline(FormerFaces, PicturePipeline, TextAdapters):
    """Draws the person of some photographs.

    Args:
        vae: Stable Diffusion 1.5's.
        text_encoder: Stable Diffusion 1.5's.
        tokenizer: Its words.
        unet: The denoiser; five input channels.
        reference_unet: Writes the faces, at every step; None where they come as banks.
        scheduler: TrailingDDIMScheduler; others of diffusers work.
        scrambled_vae: Give the autoencoder the released program's faulty attention.
    """

    spec = SPEC
    published = PUBLISHED
    model_cpu_offload_seq = "text_encoder->reference_unet->unet->vae"
    _optional_components = ["reference_unet"]

    def __init__(
        self, vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: AdditiveUNet,
        reference_unet: UNet2DConditionModel | None, scheduler: TrailingDDIMScheduler, scrambled_vae: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.register(locals(), "scrambled_vae")
        if scrambled_vae:
            vae.set_attn_processor(ScrambledAttnProcessor())

    def show(self, reference: Picture | Sequence[Picture], canvas: Canvas) -> Shown:
        """Mean latents of faces (r, 4, 28, 28), and the released program's negative prompt; see `faces`."""
        return self.faces(reference)(canvas)

    def faces(
        self,
        faces: Picture | Sequence[Picture] | None,
        negative_prompt: str = "",
        *,
        face_weights: Sequence[float] | None = None,
        published_suffixes: bool = True,
        face_latents: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
    ) -> Callable[[Canvas], Shown]:
        """Faces with what is said beside them, for `write` and calls.

        Args:
            faces: Cut-out faces of one person (see `crop_face`), any number from 1; squared here.
            negative_prompt: Of the calls: the reference network is told it.
            face_weights: How many times each face counts; None: together as much as the four faces of training.
            published_suffixes: Add the released program's words to the prompt.
            face_latents: Instead of faces, their scaled latents (faces, 4, h, w).
            negative_prompt_embeds: Instead of a negative prompt, (1, tokens, channels).
        """

        def shown(_canvas: Canvas) -> Shown:
            latents = face_latents
            if latents is None:
                size = FACE_LATENTS * self.vae_scale_factor
                squares = [square_face(face, size) for face in listed(faces)]
                latents = encode_pixels(self, pixels_of(squares), keep=True)
            count = len(latents)
            weights = [TRAINED_FACES / count] * count if face_weights is None else list(face_weights)
            if len(weights) != count or not all(0 < weight < inf for weight in weights):
                raise ValueError(f"face_weights are {weights} for {count} faces; give a number above 0 for each.")
            told = self._states(negative_prompt, NEGATIVE_SUFFIX, published_suffixes, negative_prompt_embeds)
            kept = {FACE_WEIGHTS: torch.tensor(weights, dtype=torch.float32)}
            return Shown(latents=latents, context=told.expand(count, -1, -1), kept=kept)

        return shown

    @torch.no_grad()
    def __call__(
        self,
        faces: Faces | None = None,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str = "",
        *,
        face_box: Sequence[float] | None = None,
        face_weights: Sequence[float] | None = None,
        lambda_feat: float = FaceGuidance.lambda_feat,
        face_guidance: float = FaceGuidance.face_guidance,
        text_guidance: float | None = None,
        lambda_before: float = FaceGuidance.lambda_before,
        step_to_launch: float = FaceGuidance.step_to_launch,
        guide_rescale: float | None = None,
        published_suffixes: bool = True,
        face_latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        **options: Unpack[PictureOptions],
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw.

        Args:
            faces: Cut-out faces of one person (see `crop_face`), any number from 1, or what `faces` or `write` gave.
            prompt: One text, or one per picture. Name an age: it helps.
            negative_prompt: What shall not be seen; also tells the reference network.
            face_box: Where the face should be: left, top, right, bottom as fractions. None: anywhere.
            face_weights: How many times each face counts; None: together as much as the four faces of training.
            lambda_feat: Strength of the faces, from the launch on; 0.7 to 1.4 are usual.
            face_guidance: Scale of the difference that the faces make; 1.8 to 4 are usual.
            text_guidance: Scale of the difference that the prompt makes, 7.5; another name of `guidance_scale`.
            lambda_before: Strength of the faces before the launch.
            step_to_launch: Timestep at and below which faces are guided, of 1000.
            guide_rescale: In [0, 1]: how far the prediction's deviation is brought back, 0.5 by default; another name
                of `guidance_rescale`.
            published_suffixes: Add the released program's words to the prompts.
            face_latents: Instead of faces, their scaled latents (faces, 4, h, w).
            prompt_embeds: Instead of a prompt, (prompts, tokens, channels).
            negative_prompt_embeds: Instead of a negative prompt, (1, tokens, channels).
            options: See `PictureOptions`; width and height are 768 by default.

        Returns:
            The pictures, those of one prompt together.

        Raises:
            TypeError: If the negative prompt is no single text.
            ValueError: If a value is out of range, or something is given twice or not at all.
        """
        guidance = FaceGuidance(
            lambda_feat=lambda_feat, lambda_before=lambda_before, face_guidance=face_guidance,
            text_guidance=_one_of(options, "guidance_scale", text_guidance, FaceGuidance.text_guidance),
            step_to_launch=step_to_launch,
            guide_rescale=_one_of(options, "guidance_rescale", guide_rescale, FaceGuidance.guide_rescale),
        )  # fmt: skip
        side = self.unet.config.sample_size * self.vae_scale_factor
        size = {name: options.get(name) or side for name in ("width", "height")}
        settings = self.settle({**options, **size, "guidance_scale": guidance.text_guidance})
        check_either("face", faces, face_latents)
        check_either("prompt", prompt, prompt_embeds)
        if not isinstance(negative_prompt, str):
            raise TypeError("give one text as negative_prompt: all pictures share the faces, which are told it.")
        is_told = isinstance(faces, ReferenceBank | BankSeries | Shown) or callable(faces)
        if is_told and face_weights is not None:
            raise ValueError("face_weights belong to what is written: give them to faces(...), then write or call.")
        canvas = self.canvas_for(settings, prompts=num_texts(prompt or "", prompt_embeds))
        place = face_mask(face_box, width=canvas.width, height=canvas.height, factor=self.vae_scale_factor)
        with self.calling(settings):
            states = self._states(prompt or "", PROMPT_SUFFIX, published_suffixes, prompt_embeds)
            negative = self._states(negative_prompt, NEGATIVE_SUFFIX, published_suffixes, negative_prompt_embeds)
            told = {"face_latents": face_latents, "negative_prompt_embeds": negative}
            reference = faces if is_told else self.faces(faces, face_weights=face_weights, **told)
            given = {"prompt": (states, negative), "place": place[None, None]}
            return self.draw(reference, given, canvas, settings, guidance)

    def reads(self, bank: ReferenceBank) -> Any:
        """All faces as one sequence if they count alike, else those of one weight as one."""
        weights = bank.context.get(FACE_WEIGHTS)
        return bank if weights is None else weighed(bank, weights.tolist())

    def _states(self, texts: str | Sequence[str], suffix: str, is_added: bool, given: Tensor | None) -> Tensor:
        """The text encoder's last hidden states (texts, tokens, channels), or those given."""
        if given is not None:
            return given
        texts = [texts] if isinstance(texts, str) else texts
        return text_states(self, [", ".join(filter(None, (text, suffix if is_added else ""))) for text in texts])


def _one_of(options: Any, name: str, ours: float | None, default: float) -> float:
    """A scale that has two names, out of the options; by default the system's."""
    if ours is not None and name in options:
        raise ValueError(f"{name} was given under both of its names; give one.")
    return options.pop(name, default if ours is None else ours)


__getattr__ = renamed(__name__, {"Guidance": FaceGuidance})
