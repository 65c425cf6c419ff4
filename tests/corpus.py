"""Every odd file a person may drop, made in code: a table of names, bytes, and what must come of them."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION_TAG = 0x0112
#: `scene()` as a phone keeps it, lying and with a note to turn it. Written by pillow-heif: nothing here encodes HEIC.
PHONE_HEIC = (Path(__file__).parent / "phone.heic").read_bytes()


@dataclass(frozen=True)
class Case:
    """One file: either the picture it holds, to a mean absolute difference a channel, or a word of its refusal."""

    name: str
    data: bytes
    image: np.ndarray | None = None
    tolerance: float = 0.0
    several_pages: bool = False
    refusal: str = ""

    def __str__(self) -> str:
        return self.name


def scene(height: int = 40, width: int = 56) -> np.ndarray:
    """A smooth picture without symmetry: uint8 (height, width, 3). Lossy formats keep it, every turn changes it."""
    y, x = np.mgrid[:height, :width].astype(float)
    red, green, blue = 255 * x / width, 255 * y / height, 120 + 100 * np.sin((x + 2 * y) / 15)
    return np.stack([red, green, blue], -1).astype(np.uint8)


def encoded(array: np.ndarray | Image.Image, kind: str, mode: str | None = None, **options) -> bytes:
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION_TAG] = orientation
    return tags


def before_turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores so that the EXIF turn gives `array`, by the standard's words for row 0 and column 0."""
    return {
        1: array,  # top, left
        2: array[:, ::-1],  # top, right
        3: array[::-1, ::-1],  # bottom, right
        4: array[::-1],  # bottom, left
        5: array.swapaxes(0, 1),  # left, top
        6: array.swapaxes(0, 1)[::-1],  # right, top
        7: array.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
        8: array.swapaxes(0, 1)[:, ::-1],  # left, bottom
    }[orientation]


def png(
    width: int,
    height: int,
    depth: int,
    color_type: int,
    rows: bytes,
    *extra: tuple[bytes, bytes],
    interlaced: bool = False,
) -> bytes:
    """A PNG chunk by chunk, for what Pillow does not write; `rows` are unfiltered, each after its filter byte 0."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlaced)),
        *extra,
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def png_rows(samples: np.ndarray) -> bytes:
    rows = samples.reshape(len(samples), -1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def adam7_rows(samples: np.ndarray) -> bytes:
    """Rows in the seven passes of an interlaced PNG: (row, column) where each begins, and its steps."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    return b"".join(png_rows(samples[top::down, left::across]) for top, left, down, across in passes)


def deep(samples: np.ndarray) -> np.ndarray:
    """The same brightness in 16 bits, in a PNG's order of bytes."""
    return (samples.astype(np.uint16) * 257).astype(">u2")


def tiff_file(width: int, height: int, bits: int, channels: int, samples: bytes, *, sample_format: int = 1) -> bytes:
    """A little-endian TIFF without compression, for what Pillow does not write."""
    header = 8 + 2 + 10 * 12 + 4
    depths = struct.pack(f"<{channels}H", *[bits] * channels)
    short, long = 3, 4
    tags = [
        (256, long, 1, width), (257, long, 1, height), (258, short, channels, bits if channels == 1 else header),
        (259, short, 1, 1), (262, short, 1, 1 if channels == 1 else 2), (273, long, 1, header + len(depths)),
        (277, short, 1, channels), (278, long, 1, height), (279, long, 1, len(samples)), (339, short, 1, sample_format),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + depths + samples


def photoshop_jpeg(cmyk: np.ndarray) -> bytes:
    """A JPEG of uint8 (H, W, 4) as Photoshop writes it: inverted, and as YCCK, which only the Adobe marker tells."""
    luma_chroma = Image.fromarray(np.ascontiguousarray(cmyk[..., :3])).convert("YCbCr")
    planes = [Image.fromarray(255 - plane) for plane in np.asarray(luma_chroma).transpose(2, 0, 1)]
    picture = Image.merge("CMYK", [*planes, Image.fromarray(np.ascontiguousarray(cmyk[..., 3]))])
    data = bytearray(encoded(picture, "JPEG", quality=98, subsampling=0))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def bad_checksum(data: bytes, chunk: bytes) -> bytes:
    """The same PNG with the checksum of a chunk changed, its content untouched."""
    start = data.index(chunk)
    end = start + 4 + struct.unpack(">I", data[start - 4 : start])[0]
    return data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]


def over_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def gray3(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=2)


def cases() -> list[Case]:
    rgb = scene()
    height, width = rgb.shape[:2]

    def flipped() -> Image.Image:  # made anew: Pillow leaves the settings of one writer on a picture for the next
        return Image.fromarray(np.ascontiguousarray(rgb[::-1]))

    gray = rgb[..., 0]
    ramp16 = np.linspace(0, 65535, height * width).astype(np.uint16).reshape(height, width)
    ramp16[-1, -1] = 65535
    ramp12 = ramp16 >> 4
    ramp8 = gray3(np.rint(ramp16 / 257).astype(np.uint8))
    rgba = np.dstack([rgb, np.linspace(0, 255, height * width).astype(np.uint8).reshape(height, width)])
    black_white = np.where(gray > 128, 255, 0).astype(np.uint8)
    palette = Image.fromarray(rgb).quantize(16)
    few = np.asarray(palette.convert("RGB"))
    see_through = np.asarray(palette) == 3
    few_over_white = few.copy()
    few_over_white[see_through] = 255
    jpeg, png_file, tiff = encoded(rgb, "JPEG", quality=95), encoded(rgb, "PNG"), encoded(rgb, "TIFF")
    gif = encoded(palette, "GIF")
    cmyk = np.dstack([rgb // 2, np.full_like(gray, 40)])
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'></svg>"

    table = [
        # JPEG
        Case("baseline.jpg", jpeg, rgb, 3),
        Case("progressive.jpg", encoded(rgb, "JPEG", quality=95, progressive=True), rgb, 3),
        Case("restart markers.jpg", encoded(rgb, "JPEG", quality=95, restart_marker_blocks=1), rgb, 3),
        Case("gray.jpg", encoded(gray, "JPEG", quality=95), gray3(gray), 3),
        Case("cmyk.jpg", encoded(rgb, "JPEG", "CMYK", quality=95), rgb, 3),
        Case("photoshop.jpg", photoshop_jpeg(cmyk), np.asarray(Image.fromarray(cmyk, "CMYK").convert("RGB")), 3),
        Case("rgb inside.jpg", encoded(rgb, "JPEG", quality=95, keep_rgb=True), rgb, 3),
        Case("trailing bytes.jpg", jpeg + b"and a thumbnail" * 9, rgb, 3),
        Case("with preview.mpo", encoded(rgb, "MPO", save_all=True, append_images=[flipped()], quality=95), rgb, 3),
        Case("broken exif.jpg", encoded(rgb, "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff"), rgb, 3),
        Case("impossible turn.jpg", encoded(rgb, "JPEG", quality=95, exif=exif(9)), rgb, 3),
        Case("jpeg named.png", jpeg, rgb, 3),
        *(
            Case(f"exif turn {turn}.jpg", encoded(before_turn(rgb, turn), "JPEG", quality=95, exif=exif(turn)), rgb, 3)
            for turn in range(1, 9)
        ),
        # PNG
        Case("rgb.png", png_file, rgb),
        Case("gray.png", encoded(gray, "PNG"), gray3(gray)),
        Case("gray alpha.png", encoded(rgba[..., [0, 3]], "PNG"), over_white(rgba[..., [0, 0, 0, 3]])),
        Case("rgba.png", encoded(rgba, "PNG"), over_white(rgba)),
        Case("all transparent.png", encoded(rgba * np.uint8([1, 1, 1, 0]), "PNG"), np.full_like(rgb, 255)),
        Case("palette.png", encoded(palette, "PNG"), few),
        Case("palette, one colour transparent.png", encoded(palette, "PNG", transparency=3), few_over_white),
        Case("palette, alpha for three.png", encoded(palette, "PNG", transparency=b"\xff\xff\xff\0"), few_over_white),
        Case("one bit.png", encoded(black_white, "PNG", "1"), gray3(black_white)),
        Case("two bits.png", png(4, 1, 2, 0, b"\0\x1b"), gray3(np.uint8([[0, 85, 170, 255]]))),
        Case("four bits.png", png(2, 1, 4, 0, b"\0\x3f"), gray3(np.uint8([[51, 255]]))),
        Case("16 bit.png", encoded(ramp16, "PNG"), ramp8),
        Case("12 bit in 16.png", encoded(ramp12, "PNG"), ramp8, 1),
        Case("16 bit black.png", encoded(ramp16 * 0, "PNG"), gray3(gray * 0)),
        Case(
            "16 bit rgb.png",
            png(width, height, 16, 2, png_rows(deep(rgb))),
            rgb,
        ),
        Case("16 bit rgba.png", png(width, height, 16, 6, png_rows(deep(rgba))), over_white(rgba)),
        Case("16 bit gray alpha.png", png(width, height, 16, 4, png_rows(deep(rgba[..., [0, 3]]))),
             over_white(rgba[..., [0, 0, 0, 3]])),
        Case("interlaced.png", png(width, height, 8, 2, adam7_rows(rgb), interlaced=True), rgb),
        Case("interlaced 16 bit.png", png(width, height, 16, 0, adam7_rows(deep(gray)), interlaced=True), gray3(gray)),
        Case("rgb, one colour transparent.png", png(2, 1, 8, 2, b"\0\1\2\3\7\7\7", (b"tRNS", b"\0\1\0\2\0\3")),
             np.uint8([[[255, 255, 255], [7, 7, 7]]])),
        Case("exif.png", encoded(before_turn(rgb, 6), "PNG", exif=exif(6)), rgb),
        Case("animated.png", encoded(rgb, "PNG", save_all=True, append_images=[flipped()]), rgb, several_pages=True),
        Case("1x1.png", encoded(rgb[:1, :1], "PNG"), rgb[:1, :1]),
        Case("1x5000.png", encoded(scene(1, 5000), "PNG"), scene(1, 5000)),
        Case("5000x1.png", encoded(scene(5000, 1), "PNG"), scene(5000, 1)),
        # WebP, AVIF, GIF, BMP, PPM
        Case("lossy.webp", encoded(rgb, "WEBP", quality=95), rgb, 4),
        Case("lossless.webp", encoded(rgb, "WEBP", lossless=True), rgb),
        Case("alpha.webp", encoded(rgba, "WEBP", lossless=True, exact=True), over_white(rgba)),
        Case("exif.webp", encoded(before_turn(rgb, 8), "WEBP", lossless=True, exif=exif(8)), rgb),
        Case("animated.webp", encoded(rgb, "WEBP", lossless=True, save_all=True, append_images=[flipped()]), rgb,
             several_pages=True),
        Case("photo.avif", encoded(rgb, "AVIF", quality=95), rgb, 4),
        Case("exif.avif", encoded(before_turn(rgb, 6), "AVIF", quality=95, exif=exif(6)), rgb, 4),
        Case("phone.heic", PHONE_HEIC, rgb, 4),
        Case("still.gif", gif, few),
        Case("animated.gif", encoded(palette, "GIF", save_all=True, append_images=[flipped()]), few,
             several_pages=True),
        Case("transparent.gif", encoded(palette, "GIF", transparency=3), few_over_white),
        Case("rgb.bmp", encoded(rgb, "BMP"), rgb),
        Case("palette.bmp", encoded(palette, "BMP"), few),
        Case("one bit.bmp", encoded(black_white, "BMP", "1"), gray3(black_white)),
        Case("rgb.ppm", encoded(rgb, "PPM"), rgb),
        Case("gray.pgm", encoded(gray, "PPM"), gray3(gray)),
        Case("16 bit.pgm", encoded(ramp16, "PPM"), ramp8),
        # TIFF
        Case("rgb.tif", tiff, rgb),
        Case("lzw.tif", encoded(rgb, "TIFF", compression="tiff_lzw"), rgb),
        Case("deflate.tif", encoded(rgb, "TIFF", compression="tiff_adobe_deflate"), rgb),
        Case("packbits.tif", encoded(rgb, "TIFF", compression="packbits"), rgb),
        Case("big.tif", encoded(rgb, "TIFF", big_tiff=True), rgb),
        Case("16 bit rgb.tif", tiff_file(width, height, 16, 3, deep(rgb).astype("<u2").tobytes()), rgb),
        Case("jpeg inside.tif", encoded(rgb, "TIFF", compression="jpeg", quality=95), rgb, 3),
        Case("fax.tif", encoded(black_white, "TIFF", "1", compression="group4"), gray3(black_white)),
        Case("16 bit.tif", encoded(ramp16, "TIFF"), ramp8),
        Case("16 bit big-endian.tif", encoded(Image.frombytes("I;16B", (width, height), ramp16.astype(">u2").tobytes()),
                                              "TIFF"), ramp8),
        Case("32 bit.tif", encoded(ramp16.astype(np.int32) * 1000, "TIFF"), ramp8),
        Case("float 0 to 1.tif", encoded((ramp16 / 65535).astype(np.float32), "TIFF"), ramp8),
        Case("float -7 to 9.tif", encoded((ramp16 / 65535 * 16 - 7).astype(np.float32), "TIFF"), ramp8),
        Case("float nan.tif", encoded(np.full((2, 2), np.nan, np.float32), "TIFF"), np.zeros((2, 2, 3), np.uint8)),
        Case("cmyk.tif", encoded(rgb, "TIFF", "CMYK"), rgb),
        Case("lab.tif", encoded(Image.frombytes("LAB", (1, 1), bytes((136, 80, 67))), "TIFF"),
             np.uint8([[[255, 0, 0]]]), 8),
        Case("pages.tif", encoded(rgb, "TIFF", save_all=True, append_images=[flipped(), flipped()]), rgb,
             several_pages=True),
        Case("exif.tif", encoded(before_turn(rgb, 5), "TIFF", tiffinfo={ORIENTATION_TAG: 5}), rgb),
        # names
        Case("with\nnewline.png", png_file, rgb),
        Case("صورة \u202egnp.jpg", jpeg, rgb, 3),
        Case("🏞️ 写真 #1?.webp", encoded(rgb, "WEBP", lossless=True), rgb),
        Case("no ending", png_file, rgb),
        Case("  spaces  .png", png_file, rgb),
        Case("<img src=x onerror=alert(1)>&amp;.png", png_file, rgb),
        Case("-rf %2e%2e%2f 'q' \"Q\" $HOME.png", png_file, rgb),
        Case("x" * 251 + ".png", png_file, rgb),
        # refused
        Case("empty.jpg", b"", refusal="empty"),
        Case("<b>bold<∕b>\n \u202egnp.png", b"", refusal="empty"),
        Case("text.png", b"this is a note\n", refusal="text"),
        Case("BMW.bmp", b"BMW X5, a car with a long name and a short life\n", refusal="text"),
        Case("page.jpg", b"<!DOCTYPE html><html><body>404</body></html>", refusal="text"),
        Case("drawing.svg", b"<?xml version='1.0'?>\n<!-- a\ncomment -->" + svg, refusal="SVG"),
        Case("drawing.png", svg, refusal="SVG"),
        Case("drawing.svgz", gzip.compress(svg), refusal="known kind"),
        Case("paper.pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", refusal="PDF"),
        Case("header only.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", refusal="unusual kind of HEIC"),
        Case("cut off.heic", PHONE_HEIC[:-1], refusal="cut off"),
        Case("film.mp4", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", refusal="video"),
        Case("archive.png", b"PK\3\4\x14\0\0\0\x08\0" * 9, refusal="known kind"),
        Case("layers.psd", b"8BPS\0\1" + bytes(20), refusal="known kind"),
        Case("new.jxl", b"\xff\x0a" + bytes(20), refusal="known kind"),
        Case("float 64.tif", tiff_file(2, 1, 64, 1, bytes(16), sample_format=3), refusal="unusual kind of TIFF"),
        Case("old.tga", encoded(rgb, "TGA"), refusal="known kind"),
        Case("one byte.png", b"\x89", refusal="known kind"),
        Case("zeros.bin", bytes(4096), refusal="known kind"),
        Case("cut off.jpg", jpeg[: len(jpeg) // 2], refusal="cut off"),
        Case("cut off.png", png_file[: len(png_file) // 2], refusal="cut off"),
        Case("cut off.tif", tiff[: len(tiff) // 2], refusal="cut off"),
        Case("cut off.gif", gif[: len(gif) // 2], refusal="cut off"),
        Case("header only.jpg", jpeg[:20], refusal="cut off"),
        Case("header only.png", png_file[:33], refusal="cut off"),
        Case("wrong checksum.png", bad_checksum(png_file, b"IDAT"), refusal="damaged"),
        Case("wrong checksum of header.png", bad_checksum(png_file, b"IHDR"), refusal="damaged"),
        Case("profile bomb.png", png(1, 1, 8, 0, b"\0\0", (b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 26)))),
             refusal="damaged"),
        Case("text bomb.png", png(1, 1, 8, 0, b"\0\0", (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))),
             refusal="damaged"),
        Case("no pixels.png", png(0, 5, 8, 2, b""), refusal="pixels|damaged"),
        Case("100 million pixels.png", png(10_000, 10_000, 1, 0, (b"\0" + b"\xff" * 1250) * 10_000),
             refusal="100.0 million pixels"),
        Case("bomb.tif", tiff_file(60_000, 60_000, 8, 3, b""), refusal="3,600.0 million pixels"),
        Case("bomb.webp", webp_bomb(encoded(rgb, "WEBP", lossless=True)), refusal="268.4 million pixels"),
        Case("bomb.avif", claiming_60000(encoded(rgb, "AVIF")), refusal="unusual kind of AVIF"),
        Case("bomb.heic", claiming_60000(PHONE_HEIC), refusal="3,600.0 million pixels"),
        Case("bomb.png", png(50_000, 50_000, 8, 2, b""), refusal="2,500.0 million pixels"),
        Case("bomb one bit.png", png(2**31 - 1, 2**31 - 1, 1, 0, b""), refusal="million pixels"),
        Case("bomb.bmp", bmp_bomb(), refusal="million pixels"),
        Case("bomb.gif", b"GIF89a" + struct.pack("<HH", 65535, 65535) + gif[10:], refusal="million pixels"),
        Case("bomb.jpg", jpeg_bomb(jpeg), refusal="million pixels"),
        Case("bomb.ppm", b"P6 60000 60000 255\n", refusal="million pixels"),
    ]  # fmt: skip
    assert len({case.name for case in table}) == len(table)
    return table


def bmp_bomb() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 99, 0, 0, 54) + header


def jpeg_bomb(jpeg: bytes) -> bytes:
    """A JPEG whose frame header claims 65,000 x 65,000 pixels."""
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 5] + struct.pack(">HH", 65_000, 65_000) + jpeg[frame + 9 :]


def webp_bomb(webp: bytes) -> bytes:
    """A lossless WebP whose header claims the largest size that it can, 16,384 x 16,384: two times 14 bits."""
    size = webp.index(b"VP8L") + 9
    (bits,) = struct.unpack("<I", webp[size : size + 4])
    return webp[:size] + struct.pack("<I", bits | (1 << 28) - 1) + webp[size + 4 :]


def claiming_60000(data: bytes) -> bytes:
    """An AVIF or HEIC that claims 60,000 x 60,000 pixels, which its coded picture contradicts."""
    size = data.index(b"ispe") + 8
    return data[:size] + struct.pack(">II", 60_000, 60_000) + data[size + 8 :]


CASES = cases()
