"""Pictures, films and sound in and out."""

from typing import TYPE_CHECKING

from referencenet.later import front_door

if TYPE_CHECKING:  # a line for each public name; everybody else goes by `front_door`
    from referencenet.media.files import written_whole as written_whole
    from referencenet.media.films import Film as Film
    from referencenet.media.films import frame_rate as frame_rate
    from referencenet.media.films import write_film as write_film
    from referencenet.media.images import Picture as Picture
    from referencenet.media.images import fit_size as fit_size
    from referencenet.media.images import read_image as read_image
    from referencenet.media.images import read_mask as read_mask
    from referencenet.media.images import resize as resize
    from referencenet.media.images import to_tensor as to_tensor
    from referencenet.media.sheets import contact_sheet as contact_sheet
    from referencenet.media.sheets import write_image as write_image
    from referencenet.media.sound import Sound as Sound
    from referencenet.media.sound import read_sound as read_sound

__getattr__ = front_door(
    __name__,
    {
        "files": ["written_whole"],
        "films": ["Film", "frame_rate", "write_film"],
        "images": ["Picture", "fit_size", "read_image", "read_mask", "resize", "to_tensor"],
        "sheets": ["contact_sheet", "write_image"],
        "sound": ["Sound", "read_sound"],
    },
)

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
