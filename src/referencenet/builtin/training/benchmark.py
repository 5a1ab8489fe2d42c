"""What the built-in model can do, measured on characters that nothing was trained on.

Identity: cosine similarity of the observer's embedding to the reference picture's. `gap_closed` is the share of the
way from *no reference* (0) to the *rendered truth through the autoencoder* (1). Pose: mean distance between the key
points that the observer finds and the true ones, in picture heights. Prompts: share of aspects that the observer
finds as they were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from referencenet.builtin.load import GUIDANCE, STEPS, WEIGHTS, load, load_observer
from referencenet.builtin.training.data import character_seeds, to_tensors
from referencenet.builtin.training.observer import aspects_of, verification_accuracy
from referencenet.builtin.training.vae import reconstruct
from referencenet.methods.reference_only import NAMED_LINKS
from referencenet.methods.reference_only import reference as reading
from referencenet.methods.referencenet import ReferenceNetPipeline
from referencenet.networks.observer import Observer
from referencenet.paperdoll.captions import attributes, caption
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.scores import psnr
from referencenet.paperdoll.skeleton import keypoints, skeleton

STYLE_FIDELITY = 1.0
"""The unconditional half sees no reference, so that guidance pushes towards it."""
NUM_OBSERVED = 64
"""In how many pictures of unseen characters aspects are looked for: of a dozen values, fewer would tell little."""
PROMPT_ASPECTS = (
    "pose",
    "view",
    "shot",
    "expression",
    "background",
    "hair_style",
    "hair_colour",
    "upper_colour",
    "pattern",
    "emblem",
    "lower",
    "lower_colour",
)
TOLD_BY_PHRASE = {
    "hair": ("hair_style", "hair_colour"),
    "upper": ("upper_colour", "pattern", "emblem"),
    "lower": ("lower", "lower_colour"),
}
"""What a caption's phrase tells where it is more than the aspect of its own name."""
PERSON_ASPECTS = ("hair_style", "hair_colour", "upper_colour", "pattern", "emblem", "lower", "lower_colour")
"""What a reference tells and the prompt beside it does not."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One character to be drawn: who, and how.

    Attributes:
        reference: The scene of the reference picture.
        target: The scene that is asked for.
    """

    reference: Scene
    target: Scene

    @classmethod
    def of(cls, character: int, seed: int) -> Case:
        """The case of a character: a whole figure from the front, wanted in another pose and place."""
        first, second = seed * 2_000_003 + character * 2, seed * 2_000_003 + character * 2 + 1
        return cls(
            reference=Scene.from_seeds(character, first, shot="full body", view="front"),
            target=Scene.from_seeds(character, second, shot="full body"),
        )

    @property
    def prompt(self) -> str:
        """What is asked for: everything but who."""
        return caption(self.target, identity=False)


def held_out_cases(number: int, seed: int) -> list[Case]:
    """Cases of the first characters of the test split from a place that the seed chooses."""
    return [Case.of(character, seed) for character in character_seeds("test", number, start=1_000_000 + 10_000 * seed)]


def benchmark_builtin(
    num_characters: int = 16,
    seed: int = 0,
    *,
    folder: Path = WEIGHTS,
    progress: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """Measure everything that the model card reports.

    Args:
        num_characters: How many characters of the test split.
        seed: Chooses characters, scenes and noise; the same seed gives the same numbers on one machine.
        folder: Of the weights.
        progress: Told what is measured next.

    Returns:
        `gap_closed` and `identity` per method, `pose_error`, `psnr` against the truth, `attribute_accuracy` (of whole
        captions), `short_prompt_accuracy` (of prompts that tell half of it), `person_accuracy` (of the ReferenceNet),
        and `observer`, the measure's own accuracy.
    """
    if num_characters < 2:
        raise ValueError(f"num_characters is {num_characters}; expected at least 2, so that people can be told apart.")
    told = progress or (lambda _: None)
    cases = held_out_cases(num_characters, seed)
    base, net, observer = load("base", folder=folder), load("referencenet", folder=folder), load_observer(folder=folder)
    for pipe in (base, net):
        pipe.set_progress_bar_config(disable=True)
    references = np.stack([render(case.reference) for case in cases])
    truth = np.stack([render(case.target) for case in cases])
    drawn = {"none": draw_plain(base, cases, seed)}
    for name, links in NAMED_LINKS.items():
        told(name)
        drawn[name] = draw_linked(base, cases, references, links, seed)
    told("referencenet")
    drawn["referencenet"] = draw_referencenet(net, cases, references, seed)
    drawn["truth"] = reconstruct(base.vae, truth)
    wanted = _look(observer, references)[0]
    points = np.stack([keypoints(case.target) for case in cases])
    scores: dict[str, float] = {}
    poses: dict[str, float] = {}
    for name, pictures in drawn.items():
        embedding, found = _look(observer, pictures)
        scores[name] = float((embedding * wanted).sum(dim=1).mean())
        poses[name] = pose_error(found, points)
    told("aspects")
    unseen = held_out_cases(NUM_OBSERVED, seed)
    unseen_truth = reconstruct(base.vae, np.stack([render(case.target) for case in unseen]))
    return {
        "num_characters": num_characters,
        "seed": seed,
        "gap_closed": {name: round(gap_closed(scores, name), 4) for name in (*NAMED_LINKS, "referencenet")},
        "identity": {name: round(score, 4) for name, score in scores.items()},
        "pose_error": {name: round(error, 4) for name, error in poses.items()},
        "psnr": {n: round(float(np.mean([psnr(*p) for p in zip(d, truth, strict=True)])), 2) for n, d in drawn.items()},
        "attribute_accuracy": attribute_accuracy(base, observer, unseen, unseen_truth, seed),
        "short_prompt_accuracy": short_prompt_accuracy(base, observer, unseen, unseen_truth, seed),
        "person_accuracy": person_accuracy(net, observer, unseen, unseen_truth, seed),
        "observer": {n: round(v, 4) for n, v in verification_accuracy(observer, references, truth).items()},
    }


def gap_closed(scores: dict[str, float], name: str) -> float:
    """Share of the way from `none` to `truth`."""
    return (scores[name] - scores["none"]) / (scores["truth"] - scores["none"])


def draw_plain(pipe: StableDiffusionPipeline, cases: Sequence[Case], seed: int) -> np.ndarray:
    """Without a reference: (cases, 64, 64, 3) uint8."""
    return _draw_prompts(pipe, [case.prompt for case in cases], seed)


def draw_linked(
    pipe: StableDiffusionPipeline,
    cases: Sequence[Case],
    references: np.ndarray,
    links: list[str],
    seed: int,
    write_every: int = 1,
) -> np.ndarray:
    """With training-free links: (cases, 64, 64, 3) uint8."""
    rows = []
    told: dict[str, Any] = {"links": links, "style_fidelity": STYLE_FIDELITY, "write_every": write_every}
    for i, case in enumerate(cases):
        with reading(pipe, Image.fromarray(references[i]), **told):
            rows.append(_run(pipe, [case.prompt], _generator(seed, i)))
    return np.concatenate(rows)


def draw_referencenet(
    pipe: ReferenceNetPipeline, cases: Sequence[Case], references: np.ndarray, seed: int
) -> np.ndarray:
    """With the trained ReferenceNet, in the true pose: (cases, 64, 64, 3) uint8."""
    poses = np.stack([skeleton(case.target) for case in cases])
    rows = []
    for start in range(0, len(cases), 16):
        part = slice(start, start + 16)
        generators = [_generator(seed, i) for i in range(len(cases))][part]
        prompts = [case.prompt for case in cases][part]
        options = {"num_inference_steps": STEPS, "output_type": "np"}  # at the guidance of its own choice
        rows.append(_as_bytes(pipe(references[part], poses[part], prompts, generator=generators, **options).images))
    return np.concatenate(rows)


def pose_error(found: Tensor, points: np.ndarray) -> float:
    """Mean distance of visible key points.

    Args:
        found: (pictures, 18, 2) in [0, 1].
        points: (pictures, 18, 3) as paperdoll gives them.
    """
    truth = torch.from_numpy(points).to(found.device)
    distance = (found - truth[..., :2]).norm(dim=2) * truth[..., 2]
    return float(distance.sum() / truth[..., 2].sum())


def attribute_accuracy(
    pipe: StableDiffusionPipeline, observer: Observer, cases: Sequence[Case], truth: np.ndarray, seed: int
) -> dict[str, float | dict[str, float]]:
    """How well full captions of unseen characters are followed: overall, per aspect, and what is seen in the truth."""
    drawn = _draw_prompts(pipe, [caption(case.target) for case in cases], seed + 1)
    return _observed(observer, [aspects_of(case.target) for case in cases], drawn, truth, PROMPT_ASPECTS)


def short_prompt_accuracy(
    pipe: StableDiffusionPipeline, observer: Observer, cases: Sequence[Case], truth: np.ndarray, seed: int
) -> dict[str, float | dict[str, float]]:
    """The same of prompts as people write them: half of the caption's phrases, in any order.

    The shot is among them: without it most of the rest may well be out of the picture.
    """
    prompts: list[str] = []
    asked: list[dict[str, str]] = []
    for i, case in enumerate(cases):
        phrases = attributes(case.target)
        generator = _generator(seed, i)
        others = [name for name in phrases if name != "shot"]
        half = torch.randperm(len(others), generator=generator)[: len(others) // 2].tolist()
        said = ["shot", *(others[place] for place in half)]
        chosen = [said[place] for place in torch.randperm(len(said), generator=generator).tolist()]
        prompts.append(", ".join(phrases[name] for name in chosen))
        told = [aspect for name in chosen for aspect in TOLD_BY_PHRASE.get(name, (name,))]
        asked.append({name: value for name, value in aspects_of(case.target).items() if name in told})
    return _observed(observer, asked, _draw_prompts(pipe, prompts, seed + 1), truth, PROMPT_ASPECTS)


def person_accuracy(
    pipe: ReferenceNetPipeline, observer: Observer, cases: Sequence[Case], truth: np.ndarray, seed: int
) -> dict[str, float | dict[str, float]]:
    """How much of what only the reference tells the ReferenceNet draws: in the form of `attribute_accuracy`."""
    drawn = draw_referencenet(pipe, cases, np.stack([render(case.reference) for case in cases]), seed + 1)
    return _observed(observer, [aspects_of(case.target) for case in cases], drawn, truth, PERSON_ASPECTS)


def _observed(
    observer: Observer, asked: list[dict[str, str]], drawn: np.ndarray, truth: np.ndarray, aspects: Sequence[str]
) -> dict[str, float | dict[str, float]]:
    """In which share of pictures aspects are seen as they should be: in those drawn, and in the truth."""
    found, own = (_aspects_found(observer, pictures, asked, aspects) for pictures in (drawn, truth))
    return {
        "mean": round(float(np.mean(list(found.values()))), 4),
        "observer_on_truth": round(float(np.mean(list(own.values()))), 4),
        "per_aspect": {name: round(value, 4) for name, value in found.items()},
        "observer_per_aspect": {name: round(value, 4) for name, value in own.items()},
    }


@torch.no_grad()
def _aspects_found(
    observer: Observer, pictures: np.ndarray, asked: list[dict[str, str]], aspects: Sequence[str]
) -> dict[str, float]:
    """Share of pictures in which each aspect is seen as asked."""
    logits = observer(to_tensors(pictures)).logits
    result = {}
    for aspect in aspects:
        values = observer.config.aspects[aspect]
        rows = [i for i, wanted in enumerate(asked) if aspect in wanted]
        if rows:
            seen = logits[aspect].argmax(dim=1).tolist()
            result[aspect] = float(np.mean([values[seen[i]] == asked[i][aspect] for i in rows]))
    return result


@torch.no_grad()
def _look(observer: Observer, pictures: np.ndarray) -> tuple[Tensor, Tensor]:
    """Embeddings (pictures, channels) and key points (pictures, 18, 2)."""
    found = observer(to_tensors(pictures))
    return found.embedding, found.keypoints


def _draw_prompts(pipe: StableDiffusionPipeline, prompts: list[str], seed: int) -> np.ndarray:
    """A picture of each prompt, each from its own noise: (prompts, 64, 64, 3) uint8."""
    rows = []
    for start in range(0, len(prompts), 16):
        part = prompts[start : start + 16]
        rows.append(_run(pipe, part, [_generator(seed, start + i) for i in range(len(part))]))
    return np.concatenate(rows)


def _run(
    pipe: StableDiffusionPipeline, prompts: list[str], generator: torch.Generator | list[torch.Generator]
) -> np.ndarray:
    """Pictures of prompts, uint8."""
    options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "output_type": "np", "height": 64, "width": 64}
    return _as_bytes(pipe(prompts, generator=generator, **options).images)


def _as_bytes(pictures: object) -> np.ndarray:
    """Floats in [0, 1] to uint8."""
    return (np.asarray(pictures) * 255).round().astype(np.uint8)


def _generator(seed: int, index: int) -> torch.Generator:
    """The noise of one picture."""
    return torch.Generator().manual_seed(seed * 100_003 + index)
