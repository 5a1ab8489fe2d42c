"""What runners of golden cases share: what a run produced, what modules give, schedulers, pipelines of some parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import diffusers
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor, nn

from referencenet.checkpoints.motion_keys import MOTION_KEYS
from referencenet.networks.motion import normalise_frames
from referencenet.parity.cases import Case, CaseError, listed


class Produced(NamedTuple):
    """What a runner hands back: outputs by name, and by name a note or the reason why an output is left out."""

    outputs: Mapping[str, Tensor]
    notes: Mapping[str, str]


Runner = Callable[[Case], Produced]


def component_config(case: Case, name: str) -> Mapping[str, Any]:
    """A component's configuration."""
    if name not in case.components:
        raise CaseError(f"{case.id}: components are {listed(case.components)}; the kind {case.kind!r} needs {name}")
    return case.components[name]["config"]


def build_scheduler(case: Case) -> Any:
    """The case's scheduler."""
    entry = case.scalar("scheduler")
    kind = getattr(diffusers, entry["class"], None)
    if kind is None:
        raise CaseError(f"{case.id}: the scheduler is {entry['class']!r}, which diffusers does not have")
    return kind(**entry["config"])


def build_motion_module(case: Case, *, heads: int, positions: int) -> AnimateDiffTransformer3D:
    """The case's component `motion_module`, normalising per frame, with its weights."""
    config = component_config(case, "motion_module")
    channels = config["in_channels"]
    module = AnimateDiffTransformer3D(
        num_attention_heads=heads,
        attention_head_dim=channels // heads,
        in_channels=channels,
        num_layers=config.get("num_transformer_block", 1),
        positional_embeddings="sinusoidal",
        num_positional_embeddings=positions,
    ).eval()
    normalise_frames(module)
    case.load(module, "motion_module", MOTION_KEYS)
    return module


def assemble(kind: type[Any], **parts: Any) -> Any:
    """A pipeline of some of its parts."""
    names = inspect.signature(kind.__init__).parameters.keys() - {"self"}
    pipe = kind(**{name: parts.get(name) for name in names})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def fold(clip: Tensor) -> Tensor:
    """(b, c, f, h, w) to (b f, c, h, w)."""
    return clip.transpose(1, 2).flatten(0, 1)


def unfold(frames: Tensor, num_frames: int) -> Tensor:
    """(b f, c, h, w) to (b, c, f, h, w)."""
    return frames.unflatten(0, (-1, num_frames)).transpose(1, 2)


def by_frame(tokens: Tensor, batch: int, positions: int) -> Tensor:
    """(b h w, f, c) to (b f, h w, c)."""
    return tokens.unflatten(0, (batch, positions)).transpose(1, 2).flatten(0, 1)


@contextmanager
def each_output(network: nn.Module, names: Mapping[str, str], kept: dict[str, Tensor]) -> Generator[None]:
    """Keep what the named modules give, under the names given for them."""

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            kept[name] = output

        return hook

    handles = [network.get_submodule(path).register_forward_hook(keep(name)) for path, name in names.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
