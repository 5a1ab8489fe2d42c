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

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.motion_keys import MOTION_KEYS, check_position_tables
from referencenet.checkpoints.published import PublishedFile, PublishedSet, find_files, read_component
from referencenet.links.attach import attach, write
from referencenet.links.bank import ReferenceBank
from referencenet.links.rows import RowPlan, plan_rows
from referencenet.media.films import FrameSource, frames_of
from referencenet.media.images import Picture, read_image, to_tensor
from referencenet.networks.layout import SD15_UNET, film_config, picture_config
from referencenet.networks.motion import SpatioTemporalUNet
from referencenet.networks.pose_guider import PoseGuider
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.sampling.processes import ALONE, Processes
from referencenet.sampling.stream import FilmStream, Predict, denoise_film, frame_noise
from referencenet.sampling.windows import Windows

OutputType = Literal["pil", "np", "pt", "latent"]
Poses = str | Path | np.ndarray | Tensor | Sequence[Picture] | FrameSource
Callback = Callable[[DiffusionPipeline, int, Tensor, dict[str, Any]], dict[str, Any] | None]

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",  # as published: inference differs from training, and the weights are used this way
    "clip_sample": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
"""DDIM as in the published `inference_v2.yaml`."""

POSE_WIDTHS = (16, 32, 96, 256)  # the published class has other defaults, which no script uses

CLIP_TOKEN = "image_token"  # name of the reference's CLIP token in a bank's context


def build_reference_unet(config: Mapping[str, Any]) -> ReferenceUNet:
    """The reference net: no output head."""
    return ReferenceUNet(**picture_config(config))


def build_denoising_unet(config: Mapping[str, Any]) -> SpatioTemporalUNet:
    """The denoiser: motion modules everywhere, 32 positions, 8 heads (`inference_v2.yaml`)."""
    return SpatioTemporalUNet(**film_config(config))


def build_pose_guider(config: Mapping[str, Any]) -> PoseGuider:
    """The pose net."""
    return PoseGuider(conditioning_embedding_channels=config["block_out_channels"][0], block_out_channels=POSE_WIDTHS)


MOTION = r".*\.motion_modules\..*"

PUBLISHED = PublishedSet(
    name="animate_anyone.moore",
    source="huggingface.co/patrolli/AnimateAnyone",
    licence="Apache-2.0 by its tag (unverified); derived from Stable Diffusion 1.5, CreativeML OpenRAIL-M",
    paper="2311.17117",
    files=(
        PublishedFile(
            path="motion_module.pth",
            component="denoising_unet",
            keymap=MOTION_KEYS,
            share=MOTION,
            checks=(check_position_tables,),
            manifest="animate_anyone-motion_module",
        ),
        PublishedFile(
            path="denoising_unet.pth",
            component="denoising_unet",
            keymap=MOTION_KEYS,
            share=rf"(?!{MOTION}).*",
            manifest="animate_anyone-denoising_unet",
        ),
        PublishedFile(
            path="reference_unet.pth",
            component="reference_unet",
            keymap=KeyMap(ignored={r"conv_(norm_)?out\..*": "the reference net's output is never used"}),
            manifest="animate_anyone-reference_unet",
        ),
        PublishedFile(path="pose_guider.pth", component="pose_guider", manifest="animate_anyone-pose_guider"),
    ),
    build={
        "reference_unet": build_reference_unet,
        "denoising_unet": build_denoising_unet,
        "pose_guider": build_pose_guider,
    },
    base_config=SD15_UNET,
    further={
        "sd-vae-ft-mse": "huggingface.co/stabilityai/sd-vae-ft-mse",
        "image_encoder": "huggingface.co/lambdalabs/sd-image-variations-diffusers, folder image_encoder",
    },
)

PUBLISHED_REENACT = PublishedSet(
    name="animate_anyone.reenact",
    source=PUBLISHED.source,
    licence=PUBLISHED.licence,
    paper=PUBLISHED.paper,
    files=(
        PublishedFile(
            path="reenact/denoising_unet.pth",
            component="denoising_unet",
            keymap=MOTION_KEYS,
            checks=(check_position_tables,),
            manifest="animate_anyone-reenact_denoising_unet",
        ),
        PublishedFile(
            path="reenact/reference_unet.pth",
            component="reference_unet",
            manifest="animate_anyone-reenact_reference_unet",
        ),
        PublishedFile(
            path="reenact/pose_guider1.pth",
            component="pose_guider1",
            manifest="animate_anyone-reenact_pose_guider",
        ),
        PublishedFile(path="reenact/pose_guider2.pth", component="pose_guider2"),
    ),
    build={
        "reference_unet": lambda config: UNet2DConditionModel(**picture_config(config)),
        "denoising_unet": build_denoising_unet,
        "pose_guider1": build_pose_guider,
        "pose_guider2": build_pose_guider,
    },
    base_config=SD15_UNET,
    further=PUBLISHED.further,
)


@dataclass
class FilmOutput(BaseOutput):
    """What a call gives.

    Attributes:
        frames: One list of frames per film (pil), or (films, frames, height, width, 3) in [0, 1] (np),
            (films, frames, 3, height, width) in [0, 1] (pt), latents (films, 4, frames, h, w) (latent).
    """

    frames: list[list[Image.Image]] | np.ndarray | Tensor


class AnimateAnyonePipeline(DiffusionPipeline):
    """Animates the person of a picture.

    Args:
        vae: Stable Diffusion's autoencoder.
        image_encoder: CLIP, with projection.
        image_processor: CLIP's.
        reference_unet: It writes. With a saved bank neither it nor `image_encoder` is needed.
        denoising_unet: It reads.
        pose_guider: Of the pose frames.
        scheduler: Any that works on Stable Diffusion; published: DDIM with `SCHEDULER`.
    """

    published = PUBLISHED
    model_cpu_offload_seq = "image_encoder->reference_unet->pose_guider->denoising_unet->vae"
    _optional_components = ["image_encoder", "image_processor", "reference_unet"]
    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection | None,
        image_processor: CLIPImageProcessor | None,
        reference_unet: UNet2DConditionModel | None,
        denoising_unet: SpatioTemporalUNet,
        pose_guider: PoseGuider,
        scheduler: DDIMScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            image_encoder=image_encoder,
            image_processor=image_processor,
            reference_unet=reference_unet,
            denoising_unet=denoising_unet,
            pose_guider=pose_guider,
            scheduler=scheduler,
        )

    # --- what the re-enactment model does in another way --------------------------------------------------------------

    def guide(self, conditions: Sequence[Tensor]) -> Tensor:
        """Features of conditions, added up: each (frames, 3, height, width) in [0, 1] to (frames, width, h, w)."""
        features = [
            guider(frames.to(self._device_of(guider), guider.dtype))
            for guider, frames in zip(self.guiders, conditions, strict=True)
        ]
        return sum(features[1:], start=features[0])

    def write_rows(self, latents: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the reference pass: latents (rows, 4, h, w) and contexts (rows, 1, channels)."""
        return latents, token

    def plan_reading(self, bank_rows: int, films: int, guided: bool) -> RowPlan:
        """Who reads what: each film its reference, and the unconditional half nothing."""
        sources = [film * bank_rows // films for film in range(films)]
        return plan_rows(sources * (1 + guided), [0.0] * films * guided + [1.0] * films)

    # --- the parts of a call ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def write(self, reference: Picture, *, width: int, height: int) -> ReferenceBank:
        """Write a reference: everything that is needed of it, which can be saved and used for any number of films.

        Args:
            reference: A picture of the person.
            width: At which it is read, in pixels; usually that of the film.
            height: At which it is read, in pixels.

        Returns:
            The bank, with the CLIP token as context.

        Raises:
            ValueError: If the pipeline was loaded without the networks that read references.
        """
        if self.reference_unet is None or self.image_encoder is None:
            raise ValueError(
                "this pipeline has no reference_unet and image_encoder, so it can read saved banks only; give "
                "reference=ReferenceBank.load(...) or load the pipeline with all its parts."
            )
        self._check_size(width, height)
        picture = read_image(reference)
        token = self.encode_token(picture)
        latents = self.encode_latents(picture, width, height)
        return self.write_latents(latents, token)

    @torch.no_grad()
    def write_latents(self, latents: Tensor, token: Tensor) -> ReferenceBank:
        """Write references that are encoded already.

        Args:
            latents: Clean latents (references, 4, h, w).
            token: CLIP tokens (references, 1, channels).

        Returns:
            As `write`.
        """
        unet: Any = self.reference_unet
        rows, contexts = self.write_rows(latents.to(unet.dtype), token.to(unet.dtype))
        bank = write(unet, rows, timestep=0, encoder_hidden_states=contexts)
        bank.context[CLIP_TOKEN] = token
        return bank

    @torch.no_grad()
    def encode_token(self, picture: Image.Image) -> Tensor:
        """The reference's CLIP token (1, 1, channels); as published the picture is squashed, not cropped."""
        side = self.image_encoder.config.image_size
        squashed = picture.resize((side, side), Image.Resampling.BICUBIC)
        size = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        pixels = self.image_processor(squashed, return_tensors="pt", **size).pixel_values
        pixels = pixels.to(self._device_of(self.image_encoder), self.image_encoder.dtype)
        return self.image_encoder(pixels).image_embeds.unsqueeze(1)

    @torch.no_grad()
    def encode_latents(self, picture: Image.Image, width: int, height: int) -> Tensor:
        """The reference's latent (1, 4, h, w): the mean of the VAE's distribution."""
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        pixels = to_tensor(picture).unsqueeze(0) * 2 - 1
        distribution = self.vae.encode(pixels.to(self._device_of(self.vae), self.vae.dtype)).latent_dist
        return distribution.mean * self.vae.config.scaling_factor

    @contextmanager
    def reading(
        self, bank: ReferenceBank, *, films: int, guidance_scale: float, guidance_rescale: float = 0.0
    ) -> Generator[Predict]:
        """Inside, the denoiser reads the bank.

        Args:
            bank: From `write`.
            films: Samples b.
            guidance_scale: Above 1 for guidance.
            guidance_rescale: Of Lin et al. 2023, section 3.4; 0: none.

        Yields:
            The guided prediction: (latents (b, 4, f, h, w), timestep, condition (b or 1, width, f, h, w)) to (b, 4, f,
            h, w).
        """
        if CLIP_TOKEN not in bank.context:
            raise ValueError(
                f"this bank has no {CLIP_TOKEN!r} in its context, so it is not of this system; write one with "
                f"pipe.write(picture, ...)."
            )
        guided = guidance_scale > 1
        unet: Any = self.denoising_unet
        device = self._device_of(unet)
        bank = bank.to(device).to(unet.dtype)
        token = bank.context[CLIP_TOKEN]
        if films % token.shape[0]:
            raise ValueError(f"{token.shape[0]} references cannot serve {films} films; make a multiple.")
        token = token.repeat_interleave(films // token.shape[0], dim=0)
        context = torch.cat([torch.zeros_like(token), token]) if guided else token

        def predict(latents: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            rows = torch.cat([latents, latents]) if guided else latents
            features = condition.to(device).expand(rows.shape[0], -1, -1, -1, -1)
            noise = unet(rows.to(unet.dtype), t, context, condition=features, return_dict=False)[0].to(latents.dtype)
            if not guided:
                return noise
            plain, reading = noise.chunk(2)
            guidance = plain + guidance_scale * (reading - plain)
            return rescale_noise_cfg(guidance, reading, guidance_rescale) if guidance_rescale else guidance

        with attach(unet) as link, link.reading(bank, plan=self.plan_reading(bank.rows, films, guided)):
            yield predict

    @torch.no_grad()
    def decode(self, latents: Tensor, processes: Processes = ALONE) -> Tensor:
        """Latents (b, 4, f, h, w) to pictures (b, f, 3, height, width) in [0, 1], frame by frame.

        Args:
            latents: Of the films, (b, 4, f, h, w).
            processes: Each decodes its share of the frames; all get every picture.
        """
        frames = latents.transpose(1, 2).flatten(0, 1) / self.vae.config.scaling_factor  # (b f, 4, h, w)
        jobs = [partial(self._decode_frame, frame) for frame in frames.split(1)]
        blank = torch.zeros(1, 3, latents.shape[-2] * self.factor, latents.shape[-1] * self.factor)
        pictures = torch.cat(list(processes.each(jobs, blank)))
        return pictures.unflatten(0, (latents.shape[0], latents.shape[2]))

    def _decode_frame(self, latents: Tensor) -> Tensor:
        """(1, 4, h, w), unscaled, to (1, 3, height, width) in [0, 1] on the CPU."""
        on_device = latents.to(self._device_of(self.vae), self.vae.dtype)
        picture = self.vae.decode(on_device, return_dict=False)[0].float().cpu()
        return (picture / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def __call__(
        self,
        reference: Picture | ReferenceBank,
        poses: Poses | Sequence[Poses],
        *,
        width: int | None = None,
        height: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int = 30,
        guidance_scale: float = 3.5,
        guidance_rescale: float = 0.0,
        num_films: int = 1,
        windows: Windows | None = None,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        half_precision_bank: bool = False,
        across_processes: bool = False,
        output_type: OutputType = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> FilmOutput | tuple[Any]:
        """Animate. For films longer than memory allows use `stream`.

        Args:
            reference: A picture of the person, or a bank that `write` wrote.
            poses: A skeleton drawing per frame, on black: a film's path, a folder, a list of pictures, a
                `SkeletonFilm` of key points, (frames, height, width, 3) or (frames, 3, height, width).
            width: Of the film in pixels; by default that of the first pose, rounded down to a multiple of 8.
            height: Likewise.
            num_frames: Use the first so many poses; by default all.
            num_inference_steps: Denoising steps; published: 30.
            guidance_scale: Published: 3.5; 1 and below: none.
            guidance_rescale: Published: 0, none.
            num_films: Films of the same poses, each from its own noise.
            windows: How long films are cut; Windows(published=True) for the published way.
            eta: Of DDIM.
            generator: Of the noise.
            latents: The noise, (films, 4, frames, h, w).
            half_precision_bank: Round the bank to float16, as the published code does even in float32.
            across_processes: Spread windows and decoding over the processes of `accelerate launch` or `torchrun`; all
                of them are to call with the same arguments, and all get the film that one would make.
            output_type: "pil", "np", "pt" or "latent".
            return_dict: Return an output object instead of a tuple.
            callback_on_step_end: Called as in diffusers; may return other latents.
            callback_on_step_end_tensor_inputs: Only "latents".

        Returns:
            The films.

        Raises:
            ValueError: If arguments do not fit together.
        """
        self._check_call(num_inference_steps, num_films, output_type, callback_on_step_end_tensor_inputs)
        windows = windows or Windows()
        films, width, height = self.read_conditions(poses, width, height, num_frames)
        frames = films[0].shape[0]
        plan = self._plan(windows, frames)
        processes = Processes.started() if across_processes else ALONE
        bank = reference if isinstance(reference, ReferenceBank) else self.write(reference, width=width, height=height)
        bank = _rounded(bank) if half_precision_bank else bank
        condition = self.guide(films).transpose(0, 1).unsqueeze(0)  # (1, width, f, h, w)
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        shape = (num_films, self.denoising_unet.config.in_channels, frames, condition.shape[-2], condition.shape[-1])
        latents = self.prepare_latents(shape, generator, latents)
        guidance = {"guidance_scale": guidance_scale, "guidance_rescale": guidance_rescale}
        bar = self.progress_bar(total=num_inference_steps)
        with self.reading(bank, films=num_films, **guidance) as predict, bar:

            def step_done(step: int, t: Tensor, latents: Tensor) -> Tensor:
                bar.update()
                if callback_on_step_end is None:
                    return latents
                changed = callback_on_step_end(self, step, t, {"latents": latents})
                return latents if changed is None else changed.get("latents", latents)

            latents = denoise_film(
                latents,
                condition,
                windows=plan,
                scheduler=self.scheduler,
                predict=predict,
                step_done=step_done,
                step_kwargs=self._step_kwargs(eta, generator),
                processes=processes,
            )
        result = latents if output_type == "latent" else _as_output(self.decode(latents, processes), output_type)
        self.maybe_free_model_hooks()
        return FilmOutput(frames=result) if return_dict else (result,)

    @torch.no_grad()
    def stream(
        self,
        reference: Picture | ReferenceBank,
        poses: Callable[[int, int], Sequence[Tensor]],
        *,
        num_frames: int,
        width: int,
        height: int,
        num_inference_steps: int = 30,
        guidance_scale: float = 3.5,
        windows: Windows | None = None,
        eta: float = 0.0,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
        across_processes: bool = False,
        step_done: Callable[[], None] | None = None,
    ) -> Iterator[tuple[Tensor, Callable[[], dict[str, Any]]]]:
        """Animate a film of any length in bounded memory: finished frames come while later ones have not begun.

        Args:
            reference: A picture of the person, or a bank that `write` wrote.
            poses: Gives the condition frames [start, stop): one (frames, 3, height, width) in [0, 1] per pose net.
                Called in order, once for every frame.
            num_frames: Of the film.
            width: Of the film in pixels, a multiple of 8.
            height: Likewise.
            num_inference_steps: Denoising steps.
            guidance_scale: 1 and below: none.
            windows: Not the published ones, which wrap around the film's end.
            eta: Of DDIM.
            seed: Of the noise. Unlike with a generator, a frame's noise does not depend on the film's length.
            state: Go on where the same call left off, with as many processes or others.
            across_processes: As for a call. Frames on their way become more with every process.
            step_done: Called after every prediction of a window, whichever process made it.

        Yields:
            Frames (frames, 3, height, width) in [0, 1], and a function that gives the state behind them.
        """
        windows = windows or Windows()
        if windows.published:
            raise ValueError(
                "published windows wrap around the film's end, so they need the whole film at once; call the "
                "pipeline, or "
                "leave `windows` away."
            )
        self._check_call(num_inference_steps, 1, "pt", ("latents",))
        self._check_size(width, height)
        plan = self._plan(windows, num_frames)
        processes = Processes.started() if across_processes else ALONE
        bank = reference if isinstance(reference, ReferenceBank) else self.write(reference, width=width, height=height)
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)

        def admit(start: int, stop: int) -> tuple[Tensor, Tensor]:
            condition = self.guide(poses(start, stop)).transpose(0, 1).unsqueeze(0)  # (1, width, f, h, w)
            shape = (1, self.denoising_unet.config.in_channels, condition.shape[-2], condition.shape[-1])
            noise = frame_noise(seed, range(start, stop), shape)
            return self.prepare_latents((*shape[:2], stop - start, *shape[2:]), None, noise), condition

        with self.reading(bank, films=1, guidance_scale=guidance_scale) as predict:
            film = FilmStream(
                plan,
                scheduler=self.scheduler,
                predict=predict,
                admit=admit,
                step_kwargs=lambda generator: self._step_kwargs(eta, generator),
                seed=seed,
                predicted=step_done,
                processes=processes,
            )
            if state is not None:
                film.resume(state)
            for stretch in film:
                yield self.decode(stretch.latents, processes)[0], film.state
        self.maybe_free_model_hooks()

    # --- details ------------------------------------------------------------------------------------------------------

    def read_conditions(
        self, poses: Any, width: int | None, height: int | None, num_frames: int | None
    ) -> tuple[list[Tensor], int, int]:
        """Read the condition films, one per pose net, which must be of one length.

        Returns:
            Per pose net (frames, 3, height, width) in [0, 1]; width and height.
        """
        films = [poses] if len(self.guiders) == 1 else poses
        if not isinstance(films, list | tuple) or len(films) != len(self.guiders):
            raise ValueError(
                f"this model has {len(self.guiders)} pose nets, so poses must be a tuple of {len(self.guiders)} films."
            )
        if width is None or height is None:
            first = read_image(next(frames_of(films[0])))
            factor = self.factor
            width = first.width // factor * factor if width is None else width
            height = first.height // factor * factor if height is None else height
        self._check_size(width, height)
        read = [pose_tensor(film, width, height, num_frames) for film in films]
        lengths = {film.shape[0] for film in read}
        if len(lengths) > 1 or (num_frames is not None and lengths != {num_frames}):
            wanted = f"num_frames={num_frames}" if num_frames is not None else "equally many in each film"
            raise ValueError(
                f"the pose films have {sorted(lengths)} frames; expected {wanted}. Give more poses or ask for fewer."
            )
        return read, width, height

    @property
    def factor(self) -> int:
        """Pixels per latent and side."""
        return self.guiders[0].factor

    @property
    def guiders(self) -> tuple[PoseGuider, ...]:
        """The pose nets, one per condition film."""
        return (self.pose_guider,)

    def prepare_latents(
        self, shape: tuple[int, ...], generator: torch.Generator | None, latents: Tensor | None
    ) -> Tensor:
        """The noise a film begins with, (films, 4, frames, h, w)."""
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=torch.device("cpu"), dtype=torch.float32)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents is {tuple(latents.shape)}; expected {shape}: (films, channels, frames, h, w).")
        return latents.to(self._execution_device, torch.float32) * self.scheduler.init_noise_sigma

    def _plan(self, windows: Windows, frames: int) -> list[Any]:
        positions = self.denoising_unet.config.motion_max_seq_length
        if windows.size > positions:
            raise ValueError(
                f"windows of {windows.size} frames exceed the motion modules' {positions} positions; make them smaller."
            )
        return windows.of(frames)

    def _step_kwargs(self, eta: float, generator: torch.Generator | None) -> dict[str, Any]:
        known = inspect.signature(self.scheduler.step).parameters
        return {name: value for name, value in (("eta", eta), ("generator", generator)) if name in known}

    def _check_size(self, width: int, height: int) -> None:
        factor = self.factor
        if width < factor or height < factor or width % factor or height % factor:
            raise ValueError(f"the size is {width} x {height}; width and height must be multiples of {factor}.")

    def _check_call(self, num_steps: int, num_films: int, output_type: str, tensor_inputs: Sequence[str]) -> None:
        if num_steps < 1 or num_films < 1:
            raise ValueError(f"{num_steps} steps and {num_films} films were asked for; expected at least 1 of each.")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ValueError(f"output_type is {output_type!r}; expected 'pil', 'np', 'pt' or 'latent'.")
        unknown = set(tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(f"callback_on_step_end_tensor_inputs has {sorted(unknown)}; only 'latents' can be given.")

    def _device_of(self, module: Any) -> torch.device:
        """Where a module computes: it may rest elsewhere under offloading."""
        return self._execution_device if hasattr(module, "_hf_hook") or module.device.type == "meta" else module.device

    # --- published files ----------------------------------------------------------------------------------------------

    @classmethod
    def from_published(
        cls,
        files: str | Path | Iterable[str | Path],
        *,
        base: str | Path | None = None,
        vae: AutoencoderKL | str | Path | None = None,
        image_encoder: CLIPVisionModelWithProjection | str | Path | None = None,
        torch_dtype: torch.dtype | None = None,
    ) -> AnimateAnyonePipeline:
        """Read the released files, strictly.

        Args:
            files: The folder that holds them, or the files one by one.
            base: A Stable Diffusion 1.5 folder or hub name, of which only `unet/config.json` is read; by default the
                configuration is known.
            vae: The autoencoder or its folder; by default `sd-vae-ft-mse` in the folder of the files.
            image_encoder: CLIP or its folder; by default `image_encoder` in the folder of the files.
            torch_dtype: Of all parts; None: as in the files.

        Raises:
            FileNotFoundError: If a file is missing; says where to get it.
            CheckpointError: If a file does not fit.
        """
        paths = find_files(cls.published, files)
        config = None if base is None else UNet2DConditionModel.load_config(str(base), subfolder="unet")
        folder = Path(files) if isinstance(files, str | Path) else None
        parts: dict[str, Any] = {
            name: read_component(cls.published, name, paths, config) for name in cls.published.components
        }
        parts["vae"] = _part(AutoencoderKL, vae, folder, "sd-vae-ft-mse", cls.published)
        parts["image_encoder"] = _part(
            CLIPVisionModelWithProjection, image_encoder, folder, "image_encoder", cls.published
        )
        pipe = cls(**parts, image_processor=CLIPImageProcessor(), scheduler=DDIMScheduler(**SCHEDULER))
        return pipe if torch_dtype is None else pipe.to(dtype=torch_dtype)


class FaceReenactmentPipeline(AnimateAnyonePipeline):
    """Animates the face of a picture: Animate Anyone's re-enactment model.

    `poses` is a pair: films of the upper landmarks (head pose, eyes) and of the mouth's, both drawn on black.

    Args:
        vae: As in Animate Anyone.
        image_encoder: Likewise.
        image_processor: Likewise.
        reference_unet: Likewise.
        denoising_unet: Likewise.
        pose_guider1: Of the upper landmarks.
        pose_guider2: Of the mouth's.
        scheduler: Likewise.
    """

    published = PUBLISHED_REENACT
    model_cpu_offload_seq = "image_encoder->reference_unet->pose_guider1->pose_guider2->denoising_unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection | None,
        image_processor: CLIPImageProcessor | None,
        reference_unet: UNet2DConditionModel | None,
        denoising_unet: SpatioTemporalUNet,
        pose_guider1: PoseGuider,
        pose_guider2: PoseGuider,
        scheduler: DDIMScheduler,
    ) -> None:
        DiffusionPipeline.__init__(self)
        self.register_modules(
            vae=vae,
            image_encoder=image_encoder,
            image_processor=image_processor,
            reference_unet=reference_unet,
            denoising_unet=denoising_unet,
            pose_guider1=pose_guider1,
            pose_guider2=pose_guider2,
            scheduler=scheduler,
        )

    @property
    def guiders(self) -> tuple[PoseGuider, ...]:
        """Both pose nets."""
        return self.pose_guider1, self.pose_guider2

    def write_rows(self, latents: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (2 * rows, 4, h, w) and contexts: first zeros, for the unconditional half, then the reference's."""
        return torch.cat([torch.zeros_like(latents), latents]), torch.cat([torch.zeros_like(token), token])

    def plan_reading(self, bank_rows: int, films: int, guided: bool) -> RowPlan:
        """Both halves read: the unconditional one the zero latents' rows, which come first."""
        references = bank_rows // 2
        sources = [references + film * references // films for film in range(films)]
        zeros = [source - references for source in sources] if guided else []
        return plan_rows(zeros + sources, [1.0] * films * (1 + guided))


def pose_tensor(film: Poses, width: int, height: int, limit: int | None = None) -> Tensor:
    """Pose pictures stretched to the film's size (Lanczos): (frames, 3, height, width) in [0, 1].

    A float tensor of that size is taken as it is.
    """
    if isinstance(film, Tensor) and film.is_floating_point() and tuple(film.shape[1:]) == (3, height, width):
        return film[:limit].float()
    pictures = (read_image(frame) for frame in frames_of(film, limit))
    return torch.stack([to_tensor(frame.resize((width, height), Image.Resampling.LANCZOS)) for frame in pictures])


def _rounded(bank: ReferenceBank) -> ReferenceBank:
    """The bank as the published code passes it on: through float16."""
    return replace(bank, hidden={site: tensor.half().to(tensor.dtype) for site, tensor in bank.hidden.items()})


def _as_output(pictures: Tensor, output_type: OutputType) -> list[list[Image.Image]] | np.ndarray | Tensor:
    """(films, frames, 3, height, width) in [0, 1] as asked."""
    if output_type == "pt":
        return pictures
    array = pictures.permute(0, 1, 3, 4, 2).numpy()
    if output_type == "np":
        return array
    return [[Image.fromarray(frame) for frame in film] for film in (array * 255).round().astype(np.uint8)]


def _part(kind: Any, given: Any, folder: Path | None, name: str, published: PublishedSet) -> Any:
    """A part in its own library's layout: as given, from a path, or from the files' folder."""
    if given is not None and not isinstance(given, str | Path):
        return given
    path = Path(given) if given is not None else folder / name if folder is not None else None
    if path is None or not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"{published.name} also needs {name} (a folder with config.json and weights), not found "
            f"{f'at {path}' if path else 'since no folder was given'}. Get it from {published.further[name]}."
        )
    return kind.from_pretrained(path)
