"""CatVTON's released names: a number in a list of modules instead of the self-attention that is meant.

The list was made by walking the UNet in the order in which its parts were registered (down, up, middle) and taking
every module with "attn1" in its name: each self-attention and each of its seven inner modules. So every weight has two
or three names, and a file may keep whichever of them, or several.
"""

BLOCKS = (
    *(f"down_blocks.{level}.attentions.{pair}" for level in range(3) for pair in range(2)),
    *(f"up_blocks.{level}.attentions.{pair}" for level in range(1, 4) for pair in range(3)),
    "mid_block.attentions.0",
)
"""Stable Diffusion 1.5's transformers, as registered."""

INNER = ("", ".to_q", ".to_k", ".to_v", ".to_out", ".to_out.0", ".to_out.1", ".processor")
"""A self-attention and its modules, as walked; dropout and processor have no weights."""

CATVTON_NAMES = tuple(
    (rf"^{len(INNER) * place + number}\.", f"{block}.transformer_blocks.0.attn1{inner}.")
    for place, block in enumerate(BLOCKS)
    for number, inner in enumerate(INNER)
)
"""For `KeyMap.renames`."""
