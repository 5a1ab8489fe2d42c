"""MagicAnimate (Xu et al. 2023, arXiv 2311.16498; magic-research/magic-animate d2bc3bc): a person in a DensePose film.

What it is:
    writer   a UNet of its own at every step, on the clean reference latent at the denoiser's t, told the prompt
    link     keys and values of the denoiser and of the reference together, in the middle and up blocks
    guidance the unconditional half reads nothing; both prompts are empty, so that is the only difference
    pose     a ControlNet on DensePose drawings, once per frame and step, in both halves
    time     AnimateDiff's motion modules but for the middle, 24 positions; ResNets normalise whole clips
    films    windows of 16 frames that share 4; the noise of 16 frames is repeated over the film
Published and not kept: windows that wrap around the film's end (an option), the writer's second row, `fusion_blocks`
without effect, a bank rounded to half precision, films padded to multiples of 16 frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Unpack, get_args

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys.reference_tail import IGNORED_TAIL
from referencenet.checkpoints.motion_keys import MOTION, MOTION_KEYS, check_position_tables
from referencenet.checkpoints.published import Part, PublishedFile, PublishedSet
from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Concat
from referencenet.links.series import BankSeries
from referencenet.links.turns import Busy, turn
from referencenet.media.images import Picture
from referencenet.networks.layout import SD15_UNET, film_config, picture_config
from referencenet.networks.motion import SpatioTemporalUNet
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.networks.stable_diffusion import build_controlnet
from referencenet.pipelines.adapters import TextAdapters
from referencenet.pipelines.conditions import ScaledResiduals, Text
from referencenet.pipelines.encoders import encode_pixels, pixels_of, prompt_states, read_one, stretched, text_states
from referencenet.pipelines.films import Drawings, FilmOutput, FilmPipeline, Read, drawing_tensor
from referencenet.pipelines.in_turn import changed_parts
from referencenet.pipelines.options import FilmOptions, Settings
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.spec import Canvas, EachStep, Shown, Spec
from referencenet.preprocess.drawing_colours import check_densepose
from referencenet.sampling.inversion import inverted
from referencenet.sampling.windows import Windows

FusionBlocks = Literal["midup", "full"]

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "clip_sample": False,
    "steps_offset": 1,
}
"""DDIM as the published pipeline forces it."""

CLIP = 16  # frames whose noise is repeated over a film, as published

LINKS: Mapping[str, Concat] = {"midup": Concat(stages=("mid_block", "up_blocks")), "full": Concat()}


SPEC = Spec(
    write=EachStep(),
    link=LINKS["midup"],
    guidance=TwoWay(blind=("prompt",)),
    conditions=(Text("prompt"), ScaledResiduals("poses")),
    scheduler=partial(DDIMScheduler, **SCHEDULER),
    windows=Windows(size=CLIP, overlap=4),
    steps=25,
    scale=7.5,
    defaults="magic-animate, configs/prompts/animation.yaml; windows do not wrap around (published=True does)",
)


def build_unet(config: Mapping[str, Any]) -> SpatioTemporalUNet:
    """The denoiser."""
    settings = film_config(config, num_positions=24, motion_in_middle=False)
    return SpatioTemporalUNet(**settings, resnet_norm="clip")


PUBLISHED = PublishedSet(
    name="magic_animate.hub",
    source="huggingface.co/zcxu-eric/MagicAnimate",
    licence="unverified; code BSD-3-Clause, some files stricter; derived from Stable Diffusion 1.5 (OpenRAIL-M)",
    paper="2311.16498",
    files=(
        PublishedFile(
            path="temporal_attention/temporal_attention.ckpt",
            component="unet",
            keymap=KeyMap(renames=((r"^(module\.|unet\.)+", ""), *MOTION_KEYS.renames), ignored=MOTION_KEYS.ignored),
            share=MOTION,
            base=KeyMap(),  # the released file holds the whole UNet, others the motion modules alone
            checks=(check_position_tables,),
            manifest="magic_animate-temporal_attention",
        ),
        PublishedFile(
            path="appearance_encoder/diffusion_pytorch_model.safetensors",
            component="reference_unet",
            keymap=KeyMap(ignored=IGNORED_TAIL),
            manifest="magic_animate-appearance_encoder",
        ),
        PublishedFile(
            path="densepose_controlnet/diffusion_pytorch_model.safetensors",
            component="controlnet",
            manifest="magic_animate-densepose_controlnet",
        ),
    ),
    build={
        "unet": build_unet,
        "reference_unet": lambda config: ReferenceUNet(**picture_config(config), cut=True),
        "controlnet": lambda config: build_controlnet({"unet": config}),
    },
    base_config=SD15_UNET,
    further={
        "vae": Part(kind=AutoencoderKL, folder="sd-vae-ft-mse", source="huggingface.co/stabilityai/sd-vae-ft-mse"),
        "text_encoder": Part(kind=CLIPTextModel, in_base=True, source="a folder of Stable Diffusion 1.5"),
        "tokenizer": Part(kind=CLIPTokenizer, in_base=True, source="a folder of Stable Diffusion 1.5"),
    },
)
"""The released model."""


class MagicAnimatePipeline(FilmPipeline, TextAdapters):
    """Animates the person of a picture by DensePose drawings.

    Args:
        vae: sd-vae-ft-mse.
        text_encoder: CLIP's text model of Stable Diffusion 1.5.
        tokenizer: Its words.
        reference_unet: Writes, at every step; None where references come as banks.
        unet: The denoiser.
        controlnet: Of the drawings.
        scheduler: DDIM as published; others of diffusers work.
        fusion_blocks: Where the reference is read: "midup", as the weights are used, or "full", the down blocks too.
    """

    spec = SPEC
    published = PUBLISHED
    model_cpu_offload_seq = "text_encoder->reference_unet->controlnet->unet->vae"
    _optional_components = ["reference_unet"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        reference_unet: UNet2DConditionModel | None,
        unet: SpatioTemporalUNet,
        controlnet: ControlNetModel,
        scheduler: DDIMScheduler,
        fusion_blocks: str = "midup",  # a FusionBlocks; diffusers knows plain types only
    ) -> None:
        super().__init__()
        if fusion_blocks not in get_args(FusionBlocks):
            raise ValueError(f"fusion_blocks is {fusion_blocks!r}; expected one of {list(get_args(FusionBlocks))}.")
        self.register(locals(), "fusion_blocks")

    @property
    def link(self) -> Concat:
        """How the denoiser reads."""
        return LINKS[self.config.fusion_blocks]

    def show(self, reference: Picture, canvas: Canvas, states: Tensor | None = None) -> Shown:
        """The picture's mean latent (1, 4, h, w), and the prompt's states as context; None: of the empty prompt."""
        pixels = pixels_of([stretched(read_one(reference), canvas.size)])
        context = text_states(self, [""]) if states is None else states
        return Shown(latents=encode_pixels(self, pixels, keep=True), context=context)

    def check_drawings(self, films: Sequence[Tensor]) -> None:
        """Refuse skeletons, warn of another ground than DensePose's; films (frames, 3, height, width)."""
        check_densepose(films[0][0])

    def start(self, shape: tuple[int, ...], settings: Settings) -> Tensor:
        """Set the schedule; the first noise (b, c, f, h, w), whose frames are repeated after 16."""
        if settings.latents is not None:
            return super().start(shape, settings)
        clip = super().start((*shape[:2], min(CLIP, shape[2]), *shape[3:]), settings)
        return clip[:, :, _repeated(range(shape[2]))]

    def frame_noise(self, seed: int, frames: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """The same for a stream's frames, (b, c, frames, h, w)."""
        return super().frame_noise(seed, _repeated(frames), shape)

    def __call__(
        self,
        reference: Picture | ReferenceBank | BankSeries,
        poses: Drawings,
        prompt: str = "",
        negative_prompt: str = "",
        *,
        controlnet_conditioning_scale: float = 1.0,
        **options: Unpack[FilmOptions],
    ) -> FilmOutput | tuple[Any]:
        """Animate. For films longer than memory allows use `stream`.

        Args:
            reference: A picture of the person, or what `write` wrote (with the empty prompt).
            poses: A DensePose drawing per frame, in viridis colours on its purple: a film's path, a folder, a list of
                pictures, (frames, height, width, 3) or (frames, 3, height, width).
            prompt: The weights were trained with none.
            negative_prompt: Where it differs from the prompt, nothing is shared between the halves of guidance.
            controlnet_conditioning_scale: Of the ControlNet's residuals.
            options: See `FilmOptions`.

        Returns:
            The films.

        Raises:
            ValueError: If arguments do not fit together, or the drawings are skeletons.
        """
        states = prompt_states(self, prompt, negative_prompt)
        given = {"prompt": states, "poses_scale": controlnet_conditioning_scale}
        return self.film(self._told(reference, states[0]), "poses", poses, options, **given)

    def stream(
        self,
        reference: Picture | ReferenceBank | BankSeries,
        poses: Read,
        prompt: str = "",
        negative_prompt: str = "",
        *,
        controlnet_conditioning_scale: float = 1.0,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
        step_done: Callable[[], None] | None = None,
        **options: Unpack[FilmOptions],
    ) -> Iterator[tuple[Tensor, Callable[[], dict[str, Any]]]]:
        """Animate a film of any length in bounded memory: finished frames come while later ones have not begun.

        Args:
            reference: As in the call.
            poses: Gives the drawings [start, stop), a list of one (frames, 3, height, width) in [0, 1]. Called in
                order, once for every frame.
            prompt: As in the call.
            negative_prompt: As in the call.
            controlnet_conditioning_scale: As in the call.
            seed: Of the noise. Unlike with a generator, a frame's noise does not depend on the film's length.
            state: Go on where the same call left off, with as many processes or others.
            step_done: Called after every prediction of a window, whichever process made it.
            options: See `FilmOptions`; width, height and num_frames are needed.

        Yields:
            Frames (frames, 3, height, width) in [0, 1], and a function that gives the state behind them.
        """
        states = prompt_states(self, prompt, negative_prompt)
        given = {"prompt": states, "poses_scale": controlnet_conditioning_scale}
        yield from self.film_stream(
            self._told(reference, states[0]), "poses", poses, options,
            seed=seed, state=state, step_done=step_done, **given,
        )  # fmt: skip

    @torch.no_grad()
    def invert(self, film: Drawings, prompt: str = "", *, width: int, height: int,
               num_inference_steps: int | None = None, busy: Busy = "refuse") -> Tensor:  # fmt: skip
        """The noise from which the plain denoiser (no reference, no drawings, no guidance) would make a film.

        Args:
            film: As the call takes drawings.
            prompt: What the denoiser is told.
            width: Of the film in pixels.
            height: Likewise.
            num_inference_steps: Steps of DDIM's inversion; None: the system's.
            busy: As for a call.

        Returns:
            Latents (1, 4, frames, h, w), for a call's `latents`.
        """
        self.check_size(width, height)
        with turn(changed_parts(self), busy):
            frames = drawing_tensor(film, width, height).split(1)
            clean = torch.cat([encode_pixels(self, frame * 2 - 1) for frame in frames])
            states = prompt_states(self, prompt, prompt)[0]
            *_, last = self.inverting(clean.transpose(0, 1).unsqueeze(0).float(), states, num_inference_steps)
            self.maybe_free_model_hooks()
        return last

    @torch.no_grad()
    def inverting(self, latents: Tensor, states: Tensor, num_inference_steps: int | None = None) -> Iterator[Tensor]:
        """The steps of `invert`: clean latents (1, 4, f, h, w), states (1, tokens, c) to the latents behind each."""

        def predict(frames: Tensor, timestep: Any) -> Tensor:
            return self.unet(frames.to(self.unet.dtype), timestep, states.to(self.unet.dtype)).sample

        windows = self.cut(None, latents.shape[2])
        yield from inverted(predict, latents, self.scheduler, windows, num_inference_steps or self.spec.steps)

    def _told(self, reference: Any, states: Tensor) -> Any:
        """A picture with the prompt's states for its writer; banks, and what is encoded, as they are."""
        if isinstance(reference, ReferenceBank | BankSeries | Shown):
            return reference
        return lambda canvas: self.show(reference, canvas, states)


def _repeated(frames: Sequence[int]) -> list[int]:
    """For each frame of a film the one whose first noise it has."""
    return [frame % CLIP for frame in frames]
