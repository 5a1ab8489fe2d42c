"""What Stable Diffusion 1.5 has behind the last self-attention's input, and a cut reference net has not.

Some released reference nets were saved with these tensors, others without; a `ReferenceUNet(cut=True)` never uses them.
"""

CUT_TAIL = (
    r"conv_norm_out\..*|conv_out\..*|up_blocks\.3\.attentions\.2\."
    r"(proj_out|transformer_blocks\.0\.(attn1|attn2|norm2|norm3|ff))\..*"
)
"""Pattern of the 24 keys."""

IGNORED_TAIL = {CUT_TAIL: "behind the last norm1: a reference net's output is never used"}
"""For `KeyMap.ignored`."""
