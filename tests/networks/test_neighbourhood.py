"""Head speed in EMO's terms, invariants 17 to 19 of its specification: buckets, their code, a frame's neighbours."""

from __future__ import annotations

import pytest
import torch

from referencenet.methods.tiny import filled
from referencenet.networks.neighbourhood import EDGES, SpeedProjection, buckets, neighbours, speed_codes
from tolerances import ROUNDING, relative_error

AUDIO = 24


def test_17_18_the_code_of_speed() -> None:
    centres, radii = map(torch.tensor, buckets(EDGES))
    assert len(centres) == 9
    assert torch.allclose(centres[1:] - radii[1:], centres[:-1] + radii[:-1])
    assert (centres[0] - radii[0], centres[-1] + radii[-1]) == (0, 9)
    assert bool((radii > 0).all())
    edge = torch.tanh(torch.tensor(3.0))
    for sign in (-1, 1):
        assert torch.allclose(speed_codes(centres + sign * radii, centres, radii).diagonal(), sign * edge)
    assert not speed_codes(centres, centres, radii).diagonal().any()
    w = torch.linspace(0.01, 8.99, 500)
    codes = speed_codes(w, centres, radii).double()
    assert bool((codes.abs() <= 1).all())
    assert bool((codes.diff(dim=0) >= 0).all())
    assert bool(((codes.abs() < edge - 1e-6).sum(1) <= 1).all())
    assert bool(((codes.abs() <= edge + 1e-6).sum(1) >= 1).all())
    inside = (w[:, None] - centres).abs() <= radii
    assert bool((codes[(w[:, None] > centres + radii) & ~inside] > 0).all())
    assert bool((codes[(w[:, None] < centres - radii) & ~inside] < 0).all())
    x = torch.linspace(-1, 1, 9)[:, None]
    assert torch.allclose(speed_codes(centres + x, centres, radii).diagonal(dim1=1, dim2=2),
                          -speed_codes(centres - x, centres, radii).diagonal(dim1=1, dim2=2))  # fmt: skip
    with pytest.raises(ValueError, match="rising"):
        buckets([0, 1, 1])
    with pytest.raises(ValueError, match="radius above 0"):
        SpeedProjection([1.0], [0.0])


def test_19_speed_features_know_two_neighbours_on_either_side() -> None:
    project, around = filled(SpeedProjection(channels=AUDIO), 5), neighbours(0, 9, 5, 9)
    speeds = torch.full((9,), 0.5)
    ours = project(speeds, around)
    assert relative_error(ours, ours[:1].expand_as(ours)) < ROUNDING
    speeds[4] = 2.0
    assert ((project(speeds, around) - ours).abs() > 1e-4).any(1).tolist() == [2 <= frame <= 6 for frame in range(9)]
