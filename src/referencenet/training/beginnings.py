"""What the starting points of several systems share: grafts of Stable Diffusion 1.5's UNet, and AnimateDiff's file."""

from __future__ import annotations

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.motion_keys import MOTION, MOTION_KEYS, check_position_tables
from referencenet.checkpoints.published import PublishedFile
from referencenet.checkpoints.start import Graft

SAME = KeyMap()
"""The base's own names."""

ENCODER_ONLY = {r"(up_blocks|conv_norm_out|conv_out)\..*": "a ControlNet is an encoder and a middle"}

WRITER = Graft(base=SAME, left_out={r"conv_(norm_)?out\..*": "a reference net's output is never used"})
"""A reference net without an output head."""

CUT_WRITER = Graft(
    base=SAME,
    left_out={
        r"(conv_norm_out|conv_out)\..*": "a reference net's output is never used",
        r"up_blocks\.\d+\.attentions\.\d+\.(proj_out|transformer_blocks\.\d+\.(attn1|attn2|norm2|norm3|ff))\..*":
            "behind the last self-attention's input",
    },
)  # fmt: skip
"""One that ends at the last self-attention's input."""

FILM = Graft(base=SAME)
"""A denoiser of films: the base's UNet, and motion modules from a file."""

CONTROLNET = Graft(
    base=SAME,
    left_out=ENCODER_ONLY,
    new={
        r"controlnet_cond_embedding\..*": "the drawings' encoder, which ends in zeros",
        r"controlnet_(down_blocks|mid_block)\..*": "the outputs, which are zero",
    },
)
"""A ControlNet of the base."""

NOTHING = "no other model has such a network"


def anew(why: str = NOTHING) -> Graft:
    """A network that begins as PyTorch draws it."""
    return Graft(new={".*": why})


def motion_file(path: str = "mm_sd_v15_v2.ckpt", keymap: KeyMap = MOTION_KEYS) -> PublishedFile:
    """AnimateDiff's motion modules for the component `unet`.

    Args:
        path: Of the file.
        keymap: To our names.
    """
    return PublishedFile(path=path, component="unet", keymap=keymap, share=MOTION, checks=(check_position_tables,))


MOTION_SOURCE = "huggingface.co/guoyww/animatediff"
"""Where AnimateDiff's files are."""
MOTION_LICENCE = "Apache-2.0 (AnimateDiff, unverified); base: CreativeML OpenRAIL-M"
