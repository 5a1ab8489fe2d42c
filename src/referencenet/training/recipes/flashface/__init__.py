"""FlashFace's training: `recipe.py` and its configurations."""
