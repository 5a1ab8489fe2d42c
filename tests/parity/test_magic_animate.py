"""MagicAnimate's golden cases pass through the public classes."""

from pathlib import Path

import pytest

from golden import all_goldens
from referencenet.parity.verify import verify_case


@pytest.mark.parametrize("folder", all_goldens("magic_animate-*"), ids=lambda folder: folder.name)
def test_golden_cases_pass(folder: Path) -> None:
    result = verify_case(folder)
    assert result.status == "passed", result
