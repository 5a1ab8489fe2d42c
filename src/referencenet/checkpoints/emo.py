"""EMO's networks from a starting point: no weights were published, so they begin from other models' and from noise.

The reference net is Stable Diffusion 1.5's UNet without cross-attention. The denoiser is the same UNet, in which
attention to the reference takes queries and output from the cross-attention, and keys and values from the
self-attention of the same block: these are made for image tokens of this width. Temporal layers begin as AnimateDiff's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from referencenet.checkpoints.files import check_finite, read_state
from referencenet.checkpoints.keymap import CheckpointError
from referencenet.checkpoints.library import read_library_part
from referencenet.checkpoints.motion_keys import MOTION, MOTION_KEYS, check_position_tables
from referencenet.checkpoints.published import Part, PublishedFile, PublishedSet, find_files
from referencenet.checkpoints.start import draw
from referencenet.networks.layout import SD15_UNET, TINY_SD15, film_config, picture_config
from referencenet.networks.neighbourhood import NeighbourTokens, SpeedProjection
from referencenet.networks.portrait_unet import PortraitReferenceUNet, PortraitUNet
from referencenet.networks.pose_guider import PoseGuider
from referencenet.telling import some

NEW = r".*\.(audio_attn|norm_audio|speed_attn|norm_speed)\..*"
"""What of the denoiser neither Stable Diffusion nor AnimateDiff has."""

WORDS = r".*\.transformer_blocks\.\d+\.(attn2|norm2)\..*"
"""What of Stable Diffusion's UNet the reference net does not have."""


def width_of(config: Mapping[str, Any]) -> int:
    """Channels of sound's and speed's tokens: as wide as the base's words."""
    return config["cross_attention_dim"]


def build_denoiser(config: Mapping[str, Any]) -> PortraitUNet:
    """The denoiser."""
    return PortraitUNet(width_of(config), width_of(config), **film_config(config))


def build_reference(config: Mapping[str, Any]) -> PortraitReferenceUNet:
    """The reference net."""
    return PortraitReferenceUNet(**picture_config(config))


def build_locator(config: Mapping[str, Any], target: str = "latent") -> PoseGuider:
    """The face locator, whose output begins at zero; `target` is "latent" or "conv_in"."""
    first = config["block_out_channels"][0]
    widths = (16, 32, 64, 128) if first >= 32 else (4, 4, 8, 8)
    return PoseGuider(1, config["in_channels"] if target == "latent" else first, widths)


def build_audio(config: Mapping[str, Any]) -> NeighbourTokens:
    """From five frames of wav2vec2's twelve layers."""
    small = {} if width_of(config) >= 64 else {"layers": 2, "channels": 4}
    return NeighbourTokens(cross_attention_dim=width_of(config), **small)


def build_speed(config: Mapping[str, Any], centres: Sequence[float] | None = None,
                radii: Sequence[float] | None = None) -> SpeedProjection:  # fmt: skip
    """From five frames' speed."""
    small = {} if width_of(config) >= 64 else {"hidden_dim": 8}
    return SpeedProjection(centres, radii, channels=width_of(config), **small)


PUBLISHED = PublishedSet(
    name="emo.start",
    source="huggingface.co/guoyww/animatediff (mm_sd_v15_v2.ckpt); EMO itself was never published",
    licence="that of AnimateDiff's motion modules, Apache-2.0 (unverified), and of the base, CreativeML OpenRAIL-M",
    paper="2402.17485",
    notice="has no weights: its authors published neither code nor weights. Train it and give the folder with "
    "--checkpoint; before that it draws no one. A starting point is made of:",
    files=(
        PublishedFile(
            path="mm_sd_v15_v2.ckpt",
            component="unet",
            keymap=MOTION_KEYS,
            share=rf"(?!{NEW}){MOTION}",
            checks=(check_position_tables,),
        ),
    ),
    build={
        "reference_unet": build_reference,
        "unet": build_denoiser,
        "face_locator": build_locator,
        "audio_projection": build_audio,
        "speed_projection": build_speed,
    },
    base_config=SD15_UNET,
    tiny_config=TINY_SD15 | {"block_out_channels": (8, 16)},
    further={
        "vae": Part(
            kind=AutoencoderKL, folder="sd-vae-ft-mse", in_base=True,
            source="huggingface.co/stabilityai/sd-vae-ft-mse",
        ),
    },
)  # fmt: skip
"""What a starting point is made of."""


def start_denoiser(unet: PortraitUNet, spatial: Mapping[str, Tensor], motion: Mapping[str, Tensor]) -> set[str]:
    """Fill a new denoiser.

    Args:
        unet: As `build_denoiser` makes it.
        spatial: State dict of Stable Diffusion's UNet.
        motion: Of AnimateDiff's motion modules, under our names.

    Returns:
        What stays as it was built: the new layers.

    Raises:
        CheckpointError: If anything else stays so, or a tensor has no place.
    """
    state = {key: x for key, x in spatial.items() if not re.fullmatch(r".*\.attn2\.to_[kv]\.weight", key)}
    for key, x in spatial.items():
        if re.fullmatch(r".*\.attn1\.to_[kv]\.weight", key):
            state[key.replace(".attn1.", ".attn2.")] = x.clone()
    return _filled(unet, {**state, **motion}, NEW)


def start_reference(unet: PortraitReferenceUNet, spatial: Mapping[str, Tensor]) -> set[str]:
    """Fill a new reference net with Stable Diffusion's UNet, without its cross-attention and its head; nothing stays.

    Args:
        unet: As `build_reference` makes it.
        spatial: State dict of Stable Diffusion's UNet.

    Raises:
        CheckpointError: If a tensor is missing or has no place.
    """
    left_out = rf"{WORDS}|conv_norm_out\..*|conv_out\..*"
    return _filled(unet, {key: x for key, x in spatial.items() if not re.fullmatch(left_out, key)}, "(?!)")


def read_start(
    files: str | Path | Iterable[str | Path], base: str | Path, *, face_locator_target: str = "latent",
    centres: Sequence[float] | None = None, radii: Sequence[float] | None = None, seed: int = 0,
) -> dict[str, nn.Module]:  # fmt: skip
    """The five networks at their starting point.

    Args:
        files: AnimateDiff's file, or the folder that holds it.
        base: Folder or hub name of Stable Diffusion 1.5.
        face_locator_target: What the face locator's features are added to: "latent" or "conv_in".
        centres: Of the buckets of head speed, in degrees a frame; None: ours.
        radii: Likewise.
        seed: Of the new layers' numbers.

    Raises:
        FileNotFoundError: If a file is missing.
        CheckpointError: If a file does not fit.
    """
    path = find_files(PUBLISHED, files)[PUBLISHED.files[0].path]
    raw = read_state(path)
    check_position_tables(raw, str(path))
    motion = MOTION_KEYS.convert(raw)
    check_finite(motion, str(path))
    config = UNet2DConditionModel.load_config(str(base), subfolder="unet")
    spatial = read_library_part(UNet2DConditionModel, base, subfolder="unet").state_dict()
    with torch.random.fork_rng(devices=[]):  # what constructors draw before the seed decides
        unet, reference = build_denoiser(config), build_reference(config)
        found: dict[str, nn.Module] = {
            "face_locator": build_locator(config, face_locator_target),
            "audio_projection": build_audio(config),
            "speed_projection": build_speed(config, centres, radii),
        }
    new = start_denoiser(unet, spatial, motion)
    start_reference(reference, spatial)
    generator = torch.Generator().manual_seed(seed)
    for network, keys in ((unet, new), *((part, set(part.state_dict())) for part in found.values())):
        draw(network, keys, generator)
    return {name: part.eval() for name, part in {"unet": unet, "reference_unet": reference, **found}.items()}


def _filled(network: nn.Module, state: Mapping[str, Tensor], new: str) -> set[str]:
    """Load what there is; what is missing must be new."""
    own = network.state_dict()
    misshapen = [key for key, x in state.items() if key in own and own[key].shape != x.shape]
    if misshapen:
        raise CheckpointError(f"{len(misshapen)} tensors are of another shape: {some(misshapen)}; give the base's own.")
    missing, extra = network.load_state_dict(state, strict=False)
    unset = [key for key in missing if not re.fullmatch(new, key)]
    if unset or extra:
        raise CheckpointError(
            f"{len(unset)} tensors would be left unset: {some(unset)}; {len(extra)} have no place: {some(extra)}. Give "
            "Stable Diffusion 1.5 as base, and AnimateDiff's motion modules for it, with a middle block's (v2)."
        )
    return set(missing)
