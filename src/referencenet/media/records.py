"""What decided a result, inside of it: a picture that is passed on can be drawn again by whoever has its inputs.

PNG pictures carry it as text, GIFs as their comment, JPEG, WebP, AVIF and TIFF pictures as their description, .mp4 and
.webm films as their comment; beside every result it stands as JSON as well. BMP, TGA, PPM and JPEG 2000 have no place
for it. A record says which command was given which options, the hashes of the files that they name, and what the
command settled on. Paths in it are whole ones, `~` in place of the home folder.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from referencenet.inputs import read_json, regular_file
from referencenet.media.decoding import opened
from referencenet.media.files import MAX_SETTINGS, settings_path
from referencenet.media.images import FORMATS
from referencenet.version import __version__

KEY = "referencenet"
"""Of the text in a PNG file; also what every record holds, with the version."""

FILMS = (".mp4", ".webm")
DESCRIBED = (".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff")
DESCRIPTION = ExifTags.Base.ImageDescription.value
LONGEST_DESCRIPTION = 60_000  # bytes: a JPEG file holds 65,533
LARGEST_HASHED = 2**26  # bytes; weights are larger, and hashing them takes longer than reading them


def as_text(record: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """A record as it is stored: without what was left open, with the version."""
    kept = {name: value for name, value in record.items() if value is not None} | {KEY: __version__}
    return json.dumps(kept, ensure_ascii=ascii_only, default=str)


def inside(ending: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """What Pillow's `save` is told so that a record stands in a picture; nothing where its format has no place for one.

    Args:
        ending: Of the picture, such as .png.
        record: What decided it.
    """
    ending, text = ending.lower(), as_text(record, ascii_only=True)
    if ending == ".png":
        return {"pnginfo": png_text(record)}
    if ending == ".gif":
        return {"comment": text.encode()}
    if ending not in DESCRIBED or len(text) > LONGEST_DESCRIPTION:
        return {}
    exif = Image.Exif()
    exif[DESCRIPTION] = text
    return {"exif": exif.tobytes()}


def png_text(record: Mapping[str, Any]) -> PngImagePlugin.PngInfo:
    """A record as the text of a PNG file."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(KEY, as_text(record))
    return info


def read_record(path: Path) -> dict[str, Any]:
    """What decided a picture or film: from inside of it, or from the JSON beside it.

    Args:
        path: Of the result.

    Raises:
        FileNotFoundError: If there is no such result.
        ValueError: If nothing is said in it or beside it, or not by this library.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; give a picture or film that refnet drew.")
    text = None if path.is_dir() else _film_text(path) if path.suffix.lower() in FILMS else _picture_text(path)
    beside = settings_path(path)
    if text is None and not beside.is_file():
        raise ValueError(
            f"{path.name} does not say how it was drawn: it has no settings in it, and there is no {beside.name}."
        )
    try:
        if text is not None and len(text) > MAX_SETTINGS:
            raise ValueError(f"its text has {len(text)} characters")
        found = json.loads(text) if text is not None else read_json(beside, "settings")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the settings of {path.name} cannot be read ({str(error)[:100]}).") from error
    if not isinstance(found, dict) or KEY not in found:
        raise ValueError(f"{path.name} was not drawn by refnet: its settings do not name the version.")
    return found


def file_print(path: str | Path) -> str | None:
    """A file's sha256; None if it is not there, or as large as weights are."""
    place = Path(path)
    if not place.is_file() or place.stat().st_size > LARGEST_HASHED:
        return None
    with regular_file(place).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def portable(path: str | Path) -> str:
    """A whole path, `~` in place of the home folder: it says less of its owner, and holds in another home as well."""
    whole, home = Path(path).expanduser().absolute(), Path.home()
    return f"~/{whole.relative_to(home).as_posix()}" if whole.is_relative_to(home) else str(whole)


def _picture_text(path: Path) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Corrupt EXIF", UserWarning)  # opening a JPEG reads its resolution there
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decoded
            with Image.open(regular_file(path), formats=FORMATS) as image:
                text = _text_of(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path.name} is not a picture or film that can be read ({str(error)[:100]}).") from error
    return text


def _text_of(image: Image.Image) -> str | None:
    """A record as `inside` puts it; None where there is none, or another program's words."""
    if image.format == "PNG":
        found = image.info.get(KEY)
        return None if found is None else str(found)
    if image.format == "GIF":
        said: Any = image.info.get("comment", b"").decode(errors="replace")
    else:
        try:
            with warnings.catch_warnings(action="ignore"):
                said = image.getexif().get(DESCRIPTION)
        except Exception:  # broken metadata is another program's: whatever its reader stumbles over
            return None
    return said if isinstance(said, str) and f'"{KEY}"' in said else None


def _film_text(path: Path) -> str | None:
    with closing(opened(path, "film", "give a film that refnet drew")) as film:
        said = {name.lower(): text for name, text in film.metadata.items()}
    comment = said.get("comment", "")
    return comment if f'"{KEY}"' in comment else None
