"""Pictures in and out."""

from referencenet.media.files import written_whole
from referencenet.media.images import Picture, fit_size, read_image, read_mask, resize, to_tensor
from referencenet.media.sheets import contact_sheet, write_image

__all__ = [
    "Picture",
    "contact_sheet",
    "fit_size",
    "read_image",
    "read_mask",
    "resize",
    "to_tensor",
    "write_image",
    "written_whole",
]
