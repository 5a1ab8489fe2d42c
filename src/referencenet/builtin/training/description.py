"""Teaching what is looked at: tokens on a striped garment should say "striped", whether it is seen, read or told.

What a writer leaves in the bank is all that a reader can learn of a reference. Whether it holds what matters, and
whether it is understood, is learned late, if at all, from the error of the drawn picture alone. So linear heads, thrown
away after training, ask every token of the person for the caption's words about that part: those of the writer, which
sees the reference, and by the same heads those of the reader, which sees noise and must ask the bank or the prompt.
Letters: r pictures, m tokens, t topics of words, w words, l words of a caption.
"""

from __future__ import annotations

from math import isqrt

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from torch.nn import functional as F

from referencenet.builtin.training.correspondence import PARTS_OF_TOPICS, TOPICS, part_shares

OF_PERSON = [place for place, topic in enumerate(TOPICS) if topic not in ("pose", "view", "background", "expression")]
"""Positions of the topics that stay the same from picture to picture."""
PACE = 8.0
"""How many times faster than other layers the heads learn; what they ask for would come too late otherwise."""


class Describer(nn.Module):
    """One linear head per self-attention of a UNet, from the hidden states there to words.

    Args:
        unet: The reference UNet, or another of its layout.
        num_words: Of the tokenizer.
    """

    def __init__(self, unet: UNet2DConditionModel, num_words: int) -> None:
        super().__init__()
        blocks = {n: m for n, m in unet.named_modules() if isinstance(m, BasicTransformerBlock)}
        self.places = {f"{name}.attn1": place for place, name in enumerate(blocks)}
        self.heads = nn.ModuleList(nn.Linear(block.attn1.query_dim, num_words) for block in blocks.values())
        self.num_words = num_words
        for head in self.heads:
            nn.init.zeros_(head.weight)
            nn.init.constant_(head.bias, -6.0 / PACE)  # a word is rarely right

    def forward(self, hidden: dict[str, Tensor], shown: Tensor, tokens: Tensor, topics: Tensor) -> Tensor:
        """How badly tokens of the person tell the words about them: binary cross-entropy, summed over words.

        Args:
            hidden: Site name to what goes into its self-attention, (r, m, c).
            shown: (r, H, H) uint8, parts of the pictures.
            tokens: (r, l) of their full captions.
            topics: (r, l) uint8, 0 or the position in `TOPICS`, from 1 on, of what a word is about.

        Returns:
            The mean over tokens and sites, a scalar.
        """
        about = F.one_hot(topics.long(), 1 + len(TOPICS))[..., 1:][..., OF_PERSON].float()  # (r, l, t)
        said = torch.einsum("rlt,rlw->rtw", about, F.one_hot(tokens.long(), self.num_words).float()).clamp(max=1)
        sides = {site: isqrt(states.shape[1]) for site, states in hidden.items()}
        shares = {side: part_shares(shown, side, side, PARTS_OF_TOPICS)[..., OF_PERSON] for side in {*sides.values()}}
        wanted = {s: torch.einsum("rmt,rtw->rmw", share, said).float().clamp(max=1) for s, share in shares.items()}
        losses: list[Tensor] = []
        for site, states in hidden.items():
            logits = PACE * self.heads[self.places[site]](states).float()
            error = F.binary_cross_entropy_with_logits(logits, wanted[sides[site]], reduction="none").sum(dim=2)
            counts = shares[sides[site]].sum(dim=2).clamp(max=1)
            losses.append((error * counts).sum() / counts.sum().clamp_min(1.0))
        return torch.stack(losses).mean()
