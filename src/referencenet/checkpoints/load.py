"""Filling a network from a published state dict, strictly."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from torch import Tensor, nn

from referencenet.checkpoints.keymap import CheckpointError, KeyMap
from referencenet.telling import some

logger = logging.getLogger(__name__)


def load_published(
    network: nn.Module, state: Mapping[str, Tensor], keymap: KeyMap, *, source: str, partial: bool = False
) -> set[str]:
    """Fill a network: every published key goes somewhere or is ignored for a reason, and nothing is left unset.

    Args:
        network: Filled in place; on the meta device its tensors are replaced by the file's.
        state: Published key to tensor.
        keymap: What becomes of every key.
        source: What the state is called in errors, such as the file's name.
        partial: Allow parameters of the network to be absent from this state (another file brings them).

    Returns:
        The network's keys that were filled.

    Raises:
        CheckpointError: If keys are missing, unknown, or of another shape or kind of number; the network is then
            as it was.
    """
    converted = keymap.convert(state)
    own = network.state_dict(keep_vars=True)
    unknown, missing = set(converted) - set(own), set(own) - set(converted)
    misshapen = [
        f"{name} is {tuple(converted[name].shape)}, expected {tuple(own[name].shape)}"
        for name in sorted(set(own) & set(converted))
        if converted[name].shape != own[name].shape
    ]
    unlike = [
        f"{name} is {converted[name].dtype}, expected {own[name].dtype}"
        for name in sorted(set(own) & set(converted))
        if own[name].is_floating_point() and not converted[name].is_floating_point()
    ]
    problems: list[str] = []
    if unknown:
        problems.append(f"{len(unknown)} keys that {type(network).__name__} does not have: {some(unknown)}")
    if missing and not partial:
        problems.append(f"{len(missing)} keys missing: {some(missing)}")
    if misshapen:
        problems.append(f"{len(misshapen)} of another shape: {some(misshapen)}")
    if unlike:
        problems.append(f"{len(unlike)} of another type: {some(unlike)}")
    if problems:
        raise CheckpointError(
            f"{source} does not fit: {'; '.join(problems)}. {_looks_like(state)}Check that the file belongs to this "
            "system and is whole; nothing was loaded."
        )
    for name in converted:  # counts of batches, in a file that was brought to half precision as a whole
        if not own[name].is_floating_point():
            converted[name] = converted[name].to(own[name].dtype)
    is_meta = any(tensor.is_meta for tensor in own.values())
    network.load_state_dict(converted, strict=False, assign=is_meta)  # completeness was checked above
    logger.info("%s: %d tensors into %s", source, len(converted), type(network).__name__)
    return set(converted)


_KINDS = {
    r".*lora_(A|B|up|down|unet|te).*": "a LoRA",
    r"model\.diffusion_model\..*": "a whole Stable Diffusion checkpoint in latent-diffusion layout",
    r"(control_model|pose_control_model)\..*": "a ControlNet in latent-diffusion layout",
    r"controlnet_(down|mid|cond)_.*": "a ControlNet in diffusers' layout",
    r".*motion_modules\..*": "a network with motion modules, or the motion modules alone",
    r"(input|output)_blocks\..*": "a UNet in latent-diffusion layout",
    r"(text_model|cond_stage_model)\..*": "a CLIP text model",
    r"vision_model\..*": "a CLIP vision model",
    r"encoder\.down(_blocks)?\..*": "an autoencoder",
    r"up_blocks\.\d\.(attentions|resnets)\..*": "a UNet in diffusers' layout",
}
"""Pattern of a key to what a file with such a key is, the most telling first."""


def _looks_like(state: Mapping[str, Tensor]) -> str:
    """A sentence on what a state dict is, by its keys; empty where they tell nothing."""
    for pattern, kind in _KINDS.items():
        if any(re.fullmatch(pattern, key) for key in state):
            return f"By its keys it is {kind}. "
    return ""
