"""What a model or pipeline looks like from outside, so that a test can say whether anything was left on it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DiffusionPipeline

Traces = dict[str, Any]


def traces(model: torch.nn.Module) -> Traces:
    """Return all that an attachment could leave on a module: repr, keys, attributes, hooks, processors, modes."""
    found: Traces = {"repr": repr(model), "state_dict": list(model.state_dict()), "training": model.training}
    for name, module in model.named_modules():
        found[f"{name}: class"] = type(module)
        found[f"{name}: attributes"] = sorted(vars(module))
        found[f"{name}: own forward"] = vars(module).get("forward")
        found[f"{name}: processor"] = getattr(module, "processor", None)
        for attribute, value in vars(module).items():
            if isinstance(value, dict) and "hooks" in attribute:
                found[f"{name}: {attribute}"] = list(value.values())
    return found


def pipeline_traces(pipe: DiffusionPipeline) -> Traces:
    """Return the traces of a pipeline, its class, its scheduler and its models."""
    found: Traces = {
        "pipe": sorted(vars(pipe)),
        "class": sorted(vars(type(pipe))),
        "parts": {name: id(part) for name, part in pipe.components.items()},
        "scheduler": sorted(vars(pipe.scheduler)),
    }
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            found |= {f"{name}/{key}": value for key, value in traces(part).items()}
    return found
