"""Published files to our names, strictly."""

from referencenet.checkpoints.files import check_finite, read_state
from referencenet.checkpoints.keymap import CheckpointError, KeyMap, Split
from referencenet.checkpoints.load import load_published

__all__ = ["CheckpointError", "KeyMap", "Split", "check_finite", "load_published", "read_state"]
