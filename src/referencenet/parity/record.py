"""What runs of golden cases give: outputs by name, what modules give inside, the shapes that cases store.

Letters: b films, c channels, f frames, (h, w) latents.
"""

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


def fold(clip: Tensor) -> Tensor:
    """(b, c, f, h, w) to (b f, c, h, w)."""
    return clip.transpose(1, 2).flatten(0, 1)


def unfold(frames: Tensor, num_frames: int) -> Tensor:
    """(b f, c, h, w) to (b, c, f, h, w)."""
    return frames.unflatten(0, (-1, num_frames)).transpose(1, 2)


def cut(case: Case, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs of which the case may store less than all: the first entries along every axis."""

    def first(name: str, value: Tensor) -> Tensor:
        expected = case.expected.get(name)
        if expected is None or expected.ndim != value.ndim:
            return value
        return value[tuple(slice(size) for size in expected.shape)]

    return {name: first(name, value) for name, value in outputs.items()}


@contextmanager
def each_output(network: nn.Module, names: Mapping[str, str], kept: dict[str, Tensor]) -> Generator[None]:
    """Keep what the named modules last gave, under the names given for them; of several results the first."""

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            kept[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [network.get_submodule(path).register_forward_hook(keep(name)) for path, name in names.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def observed(
    network: nn.Module, names: Mapping[str, str], *inputs: Any, **options: Any
) -> tuple[Any, dict[str, Tensor]]:
    """What a network gives for its inputs, and what the named modules in it gave, as `each_output` keeps it."""
    kept: dict[str, Tensor] = {}
    with each_output(network, names, kept):
        result = network(*inputs, **options)
    return result, kept


# --- for systems that are not yet told by a table; goes with the last of them ---


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


def by_frame(tokens: Tensor, batch: int, positions: int) -> Tensor:
    """(b h w, f, c) to (b f, h w, c)."""
    return tokens.unflatten(0, (batch, positions)).transpose(1, 2).flatten(0, 1)
