"""DiffPortrait3D's training: `recipe.py` and its configurations."""
