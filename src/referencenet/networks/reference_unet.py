"""The reference UNet: Stable Diffusion's UNet without an output head.

Of a reference net only the inputs of its self-attentions are used. The released reference nets of Animate Anyone and
its relatives therefore hold no `conv_norm_out` and `conv_out`; with them left out, a file is loaded strictly.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from diffusers import ModelMixin, UNet2DConditionModel
from torch import nn

from referencenet.networks.single_token import skip_single_tokens


class ReferenceUNet(UNet2DConditionModel, ModelMixin):  # diffusers loads a component whose file names ModelMixin
    """diffusers' UNet2DConditionModel whose output is what its last up block leaves: (batch, first width, h, w)."""

    @wraps(UNet2DConditionModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv_norm_out = None
        self.conv_out = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        skip_single_tokens(self)
