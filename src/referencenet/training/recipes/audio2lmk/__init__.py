"""Audio2Lmk's training: `recipe.py` and its configurations."""
