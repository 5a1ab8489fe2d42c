"""Parts2Whole (Huang et al. 2024, arXiv 2404.15267), as published in huanngzh/Parts2Whole: a person from parts.

What it is:
    writer   a UNet of its own, once per part, on the part's clean latent at t = 0; its context is the part's label
    link     keys and values of the denoiser and of all parts together, in all 16 self-attentions; a part's tokens
             outside its mask are zero and still count in the softmax
    guidance the unconditional half reads nothing, its text is the negative prompt, its image tokens are zero
    images   one CLIP token per part, six places, in attention beside the text's; empty places are zero and count
    pose     a small convolutional net on a DensePose rendering, behind the denoiser's first convolution, in both halves
Published and not kept: the first part's label in place of the prompt and of all labels, masks that never arrive, banks
rounded to half precision (an option), latents of parts drawn at random without a seed (here the posterior's mean).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import torch
from diffusers import AutoencoderKL, DDIMScheduler, ImagePipelineOutput
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.published import Part, PublishedFile, PublishedSet
from referencenet.links.bank import ReferenceBank
from referencenet.media.images import Picture, read_layers, to_tensor
from referencenet.networks.image_prompt import ImagePromptUNet
from referencenet.networks.layout import SD15_UNET, picture_config
from referencenet.networks.pose_guider import PoseGuider
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.pipelines.adapters import TextAdapters
from referencenet.pipelines.conditions import AfterConvIn, Context, Text
from referencenet.pipelines.encoders import clip_size, encode_pixels, pixels_of, prompt_states, stretched, text_states
from referencenet.pipelines.options import PictureOptions
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.pictures import PicturePipeline
from referencenet.pipelines.spec import Canvas, Once, Shown, Spec, UNetCall
from referencenet.preprocess.parts import PLACES, PersonPart, Segment, check_parts, mask_of, segmented

POSE_WIDTHS = (16, 32, 96, 256)

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",  # that of training; the published validation uses another
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""DDIM, from the training code."""


class PartImages(Context):
    """Six tokens (1, 6, c) with keys and values of their own beside the text: one per part, else zeros."""

    def enter(self, call: UNetCall, value: Tensor) -> UNetCall:
        """(p b, 6, c) beside the context, which entered before."""
        return call.having(encoder_hidden_states=(call.arguments["encoder_hidden_states"], [value]))


SPEC = Spec(
    write=Once(timestep=0),
    joins=True,
    guidance=TwoWay(blind=("prompt", "images")),
    conditions=(Text("prompt"), PartImages("images"), AfterConvIn("pose", "pose_guider")),
    scheduler=partial(DDIMScheduler, **SCHEDULER),
    steps=50,
    scale=3.5,
    size=(512, 768),
    defaults="huanngzh/Parts2Whole, inference script and pipeline",
)

DECOUPLED = r".*\.attn2\.processor\..*"

PUBLISHED = PublishedSet(
    name="parts2whole.hub",
    source="huggingface.co/huanngzh/Parts2Whole",
    licence="Apache-2.0; derived from Stable Diffusion 1.5, CreativeML OpenRAIL-M",
    paper="2404.15267",
    files=(
        PublishedFile(
            path="unet/diffusion_pytorch_model.safetensors",
            component="unet",
            keymap=KeyMap(ignored={DECOUPLED: "decoupled_attn.pth has the image tokens' attention"}),
            share=rf"(?!{DECOUPLED}).*",
            manifest="parts2whole-unet",
        ),
        PublishedFile(
            path="decoupled_attn.pth",
            component="unet",
            keymap=KeyMap(renames=[(r"\.to_([kv])_dc\.", r".to_\1_ip.0.")]),
            share=DECOUPLED,
            manifest="parts2whole-decoupled_attn",
        ),
        PublishedFile(
            path="reference_unet/diffusion_pytorch_model.safetensors",
            component="reference_unet",
            manifest="parts2whole-reference_unet",
        ),
        PublishedFile(
            path="pose_guider/diffusion_pytorch_model.safetensors",
            component="pose_guider",
            manifest="parts2whole-pose_guider",
        ),
    ),
    build={
        "unet": lambda config: ImagePromptUNet(**picture_config(config)),
        "reference_unet": lambda config: ReferenceUNet(**picture_config(config), cut=True),
        "pose_guider": lambda config: PoseGuider(
            conditioning_embedding_channels=config["block_out_channels"][0], block_out_channels=POSE_WIDTHS
        ),
    },
    base_config=SD15_UNET,
    further={
        "vae": Part(kind=AutoencoderKL, folder="sd-vae-ft-mse", source="huggingface.co/stabilityai/sd-vae-ft-mse"),
        "text_encoder": Part(kind=CLIPTextModel, source="the same place", in_base=True),
        "tokenizer": Part(kind=CLIPTokenizer, source="the same place", in_base=True),
        "image_encoder": Part(
            kind=CLIPVisionModelWithProjection, source="huggingface.co/lambdalabs/sd-image-variations-diffusers"
        ),
        "image_processor": Part(
            kind=CLIPImageProcessor, folder="feature_extractor", source="the same place", default=CLIPImageProcessor
        ),
    },
)
"""The one release, for DensePose renderings."""


class Parts2WholePipeline(PicturePipeline, TextAdapters):
    """Draws a person from pictures of parts, a pose and words.

    Args:
        vae: sd-vae-ft-mse.
        text_encoder: Stable Diffusion 1.5's.
        tokenizer: Its tokenizer.
        image_encoder: CLIP's vision model of sd-image-variations; None where parts come as a bank.
        image_processor: Its pictures' preparation.
        reference_unet: Writes; None where parts come as a bank.
        unet: The denoiser.
        pose_guider: Of the pose.
        scheduler: DDIM as published; others of diffusers work.
    """

    spec = SPEC
    published = PUBLISHED
    model_cpu_offload_seq = "text_encoder->image_encoder->reference_unet->pose_guider->unet->vae"
    _optional_components = ["image_encoder", "image_processor", "reference_unet"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        image_encoder: CLIPVisionModelWithProjection | None,
        image_processor: CLIPImageProcessor | None,
        reference_unet: ReferenceUNet | None,
        unet: ImagePromptUNet,
        pose_guider: PoseGuider,
        scheduler: DDIMScheduler,
    ) -> None:
        super().__init__()
        self.register(locals())

    def show(self, reference: PersonPart | Sequence[PersonPart], canvas: Canvas) -> Shown:
        """Every part's mean latent on white (parts, 4, h, w), its label's states, mask, and its place's CLIP token.

        Raises:
            ValueError: If there is no part, more than six, a label twice or unknown, or a part without a mask.
        """
        parts = check_parts(reference)
        masks = torch.stack([mask_of(part, canvas.size) for part in parts])
        pictures = [stretched(part.picture, canvas.size, Image.Resampling.BICUBIC) for part in parts]
        return Shown(
            latents=encode_pixels(self, pixels_of(pictures), keep=True),
            context=text_states(self, [part.label for part in parts]),
            masks=masks,
            kept={"images": self.image_tokens([read_layers(part.picture)[0] for part in parts])},
        )

    def image_tokens(self, pictures: Sequence[Image.Image]) -> Tensor:
        """CLIP's embeddings of pictures, cropped in the middle, as the six places (1, 6, channels)."""
        encoder, processor = self.image_encoder, self.image_processor
        pixels = processor(list(pictures), return_tensors="pt", **clip_size(encoder)).pixel_values
        embedded = encoder(pixels.to(self.device_of(encoder), encoder.dtype)).image_embeds  # (parts, c)
        return six_places(embedded)

    @torch.no_grad()
    def __call__(
        self,
        parts: PersonPart | Sequence[PersonPart] | ReferenceBank,
        pose: Picture,
        prompt: str | Sequence[str] = "",
        negative_prompt: str | Sequence[str] = "",
        *,
        segmenter: Segment | None = None,
        first_label_everywhere: bool = False,
        **options: Unpack[PictureOptions],
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw.

        Args:
            parts: One to six, each label at most once, or a bank that `write` wrote.
            pose: A DensePose rendering on black.
            prompt: What the person looks like; one text, or one per person.
            negative_prompt: Of the unconditional half.
            segmenter: Finds a part in an opaque picture without a mask, such as `ClothesSegmenter`.
            first_label_everywhere: Put the first part's label in place of the other labels and of the prompt, as the
                released program does.
            options: See `PictureOptions`.

        Returns:
            The pictures.

        Raises:
            ValueError: If arguments do not fit together.
        """
        settings = self.settle(options)
        if isinstance(prompt, str) and not isinstance(negative_prompt, str) and len(negative_prompt) > 1:
            raise ValueError(f"{len(negative_prompt)} negative prompts were given for one prompt; give one.")
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        canvas = self.canvas_for(settings, texts=len(texts))
        drawing = to_tensor(stretched(pose, canvas.size)).unsqueeze(0)  # (1, 3, H, W)
        with self.calling(settings):
            reference: ReferenceBank | Shown
            if isinstance(parts, ReferenceBank):
                reference = parts
            else:
                self.check_writer()
                found = [segmented(part, segmenter) for part in check_parts(parts)]
                reference = self.show(found, canvas)
                if first_label_everywhere:
                    texts, reference = [found[0].label] * len(texts), with_first_label(reference)
            given = {"prompt": prompt_states(self, texts, negative_prompt), "pose": [drawing]}
            return self.draw(reference, given, canvas, settings)


def with_first_label(shown: Shown) -> Shown:
    """Parts as the released program shows them: every one is told the first one's label."""
    return replace(shown, context=shown.context[:1].expand_as(shown.context))


def six_places(embedded: Tensor) -> Tensor:
    """Embeddings of parts (parts, c) in their places, zeros in the others: (1, 6, c)."""
    return F.pad(embedded, (0, 0, 0, PLACES - len(embedded))).unsqueeze(0)
