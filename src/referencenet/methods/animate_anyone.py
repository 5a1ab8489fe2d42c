"""Animate Anyone (Hu et al. 2023, arXiv 2311.17117), as published by MooreThreads: a person in a film of poses.

What it is:
    writer   a UNet of its own, once, on the clean reference latent at t = 0; its context is the reference's CLIP token
    link     keys and values of the denoiser and of the reference together, in all 16 self-attentions
    guidance the unconditional half reads nothing, its CLIP token is zero; poses guide both halves
    pose     a small convolutional net on each frame, added behind the denoiser's first convolution
    time     AnimateDiff's motion modules (version 2) at every level and in the middle, GroupNorm per frame
    films    overlapping windows of 24 frames
The face re-enactment model has two pose nets (head, mouth), added up, and its unconditional half reads the bank of a
zero latent. Published and not kept: predictions of overlapping windows summed without guidance; a bank rounded to half
precision (an option); windows that wrap around (an option); silent loading of incomplete files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.motion_keys import film_denoiser
from referencenet.checkpoints.published import PublishedFile, PublishedSet
from referencenet.links.bank import ReferenceBank
from referencenet.media.images import Picture
from referencenet.networks.layout import SD15_UNET, film_config, picture_config
from referencenet.networks.motion import SpatioTemporalUNet
from referencenet.networks.pose_guider import PoseGuider
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.pipelines.conditions import Context, FilmAfterConvIn
from referencenet.pipelines.encoders import IMAGE_TOKEN
from referencenet.pipelines.films import Drawings, FilmOutput
from referencenet.pipelines.options import FilmOptions
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.portraits import PORTRAIT_PARTS, PORTRAIT_SCHEDULE, PortraitFilmPipeline
from referencenet.pipelines.spec import Once, Spec
from referencenet.preprocess.drawing_colours import check_skeleton
from referencenet.sampling.windows import Windows

POSE_WIDTHS = (16, 32, 96, 256)  # the published class has other defaults, which no script uses

SPEC = Spec(
    write=Once(timestep=0),
    guidance=TwoWay(blind=(IMAGE_TOKEN,)),
    conditions=(Context(IMAGE_TOKEN), FilmAfterConvIn("poses", "pose_guider")),
    scheduler=partial(DDIMScheduler, **PORTRAIT_SCHEDULE),
    windows=Windows(size=24),
    steps=30,
    scale=3.5,
    defaults="Moore-AnimateAnyone, scripts/pose2vid.py and inference_v2.yaml; windows are ours",
)

SPEC_REENACT = replace(
    SPEC,
    guidance=TwoWay(reads="blank", blind=(IMAGE_TOKEN,)),
    conditions=(Context(IMAGE_TOKEN), FilmAfterConvIn("poses", "pose_guider1", "pose_guider2")),
)


def build_pose_guider(config: Mapping[str, Any]) -> PoseGuider:
    """The pose net."""
    return PoseGuider(conditioning_embedding_channels=config["block_out_channels"][0], block_out_channels=POSE_WIDTHS)


PUBLISHED = PublishedSet(
    name="animate_anyone.moore",
    source="huggingface.co/patrolli/AnimateAnyone",
    licence="Apache-2.0 by its tag (unverified); derived from Stable Diffusion 1.5, CreativeML OpenRAIL-M",
    paper="2311.17117",
    files=(
        *film_denoiser("denoising_unet.pth", "motion_module.pth", manifest="animate_anyone-"),
        PublishedFile(
            path="reference_unet.pth",
            component="reference_unet",
            keymap=KeyMap(ignored={r"conv_(norm_)?out\..*": "the reference net's output is never used"}),
            manifest="animate_anyone-reference_unet",
        ),
        PublishedFile(path="pose_guider.pth", component="pose_guider", manifest="animate_anyone-pose_guider"),
    ),
    build={
        "reference_unet": lambda config: ReferenceUNet(**picture_config(config)),
        "unet": lambda config: SpatioTemporalUNet(**film_config(config)),  # 32 positions, 8 heads (inference_v2.yaml)
        "pose_guider": build_pose_guider,
    },
    base_config=SD15_UNET,
    further=PORTRAIT_PARTS,
)
"""The reproduction's pose model."""

PUBLISHED_REENACT = PublishedSet(
    name="animate_anyone.reenact",
    source=PUBLISHED.source,
    licence=PUBLISHED.licence,
    paper=PUBLISHED.paper,
    files=(
        *film_denoiser("reenact/denoising_unet.pth", manifest="animate_anyone-reenact_"),
        PublishedFile(
            path="reenact/reference_unet.pth",
            component="reference_unet",
            manifest="animate_anyone-reenact_reference_unet",
        ),
        PublishedFile(
            path="reenact/pose_guider1.pth", component="pose_guider1", manifest="animate_anyone-reenact_pose_guider"
        ),
        PublishedFile(path="reenact/pose_guider2.pth", component="pose_guider2"),
    ),
    build={
        "reference_unet": lambda config: UNet2DConditionModel(**picture_config(config)),  # with an output head
        "unet": PUBLISHED.build["unet"],
        "pose_guider1": build_pose_guider,
        "pose_guider2": build_pose_guider,
    },
    base_config=SD15_UNET,
    further=PUBLISHED.further,
)
"""The reproduction's face re-enactment model."""


class AnimateAnyonePipeline(PortraitFilmPipeline):
    """Animates the person of a picture.

    Args:
        vae: sd-vae-ft-mse.
        image_encoder: CLIP's vision model of sd-image-variations; None where references come as banks.
        image_processor: Its pictures' preparation.
        reference_unet: Writes; None where references come as banks.
        unet: The denoiser.
        pose_guider: Of the drawings.
        scheduler: DDIM as published; others of diffusers work.
    """

    spec = SPEC
    published = PUBLISHED
    renamed = {"denoising_unet": "unet"}
    model_cpu_offload_seq = "image_encoder->reference_unet->pose_guider->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection | None,
        image_processor: CLIPImageProcessor | None,
        reference_unet: UNet2DConditionModel | None,
        unet: SpatioTemporalUNet,
        pose_guider: PoseGuider,
        scheduler: DDIMScheduler,
    ) -> None:
        super().__init__()
        self.register(locals())

    def check_drawings(self, films: Sequence[Tensor]) -> None:
        """Refuse DensePose; films (frames, 3, height, width)."""
        for film in films:
            check_skeleton(film[0])

    def __call__(
        self, reference: Picture | ReferenceBank, poses: Drawings | tuple[Drawings, ...], **options: Unpack[FilmOptions]
    ) -> FilmOutput | tuple[Any]:
        """Animate. For films longer than memory allows use `stream`.

        Args:
            reference: A picture of the person, or a bank that `write` wrote.
            poses: A skeleton drawing per frame, on black: a film's path, a folder, a list of pictures, a
                `SkeletonFilm` of key points, (frames, height, width, 3) or (frames, 3, height, width). The face
                re-enactment model takes a pair of films.
            options: See `FilmOptions`.

        Returns:
            The films.

        Raises:
            ValueError: If arguments do not fit together.
        """
        return self.film(reference, "poses", poses, options)


class FaceReenactmentPipeline(AnimateAnyonePipeline):
    """Animates the face of a picture: Animate Anyone's re-enactment model.

    `poses` is a pair: films of the upper landmarks (head pose, eyes) and of the mouth's, both drawn on black.

    Args:
        vae: sd-vae-ft-mse.
        image_encoder: CLIP's vision model of sd-image-variations; None where references come as banks.
        image_processor: Its pictures' preparation.
        reference_unet: Writes; None where references come as banks.
        unet: The denoiser.
        pose_guider1: Of the upper landmarks.
        pose_guider2: Of the mouth's.
        scheduler: DDIM as published; others of diffusers work.
    """

    spec = SPEC_REENACT
    published = PUBLISHED_REENACT
    num_driving = 2
    model_cpu_offload_seq = "image_encoder->reference_unet->pose_guider1->pose_guider2->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection | None,
        image_processor: CLIPImageProcessor | None,
        reference_unet: UNet2DConditionModel | None,
        unet: SpatioTemporalUNet,
        pose_guider1: PoseGuider,
        pose_guider2: PoseGuider,
        scheduler: DDIMScheduler,
    ) -> None:
        PortraitFilmPipeline.__init__(self)
        self.register(locals())
