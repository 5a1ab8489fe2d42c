"""Parts of the denoising loop: guidance halves and calls of a UNet as values."""

from referencenet.sampling.guidance import half_weights
from referencenet.sampling.unet_call import UNetCall

__all__ = ["UNetCall", "half_weights"]
