"""Fourth stage: the pose ReferenceNet, on pairs of one character in two scenes, while the base model goes on learning.

As Animate Anyone's first stage, but with one denoiser for both: the base model's UNet. Most steps teach it to read
what the reference UNet writes and to follow the pose; the others are the second stage's, single pictures and sheets.
Drawing is learned once, and a third of the weights need not be shipped. The reference UNet starts as a copy; the
pose guider's convolutions start at zero, its context with what it was taught before. Some rows read nothing and are
mostly told everything in words, a tenth has no pose, and some have no prompt, so that guidance has something to move
away from.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from referencenet.builtin.training.base import (
    CAPTION,
    CORRESPONDENCE,
    BaseRecipe,
    figure_weight,
    make_scheduler,
    noisy_timesteps,
    weighted_error,
)
from referencenet.builtin.training.correspondence import attention_inputs, caption_loss, pair_loss
from referencenet.builtin.training.data import skeletons_to_tensors
from referencenet.builtin.training.description import Describer
from referencenet.builtin.training.encoded import EVERYTHING, MOSTLY_SILENT, EncodedSet, draw_told
from referencenet.builtin.training.guider import CONTEXT
from referencenet.builtin.training.stepwise import Stepwise
from referencenet.links.attach import attach, write
from referencenet.links.bank import ReferenceBank
from referencenet.methods.referencenet import ReferenceNetPipeline
from referencenet.networks.pose_guider import PoseGuider, added_after_first_convolution
from referencenet.training.draws import step_generator, step_kind

DRAWN_STEPS = 12
"""Of what a sheet shows."""
UNREAD = 0.25
"""Share of the rows that read no reference: there words tell who it is, of a figure whose place the pose gives."""
INSTEAD = (0.1, 0.0, 0.9)
"""Shares of their captions that tell nothing, as guidance's unconditional half does, all but who, and all."""
DESCRIPTION = 0.03
"""Weight of `description` and `understanding`, what tokens of writer and reader tell, beside the error."""
LOOKING = 0.1
"""Its weight in steps that do nothing else, where it is averaged over more pictures."""
LOOKED_AT = 6
"""How many times more pictures the writer looks at there than where they are read: such a step costs about the same."""


def make_referencenet(
    vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, base: UNet2DConditionModel
) -> ReferenceNetPipeline:
    """A pose ReferenceNet that has learned nothing yet: the base UNet, a copy of it, and a guider."""
    pipe = ReferenceNetPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=base,
        reference_unet=copy.deepcopy(base),
        scheduler=make_scheduler(),
        pose_guider=PoseGuider(
            conditioning_embedding_channels=base.config.block_out_channels[0], context_channels=CONTEXT
        ),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


class ReferenceNetRecipe(Stepwise):
    """Trains denoiser, writer, pose guider and text encoder together.

    Pairs show whole figures: where the reference is a portrait, nothing can tell the shoes.

    Args:
        pipe: What is trained; its denoiser and text encoder are those of `base`.
        base: The second stage, which goes on.
        shown: Pictures of other characters, for sample sheets.
        batch: References of a step.
        readers: Pictures that are drawn from each reference; the write pass is shared.
        base_steps: Share of the steps that are the second stage's, in [0, 1].
        looking_steps: Share of the steps in which the writer describes pictures and nothing is drawn. Drawing shows it
            few: of a picture that is drawn it sees one for three.
        same: Share of the references that are drawn again themselves.
        seed: Of the run.
        device: Where to train.
    """

    name = "referencenet"

    def __init__(
        self,
        pipe: ReferenceNetPipeline,
        base: BaseRecipe,
        *,
        shown: EncodedSet,
        batch: int = 8,
        readers: int = 3,
        base_steps: float = 0.35,
        looking_steps: float = 0.05,
        same: float = 0.1,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.pipe, self.base = pipe.to(self.device), base
        for module in (pipe.reference_unet, pipe.pose_guider):
            module.to(memory_format=torch.channels_last)
        self.modules = {
            "unet": pipe.unet,
            "text_encoder": pipe.text_encoder,
            "reference_unet": pipe.reference_unet,
            "pose_guider": pipe.pose_guider,
            "describer": Describer(pipe.reference_unet, pipe.text_encoder.config.vocab_size).to(self.device),
        }
        self.data, self.shown = base.data, shown
        self.batch, self.readers, self.seed = batch, readers, seed
        if base_steps + looking_steps > 1.0:
            raise ValueError(
                f"base_steps is {base_steps} and looking_steps {looking_steps}; expected shares of at most 1 together."
            )
        self.base_steps, self.looking_steps, self.same = base_steps, looking_steps, same
        self.schedule = make_scheduler()
        self.whole = self.data.pictures.whole
        self.figures = torch.nonzero(self.whole).flatten()

    def loss(self, step: int) -> dict[str, Tensor]:
        """Mean squared error of v: of the second stage, or reading another picture; there, all that is taught too.

        In some steps only what the writer's tokens tell.
        """
        kind, generator = step_kind(self.seed, step), step_generator(self.seed, step)
        if kind < self.base_steps:
            return self.base.loss(step)
        if kind < self.base_steps + self.looking_steps:
            return self._looking(generator)
        scenes = self.data.pictures.together(self.batch, 1 + self.readers, generator, self.whole)
        again = torch.rand(self.batch, generator=generator) < self.same
        scenes[:, 1] = torch.where(again, scenes[:, 0], scenes[:, 1])
        references, index = scenes[:, 0], scenes[:, 1:].flatten()
        rows = len(index)
        chance = torch.rand(2, rows, generator=generator)
        unread, unposed = chance[0] < UNREAD, chance[1] < 0.1
        told, instead = (draw_told(rows, shares, generator) for shares in (MOSTLY_SILENT, INSTEAD))
        tokens, topics = self.data.said(index, torch.where(unread[:, None], instead, told))
        latents = self.data.latents[index].to(self.device)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        timestep = noisy_timesteps(rows, generator).to(self.device)
        noised = self.schedule.add_noise(latents, noise, timestep)  # pyright: ignore[reportArgumentType]
        target = self.schedule.get_velocity(latents, noise, timestep)  # pyright: ignore[reportArgumentType]
        tokens = torch.cat([tokens, self.data.empty[None]]).to(self.device)
        *context, silence = self.pipe.text_encoder(tokens).last_hidden_state.split([rows, 1])
        bank = self._written(references, silence)
        poses = self._skeletons(index) * ~unposed.view(-1, 1, 1, 1)
        features = self.pipe.pose_guider(poses.to(self.device))
        with attach(self.pipe.unet) as link, link.reading(bank, weights=(~unread).float().tolist()):
            with (
                added_after_first_convolution(self.pipe.unet, features),
                attention_inputs(self.pipe.unet) as inputs,
                attention_inputs(self.pipe.unet, "attn2") as asked,
            ):
                predicted = self.pipe.unet(noised, timestep, encoder_hidden_states=context[0]).sample
        wanted, shown = self.data.parts(index).to(self.device), self.data.parts(references).to(self.device)
        error = weighted_error(predicted, target, figure_weight(wanted, *latents.shape[2:]))
        missed = pair_loss(inputs, bank.hidden, wanted, shown)
        unheard = caption_loss(asked, context[0], wanted, topics.to(self.device))
        untold = self._untold(bank.hidden, references)
        unknown = self._untold({site: hidden for site, (_, hidden) in inputs.items()}, index)
        taught = CORRESPONDENCE * missed + CAPTION * unheard + DESCRIPTION * (untold + unknown)
        return {
            "loss": error + taught,
            "error": error,
            "correspondence": missed,
            "caption": unheard,
            "description": untold,
            "understanding": unknown,
        }

    def _looking(self, generator: torch.Generator) -> dict[str, Tensor]:
        """What the writer's tokens tell of whole figures."""
        index = self.figures[torch.randint(len(self.figures), (LOOKED_AT * self.batch,), generator=generator)]
        silence = self.pipe.text_encoder(self.data.empty[None].to(self.device)).last_hidden_state
        untold = self._untold(self._written(index, silence).hidden, index)
        return {"loss": LOOKING * untold, "description": untold}

    def _written(self, index: Tensor, silence: Tensor) -> ReferenceBank:
        """What the writer leaves of pictures; `silence` is the empty prompt, (1, tokens, width)."""
        latents = self.data.latents[index].to(self.device)
        return write(self.pipe.reference_unet, latents, encoder_hidden_states=silence.expand(len(index), -1, -1))

    def _untold(self, hidden: dict[str, Tensor], index: Tensor) -> Tensor:
        """How badly tokens of pictures, by site, tell their captions, a scalar."""
        tokens, topics = self.data.said(index, EVERYTHING.expand(len(index), -1))
        shown = self.data.parts(index).to(self.device)
        return self.modules["describer"](hidden, shown, tokens.to(self.device), topics.to(self.device))

    def sheet(self) -> np.ndarray:
        """Rows: reference, pose, what is drawn, the truth, and what the base model draws of prompts."""
        index = torch.arange(0, len(self.shown.latents), self.shown.pictures.scenes)[:8]
        references, truth = self.shown.pictures.pictures[index], self.shown.pictures.pictures[index + 1]
        poses = self.shown.pictures.skeletons[index + 1]
        prompts = [self.shown.pictures.records[i + 1]["plain"] for i in index.tolist()]
        generator = torch.Generator().manual_seed(1)
        options = {"num_inference_steps": DRAWN_STEPS, "output_type": "np", "generator": generator}
        drawn = self.pipe(references, poses, prompts, **options).images
        told = [self.shown.pictures.records[i + 1]["caption"] for i in index.tolist()]
        plain = self.base.pipe(told, height=64, width=64, guidance_scale=3.0, **options).images
        drawn, plain = ((np.asarray(part) * 255).round().astype(np.uint8) for part in (drawn, plain))
        rows = references, poses, drawn, truth, plain
        return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)

    def _skeletons(self, index: Tensor) -> Tensor:
        """(batch, 3, height, width) in [0, 1]."""
        return skeletons_to_tensors(self.data.pictures.skeletons[index.numpy()])
