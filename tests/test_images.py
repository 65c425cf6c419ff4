"""unet/images.py: any picture a person has is read as it looks, or refused in one sentence."""

import io
import random
import resource
import struct
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from bombs import jpeg_of_scans
from corpus import CASES, PHONE_HEIC, before_turn, encoded, exif, gray3, over_white, png, scene
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from unet.formats import ImageNotice
from unet.images import ImageError, image_size, read_annotation, read_image, save_png

# Pillow tells of bad tags by a warning before the reading fails or goes on without them.
pillow_may_warn = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")

READ = [case for case in CASES if case.image is not None]
REFUSED = [case for case in CASES if case.image is None]
# Small ones of every kind, for laws on damaged bytes.
SMALL = {
    "jpeg": encoded(scene(24, 33), "JPEG"),
    "progressive jpeg": encoded(scene(24, 33), "JPEG", progressive=True),
    "png": encoded(scene(12, 17), "PNG"),
    "palette png": encoded(Image.fromarray(scene(12, 17)).quantize(8), "PNG"),
    "gif": encoded(Image.fromarray(scene(12, 17)).quantize(8), "GIF"),
    "webp": encoded(scene(12, 17), "WEBP"),
    "avif": encoded(scene(12, 17), "AVIF"),
    "heic": PHONE_HEIC,
    "bmp": encoded(scene(12, 17), "BMP"),
    "ppm": encoded(scene(12, 17), "PPM"),
    "tiff": encoded(scene(12, 17), "TIFF"),
    "lzw tiff": encoded(scene(12, 17), "TIFF", compression="tiff_lzw"),
    "jpeg tiff": encoded(scene(12, 17), "TIFF", compression="jpeg"),
    "two-page tiff": encoded(scene(12, 17), "TIFF", save_all=True, append_images=[Image.fromarray(scene(12, 17))]),
}


def is_read_or_refused(data: bytes) -> np.ndarray | None:
    """The picture, or None if refused; any other exception is the test's failure."""
    try:
        return read_image(data, notify=lambda sentence: None)
    except ImageError:
        return None


def test_the_corpus_is_large() -> None:
    assert len(CASES) >= 60


@pillow_may_warn
@pytest.mark.parametrize("case", READ, ids=str)
def test_pictures_are_read_as_they_look(case, tmp_path) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.data)
    told = []

    image = read_image(path, notify=told.append)

    assert image.dtype == np.uint8
    assert image.shape == case.image.shape
    assert np.abs(image.astype(float) - case.image).mean() <= case.tolerance
    assert image_size(path) == image.shape[:2]
    assert bool(told) == case.several_pages
    assert all("only the first" in sentence for sentence in told)


@pillow_may_warn
@pytest.mark.parametrize("case", REFUSED, ids=str)
@pytest.mark.parametrize("read", [read_image, read_annotation])
def test_what_is_no_picture_is_refused_in_one_sentence(case, read, tmp_path) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.data)
    with pytest.raises(ImageError, match=case.refusal) as refusal:
        read(path)
    sentence = str(refusal.value)
    assert repr(case.name) in sentence
    assert str(tmp_path) not in sentence, "a public page shows this sentence"
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize("source", ["str", "path", "bytes", "bytearray", "file", "used file", "pillow", "array"])
def test_every_source_gives_the_same_picture(source, tmp_path) -> None:
    rgb, path = scene(), tmp_path / "picture.png"
    path.write_bytes(encoded(rgb, "PNG"))
    with open(path, "rb") as file, open(path, "rb") as used, Image.open(path) as picture:
        used.read(9)
        sources = {
            "str": str(path), "path": path, "bytes": path.read_bytes(), "bytearray": bytearray(path.read_bytes()),
            "file": file, "used file": used, "pillow": picture, "array": rgb,
        }  # fmt: skip
        assert np.array_equal(read_image(sources[source]), rgb)
        assert image_size(sources[source]) == rgb.shape[:2]
        assert not file.closed


def test_a_pipe_is_read() -> None:
    class Pipe:
        def __init__(self, data: bytes) -> None:
            self.read = io.BytesIO(data).read

    assert np.array_equal(read_image(Pipe(encoded(scene(), "PNG"))), scene())


def test_the_result_is_a_new_array() -> None:
    array = scene()
    image = read_image(array)
    image[:] = 0
    assert np.array_equal(array, scene())


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.uint8([[0, 255]]), [[0, 0, 0], [255, 255, 255]]),
        (np.uint8([[[0], [9]]]), [[0, 0, 0], [9, 9, 9]]),
        (np.array([[False, True]]), [[0, 0, 0], [255, 255, 255]]),
        (np.array([[0, 200]]), [[0, 0, 0], [200, 200, 200]]),
        (np.uint16([[0, 65535]]), [[0, 0, 0], [255, 255, 255]]),
        (np.uint16([[0, 4095]]), [[0, 0, 0], [255, 255, 255]]),
        (np.uint16([[2570, 65535]]), [[10, 10, 10], [255, 255, 255]]),
        (np.float32([[0.2, 1.0]]), [[51, 51, 51], [255, 255, 255]]),
        (np.float64([[3.0, 200.4]]), [[3, 3, 3], [200, 200, 200]]),
        (np.float32([[0.0, 0.51, 1.02]]), [[0, 0, 0], [128, 128, 128], [255, 255, 255]]),  # sharpened
        (np.float32([[0.0, 3.7]]), [[0, 0, 0], [255, 255, 255]]),  # HDR
        (np.float32([[-2.0, 2.0]]), [[0, 0, 0], [255, 255, 255]]),
        (np.float32([[np.nan, 1.0]]), [[0, 0, 0], [255, 255, 255]]),
        (np.float64([[5e300, 5e300]]), [[0, 0, 0], [0, 0, 0]]),
        (np.uint8([[[1, 2, 3, 255], [9, 9, 9, 0]]]), [[1, 2, 3], [255, 255, 255]]),
    ],
)
def test_arrays_of_every_type(array, expected) -> None:
    assert read_image(array).tolist() == [expected]


@pytest.mark.parametrize("shape", [(3,), (0, 5), (5, 0, 3), (4, 4, 2), (3, 8, 8), (1, 4, 4, 3)])
def test_arrays_of_other_shapes_are_refused(shape) -> None:
    with pytest.raises(ImageError, match=r"give \(H, W\)"):
        read_image(np.zeros(shape, np.uint8))


def test_arrays_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ImageError, match="complex"):
        read_image(np.zeros((2, 2), complex))


@pytest.mark.parametrize("source", [None, 7, [[1, 2], [3, 4]], io.StringIO("text")])
def test_other_types_are_the_callers_mistake(source) -> None:
    with pytest.raises(TypeError):
        read_image(source)


def test_paths_that_lead_nowhere(tmp_path) -> None:
    for source, message in [
        (tmp_path / "missing.png", "no file .*missing.png"),
        (tmp_path, "a folder"),
        ("https://example.com/cat.png", "no file"),
        ("null\0character.png", "cannot be opened"),
        ("x" * 5000, "cannot be opened"),
    ]:
        with pytest.raises(ImageError, match=message):
            read_image(source)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_all_exif_turns_give_the_unturned_picture_and_annotation(turn, kind) -> None:
    data = encoded(before_turn(scene(), turn), kind, lossless=True, exif=exif(turn))
    assert np.array_equal(read_image(data), scene())
    assert np.array_equal(read_image(Image.open(io.BytesIO(data))), scene())
    assert np.array_equal(read_annotation(data), scene())
    assert image_size(data) == scene().shape[:2]


def test_several_pages_are_warned_of_by_default() -> None:
    page = Image.fromarray(scene())
    with pytest.warns(ImageNotice, match="only the first") as told:
        read_image(encoded(page, "TIFF", save_all=True, append_images=[page]))
    assert told[0].filename == __file__


def test_strips_join_without_a_trace() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (1500, 1100, 4), dtype=np.uint8)
    assert np.array_equal(read_image(encoded(rgba, "PNG", compress_level=1)), over_white(rgba))
    deep = rgba[..., 0].astype(np.uint16) * 257
    assert np.array_equal(read_image(encoded(deep, "TIFF")), gray3(rgba[..., 0]))


def test_max_pixels_is_a_limit_of_the_callers() -> None:
    data = encoded(scene(40, 50), "PNG")
    assert read_image(data, max_pixels=2000).shape == (40, 50, 3)
    assert read_image(data, max_pixels=None).shape == (40, 50, 3)
    with pytest.raises(ImageError, match=r"50 x 40.*smaller"):
        read_image(data, max_pixels=1999)


@pytest.mark.parametrize("case", [case for case in CASES if "bomb" in case.name], ids=str)
def test_bombs_are_refused_before_they_are_decoded(case) -> None:
    # The large ones hold no pixels at all: decoding first would call them cut off.
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=case.refusal):
            read_image(case.data)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_scans_are_counted_of_a_pillow_image_too_and_not_for_a_size():
    data = jpeg_of_scans(2000, 64)
    assert image_size(data) == (64, 64)
    for source in (data, Image.open(io.BytesIO(data))):
        with pytest.raises(ImageError, match="more than 100 scans"):
            read_image(source)


@pytest.mark.parametrize("name", ["\ud800.png", "x" * 100_000 + ".png"])
def test_a_name_that_no_file_can_have_is_refused_in_a_short_sentence(name):
    with pytest.raises(ImageError) as refusal:
        read_image(name)
    assert len(str(refusal.value)) < 300
    str(refusal.value).encode()


def test_the_limit_does_not_depend_on_pillows(monkeypatch) -> None:
    white = np.full((1500, 1500), 255, np.uint8)
    png_file, tiff = encoded(white, "PNG"), encoded(white, "TIFF")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_100_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(png_file).min() == 255
        with pytest.raises(ImageError, match="claims more pixels"):
            read_image(tiff)  # its reader asks Pillow's limit whatever we do


@pillow_may_warn
@pytest.mark.parametrize("kind", SMALL)
def test_cut_off_at_any_byte_is_refused_or_whole(kind) -> None:
    data = SMALL[kind]
    whole = is_read_or_refused(data)
    for length in random.Random(0).sample(range(len(data)), min(len(data), 400)):
        image = is_read_or_refused(data[:length])
        assert image is None or np.array_equal(image, whole), f"{length} of {len(data)} bytes"


@pillow_may_warn
@settings(max_examples=1500, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(SMALL.keys() - {"heic"})))  # it crashes: see test_decoding
def test_damaged_files_are_read_or_refused(data, kind) -> None:
    damaged = bytearray(SMALL[kind])
    reach = data.draw(st.sampled_from([64, 300, len(damaged)]))
    position = st.integers(0, min(reach, len(damaged)) - 1)
    for where, value in data.draw(st.dictionaries(position, st.integers(0, 255), min_size=1, max_size=8)).items():
        damaged[where] = value
    is_read_or_refused(bytes(damaged))


@pillow_may_warn
@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.data(), case=st.sampled_from([case for case in CASES if case.data]))
def test_no_header_costs_more_than_a_picture_may(data, case) -> None:
    """Bytes changed where sizes and tables stand: read or refused, within the 5 s and 1 GB that images.py promises."""
    damaged = bytearray(case.data)
    position = st.integers(0, min(200, len(damaged)) - 1)
    for where, value in data.draw(st.dictionaries(position, st.integers(0, 255), min_size=1, max_size=6)).items():
        damaged[where] = value
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    image = is_read_or_refused(bytes(damaged))
    assert image is None or image.size <= 3 * 50_000_000
    assert time.thread_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1e6  # KB


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(["1", "L", "P", "LA", "RGB", "RGBA", "I;16", "CMYK", "I", "F"]),
    st.sampled_from(["PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG", "PPM"]),
    st.integers(1, 256),
)
def test_every_mode_and_size_that_can_be_written_is_read(size, mode, kind, colors) -> None:
    height, width = size
    gray = np.arange(height * width).reshape(size) % colors
    if mode == "P":
        picture = Image.fromarray(gray.astype(np.uint8)).quantize(colors)
    elif mode == "I;16":
        picture = Image.fromarray(gray.astype(np.uint16))
    else:
        picture = Image.fromarray(gray.astype(np.uint8)).convert(mode)
    assume((mode, kind) != ("F", "PPM"))  # Pillow writes another format, PFM, under this name
    try:
        file = encoded(picture, kind)
    except (OSError, KeyError):
        assume(False)  # this format has no such mode
    image = read_image(file)
    assert (image.dtype, image.shape) == (np.uint8, (height, width, 3))
    assert image_size(file) == size
    if kind in ("PNG", "TIFF") and mode in ("L", "P", "RGB", "RGBA"):
        assert np.array_equal(image, np.asarray(picture.convert("RGB")))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", *(data[:12] for data in SMALL.values())]))
def test_noise_behind_any_signature_is_refused(noise, start) -> None:
    assert is_read_or_refused(start + noise) is None


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(0, 2**32 - 1), st.integers(1, 256), st.sampled_from(["map", "palette", "mask", "rgb"]))
def test_what_is_saved_is_read_back(size, seed, colors, kind) -> None:
    random_state = np.random.default_rng(seed)
    buffer = io.BytesIO()
    if kind == "rgb":
        array = random_state.integers(0, 256, (*size, 3), dtype=np.uint8)
        save_png(array, buffer)
        assert np.array_equal(read_image(buffer), array)
    elif kind == "mask":
        array = random_state.random(size) < 0.5
        save_png(array, buffer)
    else:
        array = random_state.integers(0, 256, size, dtype=np.uint8)
        palette = random_state.integers(0, 256, (colors, 3), dtype=np.uint8)
        save_png(array, buffer, palette=palette if kind == "palette" else None)
        if kind == "palette":
            shown = np.vstack([palette, np.zeros((256 - colors, 3), np.uint8)])[array]
            assert np.array_equal(read_image(buffer), shown)
    assert np.array_equal(read_annotation(buffer), array)


def test_save_png_refuses_what_it_cannot_keep(tmp_path) -> None:
    index_map, rgb = np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)
    for array in [index_map.astype(float), rgb[..., :2], rgb.astype(bool), np.zeros((0, 4), np.uint8)]:
        with pytest.raises(ValueError, match="A PNG needs"):
            save_png(array, tmp_path / "x.png")
    for array, palette in [(rgb, rgb[0]), (index_map, rgb[0, :, :2]), (index_map, np.zeros((257, 3)))]:
        with pytest.raises(ValueError, match="A palette is"):
            save_png(array, tmp_path / "x.png", palette=palette)
    assert not list(tmp_path.iterdir())


LABELS = np.uint8([[0, 1, 2], [3, 11, 255]])
MASK = np.uint8([[0, 1, 0], [1, 1, 0]])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(LABELS, "PNG"), LABELS),
        (encoded(LABELS, "TIFF"), LABELS),
        (encoded(LABELS.astype(np.uint16), "PNG"), LABELS),
        (encoded(LABELS.astype(np.int32), "TIFF"), LABELS),
        (encoded(LABELS.astype(np.float32), "TIFF"), LABELS),
        (encoded(np.dstack([LABELS, LABELS * 0 + 255]), "PNG"), LABELS),
        (encoded(MASK.astype(bool), "PNG"), MASK),
        (encoded(MASK * 255, "PNG"), MASK * 255),
        (encoded(MASK * np.uint16(65535), "PNG"), MASK * 255),
        (png(4, 1, 2, 0, b"\0\x1b"), [[0, 1, 2, 3]]),
        (png(2, 1, 4, 0, b"\0\x3f"), [[3, 15]]),
        (encoded(scene(), "PNG"), scene()),
        (encoded(scene(), "PNG", "RGBA"), scene()),
        (encoded(MASK.repeat(16, 0).repeat(16, 1) * 255, "JPEG"), MASK.repeat(16, 0).repeat(16, 1) * 255),
    ],
)
def test_annotations_keep_their_values(data, expected) -> None:
    annotation = read_annotation(data)
    assert annotation.dtype == np.uint8
    assert np.array_equal(annotation, expected)


@pytest.mark.parametrize("array", [LABELS, LABELS[..., None], LABELS.astype(np.int64), LABELS.astype(float)])
def test_annotations_from_arrays(array) -> None:
    annotation = read_annotation(array)
    assert annotation.dtype == np.uint8
    assert not np.shares_memory(annotation, array)
    assert np.array_equal(annotation, LABELS)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.uint16([[0, 300]]), "from 0 to 300"),
        (np.int16([[-1, 3]]), "from -1 to 3"),
        (np.float32([[0.5, np.nan]]), "whole numbers"),
        (encoded(np.uint16([[0, 300]]), "PNG"), "from 0 to 300"),
        (encoded(scene()[..., 0], "JPEG"), "PNG"),
    ],
)
def test_annotations_that_are_no_indices_are_refused(source, message) -> None:
    with pytest.raises(ImageError, match=message):
        read_annotation(source)


@pytest.mark.parametrize(
    "source",
    [MASK, MASK * 255, MASK.astype(bool), gray3(MASK * 255), encoded(MASK.astype(bool), "PNG"),
     encoded(MASK * 255, "PNG"), encoded(gray3(MASK * 255), "PNG")],
)  # fmt: skip
def test_binary_masks_become_0_and_1(source) -> None:
    assert np.array_equal(read_annotation(source, binary=True), MASK)


@pytest.mark.parametrize(("array", "message"), [(LABELS, "0, 1, 2, 3, 11, 255"), (scene(), "colours")])
def test_what_is_no_binary_mask_is_refused(array, message) -> None:
    with pytest.raises(ImageError, match=message):
        read_annotation(encoded(array, "PNG"), binary=True)


def tiff(samples, *, photometric=1, sample_format=1, planar=1, more=()) -> bytes:
    """An uncompressed little-endian TIFF of (H, W) or (H, W, 3); more: (tag, value) of further short tags."""
    samples = np.asarray(samples)
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    data = (np.moveaxis(samples, -1, 0) if planar == 2 else samples).tobytes()
    tags = dict([(256, width), (257, height), (259, 1), (262, photometric), (277, channels), (278, height), *more])
    tags |= {284: planar, 339: sample_format}
    bits, strips = 8 * samples.itemsize, channels if planar == 2 else 1
    start = 8 + 2 + 12 * (len(tags) + 3) + 4
    depth = struct.pack(f"<{channels}H", *[bits] * channels)
    pixels = start + len(depth) + (8 * strips if strips > 1 else 0)
    each = len(data) // strips
    offsets = struct.pack(f"<{strips}I", *(pixels + i * each for i in range(strips)))
    rows = [(tag, 3, 1, struct.pack("<HH", value, 0)) for tag, value in tags.items()]
    rows.append((258, 3, channels, struct.pack("<I", start) if channels > 1 else struct.pack("<HH", bits, 0)))
    where = struct.pack("<II", start + len(depth), start + len(depth) + 4 * strips)
    rows.append((273, 4, strips, where[:4] if strips > 1 else offsets))
    rows.append((279, 4, strips, where[4:] if strips > 1 else struct.pack("<I", each)))
    table = b"".join(struct.pack("<HHI", *row[:3]) + row[3] for row in sorted(rows))
    lists = offsets + struct.pack(f"<{strips}I", *[each] * strips) if strips > 1 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + table + bytes(4) + depth + lists + data


RAMP = np.arange(24).reshape(4, 6)


@pytest.mark.parametrize(
    ("samples", "sample_format"),
    [(np.uint8(RAMP * 11), 1), (np.uint16(RAMP * 2849), 1), (np.uint16(RAMP * 178), 1), (np.float32(RAMP / 23), 3)],
)
def test_smallest_value_is_white_where_a_tiff_says_so(samples, sample_format) -> None:
    dark, light = (read_image(tiff(samples, photometric=p, sample_format=sample_format))[..., 0] for p in (1, 0))
    assert light[0, 0] == 255
    assert np.array_equal(light, 255 - dark)


def test_class_numbers_are_those_of_the_file_where_the_smallest_value_is_white() -> None:
    for dtype in (np.uint8, np.uint16):
        assert np.array_equal(read_annotation(tiff(LABELS.astype(dtype), photometric=0)), LABELS)
    assert np.array_equal(read_annotation(tiff(MASK * np.uint8(255), photometric=0)), 255 - MASK * 255)  # as it looks


def test_channels_in_planes_are_read_or_refused() -> None:
    rgb = scene(12, 17)
    assert np.array_equal(read_image(tiff(rgb, photometric=2, planar=2)), rgb)
    assert np.array_equal(read_image(tiff(rgb.astype("<u2") * 257, photometric=2)), rgb)
    for read in (read_image, read_annotation, image_size):
        with pytest.raises(ImageError, match="channels of 16 bits one after the other"):
            read(tiff(rgb.astype("<u2") * 257, photometric=2, planar=2))


@pytest.mark.parametrize("tag", [(254, 1), (50706, 1)])
def test_previews_of_raw_photos_are_refused(tag) -> None:
    data = tiff(scene(12, 17), photometric=2, more=[tag])
    for read in (read_image, read_annotation, image_size):
        with pytest.raises(ImageError, match=r"preview \(17 x 12\)"):
            read(data)


def test_signed_bytes_are_refused() -> None:
    with pytest.raises(ImageError, match="signed"):
        read_image(tiff(np.int8([[-1, 3]]), sample_format=2))


@pytest.mark.parametrize("hidden", [0, 255])
def test_annotations_have_the_colours_of_the_file_and_0_where_they_are_invisible(hidden) -> None:
    alpha = np.where(LABELS > 0, np.uint8(255), np.uint8(0))
    stored = np.where(LABELS > 0, LABELS, np.uint8(hidden))
    colors = np.dstack([stored, stored, stored, alpha])
    expected = LABELS[..., None].repeat(3, axis=2)
    for source in (encoded(colors, "PNG"), encoded(colors, "TIFF"), colors):
        assert np.array_equal(read_annotation(source), expected)
    assert np.array_equal(read_annotation(encoded(np.dstack([stored, alpha]), "PNG")), LABELS)
    half = np.dstack([scene(), np.full(scene().shape[:2], 128, np.uint8)])  # laid half over the photo by its program
    assert np.array_equal(read_annotation(encoded(half, "PNG")), scene())
