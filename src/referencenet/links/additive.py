"""The former name of `second.py`, kept for one release."""

from referencenet.links.renamed import renamed
from referencenet.links.second import AdditiveAttention, Second, second_sites

__all__ = ["AdditiveAttention"]

__getattr__ = renamed(__name__, {"Additive": Second, "additive_sites": second_sites})
