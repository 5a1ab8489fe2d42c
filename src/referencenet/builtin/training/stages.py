"""Training the built-in model from nothing: `refnet train builtin`.

Stages, each in a folder of its own and each resumable: pictures, vae, base, guider, referencenet, observer,
image_encoder; then `export` writes what the package ships. Every stage is skipped as soon as its schedule is done, so
the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from referencenet.builtin.load import load
from referencenet.builtin.training.base import BaseRecipe, make_pipeline, make_unet
from referencenet.builtin.training.data import PictureSet, draw_set
from referencenet.builtin.training.encoded import EncodedSet
from referencenet.builtin.training.guider import CONTEXT, GuiderRecipe, draw_maps
from referencenet.builtin.training.image_encoder import ImageEncoderRecipe
from referencenet.builtin.training.observer import ObserverRecipe, aspects_of, make_observer
from referencenet.builtin.training.pose_referencenet import ReferenceNetRecipe, make_referencenet
from referencenet.builtin.training.text import make_text_encoder, make_tokenizer
from referencenet.builtin.training.vae import VaeRecipe, encode, make_vae, measure_scale, reconstruct
from referencenet.media.files import written_whole
from referencenet.methods.referencenet import ReferenceNetPipeline
from referencenet.networks.observer import Observer
from referencenet.networks.pose_guider import PoseContext
from referencenet.paperdoll.scene import Scene
from referencenet.training.config import OptimizerConfig, Precision, RunConfig
from referencenet.training.draws import first_weights
from referencenet.training.loop import fit
from referencenet.training.parallel import join, rank, wait, world_size
from referencenet.training.recipe import Recipe

STAGES = ("vae", "base", "guider", "referencenet", "observer", "image_encoder")
_GIVEN = ("vae", "base", "guider")
"""What weights to begin with make needless."""

BETAS = 0.9, 0.99

SCHEDULES = {
    "vae": RunConfig(
        steps=1200,
        average=0.995,
        optimizer=OptimizerConfig(learning_rate=1.2e-3, warmup=50, cooldown=0.9, betas=BETAS, weight_decay=0.0),
    ),
    "base": RunConfig(
        steps=1500,
        average=0.996,
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=200, cooldown=0.1, betas=BETAS),
    ),
    "guider": RunConfig(
        steps=1000,
        average=0.99,
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup=50, cooldown=0.9, betas=BETAS),
    ),
    "referencenet": RunConfig(
        steps=20000,
        average=0.998,
        optimizer=OptimizerConfig(
            learning_rate=7e-4,
            warmup=80,
            cooldown=0.95,
            betas=BETAS,
            muon=("unet", "reference_unet", "text_encoder"),
        ),
    ),
    "observer": RunConfig(
        steps=2800,
        average=0.995,
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup=100, cooldown=0.6, betas=BETAS),
    ),
    "image_encoder": RunConfig(
        steps=600,
        average=0.99,
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup=50, cooldown=0.9, betas=BETAS, weight_decay=0.0),
    ),
}
"""About as the shipped weights were trained, on two CPU cores; the model card tells where they differ."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one training of the built-in model is.

    Attributes:
        folder: Of everything: pictures, runs, results.
        characters: Of the training split.
        scenes: Pictures of each character.
        batch: Single pictures of a base step, in all processes together; the other stages' batches follow from it.
        seed: Of everything.
        device: Where to train.
        stretch: Factor on every stage's steps.
        precision: What is computed in: `fp32`, or `bf16` with weights in single precision.
        workers: Processes that draw.
        quiet: No progress bars.
        start: Weights as `export` writes them, with which the ReferenceNet begins instead of with the base's and the
            observer instead of with nothing; the autoencoder and the guider are theirs, too.
    """

    folder: Path
    characters: int = 4000
    scenes: int = 6
    batch: int = 16
    seed: int = 0
    device: str = "cpu"
    stretch: float = 1.0
    precision: Precision = "fp32"
    workers: int = 2
    quiet: bool = False
    start: Path | None = None

    def run(self, stage: str) -> RunConfig:
        """The stage's run, stretched."""
        run = SCHEDULES[stage]
        return replace(run, steps=max(1, round(run.steps * self.stretch)), precision=self.precision)

    def result(self, stage: str) -> Path:
        """Where a finished stage lies."""
        return self.folder / "results" / stage


def train(settings: Settings, stages: Sequence[str] = STAGES, *, tell: Callable[[str], None] = lambda _: None) -> None:
    """Train stages in their order, going on from whatever is there.

    Args:
        settings: Of the training.
        stages: Some of `STAGES`; those before them must be finished.
        tell: Told what begins.

    Raises:
        ValueError: If a stage is unknown.
        FileNotFoundError: If a stage needs another that is not finished.
    """
    unknown = sorted(set(stages) - set(STAGES))
    if unknown:
        raise ValueError(f"there is no stage {', '.join(unknown)}; expected some of {', '.join(STAGES)}.")
    processes = join(settings.device)
    try:
        if rank() == 0:
            tell("pictures")
            _draw(settings)
        wait()
        for stage in STAGES:
            if stage in stages and (settings.start is None or stage not in _GIVEN):
                tell(stage)
                with first_weights(settings.seed):
                    _RUN[stage](settings)
                wait()
    finally:
        processes.destroy_process_group()


def export(settings: Settings, folder: Path, *, dtype: torch.dtype = torch.float16) -> float:
    """Write finished stages as the package ships them.

    Args:
        settings: Of the finished training.
        folder: Where; made anew.
        dtype: Of the weights on disk.

    Returns:
        Megabytes written.

    Raises:
        FileNotFoundError: If a stage is not finished.
    """
    base = _finished(settings, "referencenet", "the export")
    observer = _finished(settings, "observer", "the export")
    shutil.rmtree(folder, ignore_errors=True)
    net = ReferenceNetPipeline.from_pretrained(base, dtype=dtype)
    make_pipeline(net.vae, net.text_encoder, net.tokenizer, net.unet).save_pretrained(folder / "base")
    for part in ("reference_unet", "pose_guider"):
        getattr(net, part).save_pretrained(folder / "referencenet" / part)
    Observer.from_pretrained(observer, dtype=dtype).save_pretrained(folder / "observer")
    encoder = _finished(settings, "image_encoder", "the export")
    CLIPVisionModelWithProjection.from_pretrained(encoder, dtype=dtype).save_pretrained(folder / "image_encoder")
    for path in folder.rglob("config.json"):  # where it lay on this machine concerns nobody
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _draw(settings: Settings) -> PictureSet:
    """The training pictures."""
    return draw_set(
        settings.folder / "pictures" / "train",
        characters=settings.characters,
        scenes=settings.scenes,
        seed=settings.seed + 1,
        workers=settings.workers,
    )


def _shown(settings: Settings) -> PictureSet:
    """A few pictures of other characters, for sample sheets."""
    folder = settings.folder / "pictures" / f"validation{rank()}"
    return draw_set(folder, which="validation", characters=10, scenes=2, seed=settings.seed + 2, workers=1)


def _finished(settings: Settings, stage: str, wanted: str) -> Path:
    """The folder of a stage that must be there."""
    folder = settings.result(stage)
    if not folder.is_dir():
        raise FileNotFoundError(f"{wanted} needs the stage {stage}, which is not finished in {folder}; train it first.")
    return folder


def _fit(settings: Settings, stage: str, recipe: Recipe) -> None:
    """Train a stage's recipe to its end."""
    fit(recipe, settings.folder / "runs" / stage, settings.run(stage), quiet=settings.quiet)


def _train_vae(settings: Settings) -> None:
    vae, pictures = make_vae(), _draw(settings).pictures
    recipe = VaeRecipe(vae, pictures, batch=_share(settings.batch), seed=settings.seed, device=settings.device)
    _fit(settings, "vae", recipe)
    if rank() == 0:
        vae.eval().register_to_config(scaling_factor=round(measure_scale(vae, pictures[:500]), 5))
        vae.save_pretrained(settings.result("vae"))


def _train_base(settings: Settings) -> None:
    pictures = _draw(settings)
    tokenizer = make_tokenizer(record["caption"] for record in pictures.records)
    unet, text_encoder = make_unet(), make_text_encoder(tokenizer)
    vae = _finished_vae(settings, "base")
    recipe = _base_recipe(settings, pictures, unet, text_encoder, tokenizer, vae, batch=settings.batch, sheets=0.5)
    _fit(settings, "base", recipe)
    if rank() == 0:
        recipe.pipe.save_pretrained(settings.result("base"))


def _train_guider(settings: Settings) -> None:
    pictures = _draw(settings)
    context = PoseContext(channels=CONTEXT)
    path = settings.folder / "pictures" / "cloth.npy"
    if rank() == 0:
        draw_maps(path, pictures, workers=settings.workers)
    wait()
    index, maps = draw_maps(path, pictures)
    skeletons = pictures.skeletons[index.numpy()]
    recipe = GuiderRecipe(
        context, skeletons, maps, batch=_share(3 * settings.batch), seed=settings.seed, device=settings.device
    )
    _fit(settings, "guider", recipe)
    if rank() == 0:
        context.save_pretrained(settings.result("guider"))


def _train_referencenet(settings: Settings) -> None:
    pipe = _first_referencenet(settings)
    tokenizer: CLIPTokenizer = pipe.tokenizer
    base = _base_recipe(
        settings,
        _draw(settings),
        pipe.unet,
        pipe.text_encoder,
        tokenizer,
        pipe.vae.to(settings.device),
        batch=2 * settings.batch,
        sheets=0.1,
    )
    shown = _shown(settings)
    recipe = ReferenceNetRecipe(
        pipe,
        base,
        shown=EncodedSet.of(shown, encode(pipe.vae, shown.pictures), tokenizer),
        batch=_share(settings.batch // 2),
        seed=settings.seed + 1,
        device=settings.device,
    )
    _fit(settings, "referencenet", recipe)
    if rank() == 0:
        pipe.save_pretrained(settings.result("referencenet"))


def _first_referencenet(settings: Settings) -> ReferenceNetPipeline:
    """What the ReferenceNet begins with."""
    if settings.start is not None:
        return load("referencenet", folder=settings.start)
    base = _finished(settings, "base", "referencenet")
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
    text_encoder = CLIPTextModel.from_pretrained(base / "text_encoder")
    pipe = make_referencenet(_finished_vae(settings, "referencenet"), text_encoder, tokenizer, unet)
    context = PoseContext.from_pretrained(_finished(settings, "guider", "referencenet"))
    pipe.pose_guider.context.load_state_dict(context.state_dict())
    return pipe


def _finished_vae(settings: Settings, wanted: str) -> AutoencoderKL:
    """The autoencoder that a later stage needs."""
    folder = settings.start / "base" / "vae" if settings.start is not None else _finished(settings, "vae", wanted)
    return AutoencoderKL.from_pretrained(folder, dtype=torch.float32).to(settings.device)


def _base_recipe(
    settings: Settings,
    pictures: PictureSet,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    vae: AutoencoderKL,
    *,
    batch: int,
    sheets: float,
) -> BaseRecipe:
    """The second stage; `batch` is of all processes, the autoencoder is where it computes."""
    return BaseRecipe(
        unet.train(),
        text_encoder.train(),
        tokenizer,
        vae,
        EncodedSet.of(pictures, _latents(settings, vae, pictures), tokenizer),
        prompts=[record["caption"] for record in _shown(settings).records[:8]],
        batch=_share(batch),
        sheets=sheets,
        seed=settings.seed,
        device=settings.device,
    )


def _train_observer(settings: Settings) -> None:
    vae = _finished_vae(settings, "observer")
    pictures = _draw(settings)
    seen = [aspects_of(Scene.from_seeds(record["character"], record["scene"])) for record in pictures.records]
    observer = _first_observer(settings, seen)
    recipe = ObserverRecipe(
        observer,
        pictures,
        seen,
        restored=reconstruct(vae, pictures.pictures[:6000]),
        batch=_share(4 * settings.batch),
        seed=settings.seed,
        device=settings.device,
    )
    _fit(settings, "observer", recipe)
    if rank() == 0:
        observer.save_pretrained(settings.result("observer"))


def _first_observer(settings: Settings, seen: list[dict[str, str]]) -> Observer:
    """What the observer begins with.

    Raises:
        ValueError: If the weights to begin with know other words than these scenes have.
    """
    observer = make_observer(seen)
    if settings.start is None:
        return observer
    begun = Observer.from_pretrained(settings.start / "observer", dtype=torch.float32)
    if begun.config.aspects != observer.config.aspects:
        raise ValueError(
            f"the observer in {settings.start} knows other words than these pictures show, with which it cannot go on; "
            "train it without --from, or with more characters."
        )
    return begun


def _train_image_encoder(settings: Settings) -> None:
    start = settings.start
    base = start / "base" if start is not None else _finished(settings, "referencenet", "image_encoder")
    given = {"batch": _share(4 * settings.batch), "seed": settings.seed, "device": settings.device}
    _fit(settings, "image_encoder", recipe := ImageEncoderRecipe.on(_draw(settings), base, **given))
    if rank() == 0:
        recipe.encoder.eval().save_pretrained(settings.result("image_encoder"))


_RUN = {
    "vae": _train_vae,
    "base": _train_base,
    "guider": _train_guider,
    "referencenet": _train_referencenet,
    "observer": _train_observer,
    "image_encoder": _train_image_encoder,
}


def _share(batch: int) -> int:
    """What one process takes of a batch."""
    return max(2, batch // world_size())


def _latents(settings: Settings, vae: AutoencoderKL, pictures: PictureSet) -> torch.Tensor:
    """The set's latents, encoded once: (count, 4, 32, 32)."""
    path = settings.folder / "pictures" / "latents.npy"
    if rank() == 0 and not (path.is_file() and len(np.load(path, mmap_mode="r")) == len(pictures)):
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.save(file, encode(vae, pictures.pictures).numpy())
    wait()
    return torch.from_numpy(np.load(path))
