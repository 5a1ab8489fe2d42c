"""Single-file checkpoints as webui and ComfyUI users own them: Stable Diffusion 1, 2 and XL in the original layout.

diffusers converts them. Here it is said beforehand what a file is and what it lacks, and afterwards whether every
tensor was there. Configurations and tokenizers are in no such file: they come from a folder, or from the hub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from torch import Tensor, nn

from referencenet.bases.names import check_config
from referencenet.checkpoints.files import first_line, read_state
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.library import check_networks, read_configuration, read_index
from referencenet.telling import some

FIRST = "model.diffusion_model.input_blocks.0.0.weight"
"""The UNet's first convolution; nine channels are an inpainting model's."""

VAE, TEXT = "first_stage_model.", "cond_stage_model."

OTHERS: Mapping[str, str] = {
    r"lora_(unet|te\d?)_.*": "is a LoRA; give it as a LoRA, beside a model",
    r".*\.lora[._].*": "is a LoRA; give it as a LoRA, beside a model",
    r"control_model\..*": "is a ControlNet",
    r"(model\.diffusion_model\.)?(double|single)_blocks\..*": "is a Flux model, a transformer without sites",
    r"model\.diffusion_model\.joint_blocks\..*": "is a Stable Diffusion 3 model, a transformer without sites",
    r"(encoder|decoder)\.(mid|down|up)\..*": "is an autoencoder alone",
    r"(down_blocks|up_blocks|time_embedding)\..*": "is a network in diffusers' layout; give the folder of its pipeline",
    r"conditioner\.embedders\.0\.model\..*": "is Stable Diffusion XL's refiner, which continues pictures of another",
}
"""Keys of files that people take for a base model, and what they are."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of base model.

    Attributes:
        title: In words.
        text: What its text encoders' keys begin with.
        hub: Where its configuration and tokenizer are.
        hub_inpaint: Those of its inpainting model.
        pipeline: Draws from text.
        inpaint: Of an inpainting model.
    """

    title: str
    text: tuple[str, ...]
    hub: str
    hub_inpaint: str
    pipeline: Any = StableDiffusionPipeline
    inpaint: Any = StableDiffusionInpaintPipeline


FAMILIES = (
    Family(
        title="Stable Diffusion XL",
        text=("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
        hub="stabilityai/stable-diffusion-xl-base-1.0",
        hub_inpaint="diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
        pipeline=StableDiffusionXLPipeline,
        inpaint=StableDiffusionXLInpaintPipeline,
    ),
    Family(
        title="Stable Diffusion 2",
        text=("cond_stage_model.model.",),
        hub="stabilityai/stable-diffusion-2-1",
        hub_inpaint="stabilityai/stable-diffusion-2-inpainting",
    ),
    Family(
        title="Stable Diffusion 1",
        text=("cond_stage_model.transformer.",),
        hub="stable-diffusion-v1-5/stable-diffusion-v1-5",
        hub_inpaint="stable-diffusion-v1-5/stable-diffusion-inpainting",
    ),
)


def from_single_file(path: str | Path, *, config: str | Path | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """A pipeline of diffusers from a checkpoint in the original layout.

    Args:
        path: `.safetensors` or `.ckpt`, with UNet, autoencoder and text encoders.
        config: A folder, or a name on the hub, of any pipeline of the same family in diffusers' layout: its
            configurations and tokenizer are taken, not its weights. None: the family's own on the hub, or what of it
            lies in the local cache.
        dtype: Of all weights.

    Returns:
        A text-to-image pipeline; of an inpainting model of nine channels one that inpaints. Without a safety checker.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        CheckpointError: If the file is another kind of file, lacks something, or does not fit the configuration.
        ValueError: If nothing says how it is configured.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give a single-file checkpoint, such as model.safetensors.")
    state = read_state(path)
    family, inpaints = family_of(state, path)
    if config is not None:
        check_config(str(config))
        if (folder := Path(config).expanduser()).is_dir():
            _check_configurations(folder)
    own = family.hub_inpaint if inpaints else family.hub
    kind = family.inpaint if inpaints else family.pipeline
    try:
        pipe = kind.from_single_file(
            str(path), config=str(Path(config).expanduser() if config is not None else own), dtype=dtype
        )
    except Exception as error:  # the loader of foreign files raises whatever its parsers do
        if config is None and _is_of_network(error):
            raise ValueError(
                f"{path.name} is a {family.title} file without configuration and tokenizer; they are on the hub as "
                f"{own}, which gave no answer and is not in the local cache. Give --config FOLDER (config=...), any "
                f"{family.title} model in diffusers' layout."
            ) from error
        if "meta tensor" in str(error):  # a weight that the loader found nothing for
            raise CheckpointError(
                f"{path.name} lacks tensors of a network that {config or own} describes; get the whole file, or give "
                "the configuration of its own family."
            ) from error
        raise CheckpointError(
            f"{path.name}, a {family.title} file, does not fit the configuration of {config or own} "
            f"({type(error).__name__}: {first_line(error)[:200]}); give the folder of a {family.title} model."
        ) from error
    _check_whole(pipe, path, config or own)
    if "v_pred" in state:  # what some files of Stable Diffusion XL say of themselves
        changes = {"prediction_type": "v_prediction", **({"rescale_betas_zero_snr": True} if "ztsnr" in state else {})}
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **changes)
    return pipe


def family_of(state: Mapping[str, Tensor], path: Path) -> tuple[Family, bool]:
    """What a file is by its keys: its family, and whether it inpaints.

    Args:
        state: Its tensors.
        path: Of the file, for errors.

    Raises:
        CheckpointError: If it is none of the families, or not whole.
    """
    family = next((each for each in FAMILIES if any(key.startswith(each.text[-1]) for key in state)), None)
    if FIRST in state and family is not None:
        absent = [prefix for prefix in (VAE, *family.text) if not any(key.startswith(prefix) for key in state)]
        if absent:
            what = "autoencoder" if VAE in absent else "text encoder"
            raise CheckpointError(
                f"{path.name} is a {family.title} file without its {what} (keys {some(absent)}); get the whole file."
            )
        return family, state[FIRST].shape[1] == 9
    found = next((what for pattern, what in OTHERS.items() if any(re.fullmatch(pattern, key) for key in state)), None)
    if found is None and FIRST in state:
        found = "has no text encoder that is known"
    raise CheckpointError(
        f"{path.name} {found or 'is no base model'}; expected a whole Stable Diffusion 1, 2 or XL checkpoint."
    )


def _check_configurations(folder: Path) -> None:
    """Look at a folder's configurations before its library does."""
    read_index(folder)
    for configuration in sorted(folder.glob("*/*config.json")):
        if configuration.name in ("config.json", "scheduler_config.json"):
            read_configuration(configuration)


def _check_whole(pipe: Any, path: Path, config: str | Path) -> None:
    """Make sure that every tensor of every network came from the file, and is a number.

    Raises:
        CheckpointError: If not.
    """
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):
            missing = [key for key, tensor in part.state_dict().items() if tensor.is_meta]
            if missing:
                raise CheckpointError(
                    f"{path.name} lacks {len(missing)} tensors of the {name} that {config} describes "
                    f"({some(missing)}); get the whole file, or another configuration."
                )
    check_networks(pipe.components, path.name)


def _is_of_network(error: BaseException) -> bool:
    """Whether an error, or what it came from, is that the hub cannot be reached."""
    words = ("connection", "offline", "localentrynotfound", "timeout", "connect", "resolve", "proxy", "repositorynot")
    while True:
        if any(word in f"{type(error).__name__} {error}".lower().replace(" ", "") for word in words):
            return True
        following = error.__cause__ or error.__context__
        if following is None:
            return False
        error = following
