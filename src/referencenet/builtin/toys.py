"""The small parts of published classes: what of a system has other sizes in the drawn world than its builder gives.

Latents are half as large as pictures, so guiders halve once; the denoiser's widths are 64, 64, 96 and 96, a context has
96 channels. Stock parts (autoencoder, words, pictures, sound) are the shipped ones or grow from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from referencenet.networks.image_prompt import ImagePromptResampler
from referencenet.networks.landmark_guider import LandmarkGuider
from referencenet.networks.neighbourhood import NeighbourTokens
from referencenet.networks.pose_guider import PoseGuider
from referencenet.networks.projected_tokens import AudioProjection, FaceProjection
from referencenet.training.draws import first_weights

CONTEXT = 96
"""Channels of words and of a picture's token."""
FACE = 64
"""Numbers of a face: the observer's embedding in the place of a recogniser's."""
HINTS = (16, 32)
"""Widths of what sees pictures beside the latents: one halving, as of the autoencoder."""

SPEECH = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": (32,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
}
"""Of wav2vec 2.0."""
SPEECH_SEED = 0
"""Of its weights, which are never trained."""

VISION = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 8,
    "projection_dim": CONTEXT,
}
"""Of the picture encoder in CLIP's place."""


def make_speech_model() -> Wav2Vec2Model:
    """wav2vec 2.0 with random weights, always the same: its layers tell loudness and brightness of a sound."""
    return seeded(lambda: Wav2Vec2Model(Wav2Vec2Config(**SPEECH)), SPEECH_SEED)


def make_image_encoder() -> CLIPVisionModelWithProjection:
    """CLIP's vision model for pictures of 64 x 64, untrained."""
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION))


def make_image_processor() -> CLIPImageProcessor:
    """What makes pictures ready for it."""
    side = VISION["image_size"]
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def seeded(make: Callable[[], Any], seed: int) -> Any:
    """A network as its constructor draws it, from a seed; the global generator stays where it was."""
    with first_weights(seed):
        return make().eval().requires_grad_(False)


def second_text_encoder(shipped: CLIPTextModel) -> CLIPTextModelWithProjection:
    """The shipped text model in the place of SDXL's second, whose pooled state is projected by the identity.

    It has one layer more, which adds nothing: SDXL reads what goes into the last layer.

    Args:
        shipped: As the base has it.
    """
    count = shipped.config.num_hidden_layers
    config = CLIPTextConfig(**{**shipped.config.to_dict(), "num_hidden_layers": count + 1})
    longer = CLIPTextModelWithProjection(config).eval().requires_grad_(False)
    state, last = shipped.state_dict(), f"encoder.layers.{count}."
    for full, parameter in longer.named_parameters():
        name = full.removeprefix("text_model.")
        if name in state:
            parameter.data.copy_(state[name])
        elif name.startswith((f"{last}self_attn.out_proj", f"{last}mlp.fc2")):
            parameter.data.zero_()
        elif name == "text_projection.weight":
            parameter.data.copy_(torch.eye(len(parameter)))
    return longer


def idm_vton_config(unet: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """IDM-VTON's networks beside the shipped UNet: a context of two text models, thirteen channels.

    Args:
        unet: The shipped UNet's configuration.
    """
    both = {**unet, "cross_attention_dim": 2 * CONTEXT}
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 16}
    return {
        "unet": {
            **both, **added, "in_channels": 13, "projection_class_embeddings_input_dim": CONTEXT + 6 * 16,
        },
        "reference_unet": both,
        "image_projection": {
            "embed_dims": VISION["hidden_size"], "output_dims": 2 * CONTEXT, "hidden_dims": 96, "depth": 2,
            "dim_head": 32, "heads": 3, "num_queries": 4,
        },
    }  # fmt: skip


PARTS: Mapping[tuple[str, str], Callable[[], nn.Module]] = MappingProxyType({
    ("aniportrait", "pose_guider"): lambda: LandmarkGuider(64, heads=2, head_dim=32, widths=(64, 64, 96, 96), factor=2),
    ("emo", "face_locator"): lambda: PoseGuider(1, 4, HINTS),
    ("emo", "audio_projection"): lambda: NeighbourTokens(
        layers=SPEECH["num_hidden_layers"], channels=SPEECH["hidden_size"], cross_attention_dim=CONTEXT
    ),
    ("hallo", "face_locator"): lambda: PoseGuider(3, 64, HINTS),
    ("hallo", "face_projection"): lambda: FaceProjection(FACE, CONTEXT),
    ("hallo", "audio_projection"): lambda: AudioProjection(
        layers=SPEECH["num_hidden_layers"], channels=SPEECH["hidden_size"], hidden_dim=128,
        cross_attention_dim=CONTEXT, num_tokens=8,
    ),
    ("idm_vton", "image_projection"): lambda: ImagePromptResampler(**idm_vton_config({})["image_projection"]),
})  # fmt: skip
"""New small networks: by system and component, in the place of what the published set builds."""
