"""Two processes that train together, as `torchrun` starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import torch
from torch import nn
from referencenet.training.parallel import average_gradients, join, leave, rank

join()
everyone, one, nobody = (nn.Parameter(torch.zeros(2, 3)) for _ in range(3))
kept = everyone.grad = torch.full((2, 3), 1.0 + rank())
if rank() == 1:
    one.grad = torch.full((2, 3), 4.0)
average_gradients([everyone, one, nobody])
assert everyone.grad is kept  # the fused optimizer wants its layout
assert torch.equal(everyone.grad, torch.full((2, 3), 1.5)), everyone.grad
assert torch.equal(one.grad, torch.full((2, 3), 2.0)), one.grad
assert nobody.grad is None
leave()
print("agreed")
"""


def test_gradients_are_averaged_and_stay_absent_where_nobody_has_one(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.count("agreed") == 2, done.stderr
