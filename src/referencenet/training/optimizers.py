"""From names to optimizers: every trained parameter has one, matrices may be Muon's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from referencenet.training.config import OptimizerConfig
from referencenet.training.muon import Muon, hidden_weights

STATE_BYTES: Mapping[str, float] = {"adamw": 8.0, "adamw8bit": 2.0, "sgd": 0.0}
"""Of a parameter, by the optimizer's name; Muon keeps 4."""


def make_optimizers(modules: Mapping[str, nn.Module], config: OptimizerConfig) -> dict[str, torch.optim.Optimizer]:
    """What updates the parameters that require gradients, each by one of them.

    Args:
        modules: Components by name.
        config: Of the run.

    Raises:
        ValueError: If nothing is trained, or Muon shall update a component that is not trained.
        ModuleNotFoundError: If the optimizer needs a package that is not installed.
    """
    strange = sorted(set(config.muon) - set(modules))
    if strange:
        raise ValueError(f"optimizer.muon names {strange[0]!r}; this stage trains {', '.join(sorted(modules))}.")
    parameters = list(dict.fromkeys(p for m in modules.values() for p in m.parameters() if p.requires_grad))
    if not parameters:
        raise ValueError("nothing is trained; name some parameters in the stage's `train` patterns.")
    matrices = hidden_weights(modules[name] for name in config.muon)
    taken = {id(weight) for weight in matrices}
    others = [parameter for parameter in parameters if id(parameter) not in taken]
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    found: dict[str, torch.optim.Optimizer] = {"muon": Muon(matrices, **settings)} if matrices else {}
    if others:
        found[config.name] = _named(config, others, settings)
    return found


def _named(config: OptimizerConfig, parameters: list[nn.Parameter], settings: dict[str, Any]) -> torch.optim.Optimizer:
    """The optimizer that the configuration names."""
    if config.name == "sgd":
        return torch.optim.SGD(parameters, **settings)
    adam = {"betas": config.betas, "eps": config.epsilon, **settings}
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **adam)
    if find_spec("bitsandbytes") is None:
        raise ModuleNotFoundError(
            "optimizer.name is adamw8bit, which needs bitsandbytes; install referencenet[train-8bit], or set it to "
            "adamw."
        )
    return import_module("bitsandbytes").optim.AdamW8bit(parameters, **adam)
