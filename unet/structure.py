"""Find files with too many parts before they are decoded.

Two thousand scans of a JPEG fit into 100 KB, and each goes over all its pixels; millions of PNG chunks or TIFF strips
cost seconds and hundreds of megabytes for one pixel. The limits are far beyond what any program writes.
"""

from __future__ import annotations

import os
import re
import struct
from typing import BinaryIO

MAX_SCANS = 100  # of a JPEG; a progressive one has about 10
MAX_CHUNKS = 1000  # of a PNG, and one more for each 1000 bytes; programs write 8 KB of pixels into one
MAX_STRIPS = 200_000  # or tiles, of a TIFF
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # of a JPEG, one that has a header: no restart, no pixels
_SCAN, _END = 0xDA, 0xD9
_OFFSETS = {273: "strips", 324: "tiles"}  # the tag that tells where they are -> what they are


def excess(kind: str, file: BinaryIO) -> str:
    """What a file has too many of, such as "more than 100 scans".

    "" if nothing.
    """
    count = {"JPEG": _scans, "PNG": _chunks, "TIFF": _strips}.get(kind)
    if count is None:
        return ""
    position = file.tell()
    file.seek(0)
    found = count(file)
    file.seek(position)
    return found


def _scans(file: BinaryIO) -> str:
    data, scans, start = file.read(), 0, 2
    while (marker := _MARKER.search(data, start)) and data[marker.start() + 1] != _END and scans <= MAX_SCANS:
        scans += data[marker.start() + 1] == _SCAN
        start = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")  # behind its header
    return f"more than {MAX_SCANS} scans" if scans > MAX_SCANS else ""


def _chunks(file: BinaryIO) -> str:
    limit = MAX_CHUNKS + file.seek(0, os.SEEK_END) // 1000
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
            if tag in _OFFSETS and count > MAX_STRIPS:
                return f"{count:,} {_OFFSETS[tag]}"
    except (struct.error, OSError, ValueError, OverflowError):  # cut off: the decoder says so
        pass
    return ""
