"""What a step of the trained systems costs: FLOPs at published sizes, by shapes only, and memory at reduced ones."""

import measuring
import pytest
import torch
from trained_links import SYSTEMS, Place, count

PUBLISHED_SHARE = {"animate_anyone": 0.83, "idm_vton": 0.83, "flashface": 0.78}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_step_costs_what_cannot_be_avoided(system: str) -> None:
    found = count(system)
    assert 1.0 <= found["flops_over_ideal"] <= 1.03
    assert found["flop_ratio"] <= PUBLISHED_SHARE[system]


@pytest.mark.slow
@pytest.mark.parametrize("system", ["idm_vton", "flashface"])  # Animate Anyone keeps projections for the whole film
@torch.no_grad()
def test_a_step_needs_no_more_memory_than_the_published_way(system: str) -> None:
    cpu = torch.device("cpu")
    paths = SYSTEMS[system](Place(cpu, torch.float32))
    assert measuring.peak_bytes(paths.ours, cpu) <= measuring.peak_bytes(paths.published, cpu)
