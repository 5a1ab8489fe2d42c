"""Parts2Whole's training: `recipe.py` and its configurations."""
