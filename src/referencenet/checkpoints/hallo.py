"""Hallo's released file as rows: one flat file, whose five networks have a prefix each.

Names are certain: the published program loads the file strictly (fudan-generative-vision/hallo, commit 8fd7c57).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffusers import AutoencoderKL

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.motion_keys import MOTION_KEYS, check_position_tables
from referencenet.checkpoints.published import Part, PublishedFile, PublishedSet
from referencenet.networks.audio_unet import AudioUNet
from referencenet.networks.layout import SD15_UNET, TINY_SD15, film_config, picture_config
from referencenet.networks.pose_guider import PoseGuider
from referencenet.networks.projected_tokens import AudioProjection, FaceProjection
from referencenet.networks.reference_unet import ReferenceUNet

PREFIXES = {
    "reference_unet": "reference_unet",
    "unet": "denoising_unet",
    "face_locator": "face_locator",
    "face_projection": "imageproj",
    "audio_projection": "audioproj",
}
"""Our components, and what they are called in the file."""

AUDIO_KEYS = (
    (r"\.audio_modules\.(\d+)\.", r".motion_modules.\1.audio."),
    (r"\.audio\.transformer_blocks\.0\.", ".audio."),
    (r"\.audio\.attn2_(\d)\.", r".audio.attn2.\1."),
    (r"\.zero_conv_full\.", ".zero.0."),
    (r"\.zero_conv_face\.", ".zero.1."),
    (r"\.zero_conv_lip\.", ".zero.2."),
)

DENOISER_KEYS = KeyMap(
    renames=(*AUDIO_KEYS, *MOTION_KEYS.renames),
    squeezed=(r".*\.audio\.proj_(in|out)\.weight", r".*\.audio\.zero\.\d\.weight"),
    ignored={
        r"(.*\.)?(down_blocks\.3|up_blocks\.0)\.motion_modules\..*": "never run: blocks without attention skip theirs",
        **MOTION_KEYS.ignored,
    },
)
"""Of the denoiser, without its prefix."""


def _row(component: str) -> PublishedFile:
    """The row of one network."""
    prefix = PREFIXES[component]
    own = DENOISER_KEYS if component == "unet" else KeyMap()
    others = {rf"{other}\..*": "another network's" for other in PREFIXES.values() if other != prefix}
    return PublishedFile(
        path="hallo/net.pth",
        component=component,
        keymap=KeyMap(
            renames=((rf"^{prefix}\.", ""), *own.renames), squeezed=own.squeezed, ignored={**others, **own.ignored}
        ),
        checks=(check_position_tables,) if component == "unet" else (),
        manifest=f"hallo-{prefix}",
    )


def build_locator(config: Mapping[str, Any]) -> PoseGuider:
    """The face locator; narrower where the denoiser is."""
    width = config["block_out_channels"][0]
    return PoseGuider(3, width, (16, 32, 64, 128) if width >= 32 else (4, 4, 8, 8))


def build_denoiser(config: Mapping[str, Any]) -> AudioUNet:
    """The denoiser; the audio's tokens are as wide as the face's."""
    return AudioUNet(audio_cross_attention_dim=config["cross_attention_dim"], **film_config(config))


def build_face_projection(config: Mapping[str, Any]) -> FaceProjection:
    """From 512 numbers of a face recogniser."""
    return FaceProjection(cross_attention_dim=config["cross_attention_dim"])


def build_audio_projection(config: Mapping[str, Any]) -> AudioProjection:
    """From five frames of wav2vec2's twelve layers."""
    width = config["cross_attention_dim"]
    small = {} if width >= 64 else {"layers": 2, "channels": 4, "hidden_dim": 8, "num_tokens": 3}
    return AudioProjection(cross_attention_dim=width, **small)


PUBLISHED = PublishedSet(
    name="hallo.hub",
    source="huggingface.co/fudan-generative-ai/hallo",
    licence="unverified; derived from Stable Diffusion 1.5, CreativeML OpenRAIL-M, InsightFace is for research",
    paper="2406.08801",
    files=tuple(_row(component) for component in PREFIXES),
    build={
        "reference_unet": lambda config: ReferenceUNet(**picture_config(config)),
        "unet": build_denoiser,
        "face_locator": build_locator,
        "face_projection": build_face_projection,
        "audio_projection": build_audio_projection,
    },
    base_config=SD15_UNET,
    tiny_config=TINY_SD15
    | {
        "block_out_channels": (8, 16, 24, 24),
        "down_block_types": SD15_UNET["down_block_types"],
        "up_block_types": SD15_UNET["up_block_types"],
    },
    further={
        "vae": Part(kind=AutoencoderKL, folder="sd-vae-ft-mse", source="huggingface.co/stabilityai/sd-vae-ft-mse"),
    },
)
"""The released model."""

PUBLISHED_START = replace(
    PUBLISHED,
    name="hallo.start",
    source="huggingface.co/guoyww/animatediff, of which the release has a copy",
    licence="Apache-2.0 (AnimateDiff, unverified); base: CreativeML OpenRAIL-M",
    files=(
        PublishedFile(
            path="motion_module/mm_sd_v15_v2.ckpt",
            component="unet",
            keymap=DENOISER_KEYS,
            share=r".*\.motion_modules\.\d+\.(?!audio\.).*",
            checks=(check_position_tables,),
            manifest="hallo-motion_module",
        ),
    ),
)
"""What its training starts from beside Stable Diffusion 1.5; `net.pth` has taken its place."""
