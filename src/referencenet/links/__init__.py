"""The heart: sites, banks and links."""

from referencenet.links.adain import AdaIN
from referencenet.links.added import Added
from referencenet.links.aligned import Aligned
from referencenet.links.attach import attach, write
from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Concat
from referencenet.links.fork import forked
from referencenet.links.instead import Instead, ReferenceAttention
from referencenet.links.kind import Kind
from referencenet.links.link import Link
from referencenet.links.masks import Pyramid
from referencenet.links.reading import ReadBank
from referencenet.links.renamed import renamed
from referencenet.links.rows import RowPlan, Section, plan_rows
from referencenet.links.seats import is_linked
from referencenet.links.second import AdditiveAttention, Second, second_sites
from referencenet.links.series import BankSeries, Schedule
from referencenet.links.shared_norm import SharedNorm
from referencenet.links.sites import Site, adain_sites, attention_sites, norm_sites

__all__ = [
    "AdaIN", "Added", "AdditiveAttention", "Aligned", "BankSeries", "Concat", "Instead", "Kind", "Link", "Pyramid",
    "ReadBank", "ReferenceAttention", "ReferenceBank", "RowPlan", "Schedule", "Second", "Section", "SharedNorm", "Site",
    "adain_sites", "attach", "attention_sites", "forked", "is_linked", "norm_sites", "plan_rows", "second_sites",
    "write",
]  # fmt: skip

__getattr__ = renamed(__name__, {"Additive": Second, "Attention": Concat, "additive_sites": second_sites})
