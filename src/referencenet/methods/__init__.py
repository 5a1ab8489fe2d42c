"""One file per published system."""

from referencenet.methods.reference_only import Reference, reference, share

__all__ = ["Reference", "reference", "share"]
