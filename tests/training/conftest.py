"""A small data set of each layout, as paperdoll writes it; once in a process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from referencenet.paperdoll.layouts import write_dataset
from trainings import WRITTEN


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sets")
    features = {
        "hear": lambda samples, frames: np.full((frames, 2, 4), len(samples) / 1e5),
        "embed": lambda frame: np.resize(frame / 255, 512),
    }
    return {
        layout: write_dataset(folder / layout, count, name, 64, 3, **(features if layout == "hdtf" else {}))
        for layout, (name, count, _, _) in WRITTEN.items()
    }
