"""The published systems' trainings, one folder each; `index.py` finds them."""
