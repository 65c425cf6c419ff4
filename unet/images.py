"""Read any picture file, or say why not.

Photos and annotations are turned by their EXIF tag, so the two halves of a pair stay aligned. ICC profiles are ignored:
values are taken as sRGB, as they are in the data sets the networks learn from.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms
from PIL.ExifTags import Base as Tag

from .formats import MAX_PIXELS, ImageError, Notify, Source, decode, name_of, open_picture, orientation

_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_SENSOR_BITS = (8, 10, 12, 14, 16)
_MAX_OF_UNIT_RANGE = 16  # floats of 0 to 1 go up to so much in highlights; those of 0 to 255 go higher
_STRIP_PIXELS = 1 << 20


def read_image(source: Source, *, max_pixels: int | None = MAX_PIXELS, notify: Notify | None = None) -> np.ndarray:
    """Read a picture as RGB, a new array uint8 (H, W, 3).

    source: path, bytes, binary file, Pillow image, or ndarray of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
    max_pixels: refuse larger pictures before decoding them; None for no limit.
    notify: told where only the first of several pages or frames is read; by default an `ImageNotice` is warned.
    Raises ImageError for whatever is no readable picture, TypeError for a source of another type.

    Alpha is laid over white. Values deeper than 8 bits are brought to 0..255 by one factor for the whole picture:

    - whole numbers by the smallest of 8, 10, 12, 14 and 16 bits that hold the brightest one. 65535 becomes 255, and
      what a 12-bit microscope camera leaves in a 16-bit file does not turn out black;
    - floats within 0..1 by 255; those that reach up to 16, as sharpening and HDR leave them, by as much as makes their
      maximum white; floats within 0..255 by 1; NaN and infinity are left out and shown black;
    - anything else is stretched from its own minimum and maximum.

    Colour files of 16 bits a channel keep their upper 8 bits. The smallest value of a TIFF is white where it says so.
    """
    name = name_of(source)
    if isinstance(source, np.ndarray):
        return _array_to_rgb(_checked_array(source, name))
    with open_picture(source, name) as picture:
        return _picture_to_rgb(decode(picture, source, name, max_pixels, notify))


def read_annotation(
    source: Source, *, binary: bool = False, max_pixels: int | None = MAX_PIXELS, notify: Notify | None = None
) -> np.ndarray:
    """Read a ground truth as class indices or colours.

    Returns uint8 (H, W), indices, or uint8 (H, W, 3), RGB; always (H, W) if binary. Options as for `read_image`.
    binary: a mask of 0 and 1, or of 0 and 255, is wanted as 0 and 1: whether 255 is white or IGNORE_INDEX, only the
        whole folder tells.
    Raises ImageError as `read_image`, for fractions or values over 255, and for in-between values if binary.

    Grey files of 1 to 16 bits give their sample values (a 1-bit mask gives 0 and 1, a 4-bit one 0 to 15). Palette
    files give their indices, as Pascal VOC's do; `read_image` gives their colours. A grey JPEG cannot hold indices: it
    is read as black and white, 0 and 255, if it is nothing else. Colour files are read as by `read_image`, but
    transparency hides nothing: pixels have the colour or number that the file holds, and 0 where they are invisible.
    """
    name = name_of(source)
    if isinstance(source, np.ndarray):
        annotation = _array_to_annotation(_checked_array(source, name), name)
    else:
        with open_picture(source, name) as picture:
            is_jpeg, scale = picture.format == "JPEG", _sample_scale(picture)
            decoded = decode(picture, source, name, max_pixels, notify)
        annotation = _picture_to_annotation(decoded, name, scale, is_jpeg=is_jpeg)
    return _as_binary(annotation, name) if binary else annotation


def image_size(source: Source) -> tuple[int, int]:
    """(height, width) of a picture, by its header. Raises ImageError as `read_image`."""
    name = name_of(source)
    if isinstance(source, np.ndarray):
        return _checked_array(source, name).shape[:2]
    with open_picture(source, name) as picture:
        width, height = picture.size
        return (width, height) if orientation(picture) >= 5 else (height, width)


def save_png(
    array: np.ndarray, target: str | os.PathLike[str] | BinaryIO, *, palette: np.ndarray | None = None
) -> None:
    """Write an array as PNG, without loss.

    array: uint8 (H, W) or (H, W, 3), or bool (H, W) for a 1-bit mask. target: path, or binary file open for writing.
    palette: of an index map, see `indexed_picture`. Raises ValueError for other shapes and dtypes.
    """
    got, is_map = f"got {array.dtype} {array.shape}", array.ndim == 2 and array.dtype in (np.uint8, np.bool_)
    is_rgb = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not (is_map or is_rgb) or array.size == 0:
        raise ValueError(f"A PNG needs uint8 (H, W) or (H, W, 3), or bool (H, W); {got}.")
    if palette is None:
        picture = Image.fromarray(np.ascontiguousarray(array))
    elif is_rgb or array.dtype != np.uint8 or palette.shape[1:] != (3,) or not 1 <= len(palette) <= 256:
        raise ValueError(f"A palette is (k, 3), 1 <= k <= 256, of a uint8 map (H, W); {got} and {palette.shape}.")
    else:
        picture = indexed_picture(array, palette)
    picture.save(target, format="PNG")


def indexed_picture(label_map: np.ndarray, palette: np.ndarray) -> Image.Image:
    """A label map, uint8 (H, W), as a palette image.

    palette: uint8 (k, 3). Labels beyond it, such as IGNORE_INDEX, are black.
    """
    # Pillow picks a PNG's bit depth by the palette's length: it must reach the largest index.
    padded = np.zeros((max(len(palette), int(label_map.max()) + 1), 3), np.uint8)
    padded[: len(palette)] = palette
    picture = Image.fromarray(np.ascontiguousarray(label_map))
    picture.putpalette(padded.tobytes())
    return picture


def as_rgb(image: np.ndarray | Image.Image) -> np.ndarray:
    """The picture as contiguous uint8 (H, W, 3). Raises ValueError for another."""
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        need = "need a uint8 RGB picture of shape (H, W, 3)"
        raise ValueError(f"{need}, got {array.dtype} {array.shape}; unet.images.read_image makes one of any file")
    return np.ascontiguousarray(array)


def hex_code(color: Sequence[int] | np.ndarray) -> str:
    """(r, g, b) in 0..255 -> "#rrggbb"."""
    return "#" + bytes(int(value) for value in color).hex()


def view_size(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """``size`` (h, w) scaled down to at most ``max_pixels``."""
    h, w = size
    if h * w <= max_pixels:
        return h, w
    scale = (max_pixels / (h * w)) ** 0.5
    shorter = max(1, int(min(size) * scale))
    # The longer side gives way, so that a strip of one pixel's height stays within the limit too.
    longer = min(int(max(size) * scale) if shorter > 1 else max(size), max_pixels // shorter)
    return (shorter, longer) if h <= w else (longer, shorter)


def shrink(image: np.ndarray, max_pixels: int) -> np.ndarray:
    """Shrink uint8 (H, W, 3) to ``max_pixels``, averaging areas."""
    h, w = view_size(image.shape[:2], max_pixels)
    if (h, w) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BOX))


def sample(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, ...) to the nearest pixels."""
    rows, columns = (
        ((np.arange(n) + 0.5) * (length / n)).astype(np.intp) for n, length in zip(size, array.shape[:2], strict=True)
    )
    return array[rows[:, None], columns]


# ---- to 8 bits and RGB -----------------------------------------------------------------------------------------------


def _picture_to_rgb(picture: Image.Image) -> np.ndarray:
    """Convert in strips, without a full second copy."""
    width, height = picture.size
    step = max(1, _STRIP_PIXELS // width)
    strips = [(top, min(top + step, height)) for top in range(0, height, step)]

    def crop(top: int, bottom: int) -> Image.Image:
        return picture.crop((0, top, width, bottom))

    rgb = np.empty((height, width, 3), np.uint8)
    if picture.mode in _DEEP_MODES:
        lows, highs = zip(*(_extremes(np.asarray(crop(*strip))) for strip in strips), strict=True)
        black, white = _black_and_white(min(lows), max(highs))
        for top, bottom in strips:
            levels = _scaled(np.asarray(crop(top, bottom)), black, white)
            rgb[top:bottom] = (255 - levels if _is_white_zero(picture) else levels)[..., None]
        return rgb
    for top, bottom in strips:
        part = crop(top, bottom)
        if picture.mode == "LAB":
            profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            part = ImageCms.profileToProfile(part, *profiles, outputMode="RGB")
        elif picture.mode == "La":
            part = part.convert("LA")
        rgb[top:bottom] = _over_white(np.asarray(part.convert("RGBA" if picture.has_transparency_data else "RGB")))
    return rgb


def _checked_array(array: np.ndarray, name: str) -> np.ndarray:
    """Check that an array is a picture's; (H, W, 1) becomes (H, W)."""
    if array.dtype.kind not in "buif":
        raise ImageError(f"{name} is an array of {array.dtype}: give uint8, or another real number type.")
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))) or array.size == 0:
        raise ImageError(
            f"{name} is an array of shape {array.shape}: give (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not empty."
        )
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _array_to_rgb(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype != np.uint8:
        array = _scaled(array, *_black_and_white(*_extremes(array)))
    return np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else np.array(_over_white(array), order="C")


def _over_white(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) as it is; (H, W, 4) laid over white."""
    if pixels.shape[2] == 3:
        return pixels
    color, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _without_alpha(pixels: np.ndarray) -> np.ndarray:
    """Drop alpha, and set invisible pixels to 0."""
    return np.where(pixels[..., -1:] > 0, pixels[..., :-1], np.uint8(0))


def _is_white_zero(picture: Image.Image) -> bool:
    """Whether a TIFF's smallest value is white. Pillow inverts up to 8 bits."""
    return getattr(picture, "tag_v2", {}).get(Tag.PhotometricInterpretation) == 0


def _extremes(values: np.ndarray) -> tuple[Any, Any]:
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (values.min(), values.max()) if values.size else (math.inf, -math.inf)


def _black_and_white(low: Any, high: Any) -> tuple[float, float]:
    """The values shown as 0 and 255, see `read_image`."""
    if low >= 0 and isinstance(low, (float, np.floating)) and high <= 255:
        return 0.0, max(1.0, float(high)) if high <= _MAX_OF_UNIT_RANGE else 255.0
    if low >= 0 and isinstance(low, np.integer):
        for bits in _SENSOR_BITS:
            if high < 1 << bits:
                return 0.0, (1 << bits) - 1.0
    return float(low), float(high) if high > low else math.inf


def _scaled(values: np.ndarray, black: float, white: float) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        levels = (values.astype(np.float64) - black) * (255.0 / (white - black))
    levels[~np.isfinite(levels)] = 0
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


# ---- to class indices ------------------------------------------------------------------------------------------------


def _sample_scale(picture: Image.Image) -> int:
    """Pillow's factor for grey samples of few bits."""
    args = picture.tile[0][3] if getattr(picture, "tile", None) else ""
    raw_mode = args if isinstance(args, str) else args[0] if args else ""
    return {"L;2": 85, "L;2I": 85, "L;4": 17, "L;4I": 17}.get(raw_mode, 1)


def _array_to_annotation(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 2:
        return _as_indices(array, name)
    return _without_alpha(array) if array.shape[2] == 4 and array.dtype == np.uint8 else _array_to_rgb(array)


def _picture_to_annotation(picture: Image.Image, name: str, scale: int, *, is_jpeg: bool) -> np.ndarray:
    """Indices, or colours. scale: Pillow's, see `_sample_scale`."""
    if picture.mode in ("1", "L", "P", *_DEEP_MODES):
        indices = _as_indices(np.asarray(picture), name)
        if picture.mode == "L" and _is_white_zero(picture) and np.any((indices > 0) & (indices < 255)):
            indices = 255 - indices  # Pillow turned them; class numbers are those of the file
        indices //= np.uint8(scale)
        return black_or_white(indices, name) if is_jpeg else indices
    if picture.mode == "LA":
        return _without_alpha(np.asarray(picture))[..., 0]
    if picture.has_transparency_data:
        return _without_alpha(np.asarray(picture.convert("RGBA")))
    return _picture_to_rgb(picture)


def _as_indices(values: np.ndarray, name: str) -> np.ndarray:
    """Whole numbers 0..255 of any dtype as a new uint8 array.

    A 16-bit mask of black and white becomes 0 and 255.
    """
    with np.errstate(invalid="ignore"):
        indices = values.astype(np.uint8)
    if not np.array_equal(indices, values):
        if np.isin(values, (0, 65535)).all():
            return np.where(values, np.uint8(255), np.uint8(0))
        low, high = _extremes(values)
        wanted = "class indices are whole numbers from 0 to 255, so export an 8-bit index map or colours"
        raise ImageError(f"{name} has values from {low} to {high}: {wanted}.")
    return indices


def black_or_white(gray: np.ndarray, name: str) -> np.ndarray:
    """A mask uint8 (H, W) that JPEG blurred, as 0 and 255.

    Raises ImageError for other greys.
    """
    if np.mean((gray >= 64) & (gray < 192)) > 0.02:
        raise ImageError(f"{name} is a grey JPEG, which changes class indices: export the annotation as PNG.")
    return np.where(gray >= 128, np.uint8(255), np.uint8(0))


def _as_binary(annotation: np.ndarray, name: str) -> np.ndarray:
    gray = annotation if annotation.ndim == 2 else annotation[..., 0]
    values = np.unique(gray)
    if annotation.ndim == 3 and np.any(annotation != gray[..., None]):
        raise ImageError(f"{name} has colours: a black-and-white mask is wanted here, so export it in black and white.")
    if not np.isin(values, (0, 1)).all() and not np.isin(values, (0, 255)).all():
        shown = ", ".join(str(value) for value in values[:6]) + (", ..." if len(values) > 6 else "")
        raise ImageError(
            f"{name} has the values {shown}: a mask has 0 and 1, or 0 and 255, so export it without smoothing."
        )
    return (gray > 0).astype(np.uint8)
