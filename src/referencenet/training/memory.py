"""What keeps a training in memory: checkpointing of all kinds of blocks, and frozen weights in half precision."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2EncoderLayer

from referencenet.training.borrowed import passing

HALF: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision to its type, where it is a half one."""

BLOCKS = ResnetBlock2D, Transformer2DModel, AnimateDiffTransformer3D, BasicTransformerBlock, Wav2Vec2EncoderLayer
"""What is computed again as one; a block inside of another is not wrapped by itself."""


NORMS = nn.GroupNorm, nn.LayerNorm, nn.BatchNorm2d

TOLD = "length", "told"
"""Attributes of networks that say to their blocks, for the length of a pass, how long a clip is and what is told."""


def freeze_and_cast(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Keep parameters that do not learn in a type, those that learn in single precision.

    Norms of a network of which something learns stay as they are: autocast gives them single precision.

    Args:
        module: Some of whose parameters may learn.
        dtype: None: they stay as they are.
    """
    has_learners = any(parameter.requires_grad for parameter in module.parameters())
    with torch.no_grad():
        for part in module.modules():
            for parameter in part.parameters(recurse=False):
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
                elif dtype is not None and not (has_learners and isinstance(part, NORMS)):
                    parameter.data = parameter.data.to(dtype)


def in_single(pipe: Any) -> None:
    """Bring all of a pipeline's networks back to single precision."""
    for module in pipe.components.values():
        if isinstance(module, nn.Module):
            for parameter in module.parameters():
                parameter.data = parameter.data.float()


def outermost_blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of a network that lie in no other block."""
    if isinstance(module, BLOCKS):
        return [module]
    return [block for child in module.children() for block in outermost_blocks(child)]


@contextmanager
def checkpointed(modules: Iterable[nn.Module]) -> Generator[None]:
    """Inside, ResNets, transformers and motion modules keep their inputs only, and run again while `backward` does.

    diffusers' own flag wraps ResNets alone in UNets with motion modules, which leaves most of what they keep.

    Args:
        modules: Networks; `backward` runs inside.
    """
    with ExitStack() as undo:
        for network in modules:
            told = [found for name in TOLD if (found := getattr(network, name, None)) is not None]
            for block in outermost_blocks(network):
                undo.enter_context(passing(block, partial(_again, block.forward, told)))
            network.gradient_checkpointing = True  # pyright: ignore[reportAttributeAccessIssue] - a write pass runs to its end
            undo.callback(network.__dict__.pop, "gradient_checkpointing", None)
        yield


def _again(forward: Callable[..., Any], told: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
    """A block's pass, whose insides are forgotten; when it runs again it is told what its network was told."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    if told:
        forward = partial(_told, forward, told, [dict(vars(each)) for each in told])
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _told(
    forward: Callable[..., Any], told: Sequence[Any], values: Sequence[dict[str, Any]], *args: Any, **kwargs: Any
) -> Any:  # fmt: skip
    """A pass inside of a network's pass, whose values these are."""
    before = [dict(vars(each)) for each in told]
    try:
        for each, value in zip(told, values, strict=True):
            vars(each).update(value)
        return forward(*args, **kwargs)
    finally:
        for each, value in zip(told, before, strict=True):
            vars(each).update(value)
