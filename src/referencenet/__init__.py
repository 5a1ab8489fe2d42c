"""Reference control for diffusion models: write, bank, link, read."""

from referencenet.version import __version__

__all__ = ["__version__"]
