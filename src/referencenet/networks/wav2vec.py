"""wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477) at a film's frame rate, as all talking heads of the field use it.

Unlike the stock model, the convolutions' features, about 50 a second, are resampled to the film's frames before the
encoder. `speech_states` runs on a whole sound, as published. For long ones the parts are here: `convolved` is exact on
any stretch of a sound, `encoded` sees only the frames that it is given. b sounds, f frames, t convolution steps.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Wav2Vec2Model

BLOCK = 2**13  # steps of the first convolution, while statistics are taken


def hop_of(model: Wav2Vec2Model) -> int:
    """Samples between two steps of the convolutions; 320 as published."""
    return prod(model.config.conv_stride)


def field_of(model: Wav2Vec2Model) -> int:
    """Samples that one step of the convolutions sees; 400 as published."""
    field = 1
    for kernel, stride in zip(reversed(model.config.conv_kernel), reversed(model.config.conv_stride), strict=True):
        field = (field - 1) * stride + kernel
    return field


@torch.no_grad()
def speech_states(model: Wav2Vec2Model, waves: Tensor, num_frames: int) -> list[Tensor]:
    """Features of whole sounds.

    Args:
        model: In evaluation mode.
        waves: (b, samples), of zero mean and unit variance.
        num_frames: f.

    Returns:
        What the first layer of the encoder takes, and what each layer gives: (b, f, width) each.
    """
    features = model.feature_extractor(waves)  # (b, channels, t)
    features = functional.interpolate(features, size=num_frames, mode="linear", align_corners=True)
    return encoded(model, features.transpose(1, 2))


@torch.no_grad()
def encoded(model: Wav2Vec2Model, features: Tensor) -> list[Tensor]:
    """The encoder's states of the convolutions' features.

    Args:
        model: In evaluation mode.
        features: (b, f, channels).

    Returns:
        What the first layer takes, and what each layer gives: (b, f, width) each; the last one as the encoder gives it.
    """
    states: list[Tensor] = []

    def keep_input(_layer: Any, arguments: tuple[Any, ...]) -> None:
        states.append(arguments[0])

    with ExitStack() as stack:
        for layer in model.encoder.layers:
            stack.callback(layer.register_forward_pre_hook(keep_input).remove)
        hidden, _ = model.feature_projection(features)
        states.append(model.encoder(hidden).last_hidden_state)
    return states


@torch.no_grad()
def convolved(model: Wav2Vec2Model, waves: Tensor, statistics: tuple[Tensor, Tensor] | None) -> Tensor:
    """The convolutions' features of a stretch, exactly those of the whole sound.

    Args:
        model: In evaluation mode.
        waves: (b, samples); as normalised as the whole sound.
        statistics: As `first_statistics` gives them for the whole sound.

    Returns:
        (b, t, channels).
    """
    layers: Any = model.feature_extractor.conv_layers
    if statistics is None:
        return model.feature_extractor(waves).transpose(1, 2)
    mean, variance = (value[:, None].to(waves) for value in statistics)  # (channels, 1)
    norm = layers[0].layer_norm
    hidden = layers[0].conv(waves[:, None])
    hidden = (hidden - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None] + norm.bias[:, None]
    hidden = layers[0].activation(hidden)
    for layer in layers[1:]:
        hidden = layer(hidden)
    return hidden.transpose(1, 2)


@torch.no_grad()
def first_statistics(model: Wav2Vec2Model, wave: Any, num_samples: int) -> tuple[Tensor, Tensor] | None:
    """Mean and variance over the whole sound that the first convolution is normalised by, block by block.

    Args:
        model: The model.
        wave: Gives the normalised samples [start, stop), a tensor of shape (samples,).
        num_samples: Of the sound.

    Returns:
        (channels,) each; None: the model does not normalise over time.
    """
    if model.config.feat_extract_norm != "group":
        return None
    first: Any = model.feature_extractor.conv_layers[0]
    kernel, stride = model.config.conv_kernel[0], model.config.conv_stride[0]
    steps = (num_samples - kernel) // stride + 1
    total, squares = torch.zeros(2, model.config.conv_dim[0], dtype=torch.float64)
    for start in range(0, steps, BLOCK):
        stop = min(start + BLOCK, steps)
        block = first.conv(wave(start * stride, (stop - 1) * stride + kernel)[None, None])[0].double()  # (channels, t)
        total += block.sum(dim=1).cpu()
        squares += block.square().sum(dim=1).cpu()
    mean = total / steps
    like = first.layer_norm.weight
    return mean.to(like), (squares / steps - mean.square()).clamp(min=0).to(like)
