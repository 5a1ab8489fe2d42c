"""What an arm of the comparison of links can do, on characters that nothing was trained on.

Errors are those of the guessed clean latents, by how much noise there is: linked, with the link cut, and with the
reference of somebody else. Pictures are drawn by DDIM and looked at by the observer: who it is, and whether the words
were followed. Parameters and floating-point operations are counted. Letters: n cases, (h, w) latents.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import measuring
import numpy as np
import torch
from link_arms import Arm, Shown
from torch import Tensor, nn
from torch.nn import functional as F

from referencenet.builtin.load import GUIDANCE, STEPS, load_observer
from referencenet.builtin.training.base import make_scheduler
from referencenet.builtin.training.benchmark import PERSON_ASPECTS, Case, held_out_cases
from referencenet.builtin.training.data import to_tensors
from referencenet.builtin.training.observer import aspects_of
from referencenet.builtin.training.text import tokenize
from referencenet.builtin.training.vae import decode, encode
from referencenet.networks.observer import Observer
from referencenet.paperdoll.captions import caption
from referencenet.paperdoll.maps import segmentation
from referencenet.paperdoll.render import render

LEVELS = (980, 900, 700, 500, 300, 100)
"""Timesteps of 1000 at which errors are measured."""
TOLD_ASPECTS = ("pose", "view", "expression", "background")
"""What words tell and the reference does not."""
ROWS = 16
"""Cases at a time."""
SEED = 5
"""Chooses the characters of the test split and all noise."""


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """Cases of characters that nothing was trained on.

    Attributes:
        cases: n of them, each a reference and what is wanted.
        references: Latents, (n, 4, h, w).
        targets: Latents of the truth, likewise.
        standing: (n, 1, H, W), where somebody stands in the references.
        wanted: (n, 1, h, w) in [0, 1], where somebody stands in the truth.
        words: States of captions that do not tell who, (n, tokens, c).
        told: States of whole captions, likewise.
        silence: Of the empty prompt, (1, tokens, c).
    """

    cases: Sequence[Case]
    references: Tensor
    targets: Tensor
    standing: Tensor
    wanted: Tensor
    words: Tensor
    told: Tensor
    silence: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, pipe: Any, number: int) -> Unseen:
        """Draw and encode cases.

        Args:
            pipe: Has autoencoder, text encoder and tokenizer.
            number: n.
        """
        cases = held_out_cases(number, SEED)
        scenes = [case.reference for case in cases], [case.target for case in cases]
        latents = [encode(pipe.vae, np.stack([render(scene) for scene in side])) for side in scenes]
        figures = [torch.from_numpy(np.stack([segmentation(s, 64) for s in side])) > 0 for side in scenes]
        standing, wanted = (figure.float().unsqueeze(1) for figure in figures)

        def states(captions: Sequence[str]) -> Tensor:
            return pipe.text_encoder(tokenize(pipe.tokenizer, captions)).last_hidden_state

        return cls(
            cases=cases,
            references=latents[0],
            targets=latents[1],
            standing=standing,
            wanted=F.adaptive_avg_pool2d(wanted, latents[1].shape[2:]),
            words=states([case.prompt for case in cases]),
            told=states([caption(case.target) for case in cases]),
            silence=states([""]),
        )

    @cached_property
    def slices(self) -> list[slice]:
        """The cases in parts of at most `ROWS`."""
        return [slice(start, min(start + ROWS, len(self.cases))) for start in range(0, len(self.cases), ROWS)]

    def shown(self, part: slice, *, wrong: bool = False) -> Shown:
        """The references of some cases, or each time that of the next case."""
        order = torch.arange(len(self.cases)).roll(-1 if wrong else 0)[part]
        return Shown(latents=self.references[order], silence=self.silence, figure=self.standing[order])


@torch.no_grad()
def errors(arm: Arm, networks: Mapping[str, nn.Module], unseen: Unseen, *, told: bool = False) -> dict[str, Any]:
    """Mean squared errors of guessed clean latents, whose variance is about 1.

    Args:
        arm: Which.
        networks: Its own, trained.
        unseen: The cases.
        told: Whether words tell who it is.

    Returns:
        By way of reading (`linked`; where there is a link `cut` and `wrong`), then by place (`figure`, `whole`), then
        by timestep.
    """
    ways = ("linked",) if arm.written is None else ("linked", "cut", "wrong")
    words = unseen.told if told else unseen.words
    schedule = make_scheduler()
    sums = {way: {place: dict.fromkeys(map(str, LEVELS), 0.0) for place in ("figure", "whole")} for way in ways}
    for part in unseen.slices:
        clean, figure = unseen.targets[part], unseen.wanted[part]
        for way in ways:
            reads = [0.0 if way == "cut" else 1.0] * len(clean)
            with arm.linked(networks, unseen.shown(part, wrong=way == "wrong"), reads) as predict:
                for level in LEVELS:
                    generator = torch.Generator().manual_seed(SEED * 1_000_003 + level * 1_009 + part.start)
                    noise = torch.randn(clean.shape, generator=generator)
                    timestep = torch.full((len(clean),), level)
                    noised = schedule.add_noise(clean, noise, timestep)
                    velocity = predict(noised, timestep, words[part])
                    alpha = schedule.alphas_cumprod[level]
                    guessed = alpha.sqrt() * noised - (1 - alpha).sqrt() * velocity
                    squared = (guessed - clean).square().mean(dim=1, keepdim=True)  # (rows, 1, h, w)
                    inside = (squared * figure).sum(dim=(1, 2, 3)) / figure.sum(dim=(1, 2, 3))
                    sums[way]["figure"][str(level)] += float(inside.sum())
                    sums[way]["whole"][str(level)] += float(squared.mean(dim=(1, 2, 3)).sum())
    return {
        way: {place: {t: round(v / len(unseen.cases), 4) for t, v in found.items()} for place, found in places.items()}
        for way, places in sums.items()
    }


@torch.no_grad()
def draw(
    arm: Arm, networks: Mapping[str, nn.Module], unseen: Unseen, vae: Any, *, told: bool = False, steps: int = STEPS
) -> np.ndarray:
    """A picture of every case, each from its own noise: (n, 64, 64, 3) uint8.

    Guidance moves away from what neither words nor reference tell.

    Args:
        arm: Which.
        networks: Its own, trained.
        unseen: The cases.
        vae: Decodes.
        told: Whether words tell who it is.
        steps: Of DDIM.
    """
    words = unseen.told if told else unseen.words
    drawn: list[np.ndarray] = []
    for part in unseen.slices:
        schedule, rows = make_scheduler(), part.stop - part.start
        schedule.set_timesteps(steps)
        noises = [torch.Generator().manual_seed(SEED * 100_003 + i) for i in range(part.start, part.stop)]
        latents = torch.cat([torch.randn(1, *unseen.targets.shape[1:], generator=noise) for noise in noises])
        silence = unseen.silence.expand(rows, -1, -1)
        contexts = torch.stack([silence, words[part]], dim=1).flatten(0, 1)  # each case's halves behind each other
        with arm.linked(networks, unseen.shown(part), [0.0, 1.0] * rows) as predict:
            for timestep in schedule.timesteps:
                halves = predict(latents.repeat_interleave(2, 0), timestep.expand(2 * rows), contexts)
                without, full = halves.unflatten(0, (rows, 2)).unbind(1)
                velocity = without + GUIDANCE * (full - without)
                latents = schedule.step(velocity, int(timestep), latents).prev_sample
        drawn.append(decode(vae, latents))
    return np.concatenate(drawn)


@torch.no_grad()
def looked_at(pictures: np.ndarray, unseen: Unseen, references: np.ndarray) -> dict[str, Any]:
    """What the observer says of pictures.

    Args:
        pictures: (n, 64, 64, 3) uint8.
        unseen: What they should show.
        references: As `pictures`.

    Returns:
        `identity`, the mean cosine similarity to the reference, and `identity_error`, its standard error; `person` and
        `told`, the shares of aspects seen as they should be: of those that the reference tells, and the words.
    """
    observer = load_observer()
    found, own = observer(to_tensors(pictures)), observer(to_tensors(references))
    similarity = (found.embedding * own.embedding).sum(dim=1)
    asked = [aspects_of(case.target) for case in unseen.cases]
    return {
        "identity": round(float(similarity.mean()), 4),
        "identity_error": round(float(similarity.std() / len(similarity) ** 0.5), 4),
        "person": _seen(observer, found.logits, asked, PERSON_ASPECTS),
        "told": _seen(observer, found.logits, asked, TOLD_ASPECTS),
    }


def _seen(
    observer: Observer, logits: Mapping[str, Tensor], asked: Sequence[Mapping[str, str]], aspects: Sequence[str]
) -> float:
    """Mean over aspects of the share of pictures in which each is seen as asked, where it can be seen."""
    shares: list[float] = []
    for aspect in aspects:
        values = observer.config.aspects[aspect]
        seen = [values[i] for i in logits[aspect].argmax(dim=1).tolist()]
        right = [seen[i] == wanted[aspect] for i, wanted in enumerate(asked) if aspect in wanted]
        shares += [float(np.mean(right))] if right else []
    return round(float(np.mean(shares)), 4)


@torch.no_grad()
def costs(arm: Arm, networks: Mapping[str, nn.Module], unseen: Unseen) -> dict[str, Any]:
    """Parameters by network, of the writer those that it uses, and operations of one picture, `once` and by `step`.

    Reading once includes the writer and what the denoiser makes of the bank before its first step.
    """
    first = slice(0, 1)
    step: list[int] = []

    def run() -> None:
        with arm.linked(networks, unseen.shown(first), [1.0]) as predict:
            given = unseen.targets[first], torch.tensor([500]), unseen.words[first]
            step.append(measuring.flops(lambda: predict(*given)))

    everything = measuring.flops(run)
    parameters = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    if "writer" in networks:
        parameters["writer"] = _used(arm, networks, unseen.shown(first))
    return {
        "parameters": parameters,
        "flops": {"once": everything - step[0], "step": step[0]},
    }


def _used(arm: Arm, networks: Mapping[str, nn.Module], shown: Shown) -> int:
    """Parameters of the writer on which what it leaves depends."""
    writer = copy.deepcopy(networks["writer"]).requires_grad_(True)
    with torch.enable_grad():
        left = arm.write({"writer": writer}, shown).entries().values()
        gradients = torch.autograd.grad(sum(part.sum() for part in left), list(writer.parameters()), allow_unused=True)
    return sum(gradient.numel() for gradient in gradients if gradient is not None)
