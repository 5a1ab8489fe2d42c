"""Pictures in: whatever a person may hand over becomes an 8-bit RGB picture, or an error that says what to do.

Converted: file paths, Pillow pictures of every mode (transparent ones are laid over white, 16-bit ones scaled,
EXIF-rotated ones turned upright, CMYK and palettes to RGB), numpy arrays and torch tensors.
Refused with a reason: files that are missing, cut short, or no pictures; empty, enormous or non-finite data.

Letters in shapes: C channels (1 grey, 3 RGB, 4 RGBA), H height, W width in pixels.
Deliberately not here: normalisation to a model's range; that belongs to the model's own image processor.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union

from PIL import Image, ImageOps, UnidentifiedImageError

from referencenet.inputs import regular_file
from referencenet.later import later

if TYPE_CHECKING:
    import numpy as np
    import torch
else:
    np, torch = later("numpy", "torch")  # a picture's file is read without torch, and help is given without both

Picture = Union[Image.Image, "np.ndarray", "torch.Tensor", str, os.PathLike[str]]
Resize = Literal["fit", "stretch"]

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "GIF", "JPEG2000", "PPM", "TGA", "ICO", "PCX", "SGI")
"""What Pillow may take a file for: pictures that it decodes itself, without another program."""

ANIMATED = ("PNG", "WEBP", "AVIF", "GIF")
"""Of those whose further pictures are frames; other files have pages, or small copies."""

MAX_PIXELS = 2**26  # 8192 x 8192: every camera's picture; more is nearly always a mistake or a decompression bomb
RANGE_SLACK = 1e-3  # floats may leave [0, 1] by rounding, as a VAE's decoder or an interpolation does


def read_image(source: Picture) -> Image.Image:
    """Read a picture as a person would expect to see it.

    Args:
        source: A path; a Pillow picture; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool,
            or floats in [0, 1]; or a tensor (H, W), (1, H, W), (3, H, W) or (4, H, W), same types and ranges. Both may
            be a batch of one. Transparent parts become white.

    Returns:
        The picture, mode RGB, 8 bits a channel, upright.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: `source` is none of these kinds.
        ValueError: It is empty, enormous, cut short, not finite, of another shape or range, or no picture.
    """
    return flattened(_as_pillow(source), background="white").convert("RGB")


def read_frame(source: Picture) -> Image.Image:
    """Read a frame of a film: as `read_image`, but transparent parts become black, the ground of drawings.

    Args:
        source: As for `read_image`.

    Returns:
        The picture, mode RGB, 8 bits a channel, upright.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: `source` is none of these kinds.
        ValueError: It is empty, enormous, cut short, not finite, of another shape or range, or no picture.
    """
    return flattened(_as_pillow(source), background="black").convert("RGB")


def read_mask(source: Picture) -> Image.Image:
    """Read a mask: white means *may*, black means *may not*, grey means partly.

    Args:
        source: As for `read_image`; colours count by their brightness. Transparent parts become black.

    Returns:
        The mask, mode L.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: `source` is of no kind that holds a picture.
        ValueError: It is empty, enormous, cut short, not finite, of another shape or range, or no picture.
    """
    return flattened(_as_pillow(source), background="black").convert("L")


def read_layers(source: Picture) -> tuple[Image.Image, Image.Image | None]:
    """Read colours and transparency apart, for programs that use them for different things.

    Args:
        source: As for `read_image`.

    Returns:
        The colours, mode RGB, also where nothing of them shows, and the opacity, mode L; None if all is opaque.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: `source` is of no kind that holds a picture.
        ValueError: It is empty, enormous, cut short, not finite, of another shape or range, or no picture.
    """
    image = _as_pillow(source)
    if not image.has_transparency_data:
        return image.convert("RGB"), None
    image = image.convert("RGBA")
    opacity = image.getchannel("A")
    return image.convert("RGB"), None if opacity.getextrema()[0] == 255 else opacity


def read_labels(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a map of labels: a grey picture, or one with a palette, whose values are numbers and not colours.

    Args:
        path: Of the file.

    Returns:
        (H, W), whole numbers.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture, enormous, damaged, or a coloured one.
    """
    image = next(moving(Path(path)))
    if image.mode not in ("L", "P", "1", "I", "I;16"):
        raise ValueError(f"{path} is a picture of mode {image.mode}; expected a grey one whose values are labels.")
    return np.array(image).astype(np.int64)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Turn a picture into a float32 tensor in [0, 1].

    Args:
        image: A Pillow picture of mode RGB or L.

    Returns:
        (3, H, W) for RGB, (1, H, W) for L.
    """
    if image.mode not in ("RGB", "L"):
        raise ValueError(
            f"to_tensor was given a picture of mode {image.mode}; it takes RGB or L: call read_image first."
        )
    array = np.array(image, dtype=np.float32) / 255
    return torch.from_numpy(array).reshape(image.height, image.width, -1).permute(2, 0, 1).contiguous()  # (C, H, W)


def fit_size(size: tuple[int, int], *, target: tuple[int, int], multiple: int = 8) -> tuple[int, int]:
    """Find the size with the proportions of one picture and the area of another.

    Args:
        size: Width and height whose proportions are kept, up to rounding.
        target: Width and height whose area is matched.
        multiple: Both results are multiples of this: a VAE's scale factor, times a patch size where there is one.

    Returns:
        Width and height in pixels.
    """
    width, height = size
    area = target[0] * target[1]
    scale = (area / (width * height)) ** 0.5
    longest = max(multiple, area // multiple // multiple * multiple)  # of a strip that is only `multiple` wide
    fitted = (min(longest, max(multiple, round(side * scale / multiple) * multiple)) for side in (width, height))
    return next(fitted), next(fitted)


def resize(image: Image.Image, size: tuple[int, int], *, how: Resize = "fit", multiple: int = 8) -> Image.Image:
    """Resize a picture or a mask for a model that works at `size`.

    Args:
        image: A picture (RGB) or a mask (L).
        size: Width and height of the result that the model makes, in pixels.
        how: "fit" keeps the proportions and matches the area of `size`; "stretch" gives exactly `size`.
        multiple: Width and height come out as multiples of this; "stretch" rounds `size` to it.

    Returns:
        The resized picture, of the same mode.
    """
    if how not in ("fit", "stretch"):
        raise ValueError(
            f"resize was {how!r}; it can be 'fit' (keep proportions) or 'stretch' (exactly the size asked for)."
        )
    wanted = image.size if how == "fit" else size
    new_size = fit_size(wanted, target=size, multiple=multiple)
    resampling = Image.Resampling.BILINEAR if image.mode == "L" else Image.Resampling.LANCZOS
    return image if image.size == new_size else image.resize(new_size, resampling)


def _as_pillow(source: Picture) -> Image.Image:
    """Bring every kind of source to an upright Pillow picture of mode L, RGB, RGBA or another that converts to them."""
    if isinstance(source, Image.Image):
        image = source
        _check_size(image.width, image.height, "The picture")
    elif isinstance(source, str | os.PathLike):
        image = _open(source)
    elif isinstance(source, np.ndarray):
        image = _from_array(source, "array", "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    elif isinstance(source, torch.Tensor):
        image = _from_tensor(source)
    else:
        raise TypeError(
            f"Expected a picture but was given {_article(type(source).__name__)}; "
            "give a path, a PIL.Image, a numpy array (H, W, C) or a torch tensor (C, H, W)."
        )
    return _to_eight_bits(_turned(image))


def _turned(image: Image.Image) -> Image.Image:
    """Turned upright as its EXIF data say; data that cannot be read say nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # whatever the parser of foreign data raises
        return image


def opened(path: Path) -> Image.Image:
    """A picture's file, its size checked, nothing decoded.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture, or an enormous one.
    """
    file = regular_file(path, "picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound is stricter, and an error
            image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(_too_large(str(path), "more than twice the pixels that Pillow opens")) from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{path} is not a picture that Pillow can read; give a PNG, JPEG, WebP or TIFF file."
        ) from error
    except Exception as error:  # whatever the parser of foreign data raises
        raise ValueError(_damaged(path, error)) from error
    try:
        _check_size(image.width, image.height, str(path))
    except ValueError:
        image.close()
        raise
    return image


def moving(path: Path) -> Iterator[Image.Image]:
    """The frames of an animated picture, or the one of another.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no picture, enormous, or damaged.
    """
    with opened(path) as image:
        count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
        for i in range(count):
            try:
                image.seek(i)
                image.load()
            except Exception as error:  # whatever the parser of foreign data raises
                raise ValueError(_damaged(path, error)) from error
            yield image.copy()


def _open(source: str | os.PathLike[str]) -> Image.Image:
    """Open and decode a file."""
    path = Path(source) if "://" not in str(source) else regular_file(source, "picture")
    with opened(path) as image:
        try:
            image.load()
        except Exception as error:  # whatever the parser of foreign data raises
            raise ValueError(_damaged(path, error)) from error
    return image


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} cannot be decoded ({error}); the file seems cut short or damaged: export it again."


def _from_tensor(tensor: torch.Tensor) -> Image.Image:
    shapes = "(H, W), (1, H, W), (3, H, W) or (4, H, W)"
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and tensor.shape[0] not in (1, 3, 4)):
        hint = "; for several pictures give a list, one for each" if tensor.ndim == 4 else ""
        raise ValueError(f"The tensor's shape is {tuple(tensor.shape)}; expected {shapes}{hint}.")
    tensor = tensor.detach().cpu()
    tensor = tensor.float() if tensor.is_floating_point() else tensor  # bfloat16 is unknown to numpy
    array = tensor.numpy()
    return _from_array(array if array.ndim == 2 else array.transpose(1, 2, 0), "tensor", shapes)  # (H, W[, C])


def _from_array(array: np.ndarray, kind: str, shapes: str) -> Image.Image:
    """Make a Pillow picture of an array (H, W[, C]); `kind` and `shapes` only word the errors."""
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = "; the channels come last in numpy" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        hint = "; for several pictures give a list, one for each" if array.ndim == 4 else hint
        raise ValueError(f"The {kind}'s shape is {array.shape}; expected {shapes}{hint}.")
    _check_size(array.shape[1], array.shape[0], f"The {kind}")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = _sixteen_to_eight(array)
    elif np.issubdtype(array.dtype, np.floating):
        array = _unit_to_eight(array, f"The {kind}")
    elif array.dtype != np.uint8:
        raise ValueError(
            f"The {kind}'s type is {array.dtype}; expected uint8, uint16, bool, or floats in [0, 1]: convert it first."
        )
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale the deep modes: 16-bit (I;16 and, as older files open, I) and floats (F)."""
    if image.mode == "F":
        return Image.fromarray(_unit_to_eight(np.array(image), "The picture"))
    if image.mode == "I" or image.mode.startswith("I;16"):
        array = np.array(image)
        if array.min() < 0 or array.max() > 65535:
            raise ValueError(
                f"The integers span {array.min()} to {array.max()}; expected 16 bits, 0 to 65535: scale them first."
            )
        return Image.fromarray(_sixteen_to_eight(array))
    return image


def flattened(image: Image.Image, *, background: str) -> Image.Image:
    """Lay a picture with transparency over a plain ground; others pass through."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(ground, image).convert("RGB")


def _sixteen_to_eight(array: np.ndarray) -> np.ndarray:
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 x 257, rounded to nearest


def _unit_to_eight(array: np.ndarray, what: str) -> np.ndarray:
    """Scale floats in [0, 1] to 0..255, rounded to nearest."""
    num_bad = int(array.size - np.isfinite(array).sum())
    if num_bad:
        raise ValueError(f"{what} holds {num_bad} values that are NaN or infinite; every value must lie in [0, 1].")
    low, high = float(array.min()), float(array.max())
    if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
        advice = "add 1 and divide by 2" if low < 0 and low >= -1.1 and high <= 1.1 else "divide by 255, or give uint8"
        raise ValueError(f"{what}'s floats span {low:g} to {high:g}; expected [0, 1]: {advice}.")
    return (array.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _check_size(width: int, height: int, what: str) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"{what} is {width} x {height} pixels, which is empty; give one with at least 1 x 1.")
    if width * height > MAX_PIXELS:
        raise ValueError(_too_large(what, f"{width} x {height} pixels"))


def _too_large(what: str, size: str) -> str:
    return f"{what} has {size}; at most {MAX_PIXELS // 10**6} million are read: make it smaller first."


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
