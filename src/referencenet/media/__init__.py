"""Pictures, films and sound in and out."""

from referencenet.media.files import written_whole
from referencenet.media.films import Film, frame_rate, write_film
from referencenet.media.images import Picture, fit_size, read_image, read_mask, resize, to_tensor
from referencenet.media.sheets import contact_sheet, write_image
from referencenet.media.sound import Sound, read_sound

__all__ = [
    "Film",
    "Picture",
    "Sound",
    "contact_sheet",
    "fit_size",
    "frame_rate",
    "read_image",
    "read_mask",
    "read_sound",
    "resize",
    "to_tensor",
    "write_film",
    "write_image",
    "written_whole",
]
