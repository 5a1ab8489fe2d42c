"""The networks of `refnet models fetch` for tests: where they are, and a mark for tests that need them."""

from importlib.util import find_spec

import pytest

from referencenet.preprocess.model_files import are_fetched, default_folder

MODELS = default_folder()
needs_models = pytest.mark.skipif(
    find_spec("ai_edge_litert") is None or not are_fetched(MODELS),
    reason=f"{MODELS} does not hold MediaPipe's networks (`refnet models fetch`), or LiteRT is not installed",
)
