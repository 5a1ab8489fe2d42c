"""The heart: sites, banks and links."""

from referencenet.links.adain import AdaIN
from referencenet.links.additive import Additive, AdditiveAttention, additive_sites
from referencenet.links.attach import Link, ReadBank, attach, is_linked, write
from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Attention
from referencenet.links.fork import forked
from referencenet.links.masks import Pyramid
from referencenet.links.rows import RowPlan, Section, plan_rows
from referencenet.links.sites import Site, adain_sites, attention_sites

__all__ = [
    "AdaIN", "Additive", "AdditiveAttention", "Attention", "Link", "Pyramid", "ReadBank", "ReferenceBank", "RowPlan",
    "Section", "Site", "adain_sites", "additive_sites", "attach", "attention_sites", "forked", "is_linked", "plan_rows",
    "write",
]  # fmt: skip
