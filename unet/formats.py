"""Open picture files of every known kind, or say why not.

Files are known by what they start with. What Pillow would read as something else is refused: previews of raw photos,
16-bit channels in planes. So are files with far more parts than any program writes: two thousand scans of a JPEG fit
into 100 KB, and each goes over all its pixels; millions of PNG chunks or TIFF strips cost seconds and hundreds of
megabytes for one pixel.
"""

import io
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from pi_heif import HeifImageFile
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ExifTags import Base as Tag

#: Called with a sentence for the user.
Notify: TypeAlias = Callable[[str], object]
Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray

#: Encoded pictures larger than this are refused from their header: a file of a few KB can claim any size.
#: Up to here every format is read within 5 s and 1 GB.
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
# pictures are previews and depth maps. Without a reader: what people send instead; text starts as UTF-8 may start.
_KINDS = (
    ("JPEG", rb"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    ("PNG", rb"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    ("WebP", rb"RIFF....WEBP", WebPImagePlugin.WebPImageFile),
    ("AVIF", rb"....ftyp(?=.{0,60}avi[fs])", AvifImagePlugin.AvifImageFile),
    ("HEIC", rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", HeifImageFile),
    ("TIFF", rb"II[*+]\0|MM\0[*+]", TiffImagePlugin.TiffImageFile),
    ("BMP", rb"BM.{12}.\0\0\0", BmpImagePlugin.BmpImageFile),
    ("GIF", rb"GIF8[79]a", GifImagePlugin.GifImageFile),
    ("PPM", rb"P[456]\s+[#\d]", PpmImagePlugin.PpmImageFile),
    ("a PDF document", rb"(?i)\s*%PDF", None),
    ("an SVG drawing", rb"(?i)[^\0]*<svg", None),
    ("a video", rb"(?i)....ftyp|\x1aE\xdf\xa3", None),
    ("text", rb"(?![\x80-\xc1\xf5-\xff])[\t\n\f\r\x20-\x7e\x80-\xff]+\Z", None),
)
_READABLE = [kind for kind, _, reader in _KINDS if reader]
_HEAD_BYTES = 4096

# What Pillow's readers raise on files that are broken, cut off or hostile. UserWarning: its remarks on bad tags, where
# the caller turns warnings into errors.
_DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, AssertionError,
    RuntimeError, UserWarning, struct.error, zlib.error,
)  # fmt: skip
# Some readers ask Pillow's global limit too: TIFF always, GIF for a frame larger than its screen.
_BOMB_ERRORS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# What the EXIF orientation asks for.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_MAX_SCANS = 100  # of a JPEG; a progressive one has about 10
_MAX_CHUNKS = 1000  # of a PNG, and one more for each 1000 bytes; programs write 8 KB of pixels into one
_MAX_STRIPS = 200_000  # or tiles, of a TIFF
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # one that has a header: no restart, no pixels
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


class ImageError(ValueError):
    """A picture that cannot be read, and what to do."""


class ImageNotice(UserWarning):
    """Something worth telling about a picture that was read."""


# ---- opening ---------------------------------------------------------------------------------------------------------


def name_of(source: Source) -> str:
    """The base name for error messages: folders are private."""
    path = getattr(source, "filename", None) or getattr(source, "name", source)
    if not isinstance(path, (str, os.PathLike)) or not path:
        return "The picture" if isinstance(source, (Image.Image, np.ndarray)) else "The file"
    # repr() escapes newlines and characters that turn the direction of the text.
    name = repr(os.path.basename(os.fsdecode(path)))
    return name if len(name) < 300 else f"{name[:100]}…{name[-20:]}"


@contextmanager
def open_picture(source: Source, name: str) -> Iterator[Image.Image]:
    """Open a picture, without decoding its pixels."""
    with nullcontext() if isinstance(source, Image.Image) else _file(source, name) as file:
        picture = source if file is None else _read_header(file, name)
        if min(picture.size) < 1:
            raise ImageError(f"{name} has no pixels ({picture.width} x {picture.height}): export it again.")
        yield picture


def _read_header(file: BinaryIO, name: str) -> Image.Image:
    with _broken_file_is_an_image_error(name, "file"):
        head = file.read(_HEAD_BYTES)
    if not head:
        raise ImageError(f"{name} is empty (0 bytes): save or download it again.")
    known = (row for row in _KINDS if re.match(row[1], head, re.DOTALL))
    kind, _, reader = next(known, (f"no picture of a known kind ({', '.join(_READABLE)})", "", None))
    if reader is None:
        raise ImageError(f"{name} is {kind}, which cannot be read here: export it as PNG or JPEG.")
    with _broken_file_is_an_image_error(name, kind):
        file.seek(0)
        if kind != "JPEG":  # whose scans are counted by reading it all: its header alone costs nothing
            _check_parts(kind, file, name)
        picture = reader(file)
        if kind == "TIFF" and (why := _unreadable_tiff(picture)):
            raise ImageError(f"{name} {why}")
    return picture


def _check_parts(kind: str, file: BinaryIO, name: str) -> None:
    """Refuse too many parts, leaving the file's position."""
    position = file.tell()
    file.seek(0)
    if (count := _EXCESS.get(kind)) and (excess := count(file)):
        raise ImageError(f"{name} has {excess}, far too many: open it in another program and export it as PNG.")
    file.seek(position)


def _unreadable_tiff(picture: Image.Image) -> str:
    """Why Pillow would misread a TIFF; "" if it reads it."""
    tags = picture.tag_v2
    bits, sample_format = (np.max(tags.get(tag, 1)) for tag in (Tag.BitsPerSample, Tag.SampleFormat))
    if Tag.DNGVersion in tags or int(tags.get(Tag.NewSubfileType, 0)) & 1:  # bit 0: a smaller copy of another page
        width, height = picture.size
        return (
            f"is a camera's raw file, or begins with a preview ({width} x {height}) of the picture in it: "
            "develop or export it as JPEG, PNG or TIFF."
        )
    if tags.get(Tag.PlanarConfiguration, 1) == 2 and bits > 8 and tags.get(Tag.SamplesPerPixel, 1) > 1:
        return f"keeps its channels of {bits} bits one after the other: export it as PNG, or with interleaved channels."
    if sample_format == 2 and bits == 8:
        return "holds signed numbers of 8 bits: export it as PNG, or with unsigned numbers."
    return ""


def _file(source: Any, name: str) -> AbstractContextManager[BinaryIO]:
    """A seekable file, closed if it is opened here."""
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
    except ImageError:
        raise
    except _BOMB_ERRORS as error:
        raise ImageError(f"{name} claims more pixels than can be decoded safely: make it smaller first.") from error
    except MemoryError as error:  # a size that no machine has, or more than this process may take
        raise ImageError(f"{name} needs more memory than there is: make it smaller first.") from error
    except _DECODING_ERRORS as error:
        raise ImageError(
            f"{name} is damaged, cut off, or an unusual kind of {kind}: "
            "download it again, or open it in another program and export it as PNG."
        ) from error


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation still to be applied, 1 to 8."""
    return 1 if picture.format == "TIFF" else tagged_orientation(picture)  # Pillow turns TIFF by itself, in `size` too


def tagged_orientation(picture: Image.Image) -> int:
    """The EXIF orientation of a file, 1 to 8."""
    try:
        # The base class: PNG's own getexif decodes all pixels to look for a tag behind them.
        found = Image.Image.getexif(picture).get(Tag.Orientation, 1)
    except _DECODING_ERRORS:
        return 1  # pixels can be fine where the camera's notes are not
    return found if found in _TURNS else 1


# ---- decoding --------------------------------------------------------------------------------------------------------


def decode(
    picture: Image.Image, source: Source, name: str, max_pixels: int | None, notify: Notify | None
) -> Image.Image:
    """Decode the first page, turned by its EXIF tag."""
    sizes = [picture.size]
    if isinstance(picture, HeifImageFile) and picture.fp is not None:  # decoded before it is cropped to its size
        picture.fp.seek(0)
        boxes = re.findall(rb"ispe\0{4}(.{8})", picture.fp.read(), re.DOTALL)  # spatial extents, ISO/IEC 23008-12
        sizes += [struct.unpack(">II", box) for box in boxes]
    for width, height in sizes if max_pixels is not None else ():
        if width * height > max_pixels:
            raise ImageError(
                f"{name} has {width * height / 1e6:,.1f} million pixels ({width} x {height}), "
                f"and the limit is {max_pixels / 1e6:,.1f} million: make it smaller first."
            )
        if max(width, height) > MAX_SIDE:
            raise ImageError(
                f"{name} has a side of {max(width, height):,} pixels, and the limit is {MAX_SIDE:,}: cut it into parts."
            )
    if isinstance(picture, JpegImagePlugin.JpegImageFile) and picture.fp is not None:
        _check_parts("JPEG", picture.fp, name)
    # Before the pixels: PNG may hold a tag behind them, which image_size cannot see and this must not either.
    turn = _TURNS.get(orientation(picture))
    with _broken_file_is_an_image_error(name, picture.format or "picture"):
        # The frame of a Pillow image was chosen by its owner.
        several = picture is not source and getattr(picture, "is_animated", False)
        if isinstance(picture, PngImagePlugin.PngImageFile) and picture.fp is not None:
            # Pillow decodes PNG pixels without comparing their checksums; only its verify() does.
            position = picture.fp.tell()
            picture.fp.seek(0)
            PngImagePlugin.PngImageFile(picture.fp).verify()
            picture.fp.seek(position)
        picture.load()
        turned = picture if turn is None else picture.transpose(turn)
    if several:
        sentence = f"{name} has several pages or frames: only the first is read."
        if notify is None:
            warnings.warn(sentence, ImageNotice, stacklevel=3)
        else:
            notify(sentence)
    return turned


# ---- files with too many parts ---------------------------------------------------------------------------------------


def _scans(file: BinaryIO) -> str:
    data, scans, start = file.read(), 0, 2
    while scans <= _MAX_SCANS and (marker := _JPEG_MARKER.search(data, start)):
        if data[marker.start() + 1] == _END_OF_IMAGE:
            break
        scans += data[marker.start() + 1] == _START_OF_SCAN
        start = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")  # behind its header
    return f"more than {_MAX_SCANS} scans" if scans > _MAX_SCANS else ""


def _chunks(file: BinaryIO) -> str:
    limit = _MAX_CHUNKS + file.seek(0, os.SEEK_END) // 1000
    file.seek(8)
    chunks = 0
    while len(head := file.read(8)) == 8 and chunks <= limit:
        chunks += 1
        file.seek(struct.unpack(">I4x", head)[0] + 4, os.SEEK_CUR)  # its content and checksum
    return f"more than {limit:,} chunks" if chunks > limit else ""


def _strips(file: BinaryIO) -> str:
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    # Where the first directory is, how many entries it has, and an entry's tag and count, in TIFF and in BigTIFF.
    big = head[2:4] in (b"+\0", b"\0+")
    first, number, entry, size = ("8xQ", "Q", "HxxQ8x", 20) if big else ("4xI", "H", "HxxI4x", 12)
    try:
        file.seek(*struct.unpack_from(order + first, head))
        (entries,) = struct.unpack(order + number, file.read(struct.calcsize(number)))
        directory = file.read(size * min(entries, 65_535))
        for tag, count in struct.iter_unpack(order + entry, directory[: len(directory) // size * size]):
            if tag in (Tag.StripOffsets, Tag.TileOffsets) and count > _MAX_STRIPS:
                return f"{count:,} {'strips' if tag == Tag.StripOffsets else 'tiles'}"
    except (struct.error, OSError, ValueError, OverflowError):  # cut off: the decoder says so
        pass
    return ""


#: What a file of this kind has too many of, such as "more than 100 scans"; "" if nothing.
_EXCESS = {"JPEG": _scans, "PNG": _chunks, "TIFF": _strips}
