"""Two processes that train together, told who they are as `torchrun` tells them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

PROGRAM = """
import os
import torch
from torch import nn
from referencenet.training.parallel import average_gradients, join, leave, rank

first = os.fork()  # one import serves both
os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if first else "1"
join()
assert rank() == int(os.environ["RANK"])
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
if first:
    assert os.waitpid(first, 0)[1] == 0
    print("agreed")
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_gradients_are_averaged_and_stay_absent_where_nobody_has_one() -> None:
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, env=os.environ | told, capture_output=True, text=True, timeout=300)
    assert done.stdout == "agreed\n", done.stderr
