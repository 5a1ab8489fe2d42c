"""What pipelines build into a UNet for their own batches, out of the way while a reference is written.

A write pass has rows of its own, of one frame each: FreeNoise's windows over films, its chunks, and the part of a batch
that perturbed-attention guidance appends are not there.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from diffusers.models.attention import FreeNoiseTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.pipelines.free_noise_utils import SplitInferenceModule
from torch import nn

from referencenet.links.seats import PERTURBED, ReferenceAttnProcessor, beneath

WHOLE = 1 << 31
"""More rows than a batch has."""


@contextmanager
def undivided(unet: nn.Module) -> Generator[None]:
    """Inside, every layer takes all rows of a batch alike, and films may have one frame."""
    with ExitStack() as undo:
        merging = getattr(unet, "_tome_info", None)  # tomesd keeps the size of the last pass that began
        if merging is not None:
            undo.callback(merging.update, size=merging["size"])
        for module in unet.modules():
            if isinstance(module, FreeNoiseTransformerBlock):
                usual = (module.context_length, module.context_stride, module.weighting_scheme)
                undo.callback(module.set_free_noise_properties, *usual)
                module.set_free_noise_properties(1, 1)
            elif isinstance(module, SplitInferenceModule):
                undo.callback(setattr, module, "split_size", module.split_size)
                module.split_size = WHOLE
            elif isinstance(module, Attention) and is_perturbed_at(module):
                ours = module.processor
                holder, name = (ours, "original") if isinstance(ours, ReferenceAttnProcessor) else (module, "processor")
                undo.callback(setattr, holder, name, getattr(holder, name))
                setattr(holder, name, AttnProcessor2_0())
        yield


def is_perturbed_at(attention: Attention) -> bool:
    """Whether perturbed-attention guidance computes this attention."""
    return type(beneath(attention.processor)).__name__ in PERTURBED
