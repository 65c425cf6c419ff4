"""Any picture a person has becomes uint8 RGB, or one clear sentence about why not.

    read_image(source)        a photo          -> uint8 (H, W, 3), RGB
    read_annotation(source)   its ground truth -> uint8 (H, W) class indices, or uint8 (H, W, 3) colours
    image_size(source)        the header alone -> (H, W)
    save_png(array, target)   the way back, exact

A source is a path, the bytes of a file, a binary file object (read from its start), a Pillow image or an array.
Photos and annotations are turned by their EXIF tag, so the two halves of a pair stay aligned. ICC profiles are ignored:
values are taken as sRGB, as they are in the data sets the networks learn from.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from pi_heif import HeifImageFile
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from .structure import excess

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray"

#: Encoded pictures larger than this are refused from their header: a file of a few KB can claim any size.
#: Up to here every format is read within 5 s and 1 GB. An array is already in memory and has no limit.
MAX_PIXELS = 50_000_000
#: As long may a side be, where there is a limit on pixels: indices along it take memory too.
MAX_SIDE = 1_000_000

#: Endings of the names of picture files.
PICTURE_ENDINGS = frozenset((
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".bmp", ".gif", ".ppm",
    ".pgm", ".pbm",
))  # fmt: skip

# Only formats that tell when they are cut off. Pillow's Image.open would add a global pixel limit that warns or raises;
# ours is an argument, so the readers are called directly. JpegImageFile also reads the MPO of phones, whose further
# pictures are previews and depth maps.
_READERS = (
    ("JPEG", rb"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    ("PNG", rb"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    ("WebP", rb"RIFF....WEBP", WebPImagePlugin.WebPImageFile),
    ("AVIF", rb"....ftyp(?=.{0,60}avi[fs])", AvifImagePlugin.AvifImageFile),
    ("HEIC", rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", HeifImageFile),
    ("TIFF", rb"II[*+]\0|MM\0[*+]", TiffImagePlugin.TiffImageFile),
    ("BMP", rb"BM.{12}.\0\0\0", BmpImagePlugin.BmpImageFile),
    ("GIF", rb"GIF8[79]a", GifImagePlugin.GifImageFile),
    ("PPM", rb"P[456]\s+[#\d]", PpmImagePlugin.PpmImageFile),
)
# Text starts as UTF-8 may start.
_NOT_PICTURES = (
    ("a PDF document", rb"\s*%PDF"),
    ("an SVG drawing", rb"[^\0]*<svg"),
    ("a video", rb"....ftyp|\x1aE\xdf\xa3"),
    ("text", rb"(?![\x80-\xc1\xf5-\xff])[\t\n\f\r\x20-\x7e\x80-\xff]+\Z"),
)
_HEAD_BYTES = 4096

# What Pillow's readers raise on files that are broken, cut off or hostile. UserWarning: its remarks on bad tags, where
# the caller turns warnings into errors.
_DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, AssertionError,
    RuntimeError, UserWarning, struct.error, zlib.error,
)  # fmt: skip
# Some readers ask Pillow's global limit too: TIFF always, GIF for a frame larger than its screen.
_BOMB_ERRORS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_SENSOR_BITS = (8, 10, 12, 14, 16)
_MAX_OF_UNIT_RANGE = 16  # floats of 0 to 1 go up to so much in highlights; those of 0 to 255 go higher
# Tags of a TIFF.
_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES_PER_PIXEL, _PLANAR = 254, 258, 262, 277, 284
_SAMPLE_FORMAT, _DNG_VERSION = 339, 50706
_STRIP_PIXELS = 1 << 20


class ImageError(ValueError):
    """A picture that cannot be read. The message is one sentence: which file, what is wrong, what to do."""


class ImageNotice(UserWarning):
    """Something worth telling about a picture that was read."""


def read_image(
    source: Source, *, max_pixels: int | None = MAX_PIXELS, notify: Callable[[str], object] | None = None
) -> np.ndarray:
    """Read a picture as RGB.

    Alpha is laid over white. Of several pages or frames the first is read, and `notify` is told.

    Values deeper than 8 bits are brought to 0..255 by one factor for the whole picture:

    - whole numbers by the smallest of 8, 10, 12, 14 and 16 bits that hold the brightest one. 65535 becomes 255, and
      what a 12-bit microscope camera leaves in a 16-bit file does not turn out black;
    - floats within 0..1 by 255; those that reach up to 16, as sharpening and HDR leave them, by as much as makes their
      maximum white; floats within 0..255 by 1; NaN and infinity are left out and shown black;
    - anything else is stretched from its own minimum and maximum.

    Colour files of 16 bits a channel keep their upper 8 bits. The smallest value of a TIFF is white where it says so.

    Parameters
    ----------
    source : path, bytes, binary file, Pillow image, or ndarray of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
    max_pixels : refuse larger pictures before decoding them; None for no limit
    notify : called with a sentence about a picture of several pages; by default an `ImageNotice` is warned

    Returns
    -------
    uint8 ndarray of shape (H, W, 3), never sharing memory with the source

    Raises
    ------
    ImageError : for whatever is no readable picture
    TypeError : for a source of another type
    """
    name = _name(source)
    if isinstance(source, np.ndarray):
        return _array_to_rgb(_checked_array(source, name))
    with _open(source, name) as picture:
        return _picture_to_rgb(_decoded(picture, source, name, max_pixels, notify))


def read_annotation(
    source: Source,
    *,
    binary: bool = False,
    max_pixels: int | None = MAX_PIXELS,
    notify: Callable[[str], object] | None = None,
) -> np.ndarray:
    """Read a ground truth: class indices where the file holds indices, colours where it holds colours.

    Grey files of 1 to 16 bits give their sample values (a 1-bit mask gives 0 and 1, a 4-bit one 0 to 15). Palette
    files give their indices, as Pascal VOC's do; `read_image` gives their colours. A grey JPEG cannot hold indices: it
    is read as black and white, 0 and 255, if it is nothing else. Colour files are read as by `read_image`, but
    transparency hides nothing: pixels have the colour or number that the file holds, and 0 where they are invisible.

    One file of 0 and 255 may be a black-and-white mask, or class 0 and IGNORE_INDEX: only the whole folder tells.
    `binary=True` says that it is a mask.

    Parameters
    ----------
    source : path, bytes, binary file, Pillow image, or ndarray of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
    binary : a mask of 0 and 1, or of 0 and 255 (grey, or colour with equal channels), is wanted as 0 and 1
    max_pixels, notify : as for `read_image`

    Returns
    -------
    uint8 ndarray of shape (H, W), indices, or (H, W, 3), RGB; always (H, W) if binary

    Raises
    ------
    ImageError : for whatever `read_image` refuses, for fractions or values over 255, for in-between values if binary
    """
    name = _name(source)
    if isinstance(source, np.ndarray):
        values = _checked_array(source, name)
        if values.ndim == 3 and values.shape[2] == 4 and values.dtype == np.uint8:
            annotation = _without_alpha(values)
        else:
            annotation = _as_indices(values, name) if values.ndim == 2 else _array_to_rgb(values)
    else:
        with _open(source, name) as picture:
            is_jpeg, scale = picture.format == "JPEG", _sample_scale(picture)
            decoded = _decoded(picture, source, name, max_pixels, notify)
        if decoded.mode in ("1", "L", "P", *_DEEP_MODES):
            annotation = _as_indices(np.asarray(decoded), name)
            if decoded.mode == "L" and _is_white_zero(decoded) and np.any((annotation > 0) & (annotation < 255)):
                annotation = 255 - annotation  # Pillow turned them; class numbers are those of the file
            annotation //= np.uint8(scale)
            annotation = _black_or_white(annotation, name) if is_jpeg else annotation
        elif decoded.mode == "LA":
            annotation = _without_alpha(np.asarray(decoded))[..., 0]
        elif decoded.has_transparency_data:
            annotation = _without_alpha(np.asarray(decoded.convert("RGBA")))
        else:
            annotation = _picture_to_rgb(decoded)
    return _as_binary(annotation, name) if binary else annotation


def image_size(source: Source) -> tuple[int, int]:
    """(height, width) that `read_image` would return, without decoding a pixel.

    Raises
    ------
    ImageError : if there is no readable header
    """
    name = _name(source)
    if isinstance(source, np.ndarray):
        return _checked_array(source, name).shape[:2]
    with _open(source, name) as picture:
        width, height = picture.size
        return (width, height) if _orientation(picture) >= 5 else (height, width)


def save_png(
    array: np.ndarray, target: str | os.PathLike[str] | BinaryIO, *, palette: np.ndarray | None = None
) -> None:
    """Write an array as PNG such that reading it gives the array back.

    Parameters
    ----------
    array : uint8 ndarray of shape (H, W) or (H, W, 3), or bool ndarray of shape (H, W) for a 1-bit mask
    target : path, or binary file open for writing
    palette : uint8 ndarray of shape (k, 3); colours an index map (H, W) in viewers and keeps its indices. Indices
        beyond the palette, such as IGNORE_INDEX, show as black.

    Raises
    ------
    ValueError : for other shapes and dtypes
    """
    is_map = array.ndim == 2 and array.dtype in (np.uint8, np.bool_)
    is_rgb = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not (is_map or is_rgb) or array.size == 0:
        raise ValueError(f"A PNG needs uint8 (H, W) or (H, W, 3), or bool (H, W); got {array.dtype} {array.shape}.")
    if palette is None:
        picture = Image.fromarray(np.ascontiguousarray(array))
    else:
        colors = np.asarray(palette)
        if array.ndim != 2 or array.dtype != np.uint8 or colors.shape[1:] != (3,) or not 1 <= len(colors) <= 256:
            raise ValueError(
                "A palette is (k, 3) with 1 <= k <= 256 and goes with a uint8 index map (H, W); "
                f"got a palette of shape {colors.shape} for {array.dtype} {array.shape}."
            )
        picture = indexed_picture(array, colors)
    picture.save(target, format="PNG")


def indexed_picture(label_map: np.ndarray, palette: np.ndarray) -> Image.Image:
    """A label map, uint8 (H, W), as a Pillow image in the colours of a palette, uint8 (k, 3).

    Labels beyond the palette, such as IGNORE_INDEX, are black.
    """
    # Pillow picks a PNG's bit depth by the palette's length: it must reach the largest index.
    padded = np.zeros((max(len(palette), int(label_map.max()) + 1), 3), np.uint8)
    padded[: len(palette)] = palette
    picture = Image.fromarray(np.ascontiguousarray(label_map))
    picture.putpalette(padded.tobytes())
    return picture


def as_rgb(image: np.ndarray | Image.Image) -> np.ndarray:
    """Check that something is an RGB picture: uint8 (H, W, 3), or a Pillow image in mode RGB.

    Returns uint8 (H, W, 3), contiguous. Raises ValueError for anything else.
    """
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(
            f"need a uint8 RGB picture of shape (H, W, 3), got {array.dtype} {array.shape}; "
            "unet.images.read_image makes one of any file"
        )
    return np.ascontiguousarray(array)


def hex_code(color: Sequence[int] | np.ndarray) -> str:
    """(r, g, b) in 0..255 -> "#rrggbb"."""
    return "#" + bytes(int(value) for value in color).hex()


# ---- opening ---------------------------------------------------------------------------------------------------------


def _name(source: Source) -> str:
    """How errors call the source: a file by its own name, its folders are nobody's business on a public page."""
    if isinstance(source, Image.Image):
        path = getattr(source, "filename", "")
    else:
        path = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "")
    if not isinstance(path, (str, os.PathLike)) or not path:
        return "The picture" if isinstance(source, (Image.Image, np.ndarray)) else "The file"
    # repr() escapes newlines and characters that turn the direction of the text.
    name = repr(os.path.basename(os.fsdecode(path)))
    return name if len(name) < 300 else f"{name[:100]}…{name[-20:]}"


@contextmanager
def _open(source: Source, name: str) -> Iterator[Image.Image]:
    """The source as a Pillow image whose header is read and whose pixels are not."""
    if isinstance(source, Image.Image):
        _check_not_empty(source.size, name)
        yield source
        return
    with _file(source, name) as file:
        with _broken_file_is_an_image_error(name, "file"):
            head = file.read(_HEAD_BYTES)
            file.seek(0)
        kind, reader = _kind_and_reader(head, name)
        if kind != "JPEG":  # whose header costs nothing
            _check_structure(kind, file, name)
        with _broken_file_is_an_image_error(name, kind):
            picture = reader(file)
            unreadable = _unreadable_tiff(picture) if kind == "TIFF" else ""
        if unreadable:
            raise ImageError(f"{name} {unreadable}")
        _check_not_empty(picture.size, name)
        yield picture


def _check_structure(kind: str, file: BinaryIO, name: str) -> None:
    if found := excess(kind, file):
        raise ImageError(f"{name} has {found}, far too many: open it in another program and export it as PNG.")


def _unreadable_tiff(picture: Image.Image) -> str:
    """What is wrong with a TIFF that Pillow reads as something else, and what to do; "" if nothing."""
    tags = picture.tag_v2
    bits, sample_format = (np.max(tags.get(tag, 1)) for tag in (_BITS_PER_SAMPLE, _SAMPLE_FORMAT))
    if _DNG_VERSION in tags or int(tags.get(_SUBFILE_TYPE, 0)) & 1:  # bit 0: a smaller copy of another page
        width, height = picture.size
        return (
            f"is a camera's raw file, or begins with a preview ({width} x {height}) of the picture in it: "
            "develop or export it as JPEG, PNG or TIFF."
        )
    if tags.get(_PLANAR, 1) == 2 and bits > 8 and tags.get(_SAMPLES_PER_PIXEL, 1) > 1:
        return f"keeps its channels of {bits} bits one after the other: export it as PNG, or with interleaved channels."
    if sample_format == 2 and bits == 8:
        return "holds signed numbers of 8 bits: export it as PNG, or with unsigned numbers."
    return ""


def _is_white_zero(picture: Image.Image) -> bool:
    """Whether the smallest value of a TIFF is white. Pillow turns the values of up to 8 bits, not deeper ones."""
    return getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _kind_and_reader(head: bytes, name: str) -> tuple[str, Callable[[BinaryIO], Image.Image]]:
    """By what the file starts with: names of files say little."""
    if not head:
        raise ImageError(f"{name} is empty (0 bytes): save or download it again.")
    for kind, signature, reader in _READERS:
        if re.match(signature, head, re.DOTALL):
            return kind, reader
    for kind, signature in _NOT_PICTURES:
        if re.match(signature, head, re.DOTALL | re.IGNORECASE):
            raise ImageError(f"{name} is {kind}, which cannot be read here: export it as PNG or JPEG.")
    readable = ", ".join(kind for kind, _, _ in _READERS)
    raise ImageError(f"{name} is no picture of a known kind ({readable}): export it as PNG or JPEG.")


def _file(source: Any, name: str) -> AbstractContextManager[BinaryIO]:
    """The source as a seekable binary file; only what is opened here is closed on leaving."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        try:
            mode = os.stat(source).st_mode
            if stat.S_ISREG(mode):
                return open(source, "rb")
        except FileNotFoundError as error:
            raise ImageError(f"There is no file {os.fspath(source)!r}: check the path.") from error
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            reason = getattr(error, "strerror", None) or error
            raise ImageError(f"{name} cannot be opened ({reason}): check its path and permissions.") from error
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise ImageError(f"{os.fspath(source)!r} is {what}: give the path of a picture.")
    if not hasattr(source, "read"):
        raise TypeError(f"A picture is a path, bytes, a binary file, a Pillow image or an array, not {type(source)}.")
    try:
        source.seek(0)
    except (AttributeError, io.UnsupportedOperation):  # a pipe
        return io.BytesIO(source.read())
    return nullcontext(source)


@contextmanager
def _broken_file_is_an_image_error(name: str, kind: str) -> Iterator[None]:
    try:
        yield
    except _BOMB_ERRORS as error:
        raise ImageError(f"{name} claims more pixels than can be decoded safely: make it smaller first.") from error
    except MemoryError as error:  # a size that no machine has, or more than this process may take
        raise ImageError(f"{name} needs more memory than there is: make it smaller first.") from error
    except _DECODING_ERRORS as error:
        raise ImageError(
            f"{name} is damaged, cut off, or an unusual kind of {kind}: "
            "download it again, or open it in another program and export it as PNG."
        ) from error


def _check_not_empty(size: tuple[int, int], name: str) -> None:
    if min(size) < 1:
        raise ImageError(f"{name} has no pixels ({size[0]} x {size[1]}): export it again.")


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation that is still to be applied, 1 to 8."""
    if picture.format == "TIFF":
        return 1  # Pillow turns these by itself, in `size` already
    try:
        # The base class: PNG's own getexif decodes all pixels to look for a tag behind them.
        orientation = Image.Image.getexif(picture).get(_ORIENTATION_TAG, 1)
    except _DECODING_ERRORS:
        return 1  # pixels can be fine where the camera's notes are not
    return orientation if orientation in _TURNS else 1


def _sample_scale(picture: Image.Image) -> int:
    """Pillow spreads grey samples of 2 and 4 bits over 0..255; divided by this they are as in the file."""
    args = picture.tile[0][3] if getattr(picture, "tile", None) else ""
    raw_mode = args if isinstance(args, str) else args[0] if args else ""
    return {"L;2": 85, "L;2I": 85, "L;4": 17, "L;4I": 17}.get(raw_mode, 1)


# ---- decoding --------------------------------------------------------------------------------------------------------


def _decoded(
    picture: Image.Image, source: Source, name: str, max_pixels: int | None, notify: Callable[[str], object] | None
) -> Image.Image:
    """The pixels of the first page, turned by their EXIF tag; or a refusal."""
    for width, height in (picture.size, *_coded_sizes(picture)):
        if max_pixels is not None and width * height > max_pixels:
            raise ImageError(
                f"{name} has {width * height / 1e6:,.1f} million pixels ({width} x {height}), "
                f"and the limit is {max_pixels / 1e6:,.1f} million: make it smaller first."
            )
        if max_pixels is not None and max(width, height) > MAX_SIDE:
            raise ImageError(
                f"{name} has a side of {max(width, height):,} pixels, and the limit is {MAX_SIDE:,}: cut it into parts."
            )
    if isinstance(picture, JpegImagePlugin.JpegImageFile) and picture.fp is not None:
        _check_structure("JPEG", picture.fp, name)
    # Before the pixels: PNG may hold a tag behind them, which image_size cannot see and this must not either.
    turn = _TURNS.get(_orientation(picture))
    with _broken_file_is_an_image_error(name, picture.format or "picture"):
        # The frame of a Pillow image was chosen by its owner.
        several = picture is not source and getattr(picture, "is_animated", False)
        if isinstance(picture, PngImagePlugin.PngImageFile) and picture.fp is not None:
            _check_png(picture.fp)
        picture.load()
        turned = picture if turn is None else picture.transpose(turn)
    if several:
        sentence = f"{name} has several pages or frames: only the first is read."
        if notify is None:
            warnings.warn(sentence, ImageNotice, stacklevel=3)
        else:
            notify(sentence)
    return turned


def _check_png(file: BinaryIO) -> None:
    """Pillow decodes PNG pixels without comparing their checksums; only its verify() does."""
    position = file.tell()
    file.seek(0)
    PngImagePlugin.PngImageFile(file).verify()
    file.seek(position)


def _coded_sizes(picture: Image.Image) -> list[tuple[int, int]]:
    """(width, height) of what a HEIC decodes before it crops, which its own size does not tell."""
    if not isinstance(picture, HeifImageFile) or picture.fp is None:
        return []
    picture.fp.seek(0)
    boxes = re.findall(rb"ispe\0{4}(.{8})", picture.fp.read(), re.DOTALL)  # image spatial extents, ISO/IEC 23008-12
    return [struct.unpack(">II", box) for box in boxes]


# ---- to 8 bits and RGB -----------------------------------------------------------------------------------------------


def _picture_to_rgb(picture: Image.Image) -> np.ndarray:
    """Strip by strip, so that no conversion needs a second copy of a large picture."""
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
            part = ImageCms.applyTransform(part, _lab_to_srgb())
        elif picture.mode == "La":
            part = part.convert("LA")
        rgb[top:bottom] = _over_white(np.asarray(part.convert("RGBA" if picture.has_transparency_data else "RGB")))
    return rgb


def _array_to_rgb(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype != np.uint8:
        array = _scaled(array, *_black_and_white(*_extremes(array)))
    if array.ndim == 2:
        return np.repeat(array[..., None], 3, axis=2)
    return np.array(_over_white(array), order="C")


def _checked_array(array: np.ndarray, name: str) -> np.ndarray:
    """The array with its shape and dtype known to be a picture's, (H, W, 1) as (H, W)."""
    if array.dtype.kind not in "buif":
        raise ImageError(f"{name} is an array of {array.dtype}: give uint8, or another real number type.")
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))) or array.size == 0:
        raise ImageError(
            f"{name} is an array of shape {array.shape}: give (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not empty."
        )
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _extremes(values: np.ndarray) -> tuple[Any, Any]:
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (values.min(), values.max()) if values.size else (math.inf, -math.inf)


def _black_and_white(low: Any, high: Any) -> tuple[float, float]:
    """The values to be shown as 0 and as 255; `read_image` states the rule."""
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


def _over_white(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) as it is; (H, W, 4) laid over white."""
    if pixels.shape[2] == 3:
        return pixels
    color, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _without_alpha(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, n + 1), alpha last -> (H, W, n), with 0 where it is invisible."""
    return np.where(pixels[..., -1:] > 0, pixels[..., :-1], np.uint8(0))


def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


# ---- to class indices ------------------------------------------------------------------------------------------------


def _as_indices(values: np.ndarray, name: str) -> np.ndarray:
    """Whole numbers 0..255 of any dtype as a new uint8 array."""
    with np.errstate(invalid="ignore"):
        indices = values.astype(np.uint8)
    if not np.array_equal(indices, values):
        low, high = _extremes(values)
        raise ImageError(
            f"{name} has values from {low} to {high}: class indices are whole numbers from 0 to 255, "
            "so export the annotation as an 8-bit index map or as colours."
        )
    return indices


def _black_or_white(gray: np.ndarray, name: str) -> np.ndarray:
    """A mask that JPEG blurred, sharp again."""
    if np.mean((gray >= 64) & (gray < 192)) > 0.02:
        raise ImageError(f"{name} is a grey JPEG, which changes class indices: export the annotation as PNG.")
    return np.where(gray >= 128, np.uint8(255), np.uint8(0))


def _as_binary(annotation: np.ndarray, name: str) -> np.ndarray:
    gray = annotation if annotation.ndim == 2 else annotation[..., 0]
    values = np.unique(gray)
    if annotation.ndim == 3 and np.any(annotation != gray[..., None]):
        raise ImageError(f"{name} has colours: a black-and-white mask is wanted here, so export it in black and white.")
    if not (set(values.tolist()) <= {0, 1} or set(values.tolist()) <= {0, 255}):
        shown = ", ".join(str(value) for value in values[:6]) + (", ..." if len(values) > 6 else "")
        raise ImageError(
            f"{name} has the values {shown}: a mask has 0 and 1, or 0 and 255, so export it without smoothing."
        )
    return (gray > 0).astype(np.uint8)
