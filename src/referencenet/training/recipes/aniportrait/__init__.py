"""AniPortrait's training: `recipe.py` and its configurations."""
