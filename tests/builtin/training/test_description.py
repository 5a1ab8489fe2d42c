"""What the writer's tokens are asked for, and that it can be learned."""

from __future__ import annotations

import torch

from referencenet.builtin.training.base import make_unet
from referencenet.builtin.training.correspondence import TOPICS
from referencenet.builtin.training.description import Describer
from referencenet.paperdoll.maps import PARTS

WORDS = 11
TOPIC = {topic: 1 + place for place, topic in enumerate(TOPICS)}


def asked_of(describer: Describer, words: list[int], topics: list[str], shown: torch.Tensor) -> torch.Tensor:
    """The loss of one reference of whose captions these are the words; every site holds zeros."""
    written = {
        site: torch.zeros(1, 16, head.in_features) for site, head in zip(describer.places, describer.heads, strict=True)
    }
    about = torch.tensor([[TOPIC.get(topic, 0) for topic in topics]], dtype=torch.uint8)
    return describer(written, shown, torch.tensor([words]), about)


def test_tokens_tell_the_words_about_their_own_part() -> None:
    describer = Describer(make_unet(), WORDS)
    shown = torch.full((1, 8, 8), PARTS.index("hair"), dtype=torch.uint8)
    optimizer = torch.optim.Adam(describer.parameters(), 0.1)
    for _ in range(200):
        loss = asked_of(describer, [3, 5, 7, 9], ["hair", "upper", "expression", ""], shown)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for head in describer.heads:
        assert torch.equal(head.bias > 0, torch.arange(WORDS) == 3)


def test_background_is_asked_for_nothing() -> None:
    describer = Describer(make_unet(), WORDS)
    shown = torch.full((1, 8, 8), PARTS.index("background"), dtype=torch.uint8)
    assert asked_of(describer, [3, 5], ["background", "hair"], shown).item() == 0
