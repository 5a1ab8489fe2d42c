"""Which pipelines can be given a reference, and the true reason where one cannot.

Asked when a link is attached, and again of every other pipeline that calls the same UNet. What can only be seen from a
batch (its halves, the order of its channels) is checked where the batch is.
"""

from __future__ import annotations

from typing import Any

from diffusers import DiffusionPipeline, ModularPipeline
from diffusers.pipelines.free_noise_utils import SplitInferenceModule
from torch import nn


def linkable_unet(pipe: Any) -> nn.Module:
    """The UNet of a pipeline, without a compiled wrapper.

    Raises:
        TypeError: If it is no pipeline of diffusers, or has no UNet.
    """
    if isinstance(pipe, ModularPipeline):
        raise TypeError(
            f"{type(pipe).__name__} is a modular pipeline, which calls its UNet from blocks; reference() links "
            "diffusers' standard pipelines: give one of them with the same components."
        )
    if not isinstance(pipe, DiffusionPipeline):
        raise TypeError(f"reference() links a diffusers pipeline, but was given a {type(pipe).__name__}.")
    unet = getattr(pipe, "unet", None)
    core = getattr(unet, "_orig_mod", unet)  # torch.compile's wrapper runs hooks outside of the compiled code
    if not isinstance(core, nn.Module):
        raise TypeError(
            f"{type(pipe).__name__} has no UNet that could read a reference; expected a Stable Diffusion 1, 2, XL or "
            "AnimateDiff pipeline. Transformers (SD 3, Flux) work differently."
        )
    return core


def check_pipeline(pipe: Any, unet: nn.Module, *, has_pictures: bool) -> None:
    """See that a pipeline's calls of the UNet are of a kind that a reference fits.

    Args:
        pipe: A diffusers pipeline.
        unet: Its UNet.
        has_pictures: Whether a reference is a picture, which the pipeline's VAE has to encode.

    Raises:
        TypeError: If not; it says why.
    """
    name, config = type(pipe).__name__, getattr(unet, "config", {})
    latents, channels = config.get("out_channels"), config.get("in_channels")
    if hasattr(pipe, "vocoder"):
        raise TypeError(f"{name} makes sounds; a reference is a picture, and is read by pipelines that make pictures.")
    if hasattr(pipe, "do_perturbed_attention_guidance"):
        raise TypeError(
            f"{name} has a guidance part of its own beside the two of classifier-free guidance, and replaces attention "
            "for it; take the same pipeline without perturbed-attention guidance."
        )
    if latents is None or "cross_attention_dim" not in config:
        raise TypeError(
            f"the denoiser of {name} is a {type(unet).__name__}; expected the UNet of Stable Diffusion 1, 2, XL or "
            "AnimateDiff."
        )
    if channels not in (latents, 2 * latents + 1):
        raise TypeError(
            f"the UNet of {name} takes {channels} channels and gives {latents}, so its input has a meaning of its own; "
            "expected as many as it gives, or twice as many and one for inpainting."
        )
    if any(isinstance(module, SplitInferenceModule) for module in unet.modules()):
        raise TypeError(
            f"the UNet of {name} is cut into chunks (enable_free_noise_split_inference), so its layers do not see "
            "which row is which; a reference needs whole passes: leave the chunks away."
        )
    if has_pictures and (getattr(pipe, "vae", None) is None or not hasattr(pipe, "vae_scale_factor")):
        raise TypeError(
            f"{name} has no VAE that could encode the reference's picture; give its latents: Reference(latents=...)."
        )
