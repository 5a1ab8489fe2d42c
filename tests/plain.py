"""Reference-Only and Reference-AdaIN once more, plainly: what the tests hold the library against.

Written from the mechanism's description alone, with nothing shared and nothing skipped: softmax spelled out, every half
of the guidance batch computed in full, attention over concatenated keys. A whole pipeline so: `plain_pipelines.py`.
Letters: r rows of the guidance batch, h heads, n tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

Tensors = dict[str, Tensor]


@dataclass
class PlainReference:
    """A reference as the plain computation takes it.

    Attributes:
        latents: (1 or rows, 4, h, w).
        strength: 0 to 1.
        weight: How many times it counts.
        mask: Which latent pixels may be read, (h, w) bool, constant on each 2 x 2 square.
        result_mask: Where it is read, (h, w) in [0, 1], constant on each 2 x 2 square.
        steps: At which steps it is read; None: all.
    """

    latents: Tensor
    strength: float = 1.0
    weight: float = 1.0
    mask: Tensor | None = None
    result_mask: Tensor | None = None
    steps: Sequence[int] | None = None


@dataclass
class Written:
    """What one write pass left: self-attention inputs (r, n, c); means and biased variances (r, c, 1, 1)."""

    reference: PlainReference
    tokens: Tensors = field(default_factory=dict)
    means: Tensors = field(default_factory=dict)
    variances: Tensors = field(default_factory=dict)


def attention_names(unet: nn.Module, weight: float = 1.0) -> list[str]:
    """The self-attentions that take part: depth first, then stably by width, widest first; i of n if weight > i / n."""
    blocks = [
        (name, module)
        for name, module in unet.named_modules()
        if isinstance(module, BasicTransformerBlock)
        and "motion_modules" not in name
        and not module.only_cross_attention
    ]
    blocks.sort(key=lambda item: -item[1].norm1.normalized_shape[0])
    return [f"{name}.attn1" for index, (name, _) in enumerate(blocks) if weight > index / len(blocks)]


def adain_names(unet: nn.Module, weight: float = 1.0) -> list[str]:
    """The modules whose output AdaIN renormalises: those of rank r with weight >= 2 r."""
    names: list[str] = []
    count = len(unet.down_blocks)
    for index, block in enumerate(unet.down_blocks):
        if weight >= 2 * (1 - index / count):
            names += [f"down_blocks.{index}.{part}" for part in _pairs(block)]
    names.append("mid_block")
    for index, block in enumerate(unet.up_blocks):
        if weight >= 2 * (index / count):
            names += [f"up_blocks.{index}.{part}" for part in _pairs(block)]
    return names


def _pairs(block: nn.Module) -> list[str]:
    """The last module of each (resnet [+ attention]) pair of a block."""
    part = "attentions" if getattr(block, "attentions", None) is not None else "resnets"
    return [f"{part}.{index}" for index in range(len(getattr(block, part)))]


def _level(mask: Tensor, tokens: int) -> Tensor:
    """A mask (h, w) at the level with `tokens` positions: every second pixel as often as needed, flat."""
    while mask.numel() > tokens:
        mask = mask[::2, ::2]
    return mask.flatten()


def softmax_attention(attn: Any, query_from: Tensor, keys_from: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention (r, n, c) of a diffusers attention module with a bias (keys,) on the logits."""

    def heads(tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

    query, key, value = heads(attn.to_q(query_from)), heads(attn.to_k(keys_from)), heads(attn.to_v(keys_from))
    logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias
    mixed = logits.softmax(dim=-1) @ value
    return attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2)))


def concatenated(attn: Any, own: Tensor, references: Tensor, bias: Tensor) -> Tensor:
    """Attention over own and reference tokens, with a bias (keys,) on the latter's logits."""
    tokens = torch.cat([own, references], dim=1)
    return softmax_attention(attn, own, tokens, torch.cat([own.new_zeros(own.shape[1]), bias]))


def added(attn: Any, own: Tensor, references: Tensor, _bias: Tensor) -> Tensor:
    """Attention to own tokens, and once more to the reference's."""
    return softmax_attention(attn, own, own) + softmax_attention(attn, own, references)


@dataclass
class PlainLinks:
    """Which sites take part, how attention reads there, and how much each row does.

    Attributes:
        attention: Names of the self-attentions that read.
        adain: Names of the modules whose output is renormalised.
        style_fidelity: Of the unconditional half, the first, unless `rows` say it.
        guided: Whether there is one.
        rule: How attention reads.
        rows: For every sample how much it reads.
        perturbed: Names of the self-attentions that are the identity in the last third (or half) of the rows.
        unread: Names of those among `attention` that read nothing.
    """

    attention: Sequence[str] = ()
    adain: Sequence[str] = ()
    style_fidelity: float = 0.5
    guided: bool = True
    rule: Callable[[Any, Tensor, Tensor, Tensor], Tensor] = concatenated
    rows: Sequence[float] | None = None
    perturbed: Sequence[str] = ()
    unread: Sequence[str] = ()

    def blend(self, plain: Tensor, full: Tensor) -> Tensor:
        """Style fidelity: unconditional rows move back to plain."""
        rows = self.rows or ([1 - self.style_fidelity, 1.0] if self.guided else [1.0])
        amounts = torch.tensor(rows).repeat_interleave(full.shape[0] // len(rows)).view(-1, *[1] * (full.ndim - 1))
        return plain + amounts * (full - plain)

    def read_attention(self, attn: Any, name: str, own: Tensor, written: Sequence[Written]) -> Tensor:
        """The self-attention `name` of (r, n, c) while it reads."""
        plain = softmax_attention(attn, own, own)
        tokens, bias = [], []
        for item in written:
            rows = item.tokens[name]
            rows = rows.repeat_interleave(own.shape[0] // rows.shape[0], dim=0)
            logit = torch.full((rows.shape[1],), item.reference.weight, dtype=own.dtype).log()
            if item.reference.mask is not None:
                logit = logit.masked_fill(~_level(item.reference.mask, rows.shape[1]), -torch.inf)
            tokens.append(rows)
            bias.append(logit)
        full = self.rule(attn, own, torch.cat(tokens, dim=1), torch.cat(bias))
        full = plain + self._amount(written, own.shape[1]).view(-1, 1) * (full - plain)
        blended = plain if name in self.unread else self.blend(plain, full)
        if name in self.perturbed:
            last = own.shape[0] // (3 if self.guided else 2)
            blended = torch.cat([blended[:-last], attn.to_out[1](attn.to_out[0](attn.to_v(own[-last:])))])
        return blended

    def read_statistics(self, name: str, own: Tensor, written: Sequence[Written]) -> Tensor:
        """A feature map (r, c, h, w) renormalised."""
        total = sum(item.reference.weight for item in written)
        copies = own.shape[0] // written[0].means[name].shape[0]
        mean = sum(item.reference.weight / total * item.means[name] for item in written).repeat_interleave(copies, 0)
        variance = sum(item.reference.weight / total * item.variances[name] for item in written)
        variance = variance.repeat_interleave(copies, 0)
        own_mean = own.mean(dim=(2, 3), keepdim=True)
        own_std = own.var(dim=(2, 3), keepdim=True, correction=0).clamp(min=1e-6).sqrt()
        full = (own - own_mean) / own_std * variance.clamp(min=1e-6).sqrt() + mean
        amount = self._amount(written, own[0, 0].numel()).view(own.shape[-2:])
        return self.blend(own, own + amount * (full - own))

    @staticmethod
    def _amount(written: Sequence[Written], tokens: int) -> Tensor:
        """Strength times result mask, the same for all references here, (tokens,)."""
        first = written[0].reference
        assert all((item.reference.strength, item.reference.result_mask is None) == (first.strength, True)
                   for item in written[1:]), "the plain computation knows one amount for all references"  # fmt: skip
        amount = torch.full((tokens,), first.strength)
        return amount if first.result_mask is None else amount * _level(first.result_mask, tokens)


class _Processor:
    """An attention processor that hands its input to a function."""

    def __init__(self, compute: Callable[[Any, Tensor], Tensor]) -> None:
        self.compute = compute

    def __call__(self, attn: Any, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        assert kwargs.get("encoder_hidden_states") is None
        return self.compute(attn, hidden_states)


@contextmanager
def at_sites(unet: nn.Module, links: PlainLinks, attention: Any, statistics: Any) -> Generator[None]:
    """Compute self-attentions by `attention(attn, name, tokens)`, replace features by `statistics(name, features)`."""
    before = {name: unet.get_submodule(name).processor for name in links.attention}
    hooks = []
    for name in links.attention:
        compute = lambda attn, tokens, name=name: attention(attn, name, tokens)  # noqa: E731
        unet.get_submodule(name).processor = _Processor(compute)
    for name in links.adain:
        hook = lambda module, args, output, name=name: _replace(output, statistics(name, _tensor(output)))  # noqa: E731, ARG005
        hooks.append(unet.get_submodule(name).register_forward_hook(hook))
    try:
        yield
    finally:
        for name, processor in before.items():
            unet.get_submodule(name).processor = processor
        for handle in hooks:
            handle.remove()


def _tensor(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _replace(output: Any, tensor: Tensor) -> Any:
    return tensor if isinstance(output, Tensor) else (tensor, *output[1:])


@contextmanager
def plain_writing(unet: nn.Module, links: PlainLinks, reference: PlainReference) -> Generator[Written]:
    """Inside, a pass of the UNet leaves what is read."""
    written = Written(reference)

    def keep_tokens(attn: Any, name: str, tokens: Tensor) -> Tensor:
        written.tokens[name] = tokens
        return softmax_attention(attn, tokens, tokens)

    def keep_statistics(name: str, features: Tensor) -> Tensor:
        pixels = features.flatten(2)
        if reference.mask is not None:
            pixels = pixels[..., _level(reference.mask, pixels.shape[-1])]
        written.means[name] = pixels.mean(dim=2)[..., None, None]
        written.variances[name] = pixels.var(dim=2, correction=0)[..., None, None]
        return features

    with at_sites(unet, links, keep_tokens, keep_statistics):
        yield written


@contextmanager
def plain_reading(unet: nn.Module, links: PlainLinks, written: Sequence[Written]) -> Generator[None]:
    """Inside, a pass of the UNet reads."""

    def read_tokens(attn: Any, name: str, tokens: Tensor) -> Tensor:
        return links.read_attention(attn, name, tokens, written)

    def read_statistics(name: str, features: Tensor) -> Tensor:
        return links.read_statistics(name, features, written)

    with at_sites(unet, links, read_tokens, read_statistics):
        yield
