"""Reference control for diffusion models: write, bank, link, read."""

from referencenet.links import AdaIN, Attention, Link, ReferenceBank, attach, write
from referencenet.methods.reference_only import Reference, reference, share
from referencenet.version import __version__

__all__ = [
    "AdaIN",
    "Attention",
    "Link",
    "Reference",
    "ReferenceBank",
    "__version__",
    "attach",
    "reference",
    "share",
    "write",
]
