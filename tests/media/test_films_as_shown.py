"""Films are read as a player shows them, and written as they are read; what cannot be is said."""

import os
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from encoded_films import RAW, encode, textured
from referencenet.media.encoding import gif_times
from referencenet.media.files import forget_settings, settings_path
from referencenet.media.films import Film, FilmWriter, check_film_path, frames_of, write_film
from referencenet.media.images import read_image
from referencenet.telling import Notice

RED = (200, 30, 60)


def half_red(_: int = 0) -> np.ndarray:
    """Red above, black below."""
    array = np.zeros((32, 64, 3), np.uint8)
    array[:16] = RED
    return array


@pytest.mark.parametrize(("turn", "corner"), [(90, (5, 40)), (-90, (25, 5)), (180, (5, 25))])
def test_a_turned_film_comes_upright(turn: int, corner: tuple[int, int], tmp_path: Path) -> None:
    picture = next(iter(Film(encode(tmp_path / "film.mp4", 2, turn=turn, frame=half_red))))
    assert picture.size == ((64, 32) if turn == 180 else (32, 64))
    assert picture.getpixel(corner)[0] > 100


def test_narrow_pixels_become_square(tmp_path: Path) -> None:
    assert next(iter(Film(encode(tmp_path / "film.mp4", 2, shape=Fraction(2))))).size == (128, 32)


def test_what_an_edit_list_cuts_away_is_no_frame(tmp_path: Path) -> None:
    """As `ffmpeg -ss 0.24 -i in.mp4 -c copy out.mp4` leaves it: the frames before the cut lie in the file, unshown."""
    film = Film(encode(tmp_path / "cut.mp4", 30, begin=6))
    pictures = list(film)
    assert len(film) == len(pictures) == 24
    difference = [np.abs(np.asarray(pictures[0]).astype(int) - textured(i)).mean() for i in range(12)]
    assert int(np.argmin(difference)) == 6


def cut_behind_a_key_frame(path: Path, whole: Path) -> Path:
    """Copy a film's packets from the seventh on, which needs those before it."""
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream: Any = target.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            if i >= 6:
                packet.stream = stream
                target.mux(packet)
    return path


def test_frames_that_do_not_decode_do_not_count(tmp_path: Path) -> None:
    cut = cut_behind_a_key_frame(tmp_path / "cut.ts", encode(tmp_path / "whole.ts"))
    film = Film(cut)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        assert len(film) == len(list(film)) > 0


@pytest.mark.parametrize("ending", [".ts", ".mkv"])
def test_a_truncated_film_gives_what_is_there_with_a_word(ending: str, tmp_path: Path) -> None:
    whole = encode(tmp_path / f"whole{ending}", 60)
    short = tmp_path / f"short{ending}"
    short.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    film = Film(short)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        assert 20 < len(film) < 60
        assert len(film) == len(list(film))


def test_a_truncated_film_whose_index_comes_first_says_how_much_is_lost(tmp_path: Path) -> None:
    encode(tmp_path / "whole.mp4", 60)
    with av.open(str(tmp_path / "whole.mp4")) as source:
        with av.open(str(tmp_path / "first.mp4"), "w", options={"movflags": "+faststart"}) as target:
            stream: Any = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    content = (tmp_path / "first.mp4").read_bytes()
    (tmp_path / "short.mp4").write_bytes(content[: len(content) * 6 // 10])
    with pytest.warns(Notice, match="damaged or cut short: [0-9]+ packets do not decode"):
        assert 20 < len(Film(tmp_path / "short.mp4")) < 60


def test_a_film_without_its_index_is_told_in_a_line(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mp4")
    (tmp_path / "short.mp4").write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"short.mp4 is not a film that can be read \(cut short.*export it again"):
        Film(tmp_path / "short.mp4")


def test_a_variable_rate_is_told(tmp_path: Path) -> None:
    steps = [0, 1, 2, 3, 9, 10, 11, 30, 31, 32]
    with pytest.warns(Notice, match="variable rate: its 10 frames are taken one by one"):
        assert len(Film(encode(tmp_path / "film.mkv", 10, steps=steps))) == 10
    assert len(Film(encode(tmp_path / "steady.mkv", 10))) == 10  # a warning would be an error


def test_high_dynamic_range_is_told(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "hdr.mkv"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.codec_context.color_trc = 16
        container.mux(stream.encode(av.VideoFrame.from_ndarray(RAW, format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.warns(Notice, match="high dynamic range .PQ"):
        Film(tmp_path / "hdr.mkv")


@pytest.mark.parametrize("name", ["film.mp4", "film.webm"])
def test_colours_are_tagged_and_come_back(name: str, tmp_path: Path) -> None:
    path = write_film([Image.new("RGB", (64, 32), RED)] * 3, tmp_path / name)
    with av.open(str(path)) as container:
        context: Any = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
    assert np.abs(np.asarray(next(iter(Film(path)))).astype(int) - RED).max() <= 3


@pytest.mark.parametrize("rate", [60, 50, 30, 25, 24, 12, Fraction(30000, 1001), 100])
def test_a_gif_lasts_as_long_as_its_film(rate: int) -> None:
    shown, durations = gif_times(60, Fraction(rate))
    assert sum(durations) == pytest.approx(60_000 / rate, abs=10)
    assert min(durations) >= 20
    assert shown == sorted(set(shown))
    assert rate > 50 or shown == list(range(60))


def test_gif_by_any_case_of_its_ending_and_of_odd_sides(tmp_path: Path) -> None:
    frames = [Image.fromarray(textured(i)).crop((0, 0, 33, 17)) for i in range(30)]
    film = Film(write_film(frames, tmp_path / "film.GIF", 30))
    assert (len(film), next(iter(film)).size) == (30, (33, 17))
    with pytest.warns(Notice, match="shows 20 of 30 frames"):
        path = write_film(frames, tmp_path / "fast.gif", 60)
    assert len(Film(path)) == 20
    with Image.open(path) as gif:
        durations = []
        for i in range(gif.n_frames):
            gif.seek(i)
            durations.append(gif.info["duration"])
    assert sum(durations) == 500


def test_odd_or_unequal_frames_are_told_before_they_are_encoded(tmp_path: Path) -> None:
    odd = Image.new("RGB", (33, 16))
    with pytest.raises(ValueError, match=r"frames are 33 x 16, and .mp4 takes even sides"):
        write_film([odd], tmp_path / "film.mp4")
    with pytest.raises(ValueError, match="the frames are of sizes"):
        write_film([odd, Image.new("RGB", (32, 16))], tmp_path / "frames")


def test_a_folder_is_read_in_natural_order_without_hidden_files(tmp_path: Path) -> None:
    for i in range(1, 13):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "._0000.png").write_bytes(b"\0\5\x16\7Mac OS X")
    assert [picture.getpixel((0, 0))[0] for picture in Film(tmp_path)] == list(range(1, 13))


def transparent() -> list[Image.Image]:
    """Two frames, transparent but for a corner."""
    frames = [Image.new("RGBA", (16, 16), (255, 255, 255, 0)) for _ in range(2)]
    for i, frame in enumerate(frames):
        frame.paste((*RED, 255), (0, 0, 4 + i, 4))
    return frames


@pytest.mark.parametrize("kind", ["folder", "film.gif", "film.png", "film.webp", "list"])
def test_transparent_frames_lie_on_black_in_every_container(kind: str, tmp_path: Path) -> None:
    frames = transparent()
    if kind == "folder":
        for i, frame in enumerate(frames):
            frame.save(tmp_path / f"{i}.png")
    elif kind != "list":
        frames[0].save(tmp_path / kind, save_all=True, append_images=frames[1:], duration=40, lossless=True)
    source = frames if kind == "list" else tmp_path if kind == "folder" else tmp_path / kind
    read = list(frames_of(source))
    assert len(read) == 2
    assert all(frame.getpixel((12, 12)) == (0, 0, 0) for frame in read)
    assert read[0].getpixel((1, 1)) == RED
    if kind not in ("list", "folder"):
        assert Film(tmp_path / kind).rate == 25


def test_a_colon_in_a_name_is_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_film([Image.fromarray(textured(i)) for i in range(3)], "take:2.mp4")
    assert len(Film("take:2.mp4")) == 3
    with pytest.raises(ValueError, match="is a web address; download the film"):
        Film("https://example.org/film.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile whole.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nwhole.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5000 RTP/AVP 96\n",
    ],
)
def test_lists_of_other_files_are_not_followed(text: str, tmp_path: Path) -> None:
    encode(tmp_path / "whole.mp4", 3)
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(ValueError, match=r"list.mp4 is not a film that can be read"):
        Film(tmp_path / "list.mp4")


@pytest.mark.parametrize("read", [Film, read_image])
def test_a_pipe_is_told_and_not_waited_for(read: Callable[[Path], Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match=r"pipe.png is a pipe or a device, not a file"):
        read(tmp_path / "pipe.png")


def test_a_folder_of_frames_is_not_mixed_with_an_older_film(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(9)]
    write_film(frames, tmp_path / "out")
    for check in (check_film_path, lambda path: write_film(frames[:3], path)):
        with pytest.raises(FileExistsError, match="out holds 9 pictures already, such as 000000.png"):
            check(tmp_path / "out")
    write_film(frames[:3], tmp_path / "out", overwrite=True)
    assert len(Film(tmp_path / "out")) == 3
    frames[0].save(tmp_path / "out" / "holiday.png")
    with pytest.raises(FileExistsError, match="such as holiday.png"):
        write_film(frames[:3], tmp_path / "out", overwrite=True)


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8))] * 2
    with FilmWriter(tmp_path / "film.mp4", Fraction(25)) as writer:
        writer.add(frames)
        with pytest.raises(ValueError, match=r"another process is writing .*film.mp4"):
            FilmWriter(tmp_path / "film.mp4", Fraction(25))
        writer.add(frames)
        writer.finish()
    assert len(Film(write_film(frames, tmp_path / "film.mp4"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_foreign_files_among_the_pieces_are_passed_over(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "film.mp4", Fraction(25)) as writer:
        (writer.parts / "notes-of-mine.txt").write_text("mine")
        (writer.parts / "12-monkeys.mp4").write_text("mine")
        writer.add([Image.new("RGB", (8, 8))] * 2)
        writer.finish()
    assert len(Film(tmp_path / "film.mp4")) == 2


def test_pieces_that_another_program_touched_do_not_become_a_film(tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "film.mp4", Fraction(25)) as writer:
        writer.add([Image.new("RGB", (8, 8))] * 2)
        writer.add([Image.new("RGB", (8, 8))] * 3)
        writer.pieces[0].unlink()
        with pytest.raises(OSError, match="hold 3 frames, not 5"):
            writer.finish()
    assert not (tmp_path / "film.mp4").exists()


def test_settings_stand_beside_their_film_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, path = [Image.new("RGB", (8, 8))] * 2, tmp_path / "film.mp4"
    write_film(frames, path, settings={"seed": 1})
    assert '"seed": 1' in settings_path(path).read_text()
    with monkeypatch.context() as patch:
        patch.setattr(FilmWriter, "add", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_film(frames, path, settings={"seed": 2})
    assert '"seed": 1' in settings_path(path).read_text()  # of the film that is still there
    write_film(frames, path)  # without settings: the old ones do not tell of it
    assert not settings_path(path).exists()
    settings_path(path).write_text('{"mine": 1}')
    forget_settings(path)
    assert settings_path(path).exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("file/out", "is a file, not a folder"), ("file", "is a file, and a folder is to be written"),
     ("x" * 250, "is too long")],
)  # fmt: skip
def test_places_that_cannot_be_written_are_told_first(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=message):
        check_film_path(tmp_path / name)
