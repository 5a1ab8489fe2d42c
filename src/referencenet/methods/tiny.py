"""Tiny pipelines with random weights: the whole path of every system in seconds, to try an installation.

Stock parts of diffusers and transformers go by the annotations of the pipeline's constructor; all other networks are
those that a published set builds, from its narrow configuration. Weights are drawn from a seed, parameter by parameter,
so they are the same on every machine and no global state moves.
"""

from __future__ import annotations

import inspect
import typing
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKL
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from referencenet.checkpoints.audio2lmk import AUDIO2LMK
from referencenet.methods.systems import pipelines
from referencenet.preprocess.talking_face import TalkingFace


def tiny_pipeline(system: str | type[Any], seed: int = 0) -> Any:
    """A system's pipeline with narrow networks of random weights.

    Args:
        system: Name of a system or of one of its published sets, or the pipeline's class.
        seed: Of the weights.

    Raises:
        ValueError: If there is no such system, or a part of it is of no known kind.
    """
    if isinstance(system, str):
        known = pipelines()
        if system not in known:
            raise ValueError(f"there is no tiny pipeline of {system!r}; there are {', '.join(known)}.")
        system = known[system]
    with torch.random.fork_rng(devices=[]):  # what constructors draw before the seed decides
        parts = {name: _part(system, name, annotation, seed) for name, annotation in components_of(system).items()}
    return system(**parts)


def tiny_talking_face(seed: int = 0) -> TalkingFace:
    """AniPortrait's networks from sound to drawings, narrow and with random weights.

    Args:
        seed: Of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        networks: Any = (
            filled(build(AUDIO2LMK.tiny_config), zlib.crc32(f"{seed}/{name}".encode()))
            for name, build in AUDIO2LMK.build.items()
        )
        return TalkingFace(*networks)


def tiny_speech_model(pipe: Any, seed: int = 0) -> Wav2Vec2Model:
    """wav2vec 2.0, narrow and with random weights, whose layers a tiny pipeline's audio projection takes.

    Args:
        pipe: The tiny pipeline.
        seed: Of the weights.
    """
    projection = pipe.audio_projection.config
    config = Wav2Vec2Config(
        hidden_size=projection.channels,
        num_hidden_layers=projection.layers,
        num_attention_heads=2,
        intermediate_size=8,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        return filled(Wav2Vec2Model(config), zlib.crc32(f"{seed}/speech".encode()))


def components_of(pipeline: type[Any]) -> dict[str, Any]:
    """The parts of a pipeline's constructor, with their annotations; settings with defaults are left alone."""
    hints = typing.get_type_hints(pipeline.__init__)
    parameters = inspect.signature(pipeline.__init__).parameters
    return {
        name: hints[name]
        for name, parameter in parameters.items()
        if name != "self" and (parameter.default is parameter.empty or parameter.default is None)
    }


def _part(pipeline: Any, name: str, annotation: Any, seed: int) -> Any:
    """One component, seeded by its name."""
    published = pipeline.published
    own = zlib.crc32(f"{seed}/{name}".encode())
    if name == "scheduler":
        return pipeline.spec.scheduler()
    kinds = typing.get_args(annotation) or (annotation,)
    for kind, make in STOCK.items():
        if kind in kinds:
            return make(published.tiny_config, own)
    if name in published.build:
        return filled(published.build[name](published.tiny_config), own)
    raise ValueError(f"{pipeline.__name__}'s {name} is a {annotation}; tiny pipelines know {sorted(map(str, STOCK))}.")


def filled(module: Any, seed: int) -> Any:
    """Fill a module's parameters with seeded noise of the size that keeps activations near one."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(noise * 0.1 + (1 if name.endswith(".weight") else 0))
    return module.eval().requires_grad_(False)


def _tokenizer(_config: Mapping[str, Any], _seed: int) -> CLIPTokenizer:
    """A tokenizer that knows the small letters, and no words."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def _text(kind: Any) -> Callable[[Mapping[str, Any], int], Any]:
    """CLIP's text model, narrow: as wide as the denoiser's context."""

    def make(config: Mapping[str, Any], seed: int) -> Any:
        tokenizer = _tokenizer(config, seed)
        width = config.get("text_width", config.get("cross_attention_dim", 16))
        return filled(
            kind(
                CLIPTextConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=width,
                    intermediate_size=12,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    projection_dim=width,
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            ),
            seed,
        )

    return make


def _vae(_config: Mapping[str, Any], seed: int) -> AutoencoderKL:
    """Stable Diffusion's autoencoder, narrow."""
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=64,
        force_upcast=False,
    )
    return filled(vae, seed)


def _image_encoder(config: Mapping[str, Any], seed: int) -> CLIPVisionModelWithProjection:
    """CLIP's vision model, narrow: its embedding is as wide as the denoiser's context."""
    clip = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=config.get("cross_attention_dim", 16),
        )
    )
    return filled(clip, seed)


def _image_processor(_config: Mapping[str, Any], _seed: int) -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


STOCK: Mapping[Any, Callable[[Mapping[str, Any], int], Any]] = MappingProxyType({
    AutoencoderKL: _vae,
    CLIPImageProcessor: _image_processor,
    CLIPTextModel: _text(CLIPTextModel),
    CLIPTextModelWithProjection: _text(CLIPTextModelWithProjection),
    CLIPTokenizer: _tokenizer,
    CLIPVisionModelWithProjection: _image_encoder,
})  # fmt: skip
"""Parts that systems take from diffusers and transformers, by their kind."""
