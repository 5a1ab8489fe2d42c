"""A published system as a recipe of the loop: its pipeline's components learn, as one of its stages says.

A system's own file (`recipes/<name>/`) adds what a sample becomes: `read` in the processes that read data, `inputs` and
`told` where the networks are. Letters: b samples, f frames, (h, w) latents, (H, W) pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from referencenet.checkpoints.start import Start
from referencenet.pipelines.encoders import text_states
from referencenet.pipelines.passes import Pass
from referencenet.pipelines.spec import Condition
from referencenet.sampling.latents import in_safe_precision, scaled
from referencenet.training.cache import Encode, EncodedCache, Row
from referencenet.training.config import RunConfig, meant
from referencenet.training.data.sample import Sample
from referencenet.training.draws import sample_generator
from referencenet.training.drops import draw_drops, passes_of, with_rates
from referencenet.training.lora import add_lora
from referencenet.training.losses import TRAINING_SCHEDULER, as_velocity
from referencenet.training.memory import HALF, checkpointed, freeze_and_cast
from referencenet.training.predicted import Inputs, learns, predicted
from referencenet.training.recipe import choose_trained, trained_parameters
from referencenet.training.stage import Stage
from referencenet.training.still import without_motion

NUM_TIMESTEPS = 1000
NUM_DRAWN = 4
"""Held-out samples of a sheet."""
DRAWN_STEPS = 12
"""Denoising steps of their pictures."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples as read, behind each other.

    Attributes:
        step: Optimizer step that they belong to.
        places: Of the samples in the run, b of them.
        tensors: By name, (b, ...).
        texts: By name, b of them.
    """

    step: int
    places: tuple[int, ...]
    tensors: Mapping[str, Tensor]
    texts: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, step: int, places: Sequence[int], read: Sequence[Mapping[str, Tensor | str]]) -> Batch:
        """Samples that were read one by one, all with the same names."""
        first = read[0]
        return cls(
            step=step,
            places=tuple(places),
            tensors={k: torch.stack([each[k] for each in read]) for k in first if isinstance(first[k], Tensor)},  # pyright: ignore
            texts={k: tuple(str(each[k]) for each in read) for k in first if isinstance(first[k], str)},
        )


class SystemRecipe:
    """What the recipes of published systems share.

    Args:
        pipe: The system's pipeline; its components learn.
        stage: Which stage.
        config: Of the run.
    """

    system: ClassVar[str]
    pipeline: ClassVar[Any]
    layout: ClassVar[str]
    """Of the data set that the system was trained on, as a name of `data.layouts`."""
    start: ClassVar[Start | None] = None
    """What it begins with where it was not trained yet; None: its pipeline's `from_published` reads that."""
    has_built_in: ClassVar[bool] = True
    """Whether it can begin with the built-in weights."""
    published_size: ClassVar[tuple[int, int]] = (512, 512)
    """(width, height) in pixels that the system was trained at."""
    stages: ClassVar[Mapping[str, Stage]]
    frames_apart: ClassVar[bool] = False
    """Whether every frame has a timestep of its own."""
    has_mask: ClassVar[bool] = False
    """Whether samples have a mask of what matters most, so that `mask_weight` means something."""
    conditions: ClassVar[tuple[Condition, ...]] = ()
    """Where those of the system's calls do not fit, what the denoiser is told in training."""

    def __init__(self, pipe: Any, stage: str, config: RunConfig) -> None:
        if stage not in self.stages:
            raise ValueError(f"{self.system} has no stage {stage!r}{meant(stage, self.stages)}")
        if config.mask_weight != 1 and not self.has_mask:
            raise ValueError(
                f"mask_weight is {config.mask_weight}, but {self.system} has no mask of what matters most; "
                "leave it out."
            )
        self.pipe, self.config = pipe, config
        self.name = f"{self.system} {stage}"
        self.stage = replace(self.stages[stage], drops=with_rates(self.stages[stage].drops, config.drops))
        self.device: torch.device = pipe._execution_device
        self.loss = self.stage.loss()
        if config.predicts:
            self.loss = as_velocity(self.loss)
            pipe.scheduler = DDIMScheduler(**TRAINING_SCHEDULER)  # draws what is learned
        self.modules: Mapping[str, nn.Module] = self._prepared(pipe, config)
        self.cache = None if config.cache == "none" else EncodedCache(config.cache, round(config.cache_gib * 2**30))
        self.held_out: list[Batch] = []
        self.shown_samples: list[Sample] = []

    def counted(self, mask: Tensor) -> Tensor | None:
        """How much the error counts at each place, as `losses.NoiseLoss` takes it; None where all count alike.

        Args:
            mask: Where it counts `mask_weight` times, (b, 1, ..., h, w) in [0, 1].
        """
        weight = self.config.mask_weight
        return None if weight == 1 else 1 + (weight - 1) * mask

    def counted_in_film(self, mask: Tensor, latents: Tensor) -> Tensor | None:
        """The same for all frames of a film, (b, 1, 1, h, w), by the share of each latent's area.

        Args:
            mask: Of pixels, (b, 1, H, W) in [0, 1].
            latents: (b, channels, frames, h, w).
        """
        return self.counted(functional.interpolate(mask, latents.shape[-2:], mode="area").unsqueeze(2))

    def _prepared(self, pipe: Any, config: RunConfig) -> dict[str, nn.Module]:
        """Choose what learns, and cast what does not."""
        if config.frozen != "fp32" and config.frozen != config.precision:
            raise ValueError(
                f"frozen is {config.frozen} and precision {config.precision}; what is frozen can be kept in half "
                "precision only where it is computed in the same."
            )
        if config.lora.rank:
            chosen = add_lora(pipe.components, config.lora)
        else:
            train, freeze = (config.train, ()) if config.train else (self.stage.train, self.stage.freeze)
            last = str(len(getattr(pipe.reference_unet, "up_blocks", ())) - 1)
            named = ([pattern.replace("<last>", last) for pattern in patterns] for patterns in (train, freeze))
            chosen = choose_trained(pipe.components, *named)
        for name, module in pipe.components.items():
            if isinstance(module, nn.Module):
                freeze_and_cast(module, HALF.get(config.frozen))
                module.train(name in chosen)
        return chosen

    # --- a system's own -----------------------------------------------------------------------------------------------

    def read(self, sample: Sample, random: torch.Generator) -> dict[str, Tensor | str]:
        """What is needed of a sample, as pictures (3, H, W) in [-1, 1], drawings in [0, 1], and texts."""
        raise NotImplementedError

    def inputs(self, batch: Batch, dropped: Mapping[str, Tensor]) -> dict[str, Any]:
        """Fields of `Inputs`: latents, shown, given, further; by networks that do not learn.

        Args:
            batch: As `read` gave it, on the device.
            dropped: By the drop's name which samples go without, (b,).
        """
        raise NotImplementedError

    def dropped(self, batch: Batch) -> dict[str, Tensor]:
        """By the drop's name which samples go without, (b,)."""
        return draw_drops(self.stage.drops, self.config.seed, batch.step, batch.places)

    def told(self, inputs: Inputs) -> Inputs:
        """The inputs with what trained encoders make of `further`; by default there are none."""
        return inputs

    def example(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int], frames: int) -> dict[str, Any]:
        """Fields of `Inputs` of the right shapes, to count memory with and to try a step.

        Args:
            make: From a shape to a tensor.
            samples: b.
            size: Height and width of the latents.
            frames: f.
        """
        raise NotImplementedError

    # --- the loop's ---------------------------------------------------------------------------------------------------

    @contextmanager
    def losses(self, batch: Batch | Inputs) -> Generator[dict[str, Tensor]]:
        """The stage's loss of a batch."""
        inputs = batch if isinstance(batch, Inputs) else self.drawn(batch)
        with ExitStack() as stack:
            if not self.stage.temporal:
                stack.enter_context(without_motion(self.pipe.unet))
            if self.config.checkpointing:
                stack.enter_context(checkpointed(self.to_checkpoint()))
            yield stack.enter_context(self.losses_of(self.told(inputs)))

    @contextmanager
    def losses_of(self, inputs: Inputs) -> Generator[dict[str, Tensor]]:
        """The losses of inputs that are complete."""
        target = self.loss.target(inputs.latents, inputs.noise, inputs.timesteps)
        with self.predicted(inputs) as prediction:
            yield {"loss": self.loss(prediction, target, inputs.timesteps, inputs.places)}

    @contextmanager
    def predicted(self, inputs: Inputs) -> Generator[Tensor]:
        """The denoiser's prediction of inputs that are complete, of the latents' shape."""
        noisy = self.loss.noisy(inputs.latents, inputs.noise, inputs.timesteps)
        with predicted(self.pipe, inputs, noisy, self.conditions) as prediction:
            yield prediction

    def to_checkpoint(self) -> Iterator[nn.Module]:
        """What may be computed again: the denoiser, and whatever else learns."""
        yield self.pipe.unet
        yield from (module for name, module in self.modules.items() if name != "unet")

    def batch_of(self, step: int, places: Sequence[int], samples: Sequence[Sample]) -> Batch:
        """A batch, read from its files; what is random in it comes from the samples' places."""
        purpose = 15
        randoms = [sample_generator(self.config.seed, place, purpose) for place in places]
        read = [self.read(sample, random) for sample, random in zip(samples, randoms, strict=True)]
        return Batch.of(step, places, read)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels: the run's, or the system's."""
        width, height = self.config.data.size
        return (width, height) if width else self.published_size

    @property
    def factor(self) -> int:
        """Pixels of a latent, per side."""
        return self.pipe.vae_scale_factor

    @property
    def frames(self) -> int:
        """Of a clip: the run's, or the stage's; 1 or 0: there are single pictures."""
        return self.config.data.frames or self.stage.frames

    @torch.no_grad()
    def drawn(self, batch: Batch) -> Inputs:
        """A batch as the networks take it: encoded, with noise, timesteps and drops from its samples' places."""
        dropped = self.dropped(batch)
        moved = replace(batch, tensors={name: tensor.to(self.device) for name, tensor in batch.tensors.items()})
        fields = self.inputs(moved, dropped)
        latents = fields["latents"].float()
        generators = [sample_generator(self.config.seed, place) for place in batch.places]
        noise = torch.stack([torch.randn(latents.shape[1:], generator=each) for each in generators])
        offset_shape = (latents.shape[1], *([1] * (latents.ndim - 2)))
        offset = torch.stack([torch.randn(offset_shape, generator=each) for each in generators])
        each_own = (latents.shape[2] if self.frames_apart else 1,)
        timesteps = torch.cat([torch.randint(NUM_TIMESTEPS, each_own, generator=each) for each in generators])
        return Inputs(
            **fields | {"latents": latents},
            noise=self.loss.offset(noise, offset).to(self.device),
            timesteps=timesteps.to(self.device),
            passes=passes_of(self.stage.drops, dropped, len(batch.places)),
            absent=self.stage.absent,
        )

    def exampled(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int]) -> Inputs:
        """Inputs of the right shapes; nothing is dropped."""
        fields = self.example(make, samples, size, max(1, self.frames))
        latents = fields["latents"]
        count = samples * latents.shape[2] if self.frames_apart else samples
        timesteps = torch.arange(1, count + 1, device=latents.device) * (NUM_TIMESTEPS // (count + 1))
        passes = (Pass(factor=1.0),) * samples
        noise = make(*latents.shape)
        return Inputs(**fields, noise=noise, timesteps=timesteps, passes=passes, absent=self.stage.absent)

    def latents_of(self, pixels: Tensor, batch: Batch, purpose: int, *, sample: bool = True) -> Tensor:
        """Scaled latents of pictures (b, 3, H, W), or of clips (b, f, 3, H, W) as (b, 4, f, h, w).

        Args:
            pixels: In [-1, 1].
            batch: Whose samples these are.
            purpose: Of the draw from the posterior, in [1, 16): each picture of a sample has its own.
            sample: Draw from the posterior instead of taking its mean.
        """
        generators = [sample_generator(self.config.seed, place, purpose) for place in batch.places]
        vae, parts = (self.pipe.vae,), pixels if pixels.ndim == 5 else [pixels]  # clips one by one
        rows = torch.cat([self.encoded("posterior", vae, part, self._posterior)[0] for part in parts])
        means, *deviations = rows.unflatten(0, (len(pixels), -1)).unbind(2)  # (b, f, c, h, w) each
        latents = means
        if sample and deviations:
            noise = [randn_tensor(means.shape[1:], g, means.device, means.dtype) for g in generators]
            latents = means + deviations[0] * torch.stack(noise)
        latents = scaled(latents, self.pipe.vae.config).float()
        return latents.transpose(1, 2) if pixels.ndim == 5 else latents.squeeze(1)

    def words_of(self, texts: Sequence[str]) -> Tensor:
        """Last states of the text encoder, (texts, tokens, channels), float32."""
        encoders = (self.pipe.text_encoder,)
        return self.encoded("words", encoders, texts, lambda part: (text_states(self.pipe, part).float(),))[0]

    def embeds_of(self, pictures: Tensor) -> Tensor:
        """CLIP's embeddings of pictures (r, 3, H, W) as its processor makes them, (r, channels), float32."""
        encoder = self.pipe.image_encoder
        return self.encoded(
            "embeds", (encoder,), pictures, lambda part: (encoder(part.to(encoder.dtype)).image_embeds.float(),)
        )[0]

    def encoded(
        self, kind: str, networks: tuple[nn.Module, ...], contents: Sequence[str] | Tensor, encode: Encode
    ) -> Row:  # fmt: skip
        """What encoders make of contents: kept by the run's cache, if it has one and they do not learn.

        Args:
            kind: What is encoded how.
            networks: The encoders.
            contents: Texts, or pictures (r, 3, H, W).
            encode: From contents to tensors with a row for each.
        """
        if self.cache is None or any(learns(network) for network in networks):
            return encode(contents)
        return self.cache.rows(kind, networks, contents, encode)

    def _posterior(self, pixels: Tensor) -> Row:
        """Mean and deviation of the posterior, (r, 2, c, h, w); tiny autoencoders have latents, (r, 1, c, h, w)."""
        vae = self.pipe.vae
        with in_safe_precision(vae) as dtype:
            encoded = vae.encode(pixels.to(self.pipe.device_of(vae), dtype))
        if hasattr(encoded, "latents"):
            return (encoded.latents.unsqueeze(1),)
        return (torch.stack([encoded.latent_dist.mean, encoded.latent_dist.std], dim=1),)

    # --- validation ---------------------------------------------------------------------------------------------------

    def hold_out(self, samples: Sequence[Sample]) -> None:
        """Keep samples to validate with, always the same frames and noise of each."""
        self.shown_samples = list(samples)[:NUM_DRAWN]
        for first in range(0, len(samples), self.config.batch):
            part = samples[first : first + self.config.batch]
            self.held_out.append(self.batch_of(0, range(first, first + len(part)), part))

    def draw(self, sample: Sample, generator: torch.Generator) -> list[Image.Image]:
        """What a sample shows, what is drawn of it, and the truth, always as many; none where it is too short."""
        raise NotImplementedError

    def options(self, generator: torch.Generator) -> dict[str, Any]:
        """Of a pipeline's call that draws a sample."""
        width, height = self.size
        return {"width": width, "height": height, "num_inference_steps": DRAWN_STEPS, "generator": generator}

    def sheet(self) -> np.ndarray | None:
        """A row for each of a few held-out samples; a stage without motion modules draws without them."""
        rows: list[np.ndarray] = []
        with self.evaluating(), nullcontext() if self.stage.temporal else without_motion(self.pipe.unet):
            for number, sample in enumerate(self.shown_samples):
                pictures = self.draw(sample, torch.Generator().manual_seed(number))
                if pictures:
                    rows.append(np.concatenate([np.asarray(each.resize(self.size)) for each in pictures], axis=1))
        return np.concatenate(rows) if rows else None

    def scores(self) -> dict[str, float]:
        """The loss of held-out samples, and without the reference: how much of it the link is worth."""
        found: dict[str, list[float]] = {"validation": [], "validation_cut": []}
        with self.evaluating():
            for batch in self.held_out:
                inputs = self.drawn(batch)
                plain = tuple(replace(p, reads="reference", blind=frozenset()) for p in inputs.passes)
                cut = tuple(replace(p, reads=None) for p in plain)
                for name, passes in (("validation", plain), ("validation_cut", cut)):
                    with self.losses(replace(inputs, passes=passes)) as losses:
                        found[name].append(float(losses["loss"]))
        return {name: float(np.mean(values)) for name, values in found.items() if values}

    @contextmanager
    def evaluating(self) -> Generator[None]:
        """Inside, nothing that learns remembers what it sees; the pipeline draws without a bar."""
        try:
            for module in self.modules.values():
                module.eval()
            self.pipe.set_progress_bar_config(disable=True)
            yield
        finally:
            for module in self.modules.values():
                module.train()

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by `component.name`."""
        return trained_parameters(self.modules)
