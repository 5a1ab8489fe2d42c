"""The script for a GPU machine runs: at tiny size, on the CPU, all systems, both ways, with the same results."""

import json
import sys
from pathlib import Path

import gpu_films
import pytest


@pytest.mark.slow
def test_every_system_is_measured_both_ways_and_they_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gpu.json"
    options = ["--tiny", "--device", "cpu", "--dtype", "float32", "--minutes", "60", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["gpu_films.py", *options])
    gpu_films.main()
    found = json.loads(file.read_text())
    assert set(found["systems"]) == {"animate_anyone", *gpu_films.FURTHER}
    assert found["matmul_tflops_per_second"] > 0
    for system in found["systems"].values():
        assert system["max_difference"] < 1e-4
        assert system["flop_ratio"] < 0.9
        for way in ("ours", "published"):
            assert system[way]["seconds"] > 0
            assert system[way]["peak_gigabytes"] > 0
