"""Optimizers by their names: of 8 bits, where that is installed; every parameter has one."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from referencenet.training import optimizers
from referencenet.training.config import OptimizerConfig

LAYERS = {"wide": nn.Linear(64, 64), "narrow": nn.Linear(2, 1)}


class AdamW8bit(torch.optim.AdamW):
    """Stands for that of bitsandbytes, which needs a GPU."""


def named(name: Any, **settings: Any) -> dict[str, torch.optim.Optimizer]:
    return optimizers.make_optimizers(LAYERS, OptimizerConfig(name=name, **settings))


def test_eight_bits_are_bitsandbytes_with_the_settings_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "find_spec", lambda _name: object())
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=SimpleNamespace(AdamW8bit=AdamW8bit)))
    found = named("adamw8bit", learning_rate=3e-5, betas=(0.8, 0.95), epsilon=1e-6, weight_decay=0.02, muon=("wide",))
    assert set(found) == {"muon", "adamw8bit"}
    optimizer = found["adamw8bit"]
    assert isinstance(optimizer, AdamW8bit)
    settings = optimizer.defaults
    assert (settings["lr"], settings["betas"], settings["eps"], settings["weight_decay"]) == (
        3e-5, (0.8, 0.95), 1e-6, 0.02,
    )  # fmt: skip
    taken = [id(p) for each in found.values() for group in each.param_groups for p in group["params"]]
    assert sorted(taken) == sorted(id(p) for layer in LAYERS.values() for p in layer.parameters())


def test_without_it_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "find_spec", lambda _name: None)
    with pytest.raises(ModuleNotFoundError, match=r"install referencenet\[train-8bit\], or set it to adamw"):
        named("adamw8bit")


def test_published_settings_are_adamws() -> None:
    (optimizer,) = named("adamw").values()
    settings = optimizer.defaults
    assert (settings["lr"], settings["betas"], settings["eps"], settings["weight_decay"]) == (
        1e-5, (0.9, 0.999), 1e-8, 0.01,
    )  # fmt: skip


def test_components_that_are_not_trained_are_told() -> None:
    with pytest.raises(ValueError, match="muon names 'unet'; this stage trains narrow, wide"):
        named("adamw", muon=("unet",))
