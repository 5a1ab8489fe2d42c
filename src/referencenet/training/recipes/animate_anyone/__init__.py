"""Animate Anyone's training: `recipe.py` and its configurations."""
