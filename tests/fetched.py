"""The networks of `refnet models fetch` for tests: where they are, and a mark for tests that need them."""

import pytest

from referencenet.preprocess.model_files import are_fetched, default_folder

MODELS = default_folder()
needs_models = pytest.mark.skipif(
    not are_fetched(MODELS), reason=f"{MODELS} does not hold MediaPipe's networks: run `refnet models fetch`"
)
