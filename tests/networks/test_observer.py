"""The observer: shapes, ranges, and its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from referencenet.networks.observer import Observer


@pytest.fixture(scope="module")
def observer() -> Observer:
    return Observer(
        aspects={"pose": ["a", "b", "c"], "hat": ["x", "y"]}, block_out_channels=(8, 16, 24), embedding_dim=5
    ).eval()


@pytest.mark.parametrize(("batch", "size"), [(2, (64, 64)), (3, (48, 80))])
def test_observation_has_the_promised_shapes(observer: Observer, batch: int, size: tuple[int, int]) -> None:
    with torch.no_grad():
        seen = observer(torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    assert seen.embedding.shape == (batch, 5)
    assert torch.allclose(seen.embedding.norm(dim=1), torch.ones(batch))
    assert seen.keypoints.shape == (batch, 18, 2)
    assert ((seen.keypoints > 0) & (seen.keypoints < 1)).all()
    assert {name: tuple(logits.shape) for name, logits in seen.logits.items()} == {
        "pose": (batch, 3),
        "hat": (batch, 2),
    }


def test_observer_survives_its_folder(observer: Observer, tmp_path: Path) -> None:
    observer.save_pretrained(tmp_path)
    again = Observer.from_pretrained(tmp_path).eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again(x).embedding, observer(x).embedding)
    assert again.config.aspects == observer.config.aspects


def test_wrong_pictures_are_refused(observer: Observer) -> None:
    with pytest.raises(ValueError, match="pictures have shape"):
        observer(torch.zeros(3, 64, 64))
