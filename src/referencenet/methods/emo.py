"""EMO (Tian et al. 2024, arXiv 2402.17485): a portrait speaks or sings. Ours, from the paper: nothing was published.

What it is:
    writer   a UNet of its own on clean latents at t = 0: the portrait once, the last four frames of every clip
    link     attention to the reference in the place of the text attention, in all 16 blocks
    audio    an attention of its own behind that to the reference: one token for each of five neighbouring frames
    motion   the motion frames' feature maps stand before the frames in all 21 temporal layers; zeros in the first clip
    speed    in every temporal layer an attention to codes of how fast the head turns
    place    features of where the face may move, added to the noisy latents
    guidance the unconditional half reads no portrait and hears silence
    films    clips of 12 frames, each after the last four latents of the clip before; 25 frames a second
From the paper: the link, the audio's place and neighbourhood, motion frames, the code of speed, the place's mask, 40
steps of DDIM, three stages of training. Chosen by us, as the paper is silent: which feature the writer leaves, the
layers of the projections and of the locator, the buckets of speed, guidance of 3.5, 25 frames a second, the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from PIL import Image
from torch import Tensor

from referencenet.checkpoints.emo import PUBLISHED, read_start
from referencenet.links.bank import ReferenceBank
from referencenet.links.instead import Instead
from referencenet.networks.layout import SD15_SCHEDULE
from referencenet.networks.neighbourhood import NeighbourTokens, SpeedProjection, neighbours
from referencenet.networks.portrait_unet import PortraitReferenceUNet, PortraitUNet
from referencenet.networks.pose_guider import PoseGuider
from referencenet.networks.projected_tokens import AudioProjection
from referencenet.pipelines.adapters import UNetAdapters
from referencenet.pipelines.clips import ClipPipeline
from referencenet.pipelines.emo_conditions import FacePlace, HeadSpeed, MotionMaps, Sound
from referencenet.pipelines.encoders import check_finite_input, encode_pixels, pixels_of, stretched
from referencenet.pipelines.films import FilmOutput
from referencenet.pipelines.heard import FrameFeatures, around, read_features
from referencenet.pipelines.options import ClipOptions, Settings
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.spec import Canvas, Once, Shown, Spec
from referencenet.pipelines.talking import LOCATED, kept_of
from referencenet.preprocess.face_boxes import face_place
from referencenet.preprocess.portrait import Portrait

ZERO_SNR: Mapping[str, Any] = MappingProxyType(
    SD15_SCHEDULE
    | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
)  # fmt: skip
"""Stable Diffusion 1.5's with zero terminal signal-to-noise ratio, for networks that are trained so."""

SPEC = Spec(
    write=Once(timestep=0),
    link=Instead(),
    guidance=TwoWay(blind=("audio",)),
    conditions=(FacePlace("locator"), Sound("audio"), MotionMaps("motion"), HeadSpeed("speed")),
    scheduler=partial(DDIMScheduler, **SD15_SCHEDULE),
    steps=40,
    scale=3.5,
    size=(512, 512),
    defaults="the paper's 40 steps; all else is chosen here, as nothing was published",
)

TARGETS = ("latent", "conv_in")
SPEED = 0.5
"""Degrees a frame: a head that moves a little."""

Reference = Portrait | ReferenceBank | Shown | Callable[[Canvas], Shown]
Speeds = float | Sequence[float] | Tensor


class EMOPipeline(ClipPipeline, UNetAdapters):
    """Lets a portrait speak or sing.

    Args:
        vae: sd-vae-ft-mse.
        reference_unet: Writes; None where a bank is given and one clip is enough.
        unet: The denoiser.
        face_locator: Of where the face may move.
        audio_projection: Of speech features: one token a neighbour, or Hallo's.
        speed_projection: Of head speed; holds the buckets.
        scheduler: DDIM; others of diffusers work.
        motion_frames: Frames of a clip that the next one begins from.
        clip_frames: Frames of a clip.
        reference_feature: What the writer leaves for the link: "attn1_output", "norm1" or "attn1_residual".
        face_locator_target: What the locator's features are added to: "latent" or "conv_in".
    """

    spec = SPEC
    published = PUBLISHED
    model_cpu_offload_seq = "face_locator->audio_projection->speed_projection->reference_unet->unet->vae"
    _optional_components = ["reference_unet"]

    def __init__(
        self,
        vae: AutoencoderKL,
        reference_unet: PortraitReferenceUNet | None,
        unet: PortraitUNet,
        face_locator: PoseGuider,
        audio_projection: NeighbourTokens | AudioProjection,
        speed_projection: SpeedProjection,
        scheduler: DDIMScheduler,
        motion_frames: int = 4,
        clip_frames: int = 12,
        reference_feature: str = "attn1_output",
        face_locator_target: str = "latent",
    ) -> None:
        super().__init__()
        if motion_frames < 1 or clip_frames < 1:
            raise ValueError(f"motion_frames={motion_frames}, clip_frames={clip_frames}; expected both at least 1.")
        if face_locator_target not in TARGETS:
            raise ValueError(f"face_locator_target is {face_locator_target!r}; expected one of {list(TARGETS)}.")
        Instead(feature=reference_feature).check()  # pyright: ignore[reportArgumentType] - it looks at this
        self.register(locals(), "motion_frames", "clip_frames", "reference_feature", "face_locator_target")
        wanted = unet.config.in_channels if face_locator_target == "latent" else unet.config.block_out_channels[0]
        found = face_locator.config.conditioning_embedding_channels
        if found != wanted:
            raise ValueError(
                f"the face locator gives {found} channels, but face_locator_target={face_locator_target!r} takes "
                f"{wanted}; give the locator that was trained for it, or the other target."
            )

    @classmethod
    def from_published(
        cls, files: str | Path | Iterable[str | Path], *, base: str | Path | None = None,
        dtype: torch.dtype | None = None, reference_feature: str = "attn1_output", face_locator_target: str = "latent",
        centres: Sequence[float] | None = None, radii: Sequence[float] | None = None, zero_snr: bool = False,
        seed: int = 0, **parts: Any,
    ) -> Any:  # fmt: skip
        """A starting point for training: Stable Diffusion 1.5 and AnimateDiff's motion modules, new layers of noise.

        Args:
            files: AnimateDiff's `mm_sd_v15_v2.ckpt`, or the folder that holds it.
            base: A folder or hub name of Stable Diffusion 1.5.
            dtype: Of all networks; None: as they were built.
            reference_feature: "attn1_output", "norm1" or "attn1_residual".
            face_locator_target: "latent" or "conv_in".
            centres: Of the buckets of head speed in degrees a frame; None: ours.
            radii: Likewise.
            zero_snr: Whether the schedule ends without signal, and the denoiser predicts velocity.
            seed: Of the new layers.
            parts: The autoencoder or its folder, and further arguments of the pipeline.

        Raises:
            FileNotFoundError: If a file is missing; says where to get it.
            CheckpointError: If a file does not fit.
            ValueError: If there is no base.
        """
        if base is None:
            raise ValueError("EMO begins from Stable Diffusion 1.5; give its folder or hub name as base.")
        folder = Path(files) if isinstance(files, str | Path) else None
        vae = PUBLISHED.further["vae"].read("vae", parts.pop("vae", None), folder, base, PUBLISHED.name)
        networks = read_start(
            files, base, face_locator_target=face_locator_target, centres=centres, radii=radii, seed=seed
        )
        scheduler = DDIMScheduler(**(ZERO_SNR if zero_snr else SD15_SCHEDULE))
        given = {"vae": vae, "scheduler": scheduler, **networks} | parts
        pipe = cls(**given, reference_feature=reference_feature, face_locator_target=face_locator_target)
        return pipe if dtype is None else pipe.to(dtype=dtype)

    @property
    def link(self) -> Instead:
        """How the denoiser reads, and what the writer leaves."""
        return Instead(feature=self.config.reference_feature)

    def show(self, reference: Portrait, canvas: Canvas) -> Shown:
        """The portrait's mean latent (1, 4, h, w), and features of where its face may move; there is no context."""
        if not isinstance(reference, Portrait):  # pyright: ignore[reportUnnecessaryIsInstance] - users err here
            raise TypeError(
                f"the portrait is a {type(reference).__name__}; give a referencenet.preprocess.Portrait: the "
                "picture with its landmarks, or with the regions of its face."
            )
        locator = self.face_locator
        place = face_place(reference, canvas.size).to(self.device_of(locator), locator.dtype)
        latents = encode_pixels(
            self, pixels_of([stretched(reference.picture, canvas.size, Image.Resampling.BILINEAR)]), keep=True
        )
        return Shown(latents=latents, context=latents.new_zeros(1, 0, 0), kept={LOCATED: locator(place)})

    def handed_on(self, latents: Tensor, frames: Tensor | None) -> Tensor:  # noqa: ARG002 - others hand on pictures
        """The last latents as they are, (b, n, 4, h, w)."""
        return latents[:, :, -self.config.motion_frames :].transpose(1, 2).clone()

    def clip_given(
        self, bank: ReferenceBank, given: Mapping[str, Any], cut: tuple[int, int], motion: Tensor | None,
        settings: Settings,  # noqa: ARG002 - others look at it
    ) -> dict[str, Any]:  # fmt: skip
        """The clip's sound (f, t, c), speed features (f, c), and maps of its motion frames, or zeros."""
        return {
            "audio": self.sound_of(given["audio"], cut),
            "speed": self.speed_of(given["speed"], cut),
            "motion": self.motion_of(bank, motion),
        }

    def sound_of(self, features: FrameFeatures, cut: tuple[int, int]) -> Tensor:
        """Tokens of frames [start, stop), (f, t, c), of the whole film's features."""
        projection = self.audio_projection
        seen, places = around(features, cut, projection.config.window)
        check_finite_input("audio", seen)
        seen = seen.to(self.device_of(projection), projection.dtype)
        return projection(seen[places]) if isinstance(projection, AudioProjection) else projection(seen, places)

    def speed_of(self, speeds: Tensor, cut: tuple[int, int]) -> Tensor:
        """Features of frames [start, stop), (f, c), of the whole film's speeds (frames,)."""
        projection = self.speed_projection
        places = neighbours(*cut, projection.config.window, speeds.shape[0])
        return projection(speeds.to(self.device_of(projection)), places)

    def motion_of(self, bank: ReferenceBank, motion: Tensor | None) -> dict[str, Tensor]:
        """Maps of motion frames (b, n, 4, h, w) by place, (b, n, h w, c); None: zeros."""
        if motion is None:
            return self.unet.still(self.config.motion_frames, kept_of(bank.context, LOCATED))
        self.check_writer(encoded=True)
        writer = self.reference_unet
        return writer.feature_maps(motion.to(self.device_of(writer), writer.dtype))

    @torch.no_grad()
    def __call__(
        self, portrait: Reference, audio: Any, *, head_speed: Speeds = SPEED, **options: Unpack[ClipOptions]
    ) -> FilmOutput | tuple[Any]:
        """Let it speak. For films longer than memory allows use `stream`.

        Args:
            portrait: A `Portrait`, or a bank that `write` wrote.
            audio: What `hear` makes of a sound; or speech features of every frame, 25 a second: wav2vec2's twelve
                layers, (frames, layers, channels), as a tensor, an array, or an .npy file. The last clip is as short.
            head_speed: How fast the head turns, in degrees a frame, 0 to 9: one number, or one for every frame.
            options: See `ClipOptions`.

        Returns:
            The films, as many frames a second as the features have.

        Raises:
            ValueError: If arguments do not fit together.
        """
        settings = self.settle(options)
        given = self._given(audio, head_speed)
        return self.clip_film(portrait, given, given["audio"], settings)

    def stream(
        self,
        portrait: Reference,
        audio: Any,
        *,
        head_speed: Speeds = SPEED,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
        step_done: Callable[[], None] | None = None,
        **options: Unpack[ClipOptions],
    ) -> Iterator[tuple[Tensor, Callable[[], dict[str, Any]]]]:
        """Let it speak for any length in bounded memory: every clip comes when it is finished.

        Args:
            portrait: As for a call.
            audio: Likewise; an .npy file is read piece by piece.
            head_speed: Likewise.
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
        given = self._given(audio, head_speed)
        yield from self.clip_stream(portrait, given, given["audio"], settings, state=state, step_done=step_done)

    def _given(self, audio: Any, head_speed: Speeds) -> dict[str, Any]:
        """The film's sound (frames, layers, channels) and speed (frames,)."""
        config = self.audio_projection.config
        features = read_features(audio, config.layers, config.channels)
        frames, speeds = features.num_frames, torch.as_tensor(head_speed, dtype=torch.float32)
        speeds = speeds.expand(frames) if speeds.ndim == 0 else speeds
        if speeds.shape != (frames,) or not bool((torch.isfinite(speeds) & (speeds >= 0)).all()):
            raise ValueError(
                f"head_speed is {tuple(speeds.shape)} for sound of {frames} frames; expected one number of degrees a "
                "frame, 0 or more, or one for every frame."
            )
        return {"audio": features, "speed": speeds}
