"""AniPortrait's golden cases pass through the public classes."""

from typing import Any

import pytest

from golden import all_goldens, read_content
from referencenet.parity.verify import verify_case


def cases() -> list[Any]:
    """A case with the pose guider has 127 million weights to draw, so it is slow."""
    folders = all_goldens("aniportrait-*")
    slow = [[pytest.mark.slow] if "pose_guider" in read_content(f).get("components", {}) else [] for f in folders]
    return [pytest.param(f, marks=marks, id=f.name) for f, marks in zip(folders, slow, strict=True)]


@pytest.mark.parametrize("folder", cases())
def test_golden_cases_pass(folder: Any) -> None:
    result = verify_case(folder)
    assert result.status == "passed", result
