"""A system as its golden cases name it: which component is which network of ours, and the pipeline made of them.

Networks are built and filled by the rows that published files are read with. A configuration that has no counterpart
is an error: a case must not pass by being half read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
from diffusers import SchedulerMixin
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.motion_keys import MOTION_KEYS
from referencenet.networks.layout import film_config
from referencenet.networks.motion import SpatioTemporalUNet, normalise_frames
from referencenet.networks.pose_guider import PoseGuider
from referencenet.parity.cases import Case, CaseError, listed


@dataclass(frozen=True)
class Network:
    """A component of the cases.

    Attributes:
        component: What the cases call it.
        config: From the case and the component's configuration there to the one that `build` takes.
        build: Makes the network; None: as the published set does.
        keymap: Of the component's published keys; None: that of its published file.
    """

    component: str
    config: Callable[[Case, Mapping[str, Any]], Mapping[str, Any]] = lambda _case, config: config
    build: Callable[[Any], Any] | None = None
    keymap: Callable[[Case], KeyMap] | None = None


@dataclass(frozen=True)
class System:
    """A system.

    Attributes:
        pipeline: Its class, whose published set builds and fills networks.
        networks: Our component to what it is in the cases.
    """

    pipeline: type[Any]
    networks: Mapping[str, Network]

    def network(self, case: Case, name: str) -> Any:
        """One of our networks with its weights.

        Raises:
            CaseError: If the case lacks it, or its configuration, keys or shapes do not fit.
        """
        row, published = self.networks[name], self.pipeline.published
        config = config_of(case, row.component)
        with refused(case, row.component):
            network: Any = (row.build or published.build[name])(row.config(case, config)).eval()
        files = published.files_of(name)
        keymap = row.keymap(case) if row.keymap else files[0].keymap if files else KeyMap()
        case.load(network, row.component, keymap)
        return network

    def pipe(self, case: Case, *names: str, scheduler: Any = None, **settings: Any) -> Any:
        """The pipeline of a case.

        Args:
            case: Says what its networks are.
            names: Those that it has; none: all.
            scheduler: None: the system's own.
            settings: Further ones.
        """
        parts = {name: self.network(case, name) for name in names or self.networks}
        parts["scheduler"] = scheduler or self.pipeline.spec.scheduler()
        return assembled(self.pipeline, **parts, **settings)


def assembled(pipeline: type[Any], **given: Any) -> Any:
    """A pipeline of some of its parts."""
    known = inspect.signature(pipeline).parameters
    absent = {name: None for name, p in known.items() if p.default is p.empty and name not in given}
    pipe = pipeline(**absent, **given)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def config_of(case: Case, component: str) -> Mapping[str, Any]:
    """A component's configuration."""
    if component not in case.components:
        raise CaseError(
            f"{case.id}: components are {listed(case.components)}; the kind {case.kind!r} needs {component}"
        )
    return case.components[component]["config"]


@contextmanager
def refused(case: Case, what: str) -> Generator[None]:
    """Inside, what a class refuses of the case's configuration is a CaseError."""
    try:
        yield
    except CaseError:
        raise
    except (TypeError, ValueError, NotImplementedError, KeyError) as error:
        raise CaseError(f"{case.id}: {what} refuses the configuration in case.json: {error}") from error


def scheduler_of(case: Case, kind: Any = None) -> Any:
    """The case's scheduler.

    Args:
        case: Has it among its scalars or beside them: its class, and its configuration apart or in the same place.
        kind: In the place of its class, one that inherits from it.

    Raises:
        CaseError: If the case has none, or diffusers has no such scheduler.
    """
    entry = case.scalars.get("scheduler", case.content.get("scheduler"))
    if not isinstance(entry, dict) or "class" not in entry:
        raise CaseError(f"{case.id}: scheduler is {entry!r}; the kind {case.kind!r} needs one with class and config")
    found = getattr(diffusers, str(entry["class"]), None)
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise CaseError(f"{case.id}: {entry['class']!r} is not a scheduler of diffusers {diffusers.__version__}")
    if kind is not None and not issubclass(kind, found):
        known = " or ".join(each.__name__ for each in kind.__mro__ if hasattr(diffusers, each.__name__))
        raise CaseError(f"{case.id}: the scheduler is {entry['class']!r}; the kind {case.kind!r} takes {known}")
    config = entry.get("config", {name: value for name, value in entry.items() if name not in ("class", "eta")})
    with refused(case, entry["class"]):
        return (kind or found)(**config)


def motion_settings(case: Case, config: Mapping[str, Any]) -> dict[str, int]:
    """Heads and positions of motion modules, from their published configuration."""
    kinds = tuple(config.get("attention_block_types", ("Temporal_Self", "Temporal_Self")))
    if kinds != ("Temporal_Self", "Temporal_Self") or config.get("temporal_attention_dim_div", 1) != 1:
        raise CaseError(f"{case.id}: motion modules have two Temporal_Self attentions of full width; got {kinds}")
    if not config.get("temporal_position_encoding", False):
        raise CaseError(f"{case.id}: motion modules have positions; temporal_position_encoding is off")
    positions = config.get("temporal_position_encoding_max_len", 24)
    return {"motion_heads": config.get("num_attention_heads", 8), "num_positions": positions}


def film_settings(case: Case, config: Mapping[str, Any]) -> dict[str, Any]:
    """A published 3-D UNet's configuration in our terms; its norms are per frame."""
    if not config.get("use_motion_module") or not config.get("use_inflated_groupnorm"):
        raise CaseError(f"{case.id}: the denoiser needs use_motion_module and use_inflated_groupnorm, as released")
    levels = [2**i for i in range(len(config["block_out_channels"]))]
    if sorted(config.get("motion_module_resolutions", levels)) != levels or config.get("motion_module_decoder_only"):
        raise CaseError(f"{case.id}: the denoiser must have motion modules at every level, down and up")
    settings = motion_settings(case, config.get("motion_module_kwargs", {}))
    return film_config(config, motion_in_middle=bool(config.get("motion_module_mid_block")), **settings)


PORTRAIT_FILM: Mapping[str, Network] = {
    "reference_unet": Network("reference_unet"),
    "unet": Network("denoising_unet", config=film_settings, build=lambda config: SpatioTemporalUNet(**config)),
}
"""The UNets of Animate Anyone and AniPortrait."""


def guider(component: str) -> Network:
    """A pose guider, of any widths."""

    def build(config: Mapping[str, Any]) -> PoseGuider:
        return PoseGuider(**{**config, "block_out_channels": tuple(config["block_out_channels"])})

    return Network(component, build=build)


def motion_module(case: Case, *, heads: int | None = None, positions: int | None = None) -> AnimateDiffTransformer3D:
    """The case's component `motion_module`, normalising per frame, with its weights.

    Args:
        case: Has it.
        heads: With `positions`, where its configuration is not as the published 3-D UNets write it.
        positions: With `heads`.
    """
    config = config_of(case, "motion_module")
    channels = config["in_channels"]
    given = {"motion_heads": heads, "num_positions": positions}
    settings: Any = motion_settings(case, config) if heads is None or positions is None else given
    module = AnimateDiffTransformer3D(
        num_attention_heads=settings["motion_heads"],
        attention_head_dim=channels // settings["motion_heads"],
        in_channels=channels,
        num_layers=config.get("num_transformer_block", 1),
        positional_embeddings="sinusoidal",
        num_positional_embeddings=settings["num_positions"],
    ).eval()
    normalise_frames(module)
    case.load(module, "motion_module", MOTION_KEYS)
    return module
