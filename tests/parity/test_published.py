"""The baseline proves itself by the golden cases: what is measured and made with it is the published way."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from golden import GOLDENS, goldens_of, read_content, run_published
from tolerances import ROUNDING, relative_error


@pytest.mark.parametrize("folder", goldens_of("reference"), ids=lambda folder: folder.name)
def test_published_way_reproduces_the_golden_case(folder: Path) -> None:
    outputs = run_published(read_content(folder))
    for name, theirs in load_file(folder / "outputs.safetensors").items():
        assert relative_error(outputs[name], theirs) <= ROUNDING, name


def test_published_way_gives_the_same_bits_twice() -> None:
    content = read_content(GOLDENS / "reference_adain-attn-and-adain")
    first, second = run_published(content), run_published(content)
    assert all(torch.equal(first[name], second[name]) for name in first)
