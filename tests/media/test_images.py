"""What a person hands over becomes an RGB picture, or an error that says what to do."""

import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from referencenet.media.images import MAX_PIXELS, fit_size, read_image, read_mask, resize, to_tensor

WIDTH, HEIGHT = 5, 3


@pytest.fixture
def colours():
    """(HEIGHT, WIDTH, 3) random colours."""
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def pixels(source):
    return np.array(read_image(source)).astype(int)


def test_rgb_file_is_read_as_it_is(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), colours)
    assert np.array_equal(pixels(str(tmp_path / "a.png")), colours)


def test_transparent_parts_become_white_and_half_transparent_ones_lighter():
    picture = np.zeros((1, 3, 4), np.uint8)
    picture[0, :, 3] = [0, 128, 255]
    red, *_ = pixels(Image.fromarray(picture)).transpose(2, 0, 1)
    assert red[0].tolist() == [255, 127, 0]


def test_transparent_palette_entry_becomes_white(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.putdata([0, 1])
    picture.save(tmp_path / "p.png", transparency=0)
    assert pixels(tmp_path / "p.png")[0].tolist() == [[255, 255, 255], [10, 20, 30]]


def test_greyscale_and_grey_with_alpha_become_rgb():
    assert pixels(Image.new("L", (2, 2), 77))[0, 0].tolist() == [77, 77, 77]
    assert pixels(Image.new("LA", (2, 2), (77, 0)))[0, 0].tolist() == [255, 255, 255]


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "c.tiff")
    assert pixels(tmp_path / "c.tiff")[0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("dtype", ["<u2", "int32"])
def test_sixteen_bits_are_scaled_not_cut(tmp_path, dtype):
    Image.fromarray(np.array([[0, 32896, 65535]], dtype)).save(tmp_path / "deep.tiff")
    assert pixels(tmp_path / "deep.tiff")[0, :, 0].tolist() == [0, 128, 255]


def test_sixteen_bit_array_is_scaled():
    assert pixels(np.array([[0, 257, 65535]], np.uint16))[0, :, 1].tolist() == [0, 1, 255]


def test_exif_rotated_photograph_is_turned_upright(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn by 90 degrees
    Image.fromarray(colours).save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").size == (HEIGHT, WIDTH)
    assert np.array_equal(pixels(tmp_path / "turned.png"), np.rot90(colours, -1))


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_arrays_and_tensors_agree(colours, channels):
    array = np.concatenate([colours, colours[..., :1]], axis=2)[..., : channels or 1]
    array = array if channels else array[..., 0]
    tensor = torch.from_numpy(array if array.ndim == 2 else array.transpose(2, 0, 1).copy())
    assert np.array_equal(pixels(array), pixels(tensor))
    assert np.array_equal(pixels(array), pixels(array.astype(np.float32) / 255))
    assert np.array_equal(pixels(array), pixels(tensor.double() / 255))


def test_batch_of_one_and_boolean_and_bfloat16_tensors_are_read():
    assert pixels(torch.ones(1, 3, 2, 2))[0, 0].tolist() == [255, 255, 255]
    assert pixels(np.eye(2, dtype=bool))[0, :, 0].tolist() == [255, 0]
    assert pixels(torch.full((3, 2, 2), 0.5, dtype=torch.bfloat16))[0, 0].tolist() == [128, 128, 128]


def test_transparent_parts_of_a_mask_mean_may_not():
    mask = np.full((1, 2, 4), 255, np.uint8)
    mask[0, 0, 3] = 0
    assert np.array(read_mask(Image.fromarray(mask))).tolist() == [[0, 255]]


def test_boolean_mask_becomes_black_and_white():
    assert np.array(read_mask(np.array([[True, False]]))).tolist() == [[255, 0]]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (None, TypeError, "was given a NoneType; give a path"),
        ([1, 2], TypeError, "was given a list"),
        ("https://example.org/a.png", ValueError, "download the picture"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "4 x 0 pixels, which is empty"),
        (Image.new("RGB", (0, 4)), ValueError, "0 x 4 pixels, which is empty"),
        (torch.zeros(3, 0, 4), ValueError, "4 x 0 pixels, which is empty"),
        (np.zeros((2, 4, 5, 3), np.uint8), ValueError, r"\(2, 4, 5, 3\); expected .* for several pictures give a list"),
        (np.zeros((3, 4, 5), np.uint8), ValueError, r"\(3, 4, 5\); expected .* channels come last in numpy"),
        (np.zeros((2, 3, 4, 5), np.uint8), ValueError, r"\(2, 3, 4, 5\); expected"),
        (torch.zeros(2, 3, 4, 5), ValueError, "give a list, one for each"),
        (np.full((2, 2), np.nan, np.float32), ValueError, "4 values that are NaN or infinite"),
        (torch.tensor([[0.0, float("inf")]]), ValueError, "1 values that are NaN or infinite"),
        (Image.fromarray(np.full((2, 2), np.nan, np.float32)), ValueError, "4 values that are NaN"),
        (np.full((2, 2), 200.0), ValueError, r"span 200 to 200; expected \[0, 1\]: divide by 255"),
        (np.array([[-1.0, 1.0]]), ValueError, "add 1 and divide by 2"),
        (np.zeros((2, 2), np.int64), ValueError, "type is int64; expected uint8"),
        (Image.fromarray(np.array([[-1, 9]], np.int32)), ValueError, "span -1 to 9; expected 16 bits"),
        (np.broadcast_to(np.uint8(0), (9000, 9000)), ValueError, "9000 x 9000 pixels; at most 67 million"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_lesson(source, error, message):
    with pytest.raises(error, match=message):
        read_image(source)


def test_missing_file_folder_and_text_file_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no picture .*nothing.png"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match="text.png is not a picture"):
        read_image(tmp_path / "text.png")


def test_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "short.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut short or damaged"):
        read_image(path)


@pytest.mark.parametrize("side", [9000, 10_000, 60_000])
def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_header(side))  # its pixel data is missing: decoding it would be another error
    with pytest.raises(ValueError, match="at most 67 million are read"):
        read_image(path)
    assert side * side > MAX_PIXELS


def _png_header(side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_tensor_of_a_picture_and_back_is_exact(colours):
    tensor = to_tensor(Image.fromarray(colours))
    assert tensor.shape == (3, HEIGHT, WIDTH)
    assert tensor.dtype == torch.float32
    assert np.array_equal(pixels(tensor), colours)
    assert to_tensor(Image.new("L", (5, 3), 255)).shape == (1, 3, 5)
    with pytest.raises(ValueError, match="mode RGBA"):
        to_tensor(Image.new("RGBA", (2, 2)))


@given(
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    target=st.tuples(st.integers(64, 1024), st.integers(64, 1024)),
    multiple=st.sampled_from([1, 8, 16, 64]),
)
def test_fitted_sizes_are_multiples_and_never_far_larger_than_asked(size, target, multiple):
    width, height = fit_size(size, target=target, multiple=multiple)
    assert width % multiple == height % multiple == 0
    assert min(width, height) >= multiple
    assert width * height <= 2.3 * max(target[0] * target[1], multiple**2)


def test_fit_keeps_proportions_and_area_while_stretch_gives_the_size():
    wide = Image.new("RGB", (400, 100))
    assert resize(wide, (64, 64)).size == (128, 32)
    assert resize(wide, (64, 64), how="stretch").size == (64, 64)
    assert resize(wide, (60, 70), how="stretch", multiple=1).size == (60, 70)
    assert resize(Image.new("L", (64, 64)), (64, 64)).mode == "L"
    with pytest.raises(ValueError, match="'crop'; it can be 'fit'"):
        resize(wide, (64, 64), how="crop")
