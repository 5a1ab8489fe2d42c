"""Reference control for diffusion models: write, bank, link, read.

Names are imported when they are first used, so that `refnet --help` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from referencenet.version import __version__

if TYPE_CHECKING:
    from referencenet.links.adain import AdaIN
    from referencenet.links.added import Added
    from referencenet.links.attach import Link, attach, write
    from referencenet.links.bank import ReferenceBank
    from referencenet.links.concat import Concat
    from referencenet.methods.animate_anyone import AnimateAnyonePipeline, FaceReenactmentPipeline
    from referencenet.methods.flashface import FlashFacePipeline
    from referencenet.methods.idm_vton import IDMVTONPipeline
    from referencenet.methods.reference_only import Reference, reference, share

__all__ = [
    "AdaIN",
    "Added",
    "AnimateAnyonePipeline",
    "Concat",
    "FaceReenactmentPipeline",
    "FlashFacePipeline",
    "IDMVTONPipeline",
    "Link",
    "Reference",
    "ReferenceBank",
    "__version__",
    "attach",
    "reference",
    "share",
    "write",
]

_HOMES = {
    "AdaIN": "links.adain",
    "Added": "links.added",
    "AnimateAnyonePipeline": "methods.animate_anyone",
    "Concat": "links.concat",
    "FaceReenactmentPipeline": "methods.animate_anyone",
    "FlashFacePipeline": "methods.flashface",
    "IDMVTONPipeline": "methods.idm_vton",
    "Link": "links.attach",
    "Reference": "methods.reference_only",
    "ReferenceBank": "links.bank",
    "attach": "links.attach",
    "reference": "methods.reference_only",
    "share": "methods.reference_only",
    "write": "links.attach",
}


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
