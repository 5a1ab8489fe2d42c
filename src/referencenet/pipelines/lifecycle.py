"""The life of a system's pipeline: files in, references written, options settled, steps, results out.

A system inherits from `PicturePipeline` or `FilmPipeline`, which inherit from `ReferencePipeline` here, and adds its
`spec`, its `published` files, `show` and `__call__`. Nothing of a call stays on the pipeline after it. Letters: b
samples, c channels, f frames, (h, w) latents.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from referencenet.links.bank import ReferenceBank
from referencenet.links.series import BankSeries, Schedule
from referencenet.links.turns import Busy, turn
from referencenet.pipelines.encoders import Generators, check_finite_input, check_generators, start_noise
from referencenet.pipelines.folders import FolderPipeline
from referencenet.pipelines.in_turn import changed_parts, in_turn
from referencenet.pipelines.options import Options, Settings, settle
from referencenet.pipelines.prediction import rounded
from referencenet.pipelines.spec import Canvas, EachStep, Shown, UNetCall

logger = logging.getLogger(__name__)


class ReferencePipeline(FolderPipeline):
    """What all systems share."""

    options: ClassVar[Any] = Options

    _callback_tensor_inputs = ["latents"]
    _interrupt: bool
    _guidance_scale: float | None
    _num_timesteps: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Every system's call and stream take turns, also those of a system to come."""
        super().__init_subclass__(**kwargs)
        for name in ("__call__", "stream"):
            if name in vars(cls):
                setattr(cls, name, in_turn(vars(cls)[name]))

    def register(self, arguments: Mapping[str, Any], *settings: str) -> None:
        """Take a constructor's `locals()` as components, and those named as settings into the configuration."""
        self._interrupt, self._guidance_scale, self._num_timesteps = False, None, 0
        beside = ("self", "__class__", *settings)
        self.register_modules(**{name: part for name, part in arguments.items() if name not in beside})
        self.register_to_config(**{name: arguments[name] for name in settings})
        blocks = getattr(getattr(self, "vae", None), "config", {}).get("block_out_channels", (0,) * 4)
        self.vae_scale_factor = 2 ** (len(blocks) - 1)
        self.picture_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    # --- what diffusers' pipelines tell of a call ---------------------------------------------------------------------

    @property
    def guidance_scale(self) -> float:
        """Of the call, or the system's default between calls; a callback may set `_guidance_scale`."""
        return self.spec.scale if self._guidance_scale is None else self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether steps have more than one pass."""
        return self.spec.guidance.is_guided(self.guidance_scale)

    @property
    def num_timesteps(self) -> int:
        """Steps of the last call's schedule."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether a callback asked for the further steps to be left out, by setting `_interrupt`."""
        return self._interrupt

    @property
    def link(self) -> Any:
        """How the denoiser reads; a system whose sites are a setting says so here."""
        return self.spec.link

    def enable_vae_slicing(self) -> None:
        """Decode pictures one by one."""
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        """Undo `enable_vae_slicing`."""
        self.vae.disable_slicing()

    def enable_vae_tiling(self) -> None:
        """Decode pictures tile by tile, which needs less memory."""
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Undo `enable_vae_tiling`."""
        self.vae.disable_tiling()

    def device_of(self, module: Any) -> torch.device:
        """Where a module computes: it may rest elsewhere under offloading."""
        device: torch.device = module.device
        rests_elsewhere = hasattr(module, "_hf_hook") or device.type == "meta"
        return self._execution_device if rests_elsewhere else device  # the first takes milliseconds to find

    # --- references ---------------------------------------------------------------------------------------------------

    def show(self, reference: Any, canvas: Canvas) -> Shown:
        """What the writer is shown of a reference; a system's own."""
        raise NotImplementedError

    @torch.no_grad()
    def write(
        self,
        reference: Any,
        *,
        width: int,
        height: int,
        num_inference_steps: int | None = None,
        generator: torch.Generator | None = None,
        busy: Busy = "refuse",
    ) -> ReferenceBank | BankSeries:
        """Write a reference: everything that is needed of it, which serves any number of calls without the writer.

        Args:
            reference: As the call takes it, or what makes a `Shown` of a canvas.
            width: Of the results, in pixels.
            height: Likewise.
            num_inference_steps: Of a writer that runs at every step: of the calls; None: the system's default.
            generator: For systems that draw the reference's latents from the autoencoder's posterior.
            busy: As for a call.

        Returns:
            A bank or, of a writer that runs at every step, a series of banks. Both can be given as the reference, and
            saved; `nbytes` tells their size on disk before that.

        Raises:
            ValueError: If the system has no writer or was loaded without it, or the schedule has steps less than one
                timestep apart.
        """
        self.check_size(width, height)
        self.check_writer(encoded=_is_encoded(reference))
        canvas = Canvas(width=width, height=height, generator=generator)
        with turn(changed_parts(self), busy), ExitStack() as behind:
            behind.callback(self.maybe_free_model_hooks)
            shown = self._shown_on(canvas, reference)
            return (
                self._series_of(shown, canvas, num_inference_steps) if self.writes_each_step else self.bank_of(shown, 0)
            )

    @property
    def writes_each_step(self) -> bool:
        """Whether the writer runs at every step, so that a written reference is a series."""
        return isinstance(self.spec.write, EachStep)

    def _series_of(self, shown: Shown, canvas: Canvas, num_inference_steps: int | None) -> BankSeries:
        """The bank of every step of a schedule."""
        scheduler = self.scheduled(num_inference_steps or self.spec.steps)
        schedule = Schedule.of(scheduler, width=canvas.width, height=canvas.height)
        steps = {float(t): t for t in scheduler.timesteps}  # two-stage schedulers come to a timestep twice
        if len({int(t) for t in steps}) < len(steps):
            raise ValueError(
                f"{schedule.scheduler} has steps less than one timestep apart, which a series cannot tell apart; use "
                "fewer steps or another scheduler, or give the pictures to the call."
            )
        return BankSeries({int(t): self.bank_of(shown, t) for t in steps.values()}, schedule)

    def scheduled(self, num_inference_steps: int) -> Any:
        """A scheduler as the pipeline's, set to so many steps; that of the pipeline stays as it is."""
        scheduler = copy.deepcopy(self.scheduler)
        scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        return scheduler

    @torch.no_grad()
    def bank_of(self, shown: Shown, timestep: Any) -> ReferenceBank:
        """The bank of what is encoded already, at the denoiser's timestep."""
        self.check_writer(encoded=True)
        unet, spec = self.reference_unet, self.spec
        assert spec.write is not None  # checked above
        place = (self.device_of(unet), unet.dtype)
        rows = shown.with_blank() if spec.guidance.reads_blank else shown
        placed = Shown(latents=rows.latents.to(*place), context=rows.context.to(*place))
        bank = spec.write.bank(unet, placed, timestep, self.link)
        if shown.masks is not None:
            bank = bank.masked(shown.masks.to(place[0]))
        bank = bank.joined() if spec.joins else bank
        bank.context.update(shown.kept)
        logger.debug("%s: reference written at timestep %s, %d sites", type(self).__name__, timestep, len(bank.sites()))
        return bank

    def denoise(self, run: UNetCall, timestep: Any) -> Tensor:
        """A pass of the denoiser, (p b, c, ...); a system whose denoiser takes another form says so here."""
        return self.unet(run.sample, timestep, **run.arguments, return_dict=False)[0]

    def reads(self, bank: ReferenceBank) -> Any:
        """A bank as the link reads it; a system that weighs its references says so here."""
        return bank

    def placed(self, bank: ReferenceBank) -> ReferenceBank:
        """A bank where the denoiser computes, in its precision."""
        return bank.to(self.device_of(self.unet), self.unet.dtype)

    def check_writer(self, *, encoded: bool = False) -> None:
        """Refuse to write without the networks for it.

        Args:
            encoded: Whether the reference is encoded already.

        Raises:
            ValueError: If one is missing.
        """
        if self.spec.link is None:
            raise ValueError(
                f"{type(self).__name__} has no writer and reads no bank; give the reference itself to each call."
            )
        needed = ("reference_unet",) if encoded else ("reference_unet", "image_encoder")
        names = [name for name in needed if getattr(self, name, 0) is None]
        if names or self.spec.write is None:
            raise ValueError(
                f"this pipeline has no {' and '.join(names) or 'writer'}, so it can read saved banks only; give "
                "reference=ReferenceBank.load(...), or load the pipeline with all its parts."
            )

    def written(self, reference: Any, canvas: Canvas, settings: Settings) -> dict[str, Any]:
        """Fields of a `Call` for a reference: a bank, a series, what is shown, or what makes that of a canvas.

        None of a system that reads no bank.
        """
        if self.spec.link is None:
            return {}
        rounding = {"half_precision_bank": settings.half_precision_bank}
        if isinstance(reference, ReferenceBank):
            bank = reference
        elif isinstance(reference, BankSeries):
            reference.check(self.scheduled(settings.num_inference_steps), width=canvas.width, height=canvas.height)
            return {"series": reference, **rounding}
        else:
            self.check_writer(encoded=_is_encoded(reference))
            shown = self._shown_on(replace(canvas, generator=settings.generator), reference)
            if self.writes_each_step:
                return {"shown": shown, "write_every": settings.write_every, **rounding}
            bank = self.bank_of(shown, 0)
        bank = self.placed(bank)
        return {"bank": rounded(bank) if settings.half_precision_bank else bank}

    def _shown_on(self, canvas: Canvas, reference: Any) -> Shown:
        """What the writer is shown: as given, from what makes it of a canvas, or from pictures."""
        if isinstance(reference, Shown):
            shown = reference
        else:
            shown = reference(canvas) if callable(reference) else self.show(reference, canvas)
        check_finite_input("what the reference UNet is shown", (shown.latents, shown.context))
        return shown

    # --- options ------------------------------------------------------------------------------------------------------

    def settle(self, options: Mapping[str, Any]) -> Settings:
        """Options with what was left open: see `options.settle`."""
        return settle(self, options)

    def sides(self, width: int | None, height: int | None) -> tuple[int | None, int | None]:
        """Width and height in pixels as a call gives them, or the system's where it has some."""
        own = self.spec.size or (None, None)
        return width or own[0], height or own[1]

    def check_size(self, width: int, height: int) -> None:
        """Refuse sizes that latents cannot have.

        Raises:
            ValueError: If a side is no multiple of the autoencoder's factor.
        """
        factor = self.size_multiple
        if width < factor or height < factor or width % factor or height % factor:
            raise ValueError(f"the size is {width} x {height}; width and height must be multiples of {factor}.")

    @property
    def size_multiple(self) -> int:
        """What the sides of results must be multiples of, in pixels."""
        return self.vae_scale_factor

    @contextmanager
    def calling(self, settings: Settings) -> Generator[None]:
        """A call: what its callbacks may see and change is on the pipeline, and gone after it."""
        self._interrupt = False
        self._guidance_scale = settings.guidance_scale
        try:
            yield
        finally:
            self._guidance_scale = None
            self._interrupt = False
            self.maybe_free_model_hooks()

    # --- steps --------------------------------------------------------------------------------------------------------

    def start(self, shape: tuple[int, ...], settings: Settings) -> Tensor:
        """Set the schedule; the first noise (b, c, h, w) or (b, c, f, h, w), float32."""
        check_generators(settings.generator, shape[0])
        self.scheduler.set_timesteps(settings.num_inference_steps, device=self._execution_device)
        self._num_timesteps = len(self.scheduler.timesteps)
        name, scheduler = type(self).__name__, type(self.scheduler).__name__
        logger.info("%s: %d steps of %s on latents %s", name, self._num_timesteps, scheduler, tuple(shape))
        return start_noise(self, shape, settings.generator, settings.latents) * self.scheduler.init_noise_sigma

    def step_options(self, settings: Settings, generator: Generators = None) -> dict[str, Any]:
        """Further arguments of the scheduler's step, those that it knows."""
        known = inspect.signature(self.scheduler.step).parameters
        given = {"eta": settings.eta, "generator": generator or settings.generator}
        return {name: value for name, value in given.items() if name in known}

    def steps(
        self, latents: Tensor, predict: Callable[[Tensor, Any], Tensor], settings: Settings, mine: Any = None
    ) -> Tensor:
        """The loop of every call: predict, step, call back, stop where asked.

        Args:
            latents: (b, c, ...).
            predict: (scaled latents, timestep) to the guided prediction.
            settings: Of the call.
            mine: What becomes of latents behind every step, where several processes must agree.

        Returns:
            Latents behind the last step.
        """
        further = self.step_options(settings)
        latents = latents if mine is None else mine(latents)
        with self.progress_bar(total=len(self.scheduler.timesteps)) as bar:
            for i, t in enumerate(self.scheduler.timesteps):
                if self.interrupt:
                    break
                noise = predict(self.scheduler.scale_model_input(latents, t), t)
                latents = self.scheduler.step(noise, t, latents, **further, return_dict=False)[0].to(latents.dtype)
                latents = self._called_back(i, t, latents, settings)
                latents = latents if mine is None else mine(latents)
                bar.update()
        return latents

    def _called_back(self, step: int, timestep: Any, latents: Tensor, settings: Settings) -> Tensor:
        """The latents (b, c, ...) that go on after the caller has seen them."""
        if settings.callback_on_step_end is None:
            return latents
        tensors = {name: {"latents": latents}[name] for name in settings.callback_on_step_end_tensor_inputs}
        changed = settings.callback_on_step_end(self, step, timestep, tensors)
        return latents if changed is None else changed.get("latents", latents)


def _is_encoded(reference: Any) -> bool:
    """Whether a reference comes as what is shown, or as what makes that: the system's own encoding is not asked for."""
    return isinstance(reference, Shown) or callable(reference)
