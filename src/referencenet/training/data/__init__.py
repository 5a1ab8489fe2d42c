"""Data sets as they lie on the disk, to samples, to batches that are drawn from their numbers."""
