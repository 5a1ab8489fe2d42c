"""Commands show their own progress: the libraries' bars for reading weights are switched off."""

from diffusers.utils import logging as diffusers_logging
from huggingface_hub.utils import enable_progress_bars
from transformers.utils import logging as transformers_logging


def quiet() -> None:
    """Switch off the libraries' bars, but those of downloads; under `refnet --debug` they stay."""
    if transformers_logging.get_verbosity() < transformers_logging.ERROR:
        return
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()  # the hub's bars as well
    enable_progress_bars()
