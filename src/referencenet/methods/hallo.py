"""Hallo (Xu et al. 2024, arXiv 2406.08801), as published in fudan-generative-vision/hallo: a portrait speaks.

What it is:
    writer   a UNet of its own on clean latents at t = 0: the portrait once, the last two frames of every clip; its
             context is the face's tokens, and under guidance it runs beside the tokens of no face as well
    link     keys and values of the denoiser and of the portrait together, in all 16 self-attentions
    motion   the motion frames' self-attention inputs stand before the frames in the motion modules, in both halves;
             blocks without attention have no motion modules, which are released but never run
    audio    behind each spatial transformer a transformer with three masked attentions to a frame's 32 tokens
    guidance the unconditional half has no portrait, no face, no audio and no locator
    films    clips of 16 frames, each after the last two of the clip before; square, 25 frames a second
Quirks of the released weights: frames of the conditional half read the portrait of both contexts in turn, and motion
frames are written beside contexts that take turns as well (`tiled`). Published and not kept: guidance of 1 and below
that fails, weights of the masks that depend on the training mode, a bank rounded to half precision (an option).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from PIL import Image
from torch import Tensor

from referencenet.checkpoints.hallo import PUBLISHED
from referencenet.checkpoints.hallo import PUBLISHED_START as PUBLISHED_START
from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Concat
from referencenet.links.tiled import Tiled
from referencenet.networks.audio_unet import AudioUNet
from referencenet.networks.pose_guider import PoseGuider
from referencenet.networks.projected_tokens import AudioProjection, FaceProjection
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.pipelines.adapters import UNetAdapters
from referencenet.pipelines.clips import ClipPipeline
from referencenet.pipelines.encoders import check_finite_input, encode_pixels, pixels_of, stretched
from referencenet.pipelines.films import FilmOutput
from referencenet.pipelines.heard import around, read_features
from referencenet.pipelines.options import ClipOptions, Settings
from referencenet.pipelines.portraits import PORTRAIT_SCHEDULE
from referencenet.pipelines.prediction import rounded
from referencenet.pipelines.spec import Canvas, Once, Shown, Spec
from referencenet.pipelines.talking import (
    FACE,
    LOCATED,
    MASKS,
    NO_FACE,
    Audio,
    BesideNoFace,
    Face,
    Located,
    MotionFrames,
    contexts_of,
    kept_of,
    level_sizes,
    of_frames,
    of_portrait,
)
from referencenet.preprocess.portrait import Portrait
from referencenet.telling import note

SPEC = Spec(
    write=Once(timestep=0),
    link=Tiled(),
    guidance=BesideNoFace(blind=("face", "audio", "locator", "motion")),
    conditions=(Face("face"), Located("locator", "face_locator"), Audio("audio"), MotionFrames("motion")),
    scheduler=partial(DDIMScheduler, **PORTRAIT_SCHEDULE),
    steps=40,
    scale=3.5,
    size=(512, 512),
    defaults="Hallo, configs/inference/default.yaml",
)

MOTION_FRAMES = 2
"""As trained."""

Reference = Portrait | ReferenceBank | Shown | Callable[[Canvas], Shown]


class HalloPipeline(ClipPipeline, UNetAdapters):
    """Lets a portrait speak.

    Args:
        vae: sd-vae-ft-mse.
        reference_unet: Writes; None where a bank is given and one clip is enough.
        unet: The denoiser.
        face_locator: Of the face's rectangle.
        face_projection: Of the face's embedding.
        audio_projection: Of speech features.
        scheduler: DDIM as published; others of diffusers work.
        motion_frames: Frames of a clip that the next one begins from.
        clip_frames: Frames of a clip.
        tiled: Under guidance read as the published program does, which the weights' results depend on; False: every
            pass reads what was written beside its own face tokens.
    """

    spec = SPEC
    published = PUBLISHED
    fills_clips = True
    model_cpu_offload_seq = "face_projection->face_locator->audio_projection->reference_unet->unet->vae"
    _optional_components = ["reference_unet"]

    def __init__(
        self,
        vae: AutoencoderKL,
        reference_unet: ReferenceUNet | None,
        unet: AudioUNet,
        face_locator: PoseGuider,
        face_projection: FaceProjection,
        audio_projection: AudioProjection,
        scheduler: DDIMScheduler,
        motion_frames: int = MOTION_FRAMES,
        clip_frames: int = 16,
        tiled: bool = True,
    ) -> None:
        super().__init__()
        if motion_frames < 1 or clip_frames < 1:
            raise ValueError(f"motion_frames={motion_frames}, clip_frames={clip_frames}; expected both at least 1.")
        if motion_frames != MOTION_FRAMES:
            note(f"motion_frames is {motion_frames}; the released weights were trained with {MOTION_FRAMES}.")
        self.register(locals(), "motion_frames", "clip_frames", "tiled")

    @property
    def link(self) -> Concat:
        """How the denoiser reads."""
        if not self.config.tiled:
            return Concat()
        first, second = contexts_of(self.config.motion_frames, guided=True, tiled=True)
        return Tiled(rows=(first[0], second[0]))

    def check_size(self, width: int, height: int) -> None:
        """Refuse sizes that latents cannot have, and those that are not square.

        Raises:
            ValueError: If the size is one of those.
        """
        super().check_size(width, height)
        if width != height:
            raise ValueError(f"the size is {width} x {height}; the model draws squares: give width and height alike.")

    def show(self, reference: Portrait, canvas: Canvas) -> Shown:
        """The portrait's mean latent (1, 4, h, w), its face's tokens (1, 4, c), and what is known of its face."""
        if not isinstance(reference, Portrait):  # pyright: ignore[reportUnnecessaryIsInstance] - users err here
            raise TypeError(
                f"the portrait is a {type(reference).__name__}; give a referencenet.preprocess.Portrait: the "
                "picture with its landmarks and the face's embedding."
            )
        regions = reference.located()
        embedding = reference.embedding(self.face_projection.config.embedding_dim)
        projection, locator = self.face_projection, self.face_locator
        both = torch.cat([embedding, torch.zeros_like(embedding)])
        face, none = projection(both.to(self.device_of(projection), projection.dtype)).split(1)
        place = regions.located(canvas.size).to(self.device_of(locator), locator.dtype)
        factor, levels = self.vae_scale_factor, len(self.unet.config.block_out_channels)
        picture = stretched(reference.picture, canvas.size, Image.Resampling.BILINEAR)
        return Shown(
            latents=encode_pixels(self, pixels_of([picture]), keep=True),
            context=face,
            kept={
                FACE: face,
                NO_FACE: none,
                LOCATED: locator(place),
                MASKS: regions.pyramid(level_sizes((canvas.height // factor, canvas.width // factor), levels)),
            },
        )

    @torch.no_grad()
    def bank_of(self, shown: Shown, timestep: Any) -> ReferenceBank:
        """The portrait's bank: under guidance beside the tokens of no face and of the face, else of the face alone."""
        self.check_writer(encoded=True)
        faces = [NO_FACE, FACE] if self.do_classifier_free_guidance else [FACE]
        context = torch.cat([kept_of(shown.kept, name) for name in faces])
        bank = self._written(shown.latents.expand(len(faces), -1, -1, -1), context, timestep)
        bank.context.update(shown.kept)
        return bank

    def _written(self, latents: Tensor, context: Tensor, timestep: Any = 0) -> ReferenceBank:
        """What the reference UNet writes of latents (r, 4, h, w) beside contexts (r, tokens, c)."""
        unet = self.reference_unet
        shown = Shown(latents=latents.to(self.device_of(unet), unet.dtype), context=context)
        return self.spec.write.bank(unet, shown, timestep, self.link)

    def clip_given(
        self, bank: ReferenceBank, given: Mapping[str, Any], cut: tuple[int, int], motion: Tensor | None,
        settings: Settings,
    ) -> dict[str, Any]:  # fmt: skip
        """The clip's audio as tokens (f, t, c), and features of its motion frames, (b, n, 3, H, W) or the portrait."""
        features, weights = given["audio"]
        projection = self.audio_projection
        seen, places = around(features, cut, projection.config.window)
        check_finite_input("audio", seen)
        tokens = projection(seen[places].to(self.device_of(projection), projection.dtype))
        guided = self.do_classifier_free_guidance
        passes = contexts_of(self.config.motion_frames, guided=guided, tiled=self.config.tiled)
        frames = [contexts[1:] for contexts in passes]
        if motion is None:
            by_pass = [of_portrait(bank, contexts) for contexts in frames]
        else:
            self.check_writer(encoded=True)
            latents = encode_pixels(self, motion.flatten(0, 1) * 2 - 1).unflatten(0, motion.shape[:2])
            rounds = rounded if settings.half_precision_bank else lambda bank: bank
            by_pass = of_frames(
                lambda *shown: self.placed(rounds(self._written(*shown))),
                latents,
                [kept_of(bank.context, name) for name in (NO_FACE, FACE)],
                frames,
            )
        return {"audio": (tokens, weights), "motion": (by_pass[-1], by_pass[0] if guided else None)}

    @torch.no_grad()
    def __call__(
        self,
        portrait: Reference,
        audio: Any,
        *,
        pose_weight: float = 1.0,
        face_weight: float = 1.0,
        lip_weight: float = 1.0,
        **options: Unpack[ClipOptions],
    ) -> FilmOutput | tuple[Any]:
        """Let it speak. For films longer than memory allows use `stream`.

        Args:
            portrait: A `Portrait`, or a bank that `write` wrote.
            audio: What `hear` makes of a sound: then the last clip is filled with silence, as published, and the film
                ends with the sound. Or speech features of every frame, 25 a second: wav2vec2's twelve layers, (frames,
                layers, channels), as a tensor, an array, or an .npy file; the last clip is as short as they are.
            pose_weight: How much the audio moves what is not the face.
            face_weight: How much it moves the face.
            lip_weight: How much it moves the lips.
            options: See `ClipOptions`.

        Returns:
            The films, as many frames a second as the features have.

        Raises:
            ValueError: If arguments do not fit together.
        """
        settings = self.settle(options)
        given = self._given(audio, (pose_weight, face_weight, lip_weight))
        return self.clip_film(portrait, given, given["audio"][0], settings)

    def stream(
        self,
        portrait: Reference,
        audio: Any,
        *,
        pose_weight: float = 1.0,
        face_weight: float = 1.0,
        lip_weight: float = 1.0,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
        step_done: Callable[[], None] | None = None,
        **options: Unpack[ClipOptions],
    ) -> Iterator[tuple[Tensor, Callable[[], dict[str, Any]]]]:
        """Let it speak for any length in bounded memory: every clip comes when it is finished.

        Args:
            portrait: As for a call.
            audio: Likewise; an .npy file is read piece by piece.
            pose_weight: Likewise.
            face_weight: Likewise.
            lip_weight: Likewise.
            seed: Of the generator, where `options` have none; a call with such a generator gives the same film.
            state: Go on where the same call left off.
            step_done: Called after every step.
            options: See `ClipOptions`.

        Yields:
            Frames (frames, 3, height, width) in [0, 1], and a function that gives the state behind them.

        Raises:
            ValueError: If several films are asked for.
        """
        settings = self.settle({"generator": torch.Generator().manual_seed(seed), **options})
        given = self._given(audio, (pose_weight, face_weight, lip_weight))
        yield from self.clip_stream(portrait, given, given["audio"][0], settings, state=state, step_done=step_done)

    def _given(self, audio: Any, weights: tuple[float, float, float]) -> dict[str, Any]:
        """The film's conditions; refuses speech features of another form, and weights that are no numbers."""
        if not all(np.isfinite(weights)):
            raise ValueError(f"the weights of pose, face and lip are {weights}; expected numbers.")
        config = self.audio_projection.config
        return {"audio": (read_features(audio, config.layers, config.channels), weights)}
