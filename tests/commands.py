"""What tests of the commands share."""

from __future__ import annotations

from typing import Any


def told(result: Any) -> str:
    """What a command said, its lines joined."""
    return " ".join(result.output.split())
