"""Fingerprints: equal for equal things, in other processes too, and different for whatever differs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from PIL import Image

from films import picture
from referencenet.links.bank import ReferenceBank
from referencenet.pipelines.fingerprints import fingerprint, fingerprints_of, frame_print, weights_print
from tiny import tiny_pipeline

CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from films import picture
from referencenet.pipelines.fingerprints import fingerprints_of
from tiny import tiny_pipeline
print(fingerprints_of(tiny_pipeline("animate_anyone"), picture(0)))
"""


@pytest.mark.slow
def test_another_process_finds_the_same() -> None:
    """A resumed film is one of another process: nothing of it may depend on hashes that Python seeds anew."""
    found = subprocess.run(
        [sys.executable, "-c", CODE, str(Path(__file__).parents[1])], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(fingerprints_of(tiny_pipeline("animate_anyone"), picture(0)))


def test_whatever_differs_is_told_apart() -> None:
    bank = ReferenceBank(hidden={"a": torch.zeros(1, 2, 3)})
    things = [
        picture(0), picture(1), picture(0).convert("L"), bank, ReferenceBank(hidden={"b": torch.zeros(1, 2, 3)}),
        ReferenceBank(hidden={"a": torch.ones(1, 2, 3)}), torch.zeros(2), torch.zeros(2, 1), torch.zeros(2).half(),
        np.zeros(2), [1, [2]], [[1], 2], {"a": 1}, {"a": "1"}, "ab", ["a", "b"], None,
    ]  # fmt: skip
    assert len({fingerprint(thing) for thing in things}) == len(things)
    assert fingerprint(bank) == fingerprint(ReferenceBank(hidden={"a": torch.zeros(1, 2, 3)}))
    assert frame_print(picture(0)) == frame_print(picture(0)) != frame_print(Image.new("RGB", picture(0).size))


def test_one_changed_weight_is_seen_wherever_it_lies() -> None:
    layer = torch.nn.Linear(300, 200)
    before = weights_print(layer)
    for place in (0, 777, 59_999):
        with torch.no_grad():
            layer.weight.view(-1)[place] += 1e-3
        assert weights_print(layer) != before
        before = weights_print(layer)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.flip(0))  # the same numbers in other places
    assert weights_print(layer) != before
    assert weights_print(layer.to(torch.bfloat16)) != weights_print(layer.float())


def test_offloaded_weights_have_the_print_of_those_at_hand() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    before = weights_print(layer)
    cpu_offload(layer, execution_device="cpu")
    assert any(parameter.is_meta for parameter in layer.parameters())
    assert weights_print(layer) == before
