"""Hallo's training: `recipe.py` and its configurations."""
