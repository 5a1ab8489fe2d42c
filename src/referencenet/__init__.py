"""Reference control for diffusion models: write, bank, link, read.

Names are imported when they are first used, so that `refnet --help` need not wait for torch.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from referencenet.methods.registry import METHODS
from referencenet.version import __version__

if TYPE_CHECKING:  # a line for each public name; everybody else goes by `__getattr__`
    from referencenet.bases.load import load_base as load_base
    from referencenet.links.adain import AdaIN as AdaIN
    from referencenet.links.added import Added as Added
    from referencenet.links.attach import attach as attach
    from referencenet.links.attach import write as write
    from referencenet.links.bank import ReferenceBank as ReferenceBank
    from referencenet.links.concat import Concat as Concat
    from referencenet.links.link import Link as Link
    from referencenet.links.series import BankSeries as BankSeries
    from referencenet.links.turns import BusyError as BusyError
    from referencenet.methods.animate_anyone import AnimateAnyonePipeline as AnimateAnyonePipeline
    from referencenet.methods.animate_anyone import FaceReenactmentPipeline as FaceReenactmentPipeline
    from referencenet.methods.aniportrait import AniPortraitPipeline as AniPortraitPipeline
    from referencenet.methods.catvton import CatVTONPipeline as CatVTONPipeline
    from referencenet.methods.diffportrait3d import DiffPortrait3DPipeline as DiffPortrait3DPipeline
    from referencenet.methods.emo import EMOPipeline as EMOPipeline
    from referencenet.methods.flashface import FlashFacePipeline as FlashFacePipeline
    from referencenet.methods.hallo import HalloPipeline as HalloPipeline
    from referencenet.methods.idm_vton import IDMVTONPipeline as IDMVTONPipeline
    from referencenet.methods.magic_animate import MagicAnimatePipeline as MagicAnimatePipeline
    from referencenet.methods.magicpose import MagicPosePipeline as MagicPosePipeline
    from referencenet.methods.parts2whole import Parts2WholePipeline as Parts2WholePipeline
    from referencenet.methods.reference_only import Reference as Reference
    from referencenet.methods.reference_only import reference as reference
    from referencenet.methods.stable_garment import StableGarmentPipeline as StableGarmentPipeline
    from referencenet.methods.stable_garment import StableGarmentTryOnPipeline as StableGarmentTryOnPipeline
    from referencenet.methods.style_aligned import share as share
    from referencenet.methods.systems import load as load
    from referencenet.sampling.replicas import replica as replica
    from referencenet.sampling.style import Style as Style

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent until a program sets logging up

_HOMES = {
    "AdaIN": "links.adain",
    "Added": "links.added",
    "BankSeries": "links.series",
    "BusyError": "links.turns",
    "Concat": "links.concat",
    "FaceReenactmentPipeline": "methods.animate_anyone",
    "Link": "links.link",
    "Reference": "methods.reference_only",
    "ReferenceBank": "links.bank",
    "StableGarmentPipeline": "methods.stable_garment",
    "attach": "links.attach",
    "load": "methods.systems",
    "load_base": "bases.load",
    "Style": "sampling.style",
    "replica": "sampling.replicas",
    "share": "methods.style_aligned",
    "write": "links.attach",
} | {row.public_name: row.home.removeprefix("referencenet.") for row in METHODS.values() if row.public_name}

__all__ = ["__version__", *sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll]


_RENAMED = {"Attention": "links.concat"}
"""Names of the last release that still work, and the file that knows what they are called now."""


def __getattr__(name: str) -> Any:
    """Import a public name from the file that defines it."""
    if name in _RENAMED:
        return getattr(import_module(f"referencenet.{_RENAMED[name]}"), name)
    if name not in _HOMES:
        raise AttributeError(f"module 'referencenet' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")
    return getattr(import_module(f"referencenet.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
