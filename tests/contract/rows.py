"""Every link as the contract tests attach it, and what it should do, said plainly: a row for each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor

import models
from contract.alone import plain_alone
from contract.scaled_concat import ScaledConcat
from models import Pass
from plain import (
    PlainLinks,
    PlainReference,
    adain_names,
    added,
    attention_names,
    concatenated,
    plain_reading,
    plain_writing,
)
from referencenet import AdaIN, Added, Concat, ReferenceBank, attach
from referencenet.links import AdditiveAttention, Instead, Kind, Link, Second, Site
from referencenet.networks.portrait_layers import PortraitBlock, PortraitTold
from tiny import fill


def with_second_layers(unet: Any) -> Any:
    """A UNet with second self-attentions in its middle and up blocks."""
    for stage in (unet.mid_block, unet.up_blocks):
        for name, block in list(stage.named_modules()):
            if isinstance(block, BasicTransformerBlock) and "motion_modules" not in name:
                block.attn1 = AdditiveAttention.like(block.attn1)
    return fill(unet, 70, only="attn1")


def second_names(unet: Any) -> list[str]:
    return [f"{name}.reference" for name in attention_names(unet) if not name.startswith("down_blocks")]


def reading_alone(unet: Any) -> Any:
    """A UNet whose spatial blocks are EMO's, told no sound: attention to a reference alone, where words were."""
    told = PortraitTold()
    for name, block in list(unet.named_modules()):
        if isinstance(block, BasicTransformerBlock) and "motion_modules" not in name:
            width, heads = block.norm1.normalized_shape[0], block.attn1.heads
            unet.set_submodule(name, PortraitBlock(width, heads, width, told))
    return fill(unet, 80, only="transformer_blocks")


def no_names(_unet: Any) -> list[str]:
    return []


@dataclass
class Linked:
    """A link that reads and one that writes, often the same."""

    reader: Link
    writer: Link

    @property
    def sites(self) -> Sequence[Site]:
        """Of the reader."""
        return self.reader.sites

    @property
    def reading(self) -> Callable[..., AbstractContextManager[None]]:
        """As the reader's."""
        return self.reader.reading

    def write(self, **given: Any) -> ReferenceBank:
        """As the writer's, which computes as what it is given does, and keeps inputs where another network reads."""
        if self.writer is self.reader:
            return self.writer.write(**given)
        self.writer.unet.to(given["sample"].dtype)
        return self.writer.write(**given | {"projected": False})


@dataclass(frozen=True, kw_only=True)
class Row:
    """Links, and what they should do, said plainly.

    Attributes:
        links: What is attached together.
        attention: Names of the attentions that read.
        adain: Names of the blocks whose output is renormalised.
        rule: How the attentions read.
        prepare: What becomes of a UNet before it is linked.
        writes_itself: Whether the UNet that reads writes, too; otherwise one of the same kind does, as it is made.
        plain: Inside, a pass reads plainly: of the UNet, the writer, what was written, and how much rows read. None:
            by `rule`, in place of self-attention.
    """

    links: list[Kind]
    attention: Callable[[Any], list[str]] = no_names
    adain: Callable[[Any], list[str]] = no_names
    rule: Callable[..., Tensor] = concatenated
    prepare: Callable[[Any], Any] = lambda unet: unet
    writes_itself: bool = True
    plain: Callable[..., AbstractContextManager[None]] | None = None

    def model(self, name: str) -> Any:
        """A tiny UNet for these links."""
        with torch.random.fork_rng(devices=[]):
            return self.prepare(models.model(name))

    def writer(self, name: str, unet: Any) -> Any:
        """What writes for a UNet of this name."""
        if self.writes_itself:
            return unet
        with torch.random.fork_rng(devices=[]):
            return models.model(name)

    @contextmanager
    def attached(self, unet: Any, name: str = "sd1") -> Generator[Linked]:
        """The UNet of this name, linked, with what writes for it."""
        writer = self.writer(name, unet)
        with attach(unet, self.links) as link:
            if writer is unet:
                yield Linked(link, link)
                return
            with attach(writer, self.links) as other:
                yield Linked(link, other)

    def sites(self, unet: Any, *, guided: bool) -> PlainLinks:
        """What the plain computation needs to know."""
        return PlainLinks(self.attention(unet), self.adain(unet), guided=guided, rule=self.rule)


ROWS: dict[str, Row] = {
    "concat": Row(links=[Concat()], attention=attention_names),
    "adain": Row(links=[AdaIN()], adain=adain_names),
    "both": Row(links=[Concat(), AdaIN()], attention=attention_names, adain=adain_names),
    "second": Row(links=[Second()], attention=second_names, prepare=with_second_layers),
    "added": Row(links=[Added()], attention=attention_names, rule=added),
    "scaled_concat": Row(
        links=[ScaledConcat(scale=0.5)],
        attention=attention_names,
        rule=lambda attn, own, references, bias: concatenated(attn, own, 0.5 * references, bias),
    ),
    "instead": Row(
        links=[Instead()], attention=attention_names, prepare=reading_alone, writes_itself=False, plain=plain_alone
    ),
}
PARTS: dict[str, Row] = {
    "concat_0.5": Row(links=[Concat(weight=0.5)], attention=partial(attention_names, weight=0.5)),
    "adain_0.5": Row(links=[AdaIN(weight=0.5)], adain=partial(adain_names, weight=0.5)),
}
OTHER_MODELS = [(row, name) for row in ("concat", "adain", "added") for name in ("xl", "motion")]
each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
on_models_if_slow = pytest.mark.parametrize(
    ("row", "name"),
    [
        *(pytest.param(ROWS[row], "sd1", id=f"{row}-sd1") for row in ROWS),
        *(pytest.param(ROWS[row], name, id=f"{row}-{name}", marks=pytest.mark.slow) for row, name in OTHER_MODELS),
    ],
)
on_models = pytest.mark.parametrize(
    ("row", "name"),
    [pytest.param(ROWS[row], name, id=f"{row}-{name}") for row, name in [*((r, "sd1") for r in ROWS), *OTHER_MODELS]],
)


def run(unet: Any, given: Pass) -> Tensor:
    return unet(**given, return_dict=False)[0]


def write_and_read(
    link: Linked, written: dict[str, Any], read: dict[str, Any], weights: Sequence[float] | None = None
) -> Tensor:
    bank = link.write(**written)
    with link.reading(bank, weights=weights):
        return run(link.reader.unet, read)


def plainly(
    name: str, unet: Any, row: Row, written: dict[str, Any], read: dict[str, Any], *, guided: bool = False
) -> Tensor:
    """The plain computation; guided: the first half reads half, as at style fidelity 0.5."""
    writer = row.writer(name, unet)
    with plain_writing(writer, row.sites(writer, guided=guided), PlainReference(torch.empty(0))) as bank:
        run(writer, written)
    if row.plain is not None:
        reading = row.plain(unet, writer, bank, [0.5, 1.0] if guided else [1.0])
    else:
        reading = plain_reading(unet, row.sites(unet, guided=guided), [bank])
    with reading:
        return run(unet, read)
