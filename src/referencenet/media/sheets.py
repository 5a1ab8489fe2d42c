"""Pictures out: single files and contact sheets, many captioned pictures side by side.

Captions are drawn with the font that Pillow brings, so that no font has to be installed.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from referencenet.media.files import check_place, written_whole
from referencenet.media.records import inside

WRITTEN = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".ppm", ".tga")
"""Endings of formats that Pillow writes colours in."""

GROUND, INK = "white", "#202020"
LINE_HEIGHT = 1.35  # of the font size


def write_image(image: Image.Image, path: str | os.PathLike[str], record: Mapping[str, Any] | None = None) -> Path:
    """Write a picture whole or not at all; the ending of the path chooses the format.

    Args:
        image: The picture.
        path: Where to; missing folders are made. An existing file is replaced.
        record: What decided the picture, to stand in the file where its format has a place for it, see `media.records`.

    Returns:
        The path written to.
    """
    path = Path(path)
    check_picture_path(path)
    with written_whole(path) as temporary:
        image.save(temporary, **({} if record is None else inside(path.suffix, record)))
    return path


def check_picture_path(path: Path) -> None:
    """Make sure that a picture can be written there.

    Raises:
        ValueError: If it is a folder, or its ending names no format.
        OSError: If its folder may not be written to.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a picture in it, as in {path / 'picture.png'}.")
    if path.suffix.lower() not in WRITTEN:
        raise ValueError(
            f"{path.name} ends with {path.suffix!r}, which names no picture format; use .png, .jpg or .webp."
        )
    check_place(path)


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures next to each other, all as high as the last."""
    height = pictures[-1].height
    fitted = [picture.resize((round(picture.width * height / picture.height), height)) for picture in pictures]
    row = Image.new("RGB", (sum(picture.width for picture in fitted), height))
    left = 0
    for picture in fitted:
        row.paste(picture, (left, 0))
        left += picture.width
    return row


def contact_sheet(
    pictures: Sequence[Image.Image],
    *,
    captions: Sequence[str] = (),
    headings: Sequence[str] = (),
    title: str = "",
    columns: int | None = None,
    cell: tuple[int, int] | None = None,
    least: int = 0,
    gutter: int = 12,
    font_size: int = 14,
) -> Image.Image:
    """Lay pictures out in rows, each with a caption beneath.

    Args:
        pictures: At least one, in reading order. Each is scaled to its cell, keeping its proportions.
        captions: None, or one for each picture; may have several lines, and long lines are broken.
        headings: None, or one for each column, drawn above the first row.
        title: Of the sheet, above all; long lines are broken.
        columns: Pictures in a row; by default a nearly square sheet.
        cell: Width and height for each picture in pixels; by default those of the largest.
        least: Pixels that the shorter side of a cell has at least: smaller ones are enlarged by a whole factor.
        gutter: Pixels between and around the cells.
        font_size: Of captions and headings, in pixels.

    Returns:
        The sheet, mode RGB.
    """
    if not pictures:
        raise ValueError("A contact sheet was given 0 pictures; give at least one.")
    if captions and len(captions) != len(pictures):
        raise ValueError(
            f"A contact sheet was given {len(pictures)} pictures and {len(captions)} captions; give one each."
        )
    columns = columns or round(len(pictures) ** 0.5 + 0.49)
    if headings and len(headings) != columns:
        raise ValueError(f"A contact sheet of {columns} columns was given {len(headings)} headings; give one each.")
    font = ImageFont.load_default(font_size)
    width, height = cell or (max(p.width for p in pictures), max(p.height for p in pictures))
    factor = max(1, math.ceil(least / min(width, height)))
    width, height = width * factor, height * factor
    whole_width = gutter + columns * (width + gutter)
    titles = _broken(title, whole_width - 2 * gutter, font)
    notes = [_broken(caption, width, font) for caption in captions]
    line = round(font_size * LINE_HEIGHT)
    heads = [_broken(heading, width, font) for heading in headings]
    heads_top = gutter // 2 + line * len(titles)
    top = heads_top + gutter - gutter // 2 + line * max((len(lines) for lines in heads), default=0)
    row_height = height + line * max((len(lines) for lines in notes), default=0) + gutter
    num_rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (whole_width, top + num_rows * row_height), GROUND)
    draw = ImageDraw.Draw(sheet)
    _write_lines(draw, titles, whole_width // 2, gutter // 2, line, font)
    for column, lines in enumerate(heads):
        _write_lines(draw, lines, gutter + column * (width + gutter) + width // 2, heads_top, line, font)
    for index, picture in enumerate(pictures):
        left, upper = gutter + index % columns * (width + gutter), top + index // columns * row_height
        sheet.paste(*_placed(picture, (left, upper), (width, height)))
        if notes:
            _write_lines(draw, notes[index], left + width // 2, upper + height + 2, line, font)
    return sheet


def _placed(
    picture: Image.Image, corner: tuple[int, int], cell: tuple[int, int]
) -> tuple[Image.Image, tuple[int, int]]:
    """Scale a picture into its cell and say where its corner goes, so that it stands in the middle.

    Whole factors show every pixel as a square.
    """
    scale = min(cell[0] / picture.width, cell[1] / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    if size != picture.size:
        how = Image.Resampling.NEAREST if scale >= 2 and scale == int(scale) else Image.Resampling.LANCZOS
        picture = picture.convert("RGB").resize(size, how)
    return picture.convert("RGB"), (corner[0] + (cell[0] - size[0]) // 2, corner[1] + (cell[1] - size[1]) // 2)


def _broken(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Break text into lines that fit; a single word that is too long stays whole."""
    lines = []
    for paragraph in text.splitlines():
        current = ""
        for word in paragraph.split():
            longer = f"{current} {word}".strip()
            if current and font.getlength(longer) > width:
                lines.append(current)
                longer = word
            current = longer
        lines.append(current)
    return lines


def _write_lines(
    draw: ImageDraw.ImageDraw,
    lines: list[str],
    center: int,
    top: int,
    line_height: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    for number, text in enumerate(lines):
        draw.text((center, top + number * line_height), text, fill=INK, font=font, anchor="ma")
