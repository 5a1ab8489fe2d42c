"""Every trainable system on the drawn world: its published class with small parts, grown from the shipped weights.

A system's networks are what its published set builds, at the widths of the shipped UNet, and filled by `graft`. So a
new pipeline draws what the shipped base draws wherever the system's form allows it, and training begins there. What no
weight fills is expected by name (`NEW`) and drawn from a seed. `load_system` adds what was trained and is shipped.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from referencenet.builtin import toys
from referencenet.builtin.drawn import drawn_spec
from referencenet.builtin.graft import Graft, graft, with_reference_attention, with_second_attention
from referencenet.builtin.load import WEIGHTS, load, load_image_encoder
from referencenet.checkpoints.eight_bit import unpacked
from referencenet.checkpoints.files import read_state
from referencenet.methods.tiny import components_of
from referencenet.networks.pose_guider import PoseGuider
from referencenet.training.recipes.index import recipe_of

MOTION = r".*motion_modules\..*"
IMAGE_PROMPT = r".*\.attn2\.processor\.to_[kv]_ip\.0\.weight"
CONTROL = r"controlnet_(cond_embedding|down_blocks|mid_block)\..*"

NEW: Mapping[tuple[str, str], str] = MappingProxyType({
    ("animate_anyone", "unet"): MOTION,
    ("aniportrait", "unet"): MOTION,
    ("magic_animate", "unet"): MOTION,
    ("diffportrait3d", "unet"): MOTION,
    ("hallo", "unet"): MOTION,
    ("emo", "unet"): rf"{MOTION}|.*\.(audio_attn|norm_audio)\..*",
    ("idm_vton", "unet"): rf"{IMAGE_PROMPT}|add_embedding\..*",
    ("parts2whole", "unet"): IMAGE_PROMPT,
    ("flashface", "unet"): r".*\.attn1\.reference\.to_out\.0\.(weight|bias)",
    ("diffportrait3d", "controlnet"): CONTROL,
    ("magic_animate", "controlnet"): CONTROL,
    ("magicpose", "controlnet"): CONTROL,
    ("stable_garment", "controlnet"): CONTROL,
})  # fmt: skip
"""What of networks that grow from shipped ones is new: regular expressions of parameters."""

HEAD = r"conv_norm_out\..*|conv_out\..*"
CUT = (
    rf"{HEAD}|up_blocks\.3\..*|up_blocks\.2\.upsamplers\..*|"
    r"up_blocks\.2\.attentions\.1\.(proj_out|transformer_blocks\.0\.(attn1|attn2|norm2|norm3|ff))\..*"
)
LEFT: Mapping[tuple[str, str], str] = MappingProxyType({
    **{key: rf"up_blocks\..*|{HEAD}" for key in NEW if key[1] == "controlnet"},
    **{(system, "reference_unet"): HEAD for system in
       ("animate_anyone", "aniportrait", "diffportrait3d", "hallo", "magicpose")},
    **{(system, "reference_unet"): CUT for system in ("magic_animate", "parts2whole", "stable_garment")},
    ("emo", "reference_unet"): rf".*\.(attn2|norm2)\..*|{HEAD}",
})  # fmt: skip
"""What of the shipped network has no place: a reference net's end, a ControlNet's other half, EMO's words."""

TASKS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "idm_vton": ("tryon",),
    "animate_anyone": ("animate",),
    "hallo": ("portrait", "talk"),
    "flashface": ("portrait/reference_unet", "face"),
    "diffportrait3d": ("portrait", "turn"),
    "parts2whole": ("compose",),
})  # fmt: skip
"""System to the folders of its shipped weights, each upon the one before; of some a single component is taken."""


UPON_HEADS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    **{system: tasks[:-1] for system, tasks in TASKS.items() if len(tasks) > 1},
    "aniportrait": ("portrait",),
    "emo": ("portrait/reference_unet", "portrait/unet"),
})  # fmt: skip
"""System to what it takes of the weights that have learned heads, where it begins with those."""

TURNED: Mapping[tuple[str, str], Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = MappingProxyType({
    ("emo", "unet"): with_reference_attention,
    ("flashface", "unet"): with_second_attention,
})  # fmt: skip
"""How weights of another form of link become those of a system's network."""

CHOICES: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    "emo": {"reference_feature": "norm1"},  # what the shipped self-attentions read
})  # fmt: skip
"""Arguments of a pipeline beside its parts, where the shipped weights need others than the default."""


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """The networks that everything grows from."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    unet: UNet2DConditionModel
    reference_unet: UNet2DConditionModel
    pose_guider: PoseGuider
    image_encoder: CLIPVisionModelWithProjection


def start_pipeline(system: str, *, folder: Path = WEIGHTS, seed: int = 0, upon: Sequence[str] = ()) -> Any:
    """A system's pipeline before any training of its own.

    Args:
        system: Registry name of a trainable system.
        folder: Of the shipped weights.
        seed: Of what is new.
        upon: Trained weights in the folder, such as `portrait`, or of one component `portrait/reference_unet`; each
            replaces what is of the same name.

    Raises:
        FileNotFoundError: If the folder has no weights, or none of a name.
        ValueError: If there is no such system.
    """
    pipeline = recipe_of(system).pipeline
    missing = [task for task in upon if not (folder / task).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"no built-in weights {missing[0]!r} are shipped ({folder / missing[0]} is not there); train "
            f"{system} with --from builtin, or give released files."
        )
    net = load("referencenet", folder=folder)
    shipped = Shipped(
        vae=net.vae, text_encoder=net.text_encoder, tokenizer=net.tokenizer, scheduler=net.scheduler,
        unet=net.unet, reference_unet=net.reference_unet, pose_guider=net.pose_guider,
        image_encoder=load_image_encoder(folder=folder),
    )  # fmt: skip
    config = _config(system, shipped)
    parts: dict[str, Any] = {}
    for name in components_of(pipeline):
        parts[name] = _part(pipeline, system, name, shipped, config, zlib.crc32(f"{seed}/{name}".encode()))
    for module in (part for part in parts.values() if isinstance(part, nn.Module)):
        module.eval().requires_grad_(False)
    pipe = pipeline(**parts, **CHOICES.get(system, {}))
    for task in upon:
        for path in sorted((folder / task).rglob("model.safetensors")):
            if hasattr(pipe, path.parent.name):  # another system of the same weights may have more parts
                _take(system, getattr(pipe, path.parent.name), path, own=task == _tasks(system)[-1])
    pipe.spec = drawn_spec(system)
    return pipe


def load_system(system: str, *, folder: Path = WEIGHTS) -> Any:
    """A system's pipeline with the shipped weights of its own and their defaults, for drawn figures of 64 pixels.

    Args:
        system: Registry name.
        folder: Of the shipped weights.

    Raises:
        FileNotFoundError: If the system's weights are not shipped.
        ValueError: If there is no such system.
    """
    return start_pipeline(system, folder=folder, upon=_tasks(system))


def is_shipped(system: str, *, folder: Path = WEIGHTS) -> bool:
    """Whether `load_system` has weights of a system."""
    tasks = TASKS.get(system, ())
    return bool(tasks) and all((folder / task).is_dir() for task in tasks)


def grown(system: str, name: str, network: nn.Module, shipped: Shipped) -> Graft:
    """Fill one network of a system from the shipped one that it grows from; what is new and what is left is checked.

    Args:
        system: Registry name.
        name: Of the component.
        network: As the published set builds it.
        shipped: The shipped networks.

    Raises:
        RuntimeError: If something else stays new, or has no place, than is expected.
    """
    source = shipped.reference_unet if name == "reference_unet" else shipped.unet
    weights: Mapping[str, Tensor] = source.state_dict()
    turned = TURNED.get((system, name), dict[str, Tensor])
    found = graft(network, turned(weights))
    for told, given, expected in (("new", found.new, NEW), ("left", found.left, LEFT)):
        pattern = expected.get((system, name), "(?!)")
        strange = [key for key in given if not re.fullmatch(pattern, key)]
        if strange:
            raise RuntimeError(f"{system}'s {name} has {strange[0]} and {len(strange) - 1} more {told} by surprise.")
    return found


def _config(system: str, shipped: Shipped) -> Mapping[str, Any]:
    """The configuration that the system's published set builds its networks from, at the shipped widths."""
    unet = {name: value for name, value in shipped.unet.config.items() if not name.startswith("_")}
    if system == "idm_vton":
        return toys.idm_vton_config(unet)
    if system == "flashface":
        return {"unet": unet}
    unet["conditioning_embedding_out_channels"] = toys.HINTS
    return {"unet": unet} if "unet" in recipe_of(system).pipeline.published.base_config else unet


def _part(pipeline: Any, system: str, name: str, shipped: Shipped, config: Mapping[str, Any], seed: int) -> Any:
    """One component: shipped, or new and grown from what is shipped."""
    stock = STOCK.get(name)
    if stock is not None:
        return stock(shipped)
    if name == "pose_guider" and (system, name) not in toys.PARTS:
        return shipped.pose_guider
    build = pipeline.published.build
    make = toys.PARTS.get((system, name), lambda: build[name](config))
    network = toys.seeded(make, seed)
    if name in ("unet", "reference_unet", "controlnet"):
        grown(system, name, network, shipped)
    return network


STOCK: Mapping[str, Callable[[Shipped], Any]] = MappingProxyType({
    "vae": lambda shipped: shipped.vae,
    "text_encoder": lambda shipped: shipped.text_encoder,
    "tokenizer": lambda shipped: shipped.tokenizer,
    "scheduler": lambda shipped: shipped.scheduler,
    "image_encoder": lambda shipped: shipped.image_encoder,
    "image_processor": lambda _: toys.make_image_processor(),
    "feature_extractor": lambda _: toys.make_image_processor(),
    "text_encoder_2": lambda shipped: toys.second_text_encoder(shipped.text_encoder),
    "tokenizer_2": lambda shipped: shipped.tokenizer,
})  # fmt: skip
"""Parts of diffusers and transformers by the component's name."""


def _tasks(system: str) -> tuple[str, ...]:
    """The folders of a system's weights, the last one of its own; also of a system that ships none."""
    return TASKS.get(system, (system,))


def _take(system: str, network: nn.Module, path: Path, *, own: bool) -> None:
    """Load trained parameters of a network, which may be some of them; those of other systems are turned."""
    key = system, path.parent.name
    left = LEFT.get(key, "(?!)")
    weights = {name: value for name, value in unpacked(read_state(path)).items() if not re.fullmatch(left, name)}
    turned = dict[str, Tensor] if own else TURNED.get(key, dict[str, Tensor])
    missing = network.load_state_dict(turned(weights), strict=False)
    if missing.unexpected_keys:
        raise RuntimeError(f"{path} has {missing.unexpected_keys[0]}, which {type(network).__name__} has not.")
