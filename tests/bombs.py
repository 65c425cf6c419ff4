"""Small files that cost a decoder much, made in code, by the name that they are uploaded with."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from corpus import encoded, png
from PIL import Image


def jpeg_of_scans(scans: int, side: int) -> bytes:
    """A progressive JPEG that repeats its last scan, over all pixels."""
    jpeg = encoded(np.zeros((side, side, 3), np.uint8), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * scans + b"\xff\xd9"


def png_with(packed: bytes, side: int = 1) -> bytes:
    """A PNG with these chunks before its pixels."""
    whole = png(side, side, 8, 0, bytes((side + 1) * side))
    header = whole.index(b"IDAT") - 4
    return whole[:header] + packed + whole[header:]


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_data_chunks(side: int = 999) -> bytes:
    data = zlib.compress(bytes((side + 1) * side), 0)
    return png_with(b"".join(chunk(b"IDAT", data[i : i + 1]) for i in range(len(data))), side)


def gif_of_frames(count: int) -> bytes:
    gif = encoded(np.zeros((2, 2), np.uint8), "GIF")
    first = gif.index(b"\x2c")
    return gif[:first] + gif[first:-1] * count + b"\x3b"


def frames(kind: str, count: int) -> bytes:
    pictures = [Image.fromarray(np.full((2, 2), i % 251, np.uint8)) for i in range(count)]
    return encoded(pictures[0], kind, save_all=True, append_images=pictures[1:])


def tiff_directory(*tags: tuple[int, int, int, int]) -> bytes:
    """A TIFF's first 8 bytes and its directory of (tag, type, count, value), which no other one follows."""
    packed = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + packed + bytes(4)


def tiff_of_directories(count: int) -> bytes:
    """A picture of one pixel, again and again."""
    one = tiff_directory((256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 0),
                         (277, 3, 1, 1), (279, 4, 1, 1))[8:-4]  # fmt: skip
    size = len(one) + 4
    return (
        b"II*\0\x08\0\0\0"
        + b"".join(one + struct.pack("<I", 8 + size * (i + 1)) for i in range(count))
        + one
        + bytes(4)
    )


def tiff_of_tiles(count: int, tile: int = 16) -> bytes:
    """A row of tiles that all lie at one place."""

    def directory(offsets: int) -> bytes:
        return tiff_directory((256, 4, 1, tile * count), (257, 4, 1, tile), (258, 3, 1, 8), (259, 3, 1, 1),
                              (262, 3, 1, 1), (277, 3, 1, 1), (322, 3, 1, tile), (323, 3, 1, tile),
                              (324, 4, count, offsets), (325, 4, count, offsets + 4 * count))  # fmt: skip

    offsets = len(directory(0))
    table = struct.pack("<I", offsets + 8 * count) * count + struct.pack("<I", tile * tile) * count
    return directory(offsets) + table + bytes(tile * tile)


def tiff_of_strips(rows: int) -> bytes:
    def directory(offsets: int) -> bytes:
        return tiff_directory((256, 4, 1, 1), (257, 4, 1, rows), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
                              (273, 4, rows, offsets), (277, 3, 1, 1), (278, 4, 1, 1),
                              (279, 4, rows, offsets))  # fmt: skip

    offsets = len(directory(0))
    return directory(offsets) + struct.pack("<I", offsets) * rows


def exif_of_entries(count: int) -> bytes:
    """EXIF whose entries all point at the same 60,000 bytes."""
    entries = struct.pack("<HHII", 0x9286, 7, 60_000, 8) * count
    return png_with(chunk(b"eXIf", b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4)))


#: Name -> what makes it, and a word of its refusal, "" for one that is read.
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "scans.jpg": (lambda: jpeg_of_scans(2000, 3000), "more than 100 scans"),
    "text chunks.png": (lambda: png_with(chunk(b"tEXt") * 3_000_000), "more than 37,000 chunks"),
    "data chunks.png": (png_of_data_chunks, "chunks"),
    "row.png": (lambda: png(39_000_000, 1, 8, 0, bytes(39_000_001)), "a side of 39,000,000 pixels"),
    "strips.tif": (lambda: tiff_of_strips(1_000_000), "1,000,000 strips"),
    "tiles.tif": (lambda: tiff_of_tiles(250_000, tile=1), "250,000 tiles"),
    "few tiles.tif": (lambda: tiff_of_tiles(3000), ""),
    "directories.tif": (lambda: tiff_of_directories(20_000), ""),
    "frames.gif": (lambda: gif_of_frames(100_000), ""),
    "frames.webp": (lambda: frames("WEBP", 1000), ""),
    "frames.avif": (lambda: frames("AVIF", 100), ""),
    "frames.png": (lambda: frames("PNG", 300), ""),
    "exif.png": (lambda: exif_of_entries(5000), ""),
}
