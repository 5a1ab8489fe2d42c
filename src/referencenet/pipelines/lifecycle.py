"""The life of a system's pipeline: files in, references written, options settled, steps, results out.

A system inherits from `PicturePipeline` or `FilmPipeline`, which inherit from `ReferencePipeline` here, and adds its
`spec`, its `published` files, `show` and `__call__`. Nothing of a call stays on the pipeline after it. Letters: b
samples, c channels, f frames, (h, w) latents.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypedDict

import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from referencenet.checkpoints.published import PublishedSet, find_files, read_component
from referencenet.links.bank import ReferenceBank
from referencenet.pipelines.encoders import Generators, check_generators, start_noise
from referencenet.pipelines.prediction import Series, rounded
from referencenet.pipelines.spec import Canvas, EachStep, Shown, Spec, UNetCall
from referencenet.sampling.windows import Windows

Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any] | None]
OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class Options(TypedDict, total=False):
    """Arguments that every system's call takes; all may be left out.

    Attributes:
        width: Of the results in pixels; by default the system's, or that of its condition.
        height: Likewise.
        num_inference_steps: Denoising steps.
        guidance_scale: 1 and below: no guidance.
        guidance_rescale: phi of Lin et al. 2023, section 3.4; 0: none.
        eta: Of DDIM and its relatives.
        generator: For everything that is drawn at random: one, or one per result.
        latents: The first noise, (results, 4, h, w), or (results, 4, frames, h, w) for films.
        half_precision_bank: Round the bank to float16, as several published programs do even in float32.
        write_every: Of writers that run at every step: run at every so many steps. Above 1 an approximation.
        output_type: "pil", "np", "pt" or "latent".
        return_dict: False gives a tuple.
        cross_attention_kwargs: Such as {"scale": 0.5} for a LoRA.
        callback_on_step_end: As in diffusers: (pipeline, step, timestep, tensors) to changed tensors or None.
        callback_on_step_end_tensor_inputs: Names of the tensors that it gets.
    """

    width: int | None
    height: int | None
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float
    eta: float
    generator: Generators
    latents: Tensor | None
    half_precision_bank: bool
    write_every: int
    output_type: str
    return_dict: bool
    cross_attention_kwargs: dict[str, Any] | None
    callback_on_step_end: Callback | None
    callback_on_step_end_tensor_inputs: Sequence[str]


class PictureOptions(Options, total=False):
    """Arguments of every system that makes pictures.

    Attributes:
        num_images_per_prompt: Results per person, pose or prompt.
    """

    num_images_per_prompt: int


class FilmOptions(Options, total=False):
    """Arguments of every system that makes films.

    Attributes:
        num_frames: Use the first so many drawings; by default all.
        num_films: Films of the same drawings, each from its own noise.
        windows: How films are cut; Windows(published=True) for the published way.
        across_processes: Spread windows and decoding over the processes of `accelerate launch` or `torchrun`; all of
            them are to call with the same arguments, and all get the film that one would make.
    """

    num_frames: int | None
    num_films: int
    windows: Windows | None
    across_processes: bool


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a call, settled; names as in `Options`, `PictureOptions` and `FilmOptions`."""

    width: int | None = None
    height: int | None = None
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float = 0.0
    eta: float = 0.0
    generator: Generators = None
    latents: Tensor | None = None
    half_precision_bank: bool = False
    write_every: int = 1
    output_type: str = "pil"
    return_dict: bool = True
    cross_attention_kwargs: dict[str, Any] | None = None
    callback_on_step_end: Callback | None = None
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)
    num_images_per_prompt: int = 1
    num_frames: int | None = None
    num_films: int = 1
    windows: Windows | None = None
    across_processes: bool = False


class ReferencePipeline(DiffusionPipeline):
    """What all systems share."""

    spec: ClassVar[Spec]
    published: ClassVar[PublishedSet]
    options: ClassVar[Any] = Options
    renamed: ClassVar[Mapping[str, str]] = {}
    """Components of folders that earlier versions saved, to their names today."""

    _callback_tensor_inputs = ["latents"]
    _interrupt = False
    _guidance_scale: float | None = None
    _num_timesteps = 0

    def register(self, arguments: Mapping[str, Any], *settings: str) -> None:
        """Take a constructor's `locals()` as components, and those named as settings into the configuration."""
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
        device = self._execution_device
        return device if hasattr(module, "_hf_hook") or module.device.type == "meta" else module.device

    # --- references ---------------------------------------------------------------------------------------------------

    def show(self, reference: Any, canvas: Canvas) -> Shown:
        """What the writer is shown of a reference; a system's own."""
        raise NotImplementedError

    @torch.no_grad()
    def write(
        self, reference: Any, *, width: int, height: int, num_inference_steps: int | None = None
    ) -> ReferenceBank | Series:
        """Write a reference: everything that is needed of it, which serves any number of calls without the writer.

        Args:
            reference: As the call takes it, or what makes a `Shown` of a canvas.
            width: Of the results, in pixels.
            height: Likewise.
            num_inference_steps: Of a writer that runs at every step: of the calls; None: the system's default.

        Returns:
            A bank or, of a writer that runs at every step, timestep to bank. Both can be given as the reference.

        Raises:
            ValueError: If the pipeline was loaded without the networks that read references.
        """
        self.check_size(width, height)
        self.check_writer()
        shown = self._shown_on(Canvas(width=width, height=height), reference)
        if not isinstance(self.spec.write, EachStep):
            return self.bank_of(shown, 0)
        self.scheduler.set_timesteps(num_inference_steps or self.spec.steps, device=self._execution_device)
        banks = {int(t): self.bank_of(shown, t) for t in self.scheduler.timesteps}
        self.maybe_free_model_hooks()
        return banks

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
        needed = ("reference_unet",) if encoded else ("reference_unet", "image_encoder")
        names = [name for name in needed if getattr(self, name, 0) is None]
        if names or self.spec.write is None:
            raise ValueError(
                f"this pipeline has no {' and '.join(names) or 'writer'}, so it can read saved banks only; give "
                "reference=ReferenceBank.load(...), or load the pipeline with all its parts."
            )

    def written(self, reference: Any, canvas: Canvas, settings: Settings) -> dict[str, Any]:
        """Fields of a `Call` for a reference: a bank, a series, what is shown, or what makes that of a canvas."""
        rounding = {"half_precision_bank": settings.half_precision_bank}
        if isinstance(reference, ReferenceBank):
            bank = reference
        elif isinstance(reference, Mapping):
            return {"series": reference, **rounding}
        else:
            self.check_writer(encoded=isinstance(reference, Shown) or callable(reference))
            shown = self._shown_on(canvas, reference)
            if isinstance(self.spec.write, EachStep):
                return {"shown": shown, "write_every": settings.write_every, **rounding}
            bank = self.bank_of(shown, 0)
        bank = self.placed(bank)
        return {"bank": rounded(bank) if settings.half_precision_bank else bank}

    def _shown_on(self, canvas: Canvas, reference: Any) -> Shown:
        """What the writer is shown: as given, from what makes it of a canvas, or from pictures."""
        if isinstance(reference, Shown):
            return reference
        return reference(canvas) if callable(reference) else self.show(reference, canvas)

    # --- options ------------------------------------------------------------------------------------------------------

    def settle(self, options: Mapping[str, Any]) -> Settings:
        """Options with what was left open; refuses what would fail only after the last step.

        Raises:
            TypeError: If an option is unknown.
            ValueError: If a value is out of range.
        """
        known = set(self.options.__annotations__)
        for name in sorted(set(options) - known):
            near = get_close_matches(name, known, n=1)
            raise TypeError(
                f"{type(self).__name__} has no argument {name!r}; "
                f"{f'did you mean {near[0]!r}?' if near else f'there are {sorted(known)}.'}"
            )
        defaults = {"num_inference_steps": self.spec.steps, "guidance_scale": self.spec.scale}
        settings = Settings(**defaults | dict(options))
        for name in ("num_inference_steps", "num_images_per_prompt", "num_films", "write_every"):
            if getattr(settings, name) < 1:
                raise ValueError(f"{name} is {getattr(settings, name)}; expected at least 1.")
        if settings.write_every > 1 and not isinstance(self.spec.write, EachStep):
            raise ValueError("write_every is for writers that run at every step; this one runs once.")
        if settings.output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is {settings.output_type!r}; expected one of {list(OUTPUT_TYPES)}.")
        unknown = sorted(set(settings.callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs))
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs has {unknown}; expected some of {self._callback_tensor_inputs}."
            )
        return settings

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

    # --- files --------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Any:
        """Read a saved folder, also one whose components an earlier version called by other names.

        Args:
            pretrained_model_name_or_path: The folder, or a hub name.
            options: As diffusers' pipelines take them.
        """
        index = Path(pretrained_model_name_or_path) / "model_index.json"
        parts = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
        if not parts.keys() & cls.renamed.keys():
            return super().from_pretrained(pretrained_model_name_or_path, **options)
        with TemporaryDirectory() as folder:
            for place in index.parent.iterdir():
                if place != index:
                    (Path(folder) / cls.renamed.get(place.name, place.name)).symlink_to(place.resolve())
            named = {cls.renamed.get(name, name): part for name, part in parts.items()}
            (Path(folder) / index.name).write_text(json.dumps(named), encoding="utf-8")
            return super().from_pretrained(folder, **options)

    @classmethod
    def from_published(
        cls, files: str | Path | Iterable[str | Path], *, base: str | Path | None = None,
        dtype: torch.dtype | None = None, torch_dtype: torch.dtype | None = None, **parts: Any,
    ) -> Any:  # fmt: skip
        """Read the released files, strictly.

        Args:
            files: The folder that holds them, or the files one by one.
            base: A folder or hub name of the base model in diffusers' layout: its UNet's configuration, and the parts
                that the release leaves out.
            dtype: Of all networks; None: as in the files.
            torch_dtype: The former name of `dtype`.
            parts: Components, or their folders, in place of those that are found.

        Raises:
            FileNotFoundError: If a file is missing; says where to get it.
            CheckpointError: If a file does not fit, or holds values that are not finite.
        """
        if torch_dtype is not None:
            warnings.warn("torch_dtype is called dtype now.", FutureWarning, stacklevel=2)
        published = cls.published
        paths = find_files(published, files)
        folder = Path(files) if isinstance(files, str | Path) else None
        found: dict[str, Any] = {}
        for name, part in published.further.items():  # before the large files: it is soon known whether all are there
            if name in parts or not published.fills(name, paths):
                found[name] = part.read(name, parts.pop(name, None), folder, base, published.name)
        config = published.config_of(paths, base)
        for name in published.components:
            if name in parts:
                found[name] = parts.pop(name)
            elif name not in found:
                found[name] = read_component(published, name, paths, config, base)
        if "scheduler" not in {*found, *parts}:
            found["scheduler"] = cls.spec.scheduler()
        pipe = cls(**found, **parts)
        dtype = dtype or torch_dtype
        return pipe if dtype is None else pipe.to(dtype=dtype)
