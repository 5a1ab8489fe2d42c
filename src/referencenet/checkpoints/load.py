"""Filling a network from a published state dict, strictly."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from referencenet.checkpoints.keymap import CheckpointError, KeyMap, some


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
        CheckpointError: If keys are missing, unknown or of another shape; the network is then as before.
    """
    converted = keymap.convert(state)
    own = network.state_dict(keep_vars=True)
    unknown, missing = set(converted) - set(own), set(own) - set(converted)
    misshapen = [
        f"{name} is {tuple(converted[name].shape)}, expected {tuple(own[name].shape)}"
        for name in sorted(set(own) & set(converted))
        if converted[name].shape != own[name].shape
    ]
    problems: list[str] = []
    if unknown:
        problems.append(f"{len(unknown)} keys that {type(network).__name__} does not have: {some(unknown)}")
    if missing and not partial:
        problems.append(f"{len(missing)} keys missing: {some(missing)}")
    if misshapen:
        problems.append(f"{len(misshapen)} of another shape: {some(misshapen)}")
    if problems:
        raise CheckpointError(
            f"{source} does not fit: {'; '.join(problems)}. Check that the file belongs to this system and is whole; "
            "nothing was loaded."
        )
    is_meta = any(tensor.is_meta for tensor in own.values())
    network.load_state_dict(converted, strict=False, assign=is_meta)  # completeness was checked above
    return set(converted)
