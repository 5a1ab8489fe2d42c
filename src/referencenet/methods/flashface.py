"""FlashFace: a person from one to many photographs of the face, in a picture that a prompt describes.

Zhang et al. 2024, arXiv 2403.17008; code ali-vilab/FlashFace, commit fff0f07 (MIT); weights shilongz/FlashFace-SD1.5.

    write: every step, own network (with the denoiser's middle block), clean face latents, the result's timestep,
           the negative prompt as context; sites: middle and up blocks
    link:  additive: a second attention beside each self-attention of the denoiser reads all faces as one sequence
    space: a mask of the face's place is the denoiser's fifth input channel
    guidance, at timestep t: see `passes`

Differs from the released program where that is at fault: N steps are N, faces need no random copies to make four, and
the autoencoder is the standard one (`scrambled_vae=True` is the released program's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DiffusionPipeline, ImagePipelineOutput, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from referencenet.checkpoints.files import check_finite, read_state
from referencenet.checkpoints.flashface import (
    TEXT_KEYS,
    denoiser_keys,
    reference_keys,
    released_config,
    unet_config,
    vae_keys,
)
from referencenet.checkpoints.load import load_published
from referencenet.checkpoints.published import Part, PublishedFile, PublishedSet, find_files, load_component
from referencenet.links.attach import attach, write
from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Concat
from referencenet.links.fork import forked
from referencenet.links.link import Link
from referencenet.links.reading import ReadBank
from referencenet.links.second import Second
from referencenet.media.images import Picture, to_tensor
from referencenet.networks.additive_unet import AdditiveUNet
from referencenet.networks.scrambled_attention import ScrambledAttnProcessor
from referencenet.networks.stable_diffusion import SD15_PARTS
from referencenet.preprocess.faces import FACE_SIZE, face_mask, square_face
from referencenet.sampling.trailing_ddim import TrailingDDIMScheduler

WRITER_LINK = Concat(stages=("mid_block", "up_blocks"))
READER_LINK = Second()
TRAINED_FACES = 4  # photographs per sample in training; fewer or more share their weight

PROMPT_SUFFIX = "best quality, masterpiece,ultra-detailed, UHD 4K, photographic"  # the released program's default
NEGATIVE_SUFFIX = (  # the released program's default
    "blurry, ugly, tiling, poorly drawn hands, poorly drawn feet, poorly drawn face, out of frame, extra limbs, "
    "disfigured, deformed, body out of frame, bad anatomy, watermark, signature, cut off, low contrast, underexposed, "
    "overexposed, bad art, beginner, amateur, distorted face"
)

SOURCE = "huggingface.co/shilongz/FlashFace-SD1.5"

PUBLISHED = PublishedSet(
    name="flashface.sd15",
    source=SOURCE,
    licence="MIT by its tag; derived from Stable Diffusion 1.5, CreativeML OpenRAIL-M",
    paper="2403.17008",
    files=tuple(
        PublishedFile(path="flashface.ckpt", component=component, keymap=keymap, manifest="flashface-unet")
        for component, keymap in (("unet", denoiser_keys()), ("reference_unet", reference_keys()))
    ),
    build={
        "unet": lambda config: AdditiveUNet(**config, in_channels=5),
        "reference_unet": lambda config: UNet2DConditionModel(**config),
    },
    base_config=unet_config(dim=320, dim_mult=(1, 2, 4, 4), context_dim=768),
    further={
        "base": Part(
            kind=CLIPTokenizer,
            source="Stable Diffusion 1.5 as a diffusers folder: tokenizer, text encoder and autoencoder",
        )
    },
)

PUBLISHED_BASE = PublishedSet(
    name="flashface.base",  # Stable Diffusion 1.5's own networks in FlashFace's layout; a base brings them as well
    source=SOURCE,
    licence="as Stable Diffusion 1.5 and CLIP",
    paper=None,
    files=(
        PublishedFile(path="sd-v1-vae.pth", component="vae", keymap=vae_keys(), manifest="flashface-vae"),
        PublishedFile(
            path="openai-clip-vit-large-14.pth",
            component="text_encoder",
            keymap=TEXT_KEYS,
            manifest="flashface-clip",
        ),
    ),
    build={
        "vae": lambda config: AutoencoderKL.from_config({**SD15_PARTS["vae"], **config}),
        "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**{**SD15_PARTS["text_encoder"], **config})),
    },
    base_config={},
)


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How much is referred to, and when; defaults are those of the released notebook.

    Attributes:
        lambda_feat: Strength of the faces from the launch on.
        lambda_before: Strength of the faces before it.
        face_guidance: Scale of the difference that the faces make; 0: no pass of its own.
        text_guidance: Scale of the difference that the prompt makes.
        step_to_launch: Timestep at and below which faces are guided.
        guide_rescale: In [0, 1]: how far the guided prediction's deviation goes back to the conditional one's.
    """

    lambda_feat: float = 1.2
    lambda_before: float = 0.85
    face_guidance: float = 3.2
    text_guidance: float = 7.5
    step_to_launch: float = 750
    guide_rescale: float = 0.5

    def __post_init__(self) -> None:
        for name in ("lambda_feat", "lambda_before", "face_guidance", "text_guidance"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number from 0.")
        if not 0 <= self.guide_rescale <= 1:
            raise ValueError(f"guide_rescale is {self.guide_rescale}; expected 0 (off) to 1.")


@dataclass(frozen=True)
class Pass:
    """One pass of guidance: what it sees, and its factor in the sum that guides."""

    text: Literal["prompt", "negative"]
    strength: float
    factor: float


def passes(timestep: float, guidance: Guidance) -> list[Pass]:
    """The passes of a step; the one whose deviation counts for the rescaling is the last with the prompt.

    Before the launch, and without face guidance, faces act in both passes and text alone is guided:
    u + text (y - u). From the launch on the faces have a pass r of their own: u + text (y - u) + face (r - y).
    """
    launched = timestep <= guidance.step_to_launch
    text, face = guidance.text_guidance, guidance.face_guidance
    if launched and face > 0:
        found = [
            Pass("prompt", guidance.lambda_feat, face),
            Pass("prompt", 0.0, text - face),
            Pass("negative", 0.0, 1 - text),
        ]
    else:
        strength = guidance.lambda_feat if launched else guidance.lambda_before
        found = [Pass("prompt", strength, text), Pass("negative", strength, 1 - text)]
    return [p for p in found if p.factor or p.text == "prompt"]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a call was asked for, as the networks take it.

    Attributes:
        faces: Latents of the faces, (faces, 4, h, w), all of one size.
        face_weights: How many times each face counts.
        prompt: (b, tokens, channels).
        negative: (1, tokens, channels); also the reference network's context.
        mask: Where the face shall be, (height, width) of the latents.
    """

    faces: Tensor
    face_weights: Sequence[float]
    prompt: Tensor
    negative: Tensor
    mask: Tensor


class FlashFacePipeline(StableDiffusionLoraLoaderMixin, DiffusionPipeline):
    """Pictures of the person on some photographs.

    Args:
        vae: Stable Diffusion 1.5's.
        text_encoder: Stable Diffusion 1.5's.
        tokenizer: Stable Diffusion 1.5's.
        unet: The denoiser; five input channels.
        reference_unet: The network that writes the faces.
        scheduler: TrailingDDIMScheduler, or any of diffusers for networks that predict noise.
        scrambled_vae: Give the autoencoder the released program's faulty attention.
    """

    published = PUBLISHED
    model_cpu_offload_seq = "text_encoder->reference_unet->unet->vae"
    _callback_tensor_inputs = ["latents"]
    _lora_loadable_modules = ["unet", "text_encoder"]
    _interrupt = False

    def __init__(self, vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: AdditiveUNet,
                 reference_unet: UNet2DConditionModel, scheduler: Any,
                 scrambled_vae: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            reference_unet=reference_unet,
            scheduler=scheduler,
        )
        self.register_to_config(scrambled_vae=scrambled_vae)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1) if vae is not None else 8
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)
        if scrambled_vae:
            vae.set_attn_processor(ScrambledAttnProcessor())

    @classmethod
    def from_published(cls, files: str | Path | Iterable[str | Path], *, base: str | Path | None = None,
                       torch_dtype: torch.dtype | None = None,
                       scrambled_vae: bool = False) -> FlashFacePipeline:  # fmt: skip
        """Read the released files.

        Args:
            files: Their folder, or the files one by one.
            base: Stable Diffusion 1.5 as a diffusers folder or name: brings the tokenizer and what `files` lacks.
            torch_dtype: Of all networks; None: as released, float32.
            scrambled_vae: As the constructor has it.

        Raises:
            FileNotFoundError: If `flashface.ckpt` is not there.
            CheckpointError: If a file is of another layout, damaged, or holds values that are not finite.
            ValueError: If no base is given.
        """
        if base is None:
            raise ValueError(
                "FlashFace's release has no tokenizer: give base=, a folder or name of Stable Diffusion 1.5 in "
                "diffusers' layout, which also brings what the files lack."
            )
        given = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
        names = [file.path for file in PUBLISHED_BASE.files]
        path = find_files(PUBLISHED, [path for path in given if path.name not in names])["flashface.ckpt"]
        state = read_state(path)
        check_finite({key: tensor for key, tensor in state.items() if not _is_unused(key)}, str(path))
        config = released_config(state)
        parts: dict[str, Any] = {
            file.component: load_component(PUBLISHED, file.component, [(file, state, str(path))], config)
            for file in PUBLISHED.files
        }
        for file in PUBLISHED_BASE.files:
            parts[file.component] = _base_part(file, given, base)
        tokenizer = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
        pipe = cls(**parts, tokenizer=tokenizer, scheduler=TrailingDDIMScheduler(), scrambled_vae=scrambled_vae)
        return pipe.to(dtype=torch_dtype) if torch_dtype is not None else pipe

    @torch.no_grad()
    def __call__(
        self,
        faces: Picture | Sequence[Picture] | None = None,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str = "",
        *,
        face_box: Sequence[float] | None = None,
        face_weights: Sequence[float] | None = None,
        lambda_feat: float = Guidance.lambda_feat,
        face_guidance: float = Guidance.face_guidance,
        text_guidance: float = Guidance.text_guidance,
        lambda_before: float = Guidance.lambda_before,
        step_to_launch: float = Guidance.step_to_launch,
        guide_rescale: float = Guidance.guide_rescale,
        num_inference_steps: int = 35,
        num_images_per_prompt: int = 1,
        height: int | None = None,
        width: int | None = None,
        published_suffixes: bool = True,
        face_latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple[Any]:
        """Make pictures.

        Args:
            faces: Cut-out faces of one person (see `crop_face`), any number from 1; squared here.
            prompt: One text, or one per picture. Name an age: it helps.
            negative_prompt: What shall not be seen; also tells the reference network.
            face_box: Where the face shall be: left, top, right, bottom as fractions. None: anywhere.
            face_weights: How many times each face counts; None: together as much as the four faces of training.
            lambda_feat: Strength of the faces, from the launch on; 0.7 to 1.4 are usual.
            face_guidance: Scale of the difference that the faces make; 1.8 to 4 are usual.
            text_guidance: Scale of the difference that the prompt makes.
            lambda_before: Strength of the faces before the launch.
            step_to_launch: Timestep at and below which faces are guided, of 1000.
            guide_rescale: In [0, 1]: how far the prediction's deviation is brought back.
            num_inference_steps: Steps.
            num_images_per_prompt: Pictures per prompt.
            height: In pixels, a multiple of 8; None: 768.
            width: In pixels, a multiple of 8; None: 768.
            published_suffixes: Add the released program's words to the prompts.
            face_latents: Instead of faces, their scaled latents (faces, 4, h, w).
            prompt_embeds: Instead of a prompt, (prompts, tokens, channels).
            negative_prompt_embeds: Instead of a negative prompt, (1, tokens, channels).
            generator: One, or one per picture.
            latents: Noise to start from, (pictures, 4, height / 8, width / 8).
            output_type: "pil", "np", "pt" or "latent".
            return_dict: Whether an object is returned instead of a tuple.
            callback_on_step_end: Called as (pipeline, step, timestep, {"latents": ...}); what it returns replaces.
                Setting `pipeline._interrupt = True` leaves the further steps out, as everywhere in diffusers.
            callback_on_step_end_tensor_inputs: Names that the callback gets.

        Returns:
            The pictures as `.images`.

        Raises:
            ValueError: If a value is out of range or something is given twice or not at all.
        """
        guidance = Guidance(
            lambda_feat=lambda_feat,
            lambda_before=lambda_before,
            face_guidance=face_guidance,
            text_guidance=text_guidance,
            step_to_launch=step_to_launch,
            guide_rescale=guide_rescale,
        )
        factor, side = self.vae_scale_factor, self.unet.config.sample_size * self.vae_scale_factor
        height, width = height or side, width or side
        self.check_inputs(faces, prompt, negative_prompt, face_latents, prompt_embeds, height, width)
        self.check_options(num_images_per_prompt, output_type, callback_on_step_end_tensor_inputs)
        self._interrupt = False
        suffixes = (PROMPT_SUFFIX, NEGATIVE_SUFFIX) if published_suffixes else ("", "")
        if prompt_embeds is None:
            prompt_embeds = self.encode_prompt([prompt] if isinstance(prompt, str) else list(prompt or ()), suffixes[0])
        if negative_prompt_embeds is None:
            negative_prompt_embeds = self.encode_prompt([negative_prompt], suffixes[1])
        if face_latents is None:
            face_latents = self.encode_faces(faces)
        place = (self._execution_device, self.unet.dtype)
        conditions = Conditions(
            faces=face_latents.to(*place),
            face_weights=check_weights(face_weights, len(face_latents)),
            prompt=prompt_embeds.to(*place).repeat_interleave(num_images_per_prompt, dim=0),
            negative=negative_prompt_embeds.to(*place),
            mask=face_mask(face_box, width=width, height=height, factor=factor).to(*place),
        )
        shape = (len(conditions.prompt), 4, height // factor, width // factor)
        if isinstance(generator, list) and len(generator) != shape[0]:
            raise ValueError(f"{len(generator)} generators were given for {shape[0]} pictures; give one, or one each.")
        if latents is None:
            latents = randn_tensor(shape, generator, *place)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents are {tuple(latents.shape)}; these prompts and this size need {shape}.")
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        latents = latents.to(*place) * self.scheduler.init_noise_sigma
        latents = self.denoise(latents, conditions, guidance, callback_on_step_end, callback_on_step_end_tensor_inputs)
        images = latents if output_type == "latent" else self.decode(latents, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def check_inputs(self, faces: Any, prompt: Any, negative_prompt: Any, face_latents: Tensor | None,
                     prompt_embeds: Tensor | None, height: int, width: int) -> None:  # fmt: skip
        """Refuse what cannot be made; tensors are (faces, 4, h, w) and (prompts, tokens, channels).

        Raises:
            TypeError: If the negative prompt is no single text.
            ValueError: If something is given twice or not at all, or the size does not fit.
        """
        for given, instead, name in ((faces, face_latents, "face"), (prompt, prompt_embeds, "prompt")):
            if (given is None) == (instead is None):
                count = "both were" if given is not None else "neither was"
                raise ValueError(f"give the {name} or its tensor, one of the two; {count} given.")
        if isinstance(faces, Sequence) and not isinstance(faces, str) and not faces:
            raise ValueError("no face was given; give at least one picture of the face.")
        if isinstance(prompt, list | tuple) and not prompt:
            raise ValueError("prompt is an empty list; give one text, or one per picture.")
        if not isinstance(negative_prompt, str):
            raise TypeError(
                f"negative_prompt is a {type(negative_prompt).__name__}; expected one text: the reference network is "
                "told it, and all pictures of a call share the faces that it writes."
            )
        factor = self.vae_scale_factor
        if height % factor or width % factor or min(height, width) < factor:
            raise ValueError(f"the size is {width} x {height}; width and height must be multiples of {factor}.")

    def check_options(self, num_images: int, output_type: str, callback_inputs: Sequence[str]) -> None:
        """Refuse options that would fail only after the last step, or silently give nothing.

        Raises:
            ValueError: If one is not among those there are.
        """
        if num_images < 1:
            raise ValueError(f"num_images_per_prompt is {num_images}; expected at least 1.")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ValueError(f"output_type is {output_type!r}; expected 'pil', 'np', 'pt' or 'latent'.")
        unknown = sorted(set(callback_inputs) - set(self._callback_tensor_inputs))
        if unknown:
            raise ValueError(f"callback_on_step_end_tensor_inputs has {unknown}; only 'latents' can be given.")

    def encode_prompt(self, prompts: list[str], suffix: str = "") -> Tensor:
        """Texts to the text encoder's last hidden states, (prompts, tokens, channels)."""
        texts = [", ".join(part for part in (prompt, suffix) if part) for prompt in prompts]
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self.text_encoder(tokens.input_ids.to(self._execution_device))[0]

    def encode_faces(self, faces: Picture | Sequence[Picture]) -> Tensor:
        """Cut-out faces to the autoencoder's scaled mean latents, (faces, 4, 28, 28)."""
        pictures = list(faces) if isinstance(faces, list | tuple) else [faces]
        images = torch.stack([to_tensor(square_face(picture, FACE_SIZE)) for picture in pictures]) * 2 - 1
        images = images.to(self._execution_device, self.vae.dtype)
        return self.vae.encode(images).latent_dist.mode() * self.vae.config.scaling_factor

    def write_bank(self, conditions: Conditions, timestep: Tensor | float) -> ReferenceBank:
        """What the faces offer at a timestep: a bank with a row per face, which `save` keeps.

        Args:
            conditions: Of the call.
            timestep: The denoiser's.
        """
        context = conditions.negative.expand(len(conditions.faces), -1, -1)
        return write(
            self.reference_unet,
            conditions.faces,
            timestep=timestep,
            encoder_hidden_states=context,
            links=[WRITER_LINK],
        )

    def predict_noise(self, link: Link, latents: Tensor, timestep: Tensor | float, conditions: Conditions,
                      guidance: Guidance, bank: ReferenceBank | None = None) -> Tensor:  # fmt: skip
        """The guided prediction of one step.

        Passes with one text are one row until the middle block, where the first of them reads: they part there.

        Args:
            link: `attach(pipe.unet, [READER_LINK])`.
            latents: (b, 4, height, width), scaled as the scheduler wants them.
            timestep: Of the step.
            conditions: Of the call, with b prompts.
            guidance: Of the call.
            bank: What `write_bank` gave; None: it is written now.

        Returns:
            (b, 4, height, width).
        """
        chosen = passes(float(timestep), guidance)
        texts = list(dict.fromkeys(p.text for p in chosen))
        b = len(latents)
        mask = conditions.mask.expand(b, 1, -1, -1)
        sample = torch.cat([latents, mask.to(latents)], dim=1).repeat(len(texts), 1, 1, 1)
        negative = conditions.negative.expand(b, -1, -1)
        context = torch.cat([conditions.prompt if text == "prompt" else negative for text in texts])
        reads = _as_read(bank or self.write_bank(conditions, timestep), conditions.face_weights)
        rows = [texts.index(p.text) * b + i for p in chosen for i in range(b)]
        weights = [p.strength for p in chosen for _ in range(b)]
        with link.reading(reads, weights=weights, once=True):
            if len(chosen) > len(texts):
                with forked(self.unet, rows):
                    noise = self.unet(sample, timestep, encoder_hidden_states=context, return_dict=False)[0]
            else:
                noise = self.unet(sample, timestep, encoder_hidden_states=context, return_dict=False)[0]
        parts = noise.chunk(len(chosen))
        guided = sum((p.factor * part for p, part in zip(chosen, parts, strict=True)), torch.zeros_like(latents))
        conditional = parts[max(i for i, p in enumerate(chosen) if p.text == "prompt")]
        return rescaled(guided, conditional, guidance.guide_rescale)

    def denoise(self, latents: Tensor, conditions: Conditions, guidance: Guidance, callback: Any = None,
                callback_inputs: Sequence[str] = ("latents",)) -> Tensor:  # fmt: skip
        """The sampling loop over the scheduler's steps: (b, 4, height, width) to the same shape."""
        with attach(self.unet, [READER_LINK]) as link, self.progress_bar(total=len(self.scheduler.timesteps)) as bar:
            for i, t in enumerate(self.scheduler.timesteps):
                if self.interrupt:
                    break
                scaled = self.scheduler.scale_model_input(latents, t)
                noise = self.predict_noise(link, scaled, t, conditions, guidance)
                latents = self.scheduler.step(noise, t, latents, return_dict=False)[0].to(latents.dtype)
                if callback is not None:
                    given = {name: {"latents": latents}[name] for name in callback_inputs}
                    latents = (callback(self, i, t, given) or {}).get("latents", latents)
                bar.update()
        return latents

    @property
    def interrupt(self) -> bool:
        """Whether a callback asked for the further steps to be left out."""
        return self._interrupt

    def decode(self, latents: Tensor, output_type: str) -> Any:
        """Latents (b, 4, height, width) to pictures of the given type."""
        pictures = self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor, return_dict=False)[0]
        return self.image_processor.postprocess(pictures, output_type=output_type)


def rescaled(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Bring the deviation of each guided sample (b, c, h, w) part of the way to that of the conditional one.

    Lin et al. 2023, arXiv 2305.08891, section 3.4.
    """
    deviations = [part.flatten(1).std(dim=1).view(-1, 1, 1, 1) for part in (conditional, guided)]
    return guided * (share * deviations[0] / (deviations[1] + 1e-12) + 1 - share)  # 1e-12 as published


def check_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """How many times each of `count` faces counts; by default together as much as the four of training.

    Raises:
        ValueError: If their number differs or one is not above 0.
    """
    if weights is None:
        return [TRAINED_FACES / count] * count
    if len(weights) != count or not all(0 < weight < inf for weight in weights):
        raise ValueError(f"face_weights are {list(weights)} for {count} faces; give a number above 0 for each.")
    return list(weights)


def _as_read(bank: ReferenceBank, weights: Sequence[float]) -> list[ReadBank]:
    """The faces as sequences to be read: those of one weight behind each other."""
    found: list[ReadBank] = []
    for weight in dict.fromkeys(weights):
        chosen = [i for i, w in enumerate(weights) if w == weight]
        part = bank if len(chosen) == len(weights) else bank.map(lambda tensor, rows=chosen: tensor[rows])
        found.append(ReadBank(bank=part.joined(), weight=weight))
    return found


def _is_unused(key: str) -> bool:
    """Whether neither network takes a key of `flashface.ckpt`."""
    return all(file.keymap.reason_ignored(key) is not None for file in PUBLISHED.files)


def _base_part(file: PublishedFile, given: Sequence[Path], base: str | Path) -> Any:
    """The autoencoder or text encoder: from its released file if there is one among those given, else from the base."""
    kind: Any = {"vae": AutoencoderKL, "text_encoder": CLIPTextModel}[file.component]
    candidates = [path / file.path if path.is_dir() else path for path in given]
    path = next((path for path in candidates if path.name == file.path and path.is_file()), None)
    if path is None:
        return kind.from_pretrained(base, subfolder=file.component)
    state = read_state(path)
    check_finite(state, str(path))
    with init_empty_weights():
        if kind is AutoencoderKL:
            network = kind.from_config(kind.load_config(base, subfolder=file.component))
        else:
            network = kind(kind.config_class.from_pretrained(base, subfolder=file.component))
    load_published(network, state, file.keymap, source=str(path))
    return network.eval()
