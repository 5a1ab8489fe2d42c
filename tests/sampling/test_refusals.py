"""What cannot read a reference is told the true reason and what to do, before anything is touched."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.deprecated.audioldm.pipeline_audioldm import AudioLDMPipeline

from referencenet import Reference, reference, share
from tiny import CONTEXT, build, latents, picture, tiny, unet_config
from traces import traces

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # deprecated pipelines, odd configurations

HERO = picture(1)
SMALL = {"block_out_channels": (8, 16), "norm_num_groups": 4, "sample_size": 8}


def with_parts(cls: Any, **changes: Any) -> Any:
    """A pipeline of a class with the parts of a tiny one where it has them, and None elsewhere."""
    parts = tiny("sd").pipe.components | {"requires_safety_checker": False} | changes
    names = {
        name: parameter
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if name != "self" and (name in parts or parameter.default is inspect.Parameter.empty)
    }
    return cls(**{name: parts.get(name) for name in names})


def plain_unet(**changes: Any) -> Any:
    return build(lambda: UNet2DConditionModel(**unet_config(**changes)), 5)


def film_unet() -> Any:
    blocks = {"down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D")}
    blocks |= {"up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D")}
    settings = {"layers_per_block": 1, "cross_attention_dim": CONTEXT, "attention_head_dim": 4}
    return diffusers.UNet3DConditionModel(**SMALL, **blocks, **settings)


def pixel_unet() -> Any:
    return plain_unet(in_channels=3, out_channels=6)


def unconditional_unet() -> Any:
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "layers_per_block": 1}
    return diffusers.UNet2DModel(**SMALL, **blocks)


def kandinsky3_unet() -> Any:
    settings = {"time_embedding_dim": 4, "groups": 2, "attention_head_dim": 4, "layers_per_block": 3}
    return diffusers.Kandinsky3UNet(
        in_channels=4, block_out_channels=(8, 16), cross_attention_dim=4, encoder_hid_dim=8, **settings
    )


CONTROLLED = {
    **SMALL,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": CONTEXT,
    "num_attention_heads": 2,
    "ctrl_block_out_channels": (8, 16),
    "ctrl_num_attention_heads": 2,
    "ctrl_max_norm_num_groups": 4,
}
DEPTH_VAE = {"in_channels": 6, "out_channels": 6, "norm_num_groups": 2, "block_out_channels": (4,)}

REFUSED: dict[str, tuple[Any, str]] = {
    "sound": (lambda: with_parts(AudioLDMPipeline, vocoder=tiny("sd").pipe.text_encoder), "makes sounds"),
    "films of another UNet": (
        lambda: with_parts(diffusers.TextToVideoSDPipeline, unet=film_unet()),
        "denoiser of TextToVideoSDPipeline is a UNet3DConditionModel",
    ),
    "pixels": (lambda: with_parts(diffusers.IFPipeline, unet=pixel_unet()), "works on pixels"),
    "Kandinsky 3": (
        lambda: with_parts(diffusers.Kandinsky3Img2ImgPipeline, unet=kandinsky3_unet()),
        "is a Kandinsky3UNet",
    ),
    "no words": (lambda: with_parts(diffusers.DDPMPipeline, unet=unconditional_unet()), "is a UNet2DModel"),
    "depth estimation": (
        lambda: with_parts(diffusers.MarigoldDepthPipeline, unet=plain_unet(in_channels=8), prediction_type="depth"),
        "takes 8 channels and gives 4, so its input has a meaning of its own",
    ),
    "a control network inside": (
        lambda: with_parts(diffusers.StableDiffusionPipeline, unet=diffusers.UNetControlNetXSModel(**CONTROLLED)),
        "is a UNetControlNetXSModel",
    ),
    "upscaling": (
        lambda: with_parts(diffusers.StableDiffusionUpscalePipeline, unet=plain_unet(in_channels=7)),
        "takes 7 channels and gives 4",
    ),
    "no VAE": (lambda: with_parts(diffusers.StableDiffusionPipeline, vae=None), r"no VAE.*Reference\(latents=\.\.\.\)"),
    "depth in the VAE": (
        lambda: with_parts(diffusers.StableDiffusionLDM3DPipeline, vae=AutoencoderKL(**DEPTH_VAE)),
        "encodes 6 channels, more than a picture has",
    ),
    "boxes": (
        lambda: with_parts(diffusers.StableDiffusionGLIGENPipeline, unet=plain_unet(attention_type="gated")),
        "looks at boxes in the result",
    ),
    "attention maps": (
        lambda: with_parts(diffusers.StableDiffusionAttendAndExcitePipeline),
        "moves its latents by the attention maps",
    ),
    "another pass": (lambda: with_parts(diffusers.StableDiffusionSAGPipeline), "another over blurred latents"),
    "frames as rows": (lambda: with_parts(diffusers.TextToVideoZeroPipeline), "lets its frames attend to each other"),
    "no UNet": (lambda: with_parts(diffusers.DiTPipeline, id2label=None), "has no UNet that could read"),
    "UNets of other names": (
        lambda: with_parts(
            diffusers.VersatileDiffusionImageVariationPipeline, image_unet=plain_unet(), image_encoder=None
        ),
        r"has no `unet` but \['image_unet'\]",
    ),
    "blocks": (lambda: object.__new__(diffusers.StableDiffusionXLModularPipeline), "is a modular pipeline"),
    "no pipeline": (lambda: tiny("sd").unet, "was given a UNet2DConditionModel"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_read_is_told_why(what: str):
    make, reason = REFUSED[what]
    pipe = make()
    unet = getattr(pipe, "unet", None)
    before = traces(unet) if isinstance(unet, torch.nn.Module) else None
    for link in ("attention", "adain"):
        with pytest.raises(TypeError, match=reason), reference(pipe, HERO, links=link):
            pass
    if before is not None:
        assert traces(unet) == before


@pytest.mark.parametrize("guided", [None, True])
def test_rows_at_several_timesteps_are_refused(guided: bool | None):
    """As where steps are made at once (ParaDiGMS)."""
    pipeline = tiny("sd")

    def several(module: Any, args: Any, kwargs: Any) -> Any:  # noqa: ARG001 - a hook's signature
        return (args[0], torch.tensor([801, 401]), *args[2:]), kwargs

    handle = pipeline.unet.register_forward_pre_hook(several, with_kwargs=True)
    with handle, reference(pipeline.pipe, HERO, guided=guided), pytest.raises(ValueError, match="at 2 timesteps"):
        pipeline()


def test_a_picture_is_needed_by_pictures_alone():
    """What a pipeline without a VAE, or with one of more channels, is refused it can be given as latents."""
    for changes in ({"vae": None}, {"vae": AutoencoderKL(**DEPTH_VAE)}):
        pipe = with_parts(diffusers.StableDiffusionPipeline, **changes)
        pipe.set_progress_bar_config(disable=True)
        with reference(pipe, Reference(latents=latents(1))):
            pass
        with share(pipe):
            pass
