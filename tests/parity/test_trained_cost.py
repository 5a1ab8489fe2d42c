"""What a step of the trained systems costs at the published sizes, in FLOPs: shapes only, nothing is computed."""

import pytest
from trained_links import SYSTEMS, count

PUBLISHED_SHARE = {"animate_anyone": 0.83, "idm_vton": 0.83, "flashface": 0.78}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_step_costs_what_cannot_be_avoided(system: str) -> None:
    found = count(system)
    assert 1.0 <= found["flops_over_ideal"] <= 1.03
    assert found["flop_ratio"] <= PUBLISHED_SHARE[system]
