"""Attaching links to a UNet, and taking them away again: write, read, and the handle that shows what is linked.

`attach` replaces the attention processors of the chosen sites and hooks the chosen blocks; it undoes both in reverse
when its context ends, whatever happened inside. Between passes nothing of a call stays: tasks live in the sites' slots
only while a pass runs. Letters: r reading rows, b bank rows, n tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import log
from typing import Any

import torch
from diffusers.models.attention_processor import Attention as AttentionModule
from torch import Tensor, nn

from referencenet.links.adain import AdaIN, ReadStatistics, ReferenceStatistics, StatisticsHook, WriteStatistics
from referencenet.links.additive import Additive, additive_sites
from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import (
    Attention,
    Read,
    ReadFirst,
    ReadOnce,
    ReferenceAttnProcessor,
    WriteDone,
    WriteHidden,
    WriteProjected,
    project,
    split_heads,
)
from referencenet.links.kernel import Amount, ReferenceTokens
from referencenet.links.masks import Pyramid
from referencenet.links.rows import RowPlan, plan_rows
from referencenet.links.sites import Site, adain_sites, attention_sites

AnyLink = Attention | Additive | AdaIN

STANDARD_PROCESSORS = (
    "AttnProcessor",
    "AttnProcessor2_0",
    "FusedAttnProcessor2_0",
    "SlicedAttnProcessor",
    "XFormersAttnProcessor",
)
"""Processors that compute plain self-attention, which the links may compute in their place."""


@dataclass(frozen=True, kw_only=True)
class ReadBank:
    """A bank and how it is read.

    Attributes:
        bank: What was written, b rows.
        strength: In [0, 1]: how far outputs move from plain to reading.
        weight: Above 0: how many times the reference counts beside the own tokens and other references.
        readable: Mask of the reference's own pixels; None: all.
        visible: Mask of the result where it is read; None: everywhere.
    """

    bank: ReferenceBank
    strength: float = 1.0
    weight: float = 1.0
    readable: Pyramid | None = None
    visible: Pyramid | None = None


class Link:
    """A UNet with links attached. Made by `attach`; `print` shows its sites."""

    def __init__(self, unet: nn.Module, sites: Sequence[Site]) -> None:
        self.unet = unet
        self.sites = tuple(sorted(sites, key=lambda site: site.order))
        self.processors: dict[str, ReferenceAttnProcessor] = {}
        self.hooks: dict[str, StatisticsHook] = {}

    def write(self, sample: Tensor, timestep: Tensor | float, *, encoder_hidden_states: Tensor | None,
              projected: bool = True, readable: Pyramid | None = None, stop: bool = True,
              **unet_kwargs: Any) -> ReferenceBank:  # fmt: skip
        """Run the UNet over a reference and keep what its sites offer.

        The pass is not checkpointed: what `backward()` recomputes while the UNet reads would read as well.

        Args:
            sample: Reference latents as the UNet takes them, (b, channels, height, width).
            timestep: The UNet's timestep.
            encoder_hidden_states: The context, (b, tokens, channels).
            projected: Keep keys and values (the reader is this UNet) instead of the self-attention's inputs.
            readable: Mask of the reference for AdaIN's statistics.
            stop: End the pass behind the last site. A compiled UNet cannot be left halfway: pass False.
            unet_kwargs: Further arguments of the UNet.

        Returns:
            The bank, b rows.
        """
        context = {"encoder_hidden_states": encoder_hidden_states, **unet_kwargs}
        with _without_checkpointing(self.unet):
            return _write_pass(self, sample, timestep, projected, readable, stop, context)

    @contextmanager
    def reading(self, banks: ReferenceBank | ReadBank | Sequence[ReferenceBank | ReadBank], *,
                weights: Sequence[float] | None = None, plan: RowPlan | None = None,
                once: bool = False) -> Generator[None]:  # fmt: skip
        """Inside, the UNet reads the banks. Under gradient checkpointing keep `backward()` inside as well.

        Args:
            banks: One or several; all with the same number of rows.
            weights: Per row of the reading batch how much it reads: 0 not at all, 1 in full, more goes beyond; None:
                all rows in full. Row i of r reads bank row i * b // r. A UNet that folds frames into its rows counts
                samples here.
            plan: Instead of weights, exactly which row reads which bank row, and which row reads zeros in its place.
            once: A single pass reads the banks, and they are emptied site by site as it goes: memory is free sooner.
                See `can_read_once`.

        Raises:
            KeyError: If a bank lacks sites that this link reads.
            ValueError: If rows do not fit.
        """
        reads = [_as_read(bank) for bank in ([banks] if isinstance(banks, ReferenceBank | ReadBank) else banks)]
        plan = plan or _plan(reads, weights)
        self._check_banks([read.bank for read in reads])
        if self.hooks and any(section.reads_zeros for section in plan.sections):
            raise ValueError(
                "AdaIN cannot read zeros: a variance of zero erases the features; let those rows read nothing."
            )
        _bring(self.unet)
        with _tasks(self):
            for name, processor in self.processors.items():
                if once:
                    processor.slot.task = ReadOnce(partial(_take, self._attention(name), name, reads), plan)
                elif tokens := _offered(self._attention(name), name, reads):
                    processor.slot.task = Read(tokens, plan)
            for name, hook in self.hooks.items():
                hook.task = ReadStatistics([_statistics(name, read) for read in reads], plan)
            yield

    @property
    def can_read_once(self) -> bool:
        """Whether `reading(once=True)` works now: not under autograd, which reads again, nor in compiled code."""
        compiled = any(module._compiled_call_impl is not None for module in self.unet.modules())  # pyright: ignore[reportPrivateUsage]
        return not torch.is_grad_enabled() and not compiled

    @contextmanager
    def sharing(self, *, halves: int, weights: Sequence[float], weight: float = 1.0) -> Generator[None]:
        """Inside, every picture of the batch reads the first picture of its guidance half.

        Args:
            halves: Guidance halves in the batch.
            weights: Per half how much it reads, in [0, 1].
            weight: How many times the first picture counts.
        """
        with _tasks(self):
            for processor in self.processors.values():
                processor.slot.task = ReadFirst(halves, weights, log(weight))
            yield

    def _attention(self, name: str) -> AttentionModule:
        reader = next(site.reader for site in self.sites if site.name == name)
        return self.unet.get_submodule(reader)  # pyright: ignore[reportReturnType] - sites name Attention modules

    def _check_banks(self, banks: Sequence[ReferenceBank]) -> None:
        for bank in banks:
            offered = {*bank.hidden, *bank.projected, *bank.statistics}
            missing = sorted({*self.processors, *self.hooks} - offered)
            if missing:
                raise KeyError(
                    f"the bank has {len(offered)} of the {len(self.sites)} sites read here; missing {_some(missing)}. "
                    "Write it with the same links and weights on a UNet of the same layout."
                )

    def __repr__(self) -> str:
        rows = [("site", "link", "width", "rank")]
        rows += [(site.name, site.kind, str(site.width or ""), f"{site.rank:.3f}") for site in self.sites]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([f"Link on {type(self.unet).__name__}: {len(self.sites)} sites", *lines])


@contextmanager
def attach(unet: nn.Module, links: Sequence[AnyLink] = (Attention(),)) -> Generator[Link]:
    """Link a UNet for the length of a context.

    Args:
        unet: A diffusers UNet2DConditionModel or UNetMotionModel (not a compiled wrapper of one).
        links: At most one of each kind.

    Raises:
        TypeError: If `unet` has no sites or its attention is of a kind the links cannot replace.
        ValueError: If it is linked already, or no site is chosen.
    """
    sites = choose_sites(unet, links)
    _check_unlinked(unet)
    attentions: dict[str, AttentionModule] = {}
    for site in sites:
        if site.kind == "attention":
            attentions[site.name] = _check_replaceable(site.reader, unet.get_submodule(site.reader))
    link = Link(unet, sites)
    with ExitStack() as undo:
        for name, module in attentions.items():
            link.processors[name] = _replace_processor(module, undo)
        for site in sites:
            if site.kind == "adain":
                hook = StatisticsHook()
                undo.callback(unet.get_submodule(site.name).register_forward_hook(hook).remove)
                link.hooks[site.name] = hook
        yield link


def write(unet: nn.Module, latents: Tensor, *, timestep: Tensor | float = 0, encoder_hidden_states: Tensor | None,
          links: Sequence[AnyLink] = (Attention(),), **unet_kwargs: Any) -> ReferenceBank:  # fmt: skip
    """Write a reference with a UNet of its own, as the trained systems do: their readers project the bank themselves.

    Args:
        unet: The reference UNet.
        latents: (b, channels, height, width).
        timestep: 0 in most systems.
        encoder_hidden_states: The context, (b, tokens, channels).
        links: Which sites are written.
        unet_kwargs: Further arguments of the UNet.

    Returns:
        A bank of self-attention inputs, b rows; gradients flow through it.
    """
    with attach(unet, links) as link:
        stop = not getattr(unet, "is_gradient_checkpointing", False)  # recomputing a block needs all of it
        context = {"encoder_hidden_states": encoder_hidden_states, **unet_kwargs}
        return _write_pass(link, latents, timestep, projected=False, readable=None, stop=stop, unet_kwargs=context)


def choose_sites(unet: nn.Module, links: Sequence[AnyLink]) -> list[Site]:
    """The sites of a UNet that take part.

    Raises:
        TypeError: If the module has no sites at all, or a link is of no known kind.
        ValueError: If there are no links, two of a kind, a weight outside [0, 1], or the weights choose no site.
    """
    if not isinstance(unet, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance] - users err here
        raise TypeError(f"links attach to a diffusers UNet, but were given a {type(unet).__name__}.")
    if not links:
        raise ValueError("no link was given; expected at least one of Attention() and AdaIN().")
    if len({isinstance(link, AdaIN) for link in links}) < len(links):
        raise ValueError(
            f"two links of one kind were given: {list(links)}; give one on attention and one AdaIN at most."
        )
    chosen: list[Site] = []
    for link in links:
        if not isinstance(link, Attention | Additive | AdaIN):  # pyright: ignore[reportUnnecessaryIsInstance] - users err here
            raise TypeError(f"{link!r} is no link; expected Attention(), Additive() or AdaIN().")
        chosen += _sites_of(unet, link)
    if not chosen:
        raise ValueError(f"the weights of {list(links)} choose no layer; raise one above 0, or do not link at all.")
    return chosen


def _sites_of(unet: nn.Module, link: AnyLink) -> list[Site]:
    """The sites that one link chooses."""
    if isinstance(link, Additive):
        return additive_sites(unet)
    if not 0.0 <= link.weight <= 1.0:
        raise ValueError(f"the weight of {link!r} must lie in [0, 1]: 0 chooses no layer, 1 all.")
    if isinstance(link, AdaIN):
        chosen = sites = adain_sites(unet)
    else:
        sites = attention_sites(unet)
        chosen = [site for site in sites if site.stage in link.stages]
    if not sites:
        raise TypeError(
            f"{type(unet).__name__} has no place where a reference could be read; give a diffusers UNet with spatial "
            "transformer blocks (Stable Diffusion 1, 2, XL or AnimateDiff)."
        )
    return [site for site in chosen if link.chooses(site.rank)]


def is_linked(unet: nn.Module) -> bool:
    """Whether a link is attached to this UNet now."""
    for module in unet.modules():
        if isinstance(vars(module).get("processor"), ReferenceAttnProcessor):
            return True
        if any(isinstance(hook, StatisticsHook) for hook in module._forward_hooks.values()):  # pyright: ignore[reportPrivateUsage]
            return True
    return False


def _check_unlinked(unet: nn.Module) -> None:
    if is_linked(unet):
        raise ValueError(
            "this UNet is linked already; leave the first `with` block before the second, or give all references to "
            "one."
        )


def _check_replaceable(name: str, module: nn.Module) -> AttentionModule:
    """The self-attention of a site, if a link may compute it instead of its processor."""
    if not isinstance(module, AttentionModule):
        raise TypeError(f"{name} is a {type(module).__name__}; expected diffusers' Attention module.")
    processor = type(module.processor).__name__
    special = [
        part for part in ("spatial_norm", "group_norm", "norm_q", "norm_k") if getattr(module, part, None) is not None
    ]
    if processor not in STANDARD_PROCESSORS or special or module.residual_connection:
        raise TypeError(
            f"the self-attention {name} is computed by {processor}{f' with {special}' if special else ''}, "
            f"which a link would replace; expected one of {list(STANDARD_PROCESSORS)}. Call "
            "unet.set_default_attn_processor() first."
        )
    return module


def _replace_processor(module: AttentionModule, undo: ExitStack) -> ReferenceAttnProcessor:
    """Put our processor in place; `undo` puts the original back unless somebody else has replaced ours meanwhile."""
    original = module.processor
    replacement = ReferenceAttnProcessor(original)

    def restore() -> None:
        if module.processor is replacement:
            module.set_processor(original)

    undo.callback(restore)  # before the module is touched: an interrupt may come between any two lines
    module.set_processor(replacement)  # pyright: ignore[reportArgumentType] - diffusers lists its own classes
    return replacement


def _write_pass(link: Link, sample: Tensor, timestep: Tensor | float, projected: bool, readable: Pyramid | None,
                stop: bool, unet_kwargs: dict[str, Any]) -> ReferenceBank:  # fmt: skip
    """The write pass as `Link.write` describes it."""
    bank = ReferenceBank()
    last = link.sites[-1].name if stop else None
    with _tasks(link):
        for name, processor in link.processors.items():
            if projected:
                processor.slot.task = WriteProjected(name, bank, name == last)
            else:
                processor.slot.task = WriteHidden(name, bank, processor.original, name == last)
        for name, hook in link.hooks.items():
            hook.task = WriteStatistics(name, bank, name == last, None if readable is None else readable.maps)
        try:
            link.unet(sample, timestep, **unet_kwargs)
        except WriteDone:
            pass
    return bank


@contextmanager
def _tasks(link: Link) -> Generator[None]:
    """Whatever tasks the link's sites are given inside, afterwards there are those of before."""
    places = [*(processor.slot for processor in link.processors.values()), *link.hooks.values()]
    before = [place.task for place in places]
    try:
        yield
    finally:
        for place, task in zip(places, before, strict=True):
            place.task = task  # pyright: ignore[reportAttributeAccessIssue] - each gets back its own


@contextmanager
def _without_checkpointing(unet: nn.Module) -> Generator[None]:
    """Inside, no block of the UNet is checkpointed."""
    checkpointed: list[Any] = []
    if torch.is_grad_enabled():
        checkpointed = [module for module in unet.modules() if getattr(module, "gradient_checkpointing", False)]
    try:
        for module in checkpointed:
            module.gradient_checkpointing = False
        yield
    finally:
        for module in checkpointed:
            module.gradient_checkpointing = True


def _bring(unet: nn.Module) -> None:
    """Bring a UNet that rests elsewhere (accelerate's offloading) to where it computes.

    Its keys and values project the bank before its first pass, which would bring it otherwise.
    """
    hook = getattr(unet, "_hf_hook", None)
    if hook is not None:
        hook.pre_forward(unet)


def _as_read(bank: ReferenceBank | ReadBank) -> ReadBank:
    return bank if isinstance(bank, ReadBank) else ReadBank(bank=bank)


def _plan(reads: Sequence[ReadBank], weights: Sequence[float] | None) -> RowPlan:
    """The plan of a reading batch whose rows are evenly spread over the bank's."""
    bank_rows = {read.bank.rows for read in reads}
    if len(bank_rows) != 1:
        raise ValueError(
            f"the banks have {sorted(bank_rows)} rows; expected at least one bank, all of one number of rows."
        )
    rows = bank_rows.pop()
    weights = [1.0] * rows if weights is None else weights
    if not weights or len(weights) % rows:
        raise ValueError(f"{len(weights)} reading rows cannot be spread over a bank of {rows}; give a multiple.")
    return plan_rows([i * rows // len(weights) for i in range(len(weights))], weights)


def _offered(attn: AttentionModule, name: str, reads: Sequence[ReadBank]) -> list[ReferenceTokens]:
    """What all banks offer at one site; a reference whose mask leaves no token there is left out."""
    tokens = [_tokens(attn, name, read) for read in reads]
    return [each for each in tokens if each.key.shape[2]]


def _take(attn: AttentionModule, name: str, reads: Sequence[ReadBank]) -> list[ReferenceTokens]:
    """What all banks offer at one site, taken out of them."""
    offered = _offered(attn, name, reads)
    for read in reads:
        read.bank.hidden.pop(name, None)
        read.bank.projected.pop(name, None)
    return offered


def _tokens(attn: AttentionModule, name: str, read: ReadBank) -> ReferenceTokens:
    """A bank's keys and values at one site, of the tokens that may be read."""
    if name in read.bank.projected:
        key, value = read.bank.projected[name]
    else:
        hidden, dtype = read.bank.hidden[name], attn.to_k.weight.dtype
        computes_as_stored = dtype.is_floating_point and dtype.itemsize > 1  # unlike eight-bit or quantised weights
        key, value = project(attn, hidden.to(dtype) if computes_as_stored else hidden)
    if read.readable is not None:
        keep = read.readable.tokens(key.shape[1]) >= 0.5
        index = torch.nonzero(keep).flatten().to(key.device)
        key, value = key.index_select(1, index), value.index_select(1, index)
    amount: Amount = read.strength
    if read.visible is not None:
        amount = {level.numel(): level.flatten().to(key.device) * read.strength for level in read.visible.maps.values()}
    return ReferenceTokens(split_heads(attn, key), split_heads(attn, value), log(read.weight), amount)


def _statistics(name: str, read: ReadBank) -> ReferenceStatistics:
    """A bank's statistics at one site."""
    mean, variance = read.bank.statistics[name]
    amount: float | dict[tuple[int, int], Tensor] = read.strength
    if read.visible is not None:
        amount = {size: level.to(mean.device) * read.strength for size, level in read.visible.maps.items()}
    return ReferenceStatistics(mean, variance, read.weight, amount)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
