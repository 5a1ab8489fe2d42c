"""Two processes that train together, told who they are as `torchrun` tells them: they are one with twice the batch.

Each holds all weights, or its share of them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
first = os.fork()
os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if first else "1"
import torch
from torch import nn
from referencenet.builtin.training.stepwise import Stepwise
from referencenet.training.config import OptimizerConfig, RunConfig
from referencenet.training.loop import fit
from referencenet.training.parallel import join, rank, world_size

class Line(Stepwise):
    name, device = "line", torch.device("cpu")
    def __init__(self):
        self.modules = {"layer": nn.Linear(2, 1), "idle": nn.Linear(2, 1), "first": nn.Linear(2, 3)}
        for layer in self.modules.values():
            nn.init.constant_(layer.weight, 0.5)
            nn.init.zeros_(layer.bias)
    def loss(self, step):
        x = torch.randn(6, 2, generator=torch.Generator().manual_seed(step))
        mine = x if self.alone else x[3 * rank() :][:3]
        loss = (self.modules["layer"](mine) - 3 * mine.sum(dim=1, keepdim=True)).square().mean()
        if self.alone:
            loss = loss + self.modules["first"](x[:3]).square().mean() / 2
        elif rank() == 0:  # the second process has no use for it
            loss = loss + self.modules["first"](mine).square().mean()
        return {"loss": loss}

processes = join("cpu")
assert (rank(), world_size()) == (0 if first else 1, 2)
config = RunConfig(steps=12, average=0.9, optimizer=OptimizerConfig(learning_rate=0.05))
both, alone, broken, later = Line(), Line(), Line(), Line()
both.alone = broken.alone = later.alone = False
alone.alone = True
fit(both, sys.argv[1], config, quiet=True)
fit(alone, sys.argv[1] + "-alone", config, quiet=True)
fit(broken, sys.argv[1] + "-broken", config, quiet=True, stop_after=5)
fit(later, sys.argv[1] + "-broken", config, quiet=True)
for name in both.modules:
    ours, other, resumed = (line.modules[name].weight for line in (both, alone, later))
    assert type(ours) is nn.Parameter
    torch.testing.assert_close(ours, other)
    assert torch.equal(ours, resumed), name
assert torch.equal(both.modules["idle"].weight, torch.full((1, 2), 0.5)), "nobody learned it"
assert not torch.equal(both.modules["first"].weight, torch.full((3, 2), 0.5))
processes.destroy_process_group()
if first:
    assert os.waitpid(first, 0)[1] == 0
    print("agreed")
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("is_spread", ["false", "true"])
def test_two_processes_are_one_with_twice_the_batch(is_spread: str, tmp_path: Path) -> None:
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    told["ACCELERATE_USE_FSDP"] = is_spread
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "run")]
    done = subprocess.run(command, env=os.environ | told, capture_output=True, text=True, timeout=300)
    assert done.stdout == "agreed\n", done.stderr
    records = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(records) == 1  # of the first process alone
