"""The key map of AnimateDiff's motion modules as published, for all systems whose files hold them.

The published position tables are kept, one of the two that a block has: some files hold tables of other rounding or
length.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from referencenet.checkpoints.keymap import CheckpointError, KeyMap
from referencenet.checkpoints.published import PublishedFile
from referencenet.telling import some

MOTION_KEYS = KeyMap(
    renames=(
        (r"(^|\.)temporal_transformer\.", r"\1"),
        (r"\.attention_blocks\.0\.pos_encoder\.pe$", ".pos_embed.pe"),
        (r"\.attention_blocks\.0\.", ".attn1."),
        (r"\.attention_blocks\.1\.", ".attn2."),
        (r"\.norms\.0\.", ".norm1."),
        (r"\.norms\.1\.", ".norm2."),
        (r"\.ff_norm\.", ".norm3."),
    ),
    ignored={r".*\.attention_blocks\.1\.pos_encoder\.pe": "the same table as that of the block's first attention"},
)

TABLE_TOLERANCE = 1e-3  # tables stored in half precision differ by less


def check_position_tables(state: Mapping[str, Tensor], source: str) -> None:
    """Make sure that leaving out every second position table loses nothing.

    Raises:
        CheckpointError: If the two tables of a block differ.
    """
    tables = [key for key in state if key.endswith(".attention_blocks.0.pos_encoder.pe")]
    differing = [
        key
        for key in tables
        if (other := state.get(key.replace("attention_blocks.0.", "attention_blocks.1."))) is not None
        and not torch.allclose(state[key].float(), other.float(), rtol=0, atol=TABLE_TOLERANCE)
    ]
    if differing:
        raise CheckpointError(
            f"{source} holds two different position tables in one motion block ({some(differing)}), but a block "
            f"here has one; "
            "the file is of another system or was trained with learned positions."
        )


MOTION = r".*\.motion_modules\..*"
"""The motion modules' share of a denoiser's keys, by our names."""


def film_denoiser(path: str, motion: str | None = None, *, manifest: str) -> tuple[PublishedFile, ...]:
    """Rows of a film's denoiser, the component `unet`, in one file or with its motion modules in a file of their own.

    Args:
        path: Of the denoiser.
        motion: Of the motion modules, if they have a file.
        manifest: First part of the key lists' names; the files' follow.
    """
    name = path.rsplit("/", 1)[-1].split(".")[0]
    common = {"component": "unet", "keymap": MOTION_KEYS}
    if motion is None:
        return (PublishedFile(path=path, checks=(check_position_tables,), manifest=f"{manifest}{name}", **common),)
    stem = motion.rsplit("/", 1)[-1].split(".")[0]
    return (
        PublishedFile(
            path=motion, share=MOTION, checks=(check_position_tables,), manifest=f"{manifest}{stem}", **common
        ),
        PublishedFile(path=path, share=rf"(?!{MOTION}).*", manifest=f"{manifest}{name}", **common),
    )
