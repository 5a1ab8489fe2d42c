"""DiffPortrait3D (Gu et al., CVPR 2024, arXiv 2312.13016; FreedomGu/DiffPortrait3D 91e2503): a portrait from any side.

What it is:
    writer   a UNet of its own, at every step, on the clean reference latent at the current timestep
    link     keys and values of the denoiser and of the reference together, in all 16 self-attentions
    guidance the unconditional pass sees neither reference nor camera; the prompt, which is empty, stays in both
    camera   a ControlNet on pictures of somebody else from each target camera; there is no numeric camera anywhere
    views    8 at once, mixed by 27 view modules; the middle one runs only where the reference is not read
    start    proxies, rough pictures of the person from each camera, below the noise of timestep 999
Published and not kept: views beyond a multiple of 8 are dropped; the writer runs on 8 equal rows, again in every group;
residuals that are thrown away; crashes at guidance 1, and of `balance` with proxies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Unpack, get_args

import torch
from diffusers import AutoencoderKL, ControlNetModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from referencenet.checkpoints.diffportrait3d import PUBLISHED
from referencenet.links.bank import ReferenceBank
from referencenet.links.series import BankSeries
from referencenet.media.images import Picture
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.networks.views import ViewUNet
from referencenet.pipelines.adapters import TextAdapters
from referencenet.pipelines.balance import guided, shown_on, states_of
from referencenet.pipelines.conditions import Text
from referencenet.pipelines.encoders import prompt_states, squared
from referencenet.pipelines.films import Drawings, FilmOutput, FilmPipeline, drawing_tensor
from referencenet.pipelines.options import FilmOptions, Settings
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.spec import Canvas, EachStep, Shown, Spec
from referencenet.pipelines.views import CLEAN, Cameras, MiddleViews, Start, beginning
from referencenet.sampling.ldm_ddim import LDM_SCHEDULE, LDMScheduler
from referencenet.sampling.windows import Windows

SIDE = 512  # pixels, as trained
GROUP = 8  # views that are mixed, as trained
ETA = 0.5  # of DDIM, as published

SPEC = Spec(
    write=EachStep(),
    guidance=TwoWay(blind=("cameras", "middle")),  # "controlnet_important", in the released script
    apart=True,  # the passes share no layer: nothing is computed twice
    conditions=(Text("prompt"), Cameras("cameras"), MiddleViews("middle")),
    scheduler=partial(LDMScheduler, **LDM_SCHEDULE),
    windows=Windows(size=GROUP, overlap=0, filled=True),
    steps=50,
    scale=3.0,
    size=(SIDE, SIDE),
    defaults="DiffPortrait3D, inference script; eta is 0.5",
)


class DiffPortrait3DPipeline(FilmPipeline, TextAdapters):
    """Shows the person of a portrait from other cameras.

    Args:
        vae: Stable Diffusion's.
        text_encoder: CLIP's text model.
        tokenizer: Its words.
        reference_unet: Writes; None where references come as banks.
        unet: The denoiser, of several views at once.
        controlnet: Of pictures of somebody else from the target camera.
        scheduler: DDIM at latent-diffusion timesteps; others of diffusers work.
    """

    spec = SPEC
    published = PUBLISHED
    fit = staticmethod(squared)
    model_cpu_offload_seq = "text_encoder->reference_unet->controlnet->unet->vae"
    _optional_components = ["reference_unet"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        reference_unet: ReferenceUNet | None,
        unet: ViewUNet,
        controlnet: ControlNetModel,
        scheduler: LDMScheduler,
    ) -> None:
        super().__init__()
        self.register(locals())

    def show(self, reference: Picture, canvas: Canvas) -> Shown:
        """A draw from the reference's posterior (1, 4, h, w), also kept, with the empty prompt as context."""
        return self._told(reference, prompt_states(self, "", "")[0])(canvas)

    @torch.no_grad()
    def __call__(
        self,
        reference: Picture | ReferenceBank | BankSeries | Shown,
        cameras: Drawings | Image.Image,
        prompt: str = "",
        negative_prompt: str = "",
        *,
        proxies: Drawings | Image.Image | None = None,
        start: Start = "reference",
        balance: bool = False,
        middle_everywhere: bool = False,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        **options: Unpack[FilmOptions],
    ) -> FilmOutput | tuple[Any]:
        """Show the person from every camera. Pictures are cut to the result's proportions in their middle.

        Args:
            reference: A portrait, framed as the cameras' pictures are, or what `write` wrote.
            cameras: Per view a picture of somebody else from there: one picture, or whatever holds a film.
            prompt: Empty in training and the released script; guides both passes.
            negative_prompt: With `balance`: of its unconditional pass.
            proxies: Per view a rough picture of the person from there; or scaled latents (views, 4, h, w).
            start: What the noise begins over without proxies: "reference", as published, or "noise", nothing.
            balance: Guide by the prompts alone; both passes see reference and camera.
            middle_everywhere: Let the middle view module run also where the reference is read, as was never trained.
            prompt_embeds: Instead of `prompt`, (1, tokens, channels).
            negative_prompt_embeds: Instead of `negative_prompt`.
            options: See `FilmOptions`, where a frame is a view; `eta` is 0.5 by default, as published. `windows` says
                how views are grouped.

        Returns:
            The views, in the order of the cameras.

        Raises:
            ValueError: If arguments do not fit together.
        """
        if start not in get_args(Start):
            raise ValueError(f"start is {start!r}; expected one of {list(get_args(Start))}.")
        further: Mapping[str, Any] = {"eta": ETA, **options}
        settings = self.settle(further)
        seen = self._pictures(cameras, settings)
        rough = None if proxies is None else self._pictures(proxies, settings)
        if rough is not None and len(rough) != len(seen):
            raise ValueError(f"{len(rough)} proxies were given for {len(seen)} cameras; give one for each, in order.")
        states = states_of(self, prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, balance)
        guidance, told_states, further = guided(self, "cameras", balance, states, reference, further)
        return self.film(
            self._told(reference, told_states),
            "cameras",
            seen,
            further,
            guidance=guidance,
            begun=beginning(self, rough, start, settings.generator),
            prompt=states,
            middle=middle_everywhere,
        )

    def _told(self, reference: Any, states: Tensor) -> Any:
        """A picture and states (r, tokens, channels) as what makes a `Shown`; its clean latents travel with a bank."""
        show = shown_on(self, reference, states)
        if isinstance(show, ReferenceBank | BankSeries | Shown):
            return show
        return partial(_kept, show)

    def _pictures(self, film: Any, settings: Settings) -> Tensor:
        """Pictures at the result's size, (views, 3, height, width) in [0, 1]; latents (views, 4, h, w) as they are."""
        width, height = self.size_for((0, 0), settings.width, settings.height)
        self.check_size(width, height)
        if isinstance(film, Tensor) and film.ndim == 4 and film.shape[1] == self.unet.config.in_channels:
            return film[: settings.num_frames]
        pictures = [film] if isinstance(film, Image.Image) else film
        return drawing_tensor(pictures, width, height, settings.num_frames, self.fit)


def _kept(show: Callable[[Canvas], Shown], canvas: Canvas) -> Shown:
    """What is shown, with its clean latents in the bank's context."""
    shown = show(canvas)
    return replace(shown, kept={CLEAN: shown.latents[:1]})
