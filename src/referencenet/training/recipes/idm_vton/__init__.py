"""IDM-VTON's training: `recipe.py` and its configurations."""
