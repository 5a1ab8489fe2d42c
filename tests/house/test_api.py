"""The public names and signatures are those of api.txt; a change is a decision, made by changing that file too."""

import difflib
from pathlib import Path

from house.public import api

RECORDED = Path(__file__).parent / "api.txt"


def test_public_api_is_what_is_recorded():
    recorded = RECORDED.read_text(encoding="utf-8")
    changes = "\n".join(difflib.unified_diff(recorded.splitlines(), api().splitlines(), "api.txt", "now", n=0))
    assert not changes, (
        f"the public API changed:\n{changes}\nIf that is meant: python tests/house/public.py > {RECORDED}"
    )
