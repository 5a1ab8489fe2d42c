"""Feed-forward layers in pieces: the same numbers, nothing left behind, and sizes that always divide."""

from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock

from copies import made_once
from referencenet.methods.tiny import tiny_pipeline
from referencenet.pipelines.pieces import NUM_PIECES, SMALLEST, in_pieces, piece_of
from tiny import latents
from tolerances import relative_error

make = made_once(lambda: tiny_pipeline("magicpose").unet)


def rows_given(unet: Any) -> list[int]:
    """Counts tokens that feed-forward layers get at a time; hooks stay on."""
    seen: list[int] = []
    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.ff.register_forward_hook(lambda _module, args, _output: seen.append(args[0][..., 0].numel()))
    return seen


@torch.no_grad()
def test_a_pass_in_pieces_is_the_pass() -> None:
    unet = make()
    sample, context = latents(1, 2, 4, 64, 80), latents(2, 2, 5, 16)
    expected = unet(sample, 3, context).sample
    seen = rows_given(unet)
    with in_pieces(unet):
        found = unet(sample, 3, context).sample
    assert relative_error(found, expected) < 1e-5
    assert max(seen) == SMALLEST
    seen.clear()
    assert torch.equal(unet(sample, 3, context).sample, expected)
    assert max(seen) == sample[:, 0].numel()


def test_under_autograd_there_are_no_pieces() -> None:
    unet = make()
    seen = rows_given(unet)
    sample = latents(1, 1, 4, 64, 80)
    with in_pieces(unet):
        unet(sample, 3, latents(2, 1, 5, 16))
    assert max(seen) == sample[:, 0].numel()


@torch.no_grad()
def test_what_a_user_chose_stays() -> None:
    unet = make()
    blocks = [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
    blocks[0].set_chunk_feed_forward(1, dim=1)
    with in_pieces(unet):
        unet(latents(1, 1, 4, 8, 8), 3, latents(2, 1, 5, 16))
    assert blocks[0]._chunk_size == 1
    assert {block._chunk_size for block in blocks[1:]} == {None}


@pytest.mark.parametrize("rows", [1, 2, 32, 46, 8192])
@pytest.mark.parametrize("tokens", [1, 16, 24, 1536, 4096, 6272, 4099])
def test_a_piece_divides_what_it_is_cut_from(rows: int, tokens: int) -> None:
    found = piece_of(rows, tokens)
    if found is None:
        assert rows * tokens <= SMALLEST or 4099 in (rows, tokens)
        return
    size, axis = found
    whole, other = (rows, tokens) if axis == 0 else (tokens, rows)
    assert whole % size == 0
    assert size * other <= max(rows * tokens // NUM_PIECES, SMALLEST, other)
    assert whole // size <= 8 * NUM_PIECES
