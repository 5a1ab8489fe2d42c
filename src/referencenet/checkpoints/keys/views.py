"""View modules in latent-diffusion checkpoints (DiffPortrait3D): lists of their own beside the UNet's blocks."""

from __future__ import annotations

from collections.abc import Mapping

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys.ldm import Renames, prefix_of, unet_keys
from referencenet.checkpoints.motion_keys import MOTION_KEYS


def view_renames(levels: int = 4, blocks: int = 2) -> Renames:
    """Places of the view modules, which are numbered as the blocks that they follow.

    Args:
        levels: Resolutions.
        blocks: Residual blocks in each of the encoder; the decoder has one more.
    """
    pairs: Renames = [(r"^middle_block_motion_module\.0\.", "mid_block.motion_modules.0.")]
    for level in range(levels):
        first = (blocks + 1) * level
        for j in range(blocks + 1):
            down = f"motion_modules.{j}" if j < blocks else "downsamplers.0.motion_modules.0"
            pairs.append((rf"^input_blocks_motion_module\.{first + j}\.0\.", f"down_blocks.{level}.{down}."))
            is_behind_sampler = j == blocks and level < levels - 1
            up = r"upsamplers.0.motion_modules.\1" if is_behind_sampler else f"motion_modules.{j}"
            pairs.append((rf"^output_blocks_motion_module\.{first + j}\.(\d)\.", f"up_blocks.{level}.{up}."))
    return pairs


def view_unet_keys(
    prefix: str, ignored: Mapping[str, str] | None = None, *, levels: int = 4, blocks: int = 2
) -> KeyMap:
    """A UNet's keys, view modules and all, to `ViewUNet`.

    Args:
        prefix: Of the UNet in the file, with its dot.
        ignored: What else the file holds, and why it is left out.
        levels: Resolutions.
        blocks: Residual blocks in each.
    """
    plain = unet_keys(prefix, ignored, levels=levels, blocks=blocks)
    own = [*prefix_of(prefix), *view_renames(levels, blocks), *MOTION_KEYS.renames]
    return KeyMap(renames=[*own, *plain.renames], ignored={**plain.ignored, **MOTION_KEYS.ignored})
