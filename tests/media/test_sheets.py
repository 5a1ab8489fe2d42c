"""Contact sheets hold every picture and caption; files are written whole or not at all."""

import numpy as np
import pytest
from PIL import Image

from referencenet.media.files import written_whole
from referencenet.media.sheets import contact_sheet, write_image


def plain(colour, size=(20, 30)):
    return Image.new("RGB", size, colour)


def test_sheet_holds_every_picture_in_reading_order():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    sheet = np.array(contact_sheet([plain(c) for c in colours], columns=2, gutter=4))
    assert sheet.shape == (4 + 2 * 34, 4 + 2 * 24, 3)
    assert [tuple(sheet[y, x]) for y, x in [(10, 10), (10, 34), (44, 10)]] == colours
    assert tuple(sheet[44, 34]) == (255, 255, 255)


def test_smaller_pictures_stand_in_the_middle_of_their_cell():
    sheet = np.array(contact_sheet([plain("black", (10, 10)), plain("black", (20, 20))], columns=1, gutter=0))
    assert (sheet == 0).all()  # scaled up to its cell
    tall = np.array(contact_sheet([plain("black", (10, 20)), plain("black", (20, 20))], columns=1, gutter=0))
    assert (tall[10, :5] == 255).all()
    assert (tall[10, 5:15] == 0).all()


def test_captions_are_drawn_and_long_ones_are_broken():
    without = contact_sheet([plain("red", (80, 20))] * 2, columns=2)
    short = contact_sheet([plain("red", (80, 20))] * 2, columns=2, captions=["a", "b"])
    long = contact_sheet([plain("red", (80, 20))] * 2, columns=2, captions=["many words that need more lines", "b"])
    assert without.height < short.height < long.height
    drawn = np.array(short)[-20:]
    assert drawn.min() < 100


def test_headings_stand_above_the_columns():
    sheet = np.array(contact_sheet([plain("red")] * 2, columns=2, headings=["one", "two"], gutter=10))
    assert sheet[:20].min() < 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pictures": []}, "0 pictures"),
        ({"pictures": [plain("red")], "captions": ["a", "b"]}, "1 pictures and 2 captions"),
        ({"pictures": [plain("red")], "columns": 1, "headings": ["a", "b"]}, "1 columns was given 2 headings"),
    ],
)
def test_sheets_that_do_not_add_up_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        contact_sheet(**arguments)


def test_picture_is_written_into_new_folders_and_read_back(tmp_path):
    path = write_image(plain("red"), tmp_path / "new" / "a.png")
    with Image.open(path) as picture:
        assert picture.size == (20, 30)
    with pytest.raises(ValueError, match=r"'\.docx', which names no picture format"):
        write_image(plain("red"), tmp_path / "a.docx")


def test_interrupted_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _interrupted_write(path)
    assert path.read_text() == "old"
    with written_whole(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def _interrupted_write(path):
    with written_whole(path) as temporary:
        temporary.write_text("half of the ne")
        raise KeyboardInterrupt
