"""Parts of the denoising loop: references, guidance halves, and calls of a UNet as values."""

from referencenet.sampling.guidance import half_weights
from referencenet.sampling.references import Reference, as_references
from referencenet.sampling.session import Session, Settings
from referencenet.sampling.unet_call import UNetCall

__all__ = ["Reference", "Session", "Settings", "UNetCall", "as_references", "half_weights"]
