"""AniPortrait (Wei et al. 2024, arXiv 2403.17694), Lmk2Video, as published: a portrait in a film of face drawings.

What it is:
    writer   a UNet of its own, once, on the clean portrait latent at t = 0; its context is the portrait's CLIP token
    link     keys and values of the denoiser and of the portrait together, in all 16 self-attentions
    guidance the unconditional half reads nothing, its CLIP token is zero; drawings guide both halves
    drawings five feature maps, added after the first convolution and each down block, not to the skips
    time     AnimateDiff's motion modules at every level and in the middle, GroupNorm per frame, 32 positions
    films    overlapping windows of 16 frames; the drawings' BatchNorm takes each window's own statistics
Published and not kept: the portrait's own drawing, which no released weight reads; predictions of overlapping windows
summed without guidance; drawings in [-1, 509] (`pose_range="official"`); a bank rounded to half precision (an option).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Unpack, get_args

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from referencenet.checkpoints.audio2lmk import AUDIO2LMK
from referencenet.checkpoints.motion_keys import film_denoiser
from referencenet.checkpoints.published import PublishedFile, PublishedSet
from referencenet.links.bank import ReferenceBank
from referencenet.media.films import frames_of
from referencenet.media.images import Picture
from referencenet.networks.landmark_guider import LandmarkGuider
from referencenet.networks.layout import SD15_UNET, TINY_SD15, film_config, picture_config
from referencenet.networks.motion import SpatioTemporalUNet
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.pipelines.conditions import AfterBlocks, Context, FrameStore
from referencenet.pipelines.encoders import IMAGE_TOKEN
from referencenet.pipelines.films import Drawings, FilmOutput, Read
from referencenet.pipelines.options import FilmOptions
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.portraits import PORTRAIT_PARTS, PORTRAIT_SCHEDULE, PortraitFilmPipeline
from referencenet.pipelines.spec import Once, Spec
from referencenet.sampling.insertion import Interpolator, insert_frames
from referencenet.sampling.windows import Windows

PoseRange = Literal["training", "official"]
"""Values of the drawings: [-1, 1] as in training, or [-1, 509] as the published inference scripts feed them."""


class WindowFeatures(FrameStore):
    """A film's drawings, and the five feature maps of each window: made once, as they depend on all its frames.

    Args:
        read: Gives the drawings by (start, stop).
        guide: From a window's drawings (f, 3, H, W) in [0, 1] to its maps, each (f, width, h, w).
    """

    def __init__(self, read: Read, guide: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__(read, lambda films: films[0])
        self.guide = guide
        self.maps: dict[tuple[int, ...], list[Tensor]] = {}

    def features(self, frames: Sequence[int]) -> list[Tensor]:
        """The maps of a window."""
        key = tuple(frames)
        if key not in self.maps:
            self.maps[key] = self.guide(self.of(frames))
        return self.maps[key]

    def drop_before(self, frame: int) -> None:
        """Forget frames and windows that are not needed any more."""
        super().drop_before(frame)
        for window in [window for window in self.maps if min(window) < frame]:
            del self.maps[window]


class Landmarks(AfterBlocks):
    """Drawings of a face mesh as five feature maps, which all passes see."""

    def encode(self, pipe: Any, call: Any) -> WindowFeatures:
        """The drawings' store; features are made when a window first needs them."""
        return WindowFeatures(call.given[self.name], pipe.guide)

    def at_window(self, pipe: Any, value: WindowFeatures, frames: Sequence[int] | None) -> list[Tensor]:  # noqa: ARG002
        """Five maps (f, width, h, w)."""
        return value.features(frames or ())


SPEC = Spec(
    write=Once(timestep=0),
    guidance=TwoWay(blind=(IMAGE_TOKEN,)),
    conditions=(Context(IMAGE_TOKEN), Landmarks("poses")),
    scheduler=partial(DDIMScheduler, **PORTRAIT_SCHEDULE),
    windows=Windows(size=16),
    steps=25,
    scale=3.5,
    defaults="AniPortrait, scripts/pose2vid.py and inference_v2.yaml; windows are ours",
)


def build_guider(config: Mapping[str, Any]) -> LandmarkGuider:
    """The pose guider; released with 16 heads of 88 channels, narrower where the denoiser is."""
    width = config["block_out_channels"][0]
    return LandmarkGuider(width) if width >= 32 else LandmarkGuider(width, heads=2, head_dim=4)


PUBLISHED = PublishedSet(
    name="aniportrait.hub",
    source="huggingface.co/ZJYang/AniPortrait",
    licence="Apache-2.0 by its tag; derived from Stable Diffusion 1.5, CreativeML OpenRAIL-M",
    paper="2403.17694",
    files=(
        *film_denoiser("denoising_unet.pth", "motion_module.pth", manifest="aniportrait-"),
        PublishedFile(path="reference_unet.pth", component="reference_unet", manifest="aniportrait-reference_unet"),
        PublishedFile(path="pose_guider.pth", component="pose_guider", manifest="aniportrait-pose_guider"),
    ),
    build={
        "reference_unet": lambda config: ReferenceUNet(**picture_config(config)),
        "unet": lambda config: SpatioTemporalUNet(**film_config(config)),  # 32 positions, 8 heads (inference_v2.yaml)
        "pose_guider": build_guider,
    },
    base_config=SD15_UNET,
    tiny_config=TINY_SD15
    | {
        "block_out_channels": (8, 16, 32, 32),  # the guider's maps are 1, 1, 2, 4 and 4 times as wide as the first
        "down_block_types": SD15_UNET["down_block_types"],
        "up_block_types": SD15_UNET["up_block_types"],
    },
    further=PORTRAIT_PARTS,
)
"""The released Lmk2Video model."""


class AniPortraitPipeline(PortraitFilmPipeline):
    """Animates a portrait by drawings of a face mesh.

    Args:
        vae: sd-vae-ft-mse.
        image_encoder: CLIP's vision model of sd-image-variations; None where references come as banks.
        image_processor: Its pictures' preparation.
        reference_unet: Writes; None where references come as banks.
        unet: The denoiser.
        pose_guider: Of the drawings.
        scheduler: DDIM as published; others of diffusers work.
        published_norm: The guider's BatchNorm takes each window's own statistics, which is how the weights are used;
            False: the file's running ones, so that a frame's features do not depend on its neighbours.
        pose_range: Of the drawings' values.
    """

    spec = SPEC
    published = PUBLISHED
    speech = AUDIO2LMK  # from sound to drawings: `preprocess.talking_face`
    model_cpu_offload_seq = "image_encoder->reference_unet->pose_guider->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection | None,
        image_processor: CLIPImageProcessor | None,
        reference_unet: UNet2DConditionModel | None,
        unet: SpatioTemporalUNet,
        pose_guider: LandmarkGuider,
        scheduler: DDIMScheduler,
        published_norm: bool = True,
        pose_range: str = "training",  # a PoseRange; diffusers knows plain types only
    ) -> None:
        super().__init__()
        if pose_range not in get_args(PoseRange):
            raise ValueError(f"pose_range is {pose_range!r}; expected one of {list(get_args(PoseRange))}.")
        self.register(locals(), "published_norm", "pose_range")

    def guide(self, drawings: Tensor) -> list[Tensor]:
        """Five maps, each (f, width, h, w), of a window's drawings (f, 3, H, W) in [0, 1]."""
        scale = 255 if self.config.pose_range == "official" else 1
        guider = self.pose_guider
        values = (drawings * scale * 2 - 1).to(self.device_of(guider), guider.dtype)
        return guider(values, published_norm=self.config.published_norm)

    def __call__(
        self,
        reference: Picture | ReferenceBank,
        poses: Drawings,
        *,
        every: int = 1,
        interpolator: Interpolator | None = None,
        **options: Unpack[FilmOptions],
    ) -> FilmOutput | tuple[Any]:
        """Animate. For films longer than memory allows use `stream`.

        Args:
            reference: A portrait, or a bank that `write` wrote.
            poses: A drawing of the face mesh per frame (see `preprocess.face_mesh`): a film's path, a folder, a list
                of pictures, a `FaceMeshFilm` of landmarks, (frames, height, width, 3) or (frames, 3, height, width).
            every: Draw only every so many frames, and insert the others between them; as published: 3. Of n drawings
                every * ((n - 1) // every) + 1 frames come out.
            interpolator: Inserts frames, such as `sampling.insertion.read_interpolator` reads from FILM's file.
            options: See `FilmOptions`.

        Returns:
            The films.

        Raises:
            ValueError: If arguments do not fit together.
        """
        if every == 1:
            return self.film(reference, "poses", poses, options)
        kind = options.get("output_type", "pil")
        if every < 1 or interpolator is None or kind == "latent":
            raise ValueError(
                f"every={every} with output_type={kind!r} and {'no' if interpolator is None else 'an'} interpolator; "
                "expected every >= 1, and above 1 pictures and an interpolator, which inserts the frames between."
            )
        self.settle(options)  # unknown options and values out of range are told before anything is read
        wanted = options.get("num_frames")
        drawn = [frame for i, frame in enumerate(frames_of(poses, wanted)) if i % every == 0]
        changed = {"output_type": "pt", "return_dict": True, "num_frames": len(drawn)}
        films = self.film(reference, "poses", drawn, {**options, **changed}).frames
        whole = torch.stack([insert_frames(film, every - 1, interpolator) for film in films])
        frames = self.films_as(whole, kind)
        return FilmOutput(frames=frames) if options.get("return_dict", True) else (frames,)
