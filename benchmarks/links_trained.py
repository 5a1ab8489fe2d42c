"""The trainings of the comparison of links: a neutral base, and from it every arm on the same data, noise and steps.

The base is the built-in model's UNet from random weights, taught from captions alone: it never sees two pictures of one
character, and its attention is not told where to look. Autoencoder and text encoder are the shipped ones, frozen. Arms
learn from pairs of one character: a reference, and other pictures whose captions do not tell who it is. All that is
random comes from the step, so all arms see the same pairs, words, noise and drops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from link_arms import ARMS, Arm, Shown
from torch import Tensor, nn
from transformers import CLIPTextModel

from referencenet.builtin.load import STEPS, load
from referencenet.builtin.training.base import (
    figure_weight,
    make_scheduler,
    make_unet,
    noisy_timesteps,
    weighted_error,
)
from referencenet.builtin.training.data import draw_set
from referencenet.builtin.training.encoded import EncodedSet, draw_told
from referencenet.builtin.training.stepwise import Stepwise
from referencenet.builtin.training.vae import encode
from referencenet.media.files import written_whole
from referencenet.training.config import OptimizerConfig, RunConfig
from referencenet.training.draws import first_weights, step_generator
from referencenet.training.loop import fit

WORDS = (0.1, 0.2, 0.7)
"""Shares of the base's captions that tell nothing, all but who, and all."""
BOTH_DROPPED, WORDS_DROPPED, REFERENCE_DROPPED = 0.05, 0.05, 0.05
"""Shares of an arm's rows that go without both, as guidance's other half does, or without one of them."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every training has.

    Attributes:
        characters: Of the training set.
        scenes: Pictures of each.
        base_steps: Of the base.
        base_rows: Pictures of a step of the base.
        steps: Of an arm.
        references: Of a step of an arm.
        readers: Pictures that read each reference.
        seed: Of everything.
        unseen: Characters of the test split on which arms are measured.
        drawing_steps: Of DDIM.
    """

    characters: int = 2000
    scenes: int = 6
    base_steps: int = 1400
    base_rows: int = 24
    steps: int = 500
    references: int = 8
    readers: int = 2
    seed: int = 0
    unseen: int = 64
    drawing_steps: int = STEPS


BUDGET = Budget()
TINY = Budget(characters=6, scenes=4, base_steps=2, base_rows=4, steps=2, references=2, unseen=2, drawing_steps=2)
"""For the test that this file runs."""

OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup=50, cooldown=0.5, betas=(0.9, 0.99), muon=("unet",))


class Place:
    """The folder of a comparison, and what all its trainings share.

    Args:
        folder: Of data and runs.
        budget: Of the trainings.
    """

    def __init__(self, folder: Path, budget: Budget = BUDGET) -> None:
        self.folder, self.budget = folder, budget
        self.shipped = load("base")
        self.text_encoder: CLIPTextModel = self.shipped.text_encoder.eval().requires_grad_(False)

    @cached_property
    def data(self) -> EncodedSet:
        """The training pictures, drawn and encoded once."""
        folder = self.folder / "data" / "train"
        pictures = draw_set(
            folder, characters=self.budget.characters, scenes=self.budget.scenes, seed=self.budget.seed + 1, workers=1
        )
        path = folder.with_name("latents.npy")
        if not (path.is_file() and len(np.load(path, mmap_mode="r")) == len(pictures)):
            with written_whole(path) as temporary, temporary.open("wb") as file:
                np.save(file, encode(self.shipped.vae, pictures.pictures).numpy())
        return EncodedSet.of(pictures, torch.from_numpy(np.load(path)), self.shipped.tokenizer)

    @torch.no_grad()
    def words(self, tokens: Tensor) -> Tensor:
        """The text encoder's states of token numbers (r, tokens): (r, tokens, c)."""
        return self.text_encoder(tokens).last_hidden_state

    @cached_property
    def silence(self) -> Tensor:
        """The states of the empty prompt, (1, tokens, c)."""
        return self.words(self.data.empty[None])

    def run(self, name: str) -> Path:
        """The folder of a training."""
        return self.folder / "runs" / name

    def base(self) -> UNet2DConditionModel:
        """The finished base.

        Raises:
            FileNotFoundError: If it is not finished.
        """
        folder = self.folder / "base"
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"there is no base in {folder}; run `links_compared.py train-base` first.")
        return UNet2DConditionModel.from_pretrained(folder)

    def networks(self, name: str) -> dict[str, nn.Module]:
        """An arm's networks, not trained yet; the same for the same seed."""
        with first_weights(self.budget.seed):
            return ARMS[name].networks(self.base())

    def trained(self, name: str) -> dict[str, nn.Module]:
        """A finished arm's networks.

        Raises:
            FileNotFoundError: If it is not finished.
        """
        file = self.weights(name)
        if not file.is_file():
            raise FileNotFoundError(f"the arm {name} is not finished in {file}; run `links_compared.py train {name}`.")
        networks, states = self.networks(name), torch.load(file, weights_only=True)
        for part, network in networks.items():
            network.load_state_dict(states[part])
            network.eval().requires_grad_(False)
        return networks

    def finished(self) -> list[str]:
        """What is trained to its end: `base`, and names of arms."""
        arms = [name for name in ARMS if self.weights(name).is_file()]
        return [*(["base"] if (self.folder / "base" / "config.json").is_file() else []), *arms]

    def weights(self, name: str) -> Path:
        """The file of an arm's trained networks."""
        return self.folder / "arms" / f"{name}.pt"

    @property
    def measured(self) -> Path:
        """Where measurements and drawn pictures lie."""
        return self.folder / "measured"


class Velocity(Stepwise):
    """Learning the velocity of noised latents.

    Args:
        place: Of the comparison.
        modules: What learns, by name.
    """

    device = torch.device("cpu")

    def __init__(self, place: Place, modules: dict[str, nn.Module]) -> None:
        self.place, self.data, self.modules = place, place.data, modules
        self.schedule = make_scheduler()
        for module in modules.values():
            module.train().to(memory_format=torch.channels_last)

    def noised(self, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Noised latents, timesteps and the velocity."""
        noise = torch.randn(latents.shape, generator=generator)
        timestep = noisy_timesteps(len(latents), generator)
        noised = self.schedule.add_noise(latents, noise, timestep)
        return noised, timestep, self.schedule.get_velocity(latents, noise, timestep)

    def error(self, predicted: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Mean squared error, in which figures and garments count more."""
        return weighted_error(predicted, target, figure_weight(self.data.parts(index), *target.shape[2:]))


class BaseRecipe(Velocity):
    """The neutral base: single pictures and their captions, and nothing but the error."""

    name = "base"

    def __init__(self, place: Place, unet: UNet2DConditionModel) -> None:
        super().__init__(place, {"unet": unet})

    def loss(self, step: int) -> dict[str, Tensor]:
        """The error of one batch."""
        budget = self.place.budget
        generator = step_generator(budget.seed, step)
        index = torch.randint(len(self.data.latents), (budget.base_rows,), generator=generator)
        tokens, _ = self.data.said(index, draw_told(budget.base_rows, WORDS, generator))
        noised, timestep, target = self.noised(self.data.latents[index], generator)
        predicted = self.modules["unet"](noised, timestep, self.place.words(tokens)).sample
        return {"loss": self.error(predicted, target, index)}


class ArmRecipe(Velocity):
    """An arm: pairs of one character, whole figures, told all but who.

    Args:
        place: Of the comparison.
        arm: Which.
        modules: As the arm made them.
    """

    def __init__(self, place: Place, arm: Arm, modules: dict[str, nn.Module]) -> None:
        super().__init__(place, modules)
        self.arm, self.name = arm, arm.title
        self.whole = self.data.pictures.whole

    def loss(self, step: int) -> dict[str, Tensor]:
        """The error of one batch."""
        budget = self.place.budget
        generator = step_generator(budget.seed + 1, step)
        scenes = self.data.pictures.together(budget.references, 1 + budget.readers, generator, self.whole)
        references, index = scenes[:, 0], scenes[:, 1:].flatten()
        rows = len(index)
        chance = torch.rand(rows, generator=generator)
        silent = chance < BOTH_DROPPED + WORDS_DROPPED
        unread = (chance < BOTH_DROPPED) | (chance >= 1 - REFERENCE_DROPPED)
        told = draw_told(rows, (0.0, 1.0, 0.0), generator).masked_fill(silent[:, None], torch.inf)
        tokens, _ = self.data.said(index, told)
        noised, timestep, target = self.noised(self.data.latents[index], generator)
        shown = Shown(
            latents=self.data.latents[references],
            silence=self.place.silence,
            figure=(self.data.parts(references) > 0).float()[:, None],
        )
        with self.arm.linked(self.modules, shown, (~unread).float().tolist()) as predict:
            predicted = predict(noised, timestep, self.place.words(tokens))
        return {"loss": self.error(predicted, target, index)}


def train_base(place: Place) -> None:
    """Train the base to its end, or do nothing where it is finished."""
    if "base" in place.finished():
        return
    with first_weights(place.budget.seed):
        unet = make_unet()
    run = RunConfig(
        steps=place.budget.base_steps,
        average=0.998,
        precision="bf16",
        save_every=200,
        validate_every=0,
        log_every=50,
        optimizer=OPTIMIZER,
    )
    fit(BaseRecipe(place, unet), place.run("base"), run)
    unet.save_pretrained(place.folder / "base")


def train_arm(place: Place, name: str) -> None:
    """Train an arm to its end, or do nothing where it is finished."""
    if name in place.finished():
        return
    networks = place.networks(name)
    run = RunConfig(
        steps=place.budget.steps,
        average=0.99,
        precision="bf16",
        save_every=100,
        validate_every=0,
        log_every=5,
        optimizer=replace(OPTIMIZER, muon=tuple(networks)),
    )
    fit(ArmRecipe(place, ARMS[name], networks), place.run(name), run)
    with written_whole(place.weights(name)) as temporary:
        torch.save({part: network.state_dict() for part, network in networks.items()}, temporary)
