"""Which pipelines can be given a reference, and the true reason where one cannot.

Asked when a link is attached, and again at the first pass of every call of the UNet, whichever pipeline makes it. What
can only be seen from a batch (its parts, what stands in its channels) is checked where the batch is.
"""

from __future__ import annotations

from typing import Any

from diffusers import DiffusionPipeline, ModularPipeline, UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention_processor import Attention
from torch import nn

from referencenet.links.offloading import CASTING, GROUP
from referencenet.links.seats import PERTURBED
from referencenet.sampling.guidance import is_perturbed
from referencenet.sampling.undivided import is_perturbed_at

REASONS = {
    "StableDiffusionAttendAndExcitePipeline": "moves its latents by the attention maps of passes of its own",
    "StableDiffusionDiffEditPipeline": "has passes over two prompts at once, of which none is the unconditional one",
    "StableDiffusionPix2PixZeroPipeline": "moves its latents by the attention maps of passes of its own",
    "StableDiffusionSAGPipeline": "keeps the attention map of its last pass and has another over blurred latents",
    "TextToVideoZeroPipeline": "lets its frames attend to each other instead of self-attention",
    "TextToVideoZeroSDXLPipeline": "lets its frames attend to each other instead of self-attention",
}
"""Pipelines whose passes have a meaning of their own: by the name of their class, and why."""

HARMLESS = (GROUP, CASTING, "lazy_prefetch_group_offloading", "layer_execution_tracker", "peft_autocast_disable")
"""diffusers' hooks that compute what a layer computes; others skip layers or keep what an earlier pass gave."""


def linkable_unet(pipe: Any) -> nn.Module:
    """The UNet of a pipeline, without a compiled wrapper.

    Raises:
        TypeError: If it is no pipeline of diffusers, or has no UNet.
    """
    name = type(pipe).__name__
    if isinstance(pipe, ModularPipeline):
        raise TypeError(
            f"{name} is a modular pipeline, which calls its UNet from blocks; reference() links diffusers' standard "
            "pipelines: give one of them with the same components."
        )
    if not isinstance(pipe, DiffusionPipeline):
        raise TypeError(f"reference() links a diffusers pipeline, but was given a {name}.")
    unet = getattr(pipe, "unet", None)
    core = getattr(unet, "_orig_mod", unet)  # torch.compile's wrapper runs hooks outside of the compiled code
    if not isinstance(core, nn.Module):
        others = sorted(part for part, value in vars(pipe).items() if "unet" in part and isinstance(value, nn.Module))
        raise TypeError(
            f"{name} has {f'no `unet` but {others}' if others else 'no UNet'} that could read a reference; expected a "
            "Stable Diffusion 1, 2, XL or AnimateDiff pipeline. Transformers (SD 3, Flux) work differently."
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
    name = type(pipe).__name__
    if hasattr(pipe, "vocoder") or hasattr(pipe, "mel"):
        raise TypeError(f"{name} makes sounds; a reference is a picture, and is read by pipelines that make pictures.")
    reason = next((REASONS[base.__name__] for base in type(pipe).__mro__ if base.__name__ in REASONS), None)
    if reason is not None:
        raise TypeError(f"{name} {reason}; take a pipeline whose UNet denoises one batch at every step.")
    if not isinstance(unet, UNet2DConditionModel | UNetMotionModel):
        raise TypeError(
            f"the denoiser of {name} is a {type(unet).__name__}; expected the UNet of Stable Diffusion 1, 2, XL or "
            "AnimateDiff (UNet2DConditionModel or UNetMotionModel)."
        )
    _check_channels(pipe, unet)
    _check_layers(pipe, unet)
    if not has_pictures:
        return
    vae = getattr(pipe, "vae", None)
    if vae is None or not hasattr(pipe, "vae_scale_factor"):
        raise TypeError(
            f"{name} has no VAE that could encode the reference's picture; give its latents: Reference(latents=...)."
        )
    channels = getattr(vae.config, "in_channels", 3)
    if channels != 3:
        raise TypeError(
            f"the VAE of {name} encodes {channels} channels, more than a picture has (a depth map beside it, as in "
            "LDM3D); give the reference's latents: Reference(latents=...)."
        )


def _check_channels(pipe: Any, unet: Any) -> None:
    """See that the UNet's output is of its latents, and that what it takes beside them can be told of a reference."""
    name, latents, channels = type(pipe).__name__, unet.config.out_channels, unet.config.in_channels
    if latents == 2 * channels:
        where = "latents of its own" if hasattr(pipe, "movq") else "pixels"
        raise TypeError(
            f"{name} works on {where}, and its UNet predicts a variance beside the noise; expected the UNet of Stable "
            "Diffusion 1, 2, XL or AnimateDiff, which works on a VAE's latents."
        )
    known = [latents, 2 * latents + 1]
    known += [2 * latents] if hasattr(pipe, "prepare_image_latents") else []
    known += [latents + 1] if hasattr(pipe, "prepare_depth_map") else []
    if channels not in known:
        raise TypeError(
            f"the UNet of {name} takes {channels} channels and gives {latents}, so its input has a meaning of its own; "
            "expected as many as it gives, with a mask and a masked picture for inpainting, with a picture for "
            "InstructPix2Pix, or with a depth map for depth-to-image."
        )


def _check_layers(pipe: Any, unet: nn.Module) -> None:
    """See that every layer computes what it computes without a look at other passes, other rows or the layout."""
    name, is_known = type(pipe).__name__, is_perturbed(pipe)
    custom = [type(each).__name__ for each in getattr(pipe, "_pag_attn_processors", None) or ()]
    if is_known and not set(custom) <= PERTURBED.keys():
        raise TypeError(f"{name} perturbs attention by {custom}; expected diffusers' own {sorted(PERTURBED)}.")
    for where, module in unet.named_modules():
        changed = _changed_forward(module)
        if changed:
            raise TypeError(
                f"{f'{where} in ' * bool(where)}{type(unet).__name__}: its forward has been replaced by {changed}, as "
                "caches between steps do (DeepCache, pyramid attention broadcast); they would give a pass over the "
                "reference what a pass over the picture left, and the other way round: take the replacement away "
                "inside the block."
            )
        if getattr(module, "fuser", None) is not None:
            raise TypeError(
                f"{where} of {name} looks at boxes in the result (GLIGEN), which a reference does not have; take a "
                "pipeline without them."
            )
        if isinstance(module, Attention) and is_perturbed_at(module) and not is_known:
            raise TypeError(
                f"{where} is computed for perturbed-attention guidance, which {name} does not have: a call that was "
                "interrupted left it so. Give every layer its own again: "
                "unet.set_attn_processor(AttnProcessor2_0())."
            )


def _changed_forward(module: nn.Module) -> str | None:
    """What stands in the place of a module's forward and may compute something else, in words."""
    hooks = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
    foreign = sorted(set(hooks) - set(HARMLESS))
    if foreign:
        return f"diffusers' {foreign[0]}"
    replaced = vars(module).get("forward")
    is_known = hasattr(module, "_diffusers_hook") or hasattr(module, "_hf_hook")  # accelerate's offloading
    if replaced is None or is_known or getattr(replaced, "__func__", None) is type(module).forward:
        return None
    if hasattr(replaced, "_torchdynamo_orig_callable"):
        return "torch.compile (which a link follows where the module is compiled: pipe.unet = torch.compile(pipe.unet))"
    return str(getattr(replaced, "__qualname__", replaced))
