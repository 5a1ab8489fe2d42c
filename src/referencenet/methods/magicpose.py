"""MagicPose, also MagicDance (Chang et al., ICML 2024, arXiv 2311.12052; Boese0601/MagicDance a515a1f).

What it is:
    writer   a UNet of its own, at every step, on the clean latent at the current timestep, told the prompt
    link     keys and values of the denoiser and of the reference together, in all 16 self-attentions
    guidance the unconditional pass is plain Stable Diffusion: no reference, no ControlNet; the prompt stays in both
    pose     an OpenPose ControlNet, once per step and picture
    films    every pose by itself, all from one noise; the reference is written once a step for all of them
The first training stage, without poses, is a model of its own. Published and not kept: residuals that are thrown away;
an ignored negative prompt; crashes at guidance 1 and where the stride divides 999. Not here: motion modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import torch
from diffusers import AutoencoderKL, ControlNetModel, ImagePipelineOutput, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from referencenet.checkpoints.magicpose import PUBLISHED, PUBLISHED_STAGE1
from referencenet.checkpoints.magicpose import PUBLISHED_START as PUBLISHED_START
from referencenet.links.bank import ReferenceBank
from referencenet.links.series import BankSeries
from referencenet.media.images import Picture
from referencenet.networks.reference_unet import ReferenceUNet
from referencenet.pipelines.adapters import TextAdapters
from referencenet.pipelines.balance import Poses, guided, shown_on, states_of
from referencenet.pipelines.conditions import Text
from referencenet.pipelines.encoders import prompt_states, squared
from referencenet.pipelines.films import Drawings, FilmOutput, FilmPipeline, Read
from referencenet.pipelines.options import FilmOptions, PictureOptions, Settings
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.pictures import PicturePipeline
from referencenet.pipelines.spec import Canvas, EachStep, Shown, Spec, UNetCall
from referencenet.preprocess.drawing_colours import check_skeleton
from referencenet.sampling.ldm_ddim import LDM_SCHEDULE, LDMScheduler
from referencenet.sampling.windows import Windows

SIDE = 512  # pixels, as trained

SPEC = Spec(
    write=EachStep(),
    guidance=TwoWay(blind=("poses",)),  # "controlnet_important", in all released scripts
    apart=True,  # the passes share no layer: nothing is computed twice
    conditions=(Text("prompt"), Poses("poses")),
    scheduler=partial(LDMScheduler, **LDM_SCHEDULE),
    windows=Windows(size=8, overlap=0),  # pictures at a time: results do not depend on it
    steps=50,
    scale=7.0,
    size=(SIDE, SIDE),
    defaults="MagicDance, test_any_image_pose.py; pictures at a time are ours",
)

SPEC_STAGE1 = replace(SPEC, guidance=TwoWay(), conditions=(Text("prompt"),), windows=None)


class MagicPosePipeline(FilmPipeline, TextAdapters):
    """Draws the person of a picture in given poses: pictures of one person, or a film, pose by pose.

    Args:
        vae: Stable Diffusion's.
        text_encoder: CLIP's text model.
        tokenizer: Its words.
        reference_unet: Writes; None where references come as banks.
        unet: The denoiser, Stable Diffusion 1.5's own.
        controlnet: Of OpenPose drawings (body, hands, face).
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
        unet: UNet2DConditionModel,
        controlnet: ControlNetModel,
        scheduler: LDMScheduler,
    ) -> None:
        super().__init__()
        self.register(locals())

    def show(self, reference: Picture, canvas: Canvas) -> Shown:
        """A draw from the reference's posterior (1, 4, h, w), with the empty prompt as context."""
        return shown_on(self, reference, prompt_states(self, "", "")[0])(canvas)

    def check_drawings(self, films: Sequence[Tensor]) -> None:
        """Refuse DensePose; films (frames, 3, height, width)."""
        check_skeleton(films[0][0])

    def denoise(self, run: UNetCall, timestep: Any) -> Tensor:
        """A pass over frames as pictures: (p b, 4, f, h, w)."""
        rows, frames = run.sample.shape[0], run.sample.shape[2]
        further = dict(run.arguments)
        further["encoder_hidden_states"] = further["encoder_hidden_states"].repeat_interleave(frames, dim=0)
        pictures = run.sample.transpose(1, 2).flatten(0, 1)  # (p b f, 4, h, w)
        predicted = self.unet(pictures, timestep, **further, return_dict=False)[0]
        return predicted.unflatten(0, (rows, frames)).transpose(1, 2)

    def start(self, shape: tuple[int, ...], settings: Settings) -> Tensor:
        """One noise (b, 4, f, h, w) for all poses of a film; given latents may have one of its own for each."""
        given = settings.latents
        if given is not None and given.ndim == 5 and given.shape[2] == shape[2]:
            return super().start(shape, settings)
        noise = super().start((*shape[:2], 1, *shape[3:]), settings)
        return noise.expand(shape).clone()

    def frame_noise(self, seed: int, frames: Any, shape: tuple[int, ...]) -> Tensor:
        """The same for a stream, that of its first frame: (b, 4, f, h, w)."""
        return super().frame_noise(seed, range(1), shape).repeat_interleave(len(frames), dim=2)

    @torch.no_grad()
    def __call__(
        self,
        reference: Picture | ReferenceBank | BankSeries | Shown,
        poses: Drawings | Image.Image,
        prompt: str = "",
        negative_prompt: str = "",
        *,
        balance: bool = False,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        **options: Unpack[FilmOptions],
    ) -> FilmOutput | tuple[Any]:
        """Draw the person in every pose. Each picture is drawn by itself; all begin with one noise.

        Args:
            reference: A picture of the person, or what `write` wrote.
            poses: OpenPose drawings on black: one picture, or whatever holds a film.
            prompt: Empty in all released scripts; guides both passes.
            negative_prompt: With `balance`: of its unconditional pass.
            balance: Guide by the prompt alone; both passes see reference and pose.
            prompt_embeds: Instead of `prompt`, (1, tokens, channels).
            negative_prompt_embeds: Instead of `negative_prompt`.
            options: See `FilmOptions`; `windows` says how many poses are drawn at a time.

        Returns:
            The films.

        Raises:
            ValueError: If arguments do not fit together.
        """
        states = states_of(self, prompt, negative_prompt, prompt_embeds, negative_prompt_embeds, balance)
        guidance, told_states, further = guided(self, "poses", balance, states, reference, options)
        told = shown_on(self, reference, told_states)
        films = [poses] if isinstance(poses, Image.Image) else poses
        return self.film(told, "poses", films, further, guidance=guidance, prompt=states)

    def stream(
        self,
        reference: Picture | ReferenceBank | BankSeries,
        poses: Read,
        *,
        seed: int = 0,
        state: Mapping[str, Any] | None = None,
        step_done: Callable[[], None] | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        balance: bool = False,
        **options: Unpack[FilmOptions],
    ) -> Iterator[tuple[Tensor, Callable[[], dict[str, Any]]]]:
        """Draw a film of any length in bounded memory; the reference's banks of all steps are kept.

        Args:
            reference: A picture of the person, or what `write` wrote.
            poses: Gives the drawings [start, stop): one (frames, 3, height, width) in [0, 1]. Called in order.
            seed: Of the noise, and of the draw from the reference's posterior.
            state: Go on where the same call left off.
            step_done: Called after every prediction.
            prompt: As for the call.
            negative_prompt: As for the call.
            balance: As for the call.
            options: See `FilmOptions`; width, height and num_frames are needed.

        Yields:
            Frames (frames, 3, height, width) in [0, 1], and a function that gives the state behind them.
        """
        states = states_of(self, prompt, negative_prompt, None, None, balance)
        guidance, told_states, further = guided(self, "poses", balance, states, reference, options)
        told = shown_on(self, reference, told_states)
        yield from self.film_stream(
            told, "poses", poses, further, seed=seed, state=state, step_done=step_done, guidance=guidance,
            prompt=states,
        )  # fmt: skip


class MagicPoseAppearancePipeline(PicturePipeline, TextAdapters):
    """Draws pictures like a reference, without poses: the model of the first training stage.

    Args:
        vae: Stable Diffusion's.
        text_encoder: CLIP's text model.
        tokenizer: Its words.
        reference_unet: Writes; None where references come as banks.
        unet: The denoiser, Stable Diffusion 1.5's own.
        scheduler: DDIM at latent-diffusion timesteps; others of diffusers work.
    """

    spec = SPEC_STAGE1
    published = PUBLISHED_STAGE1
    model_cpu_offload_seq = "text_encoder->reference_unet->unet->vae"
    _optional_components = ["reference_unet"]
    show = MagicPosePipeline.show

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        reference_unet: ReferenceUNet | None,
        unet: UNet2DConditionModel,
        scheduler: LDMScheduler,
    ) -> None:
        super().__init__()
        self.register(locals())

    @torch.no_grad()
    def __call__(
        self,
        reference: Picture | ReferenceBank | BankSeries | Shown,
        prompt: str = "",
        *,
        prompt_embeds: Tensor | None = None,
        **options: Unpack[PictureOptions],
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw.

        Args:
            reference: A picture, or what `write` wrote.
            prompt: Empty in all released scripts; guides both passes.
            prompt_embeds: Instead of `prompt`, (1, tokens, channels).
            options: See `PictureOptions`.
        """
        settings = self.settle(options)
        canvas = self.canvas_for(settings, references=1)
        states = prompt_states(self, prompt, prompt)[0] if prompt_embeds is None else prompt_embeds
        with self.calling(settings):
            told = shown_on(self, reference, states)
            return self.draw(told, {"prompt": (states, states)}, canvas, settings)
