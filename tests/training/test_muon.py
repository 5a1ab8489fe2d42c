"""What Muon's updates are, and which weights it takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from referencenet.builtin.training.base import make_unet
from referencenet.training.muon import Muon, hidden_weights, orthogonal


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 64, 576), (1, 96, 64)])
def test_updates_turn_every_direction_by_about_the_same(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, vt = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonal(matrices)
    assert found.dtype == matrices.dtype
    inside = u.mT @ found @ vt.mT  # what it does to the singular directions
    values = inside.diagonal(dim1=1, dim2=2)
    lasting = s > 0.1 * s.amax(dim=1, keepdim=True)
    assert values[lasting].min() > 0.5
    assert values[lasting].max() < 1.35
    assert (inside - torch.diag_embed(values)).abs().max() < 0.1


def test_rare_direction_is_learned_as_fast_as_a_loud_one() -> None:
    """A target of which one direction is a hundred times weaker: AdamW's is then far behind, Muon's is not."""
    left, right = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(1)))
    strengths = torch.zeros(64)
    strengths[0], strengths[1] = 100.0, 1.0
    layer = nn.Linear(64, 64, bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.grad = left @ torch.diag(strengths) @ right
    Muon(layer.parameters(), lr=0.1, weight_decay=0.0).step()
    moved = (left.T @ layer.weight.detach() @ right.T).diagonal()
    assert moved[1] / moved[0] > 0.5
    assert 0.5 < layer.weight.detach().norm() / (0.1 * 0.2 * 8 * 2**0.5) < 1.5  # two directions of 64


def test_convolution_is_updated_as_its_matrix_in_any_memory_layout() -> None:
    gradient = torch.randn(64, 64, 3, 3, generator=torch.Generator().manual_seed(2))
    plain, last = nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3)
    last.load_state_dict(plain.state_dict())
    last.to(memory_format=torch.channels_last)
    for layer in (plain, last):
        layer.weight.grad = gradient.clone()
        Muon([layer.weight], lr=0.1).step()
    assert last.weight.is_contiguous(memory_format=torch.channels_last)
    assert (plain.weight - last.weight).abs().max() < 1e-6


def test_weights_without_gradient_stay() -> None:
    layer = nn.Linear(64, 64)
    before = layer.weight.detach().clone()
    optimizer = Muon([layer.weight], lr=0.1)
    optimizer.step()
    assert torch.equal(layer.weight, before)
    assert not optimizer.state


def test_embeddings_norms_and_narrow_layers_are_left_to_another() -> None:
    unet = make_unet()
    taken = {id(weight) for weight in hidden_weights([unet, nn.Embedding(100, 96)])}
    left = [name for name, p in unet.named_parameters() if p.ndim > 1 and id(p) not in taken]
    assert left == ["conv_in.weight", "conv_out.weight"]
    assert all(id(p) not in taken for p in unet.parameters() if p.ndim < 2)


def test_shared_or_frozen_weight_is_taken_once_or_not_at_all() -> None:
    layer, frozen = nn.Linear(64, 64), nn.Linear(64, 64).requires_grad_(False)
    assert [id(weight) for weight in hidden_weights([layer, layer, frozen])] == [id(layer.weight)]
