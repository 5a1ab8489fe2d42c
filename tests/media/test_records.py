"""What decided a picture or film stands in it, whatever its format, or beside it where the format has no place."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, features

from referencenet.media.films import write_film
from referencenet.media.records import LONGEST_DESCRIPTION, read_record
from referencenet.media.sheets import WRITTEN, write_image
from referencenet.version import __version__
from tiny import picture

RECORD = {"prompt": "größer, \u732b", "again": {"command": "face", "options": {"seed": 3}}, "left open": None}
READ = {"prompt": RECORD["prompt"], "again": RECORD["again"], "referencenet": __version__}
WITHOUT_PLACE = (".bmp", ".jp2", ".ppm", ".tga")


@pytest.mark.parametrize("ending", WRITTEN)
def test_every_format_with_a_place_holds_it(ending: str, tmp_path: Path) -> None:
    if ending == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    path = write_image(picture(1, (16, 16)), tmp_path / f"picture{ending}", RECORD)
    if ending in WITHOUT_PLACE:
        with pytest.raises(ValueError, match="does not say how it was drawn"):
            read_record(path)
    else:
        assert read_record(path) == READ


@pytest.mark.parametrize("name", ["film.gif", "film.mp4", "film.webm", "frames"])
def test_films_and_each_of_their_frames_hold_it(name: str, tmp_path: Path) -> None:
    path = write_film([picture(i, (16, 16)) for i in range(3)], tmp_path / name, 10, settings=RECORD)
    path.with_name(f"{name}.json").unlink()
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        assert read_record(file) == READ


def test_what_is_too_long_for_a_jpeg_stands_beside_it_alone(tmp_path: Path) -> None:
    path = write_image(picture(1, (16, 16)), tmp_path / "long.jpg", {"prompt": "a" * LONGEST_DESCRIPTION})
    with pytest.raises(ValueError, match="there is no long.jpg.json"):
        read_record(path)


@pytest.mark.parametrize("ending", [".jpg", ".webp", ".tif"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0e\x01"]
)
def test_broken_metadata_says_nothing(ending: str, exif: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"broken{ending}"
    picture(1, (16, 16)).save(path, **({} if ending == ".tif" else {"exif": exif}))
    if ending == ".tif":
        path.write_bytes(path.read_bytes()[:-4] + exif[-4:])
    with pytest.raises(ValueError, match=r"does not say how it was drawn|can be read"):
        read_record(path)


@pytest.mark.parametrize("name", ["other.gif", "other.jpg"])
def test_words_of_other_programs_are_no_record(name: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a cat"
    said = {"comment": b"a cat"} if name.endswith("gif") else {"exif": exif.tobytes()}
    picture(1, (16, 16)).save(tmp_path / name, **said)
    with pytest.raises(ValueError, match="does not say how it was drawn"):
        read_record(tmp_path / name)


def test_a_film_is_a_file_and_no_list_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colon in a name makes no address of it, and what a list names is not opened."""
    monkeypatch.chdir(tmp_path)
    write_film([picture(i, (16, 16)) for i in range(2)], Path("take:2.mp4"), 10, settings=RECORD)
    Path("take:2.mp4.json").unlink()
    assert read_record(Path("take:2.mp4")) == READ
    for text in ("ffconcat version 1.0\nfile take:2.mp4\n", "#EXTM3U\n#EXTINF:1,\ntake:2.mp4\n#EXT-X-ENDLIST\n"):
        Path("list.mp4").write_text(text)
        with pytest.raises(ValueError, match="list.mp4 is not a film that can be read"):
            read_record(Path("list.mp4"))
    Path("drawn.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(ValueError, match="drawn.png is not a picture or film"):
        read_record(Path("drawn.png"))
