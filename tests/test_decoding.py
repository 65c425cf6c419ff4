"""No file keeps a decoder busy, and no decoder outlives its client."""

import contextlib
import random
from signal import SIGSEGV

import numpy as np
import pytest
from bombs import BOMBS, frames, jpeg_of_scans
from bundles import photo, save_nuclei
from corpus import PHONE_HEIC
from pages import file, served

from page import decoding, errors
from unet.images import ImageError, read_annotation, read_image, save_png

# The server's threads work within this process: what its own libraries warn each other of is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def fresh():
    """Processes that were started with this test's limits, and end with it."""
    decoding.close()
    yield
    decoding.close()


def ask(path, notes=None):
    notes = [] if notes is None else notes
    return decoding.read_image(path, max_pixels=50_000_000, notify=notes.append)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    save_nuclei(folder / "weights", working_pixels=60 * 60)
    with served(folder) as page:
        yield page


@pytest.mark.parametrize("name", BOMBS)
def test_costly_files_are_read_or_refused_by_their_structure(page, name):
    make, refusal = BOMBS[name]
    data = make()
    event, said = page.call("/quantize", [file(page.upload(name, data)), 8, "RGB"])
    assert (event, refusal in said) == ("error" if refusal else "complete", True), said
    if refusal:
        with pytest.raises(ImageError, match=refusal):
            read_image(data)


def test_a_process_reads_what_the_library_reads(tmp_path):
    picture, labels = photo(40, 50), (np.arange(2000).reshape(40, 50) % 5).astype(np.uint8)
    save_png(picture, tmp_path / "picture.png")
    save_png(labels, tmp_path / "labels.png")
    (tmp_path / "frames.png").write_bytes(frames("PNG", 2))
    np.testing.assert_array_equal(ask(tmp_path / "picture.png"), picture)
    found = decoding.read_annotation(tmp_path / "labels.png", max_pixels=None, notify=print)
    np.testing.assert_array_equal(found, read_annotation(tmp_path / "labels.png"))
    assert decoding.image_size(tmp_path / "picture.png") == (40, 50)
    notes = []
    ask(tmp_path / "frames.png", notes)
    assert notes == ["'frames.png' has several pages or frames: only the first is read."]
    with pytest.raises(ImageError, match="There is no file"):
        ask(tmp_path / "none.png")


def test_a_decoder_that_takes_too_long_is_ended_and_replaced(tmp_path, fresh, monkeypatch):
    monkeypatch.setattr(decoding, "PATIENCE", 0.0)
    (tmp_path / "slow.jpg").write_bytes(jpeg_of_scans(80, 6000))
    with pytest.raises(ImageError, match=r"'slow.jpg' takes more than 5 seconds to decode: .* as PNG\.$"):
        ask(tmp_path / "slow.jpg")
    monkeypatch.undo()
    save_png(photo(5, 6), tmp_path / "next.png")
    assert ask(tmp_path / "next.png").shape == (5, 6, 3)


def test_a_decoder_stops_at_its_own_limit_of_processor_time(tmp_path, fresh, monkeypatch):
    monkeypatch.setattr(decoding, "SECONDS", 0)  # and the part of a second that it took to start
    (tmp_path / "slow.jpg").write_bytes(jpeg_of_scans(85, 6500))
    with pytest.raises(ImageError, match="seconds to decode"):
        ask(tmp_path / "slow.jpg")


def test_a_decoder_has_a_limit_of_memory(tmp_path, fresh, monkeypatch):
    monkeypatch.setattr(decoding, "MEMORY", 300_000_000)
    save_png(np.zeros((6000, 6000, 3), np.uint8), tmp_path / "large.png")
    with pytest.raises(ImageError, match=r"'large.png' needs more memory"):
        ask(tmp_path / "large.png")
    save_png(photo(5, 6), tmp_path / "next.png")
    assert ask(tmp_path / "next.png").shape == (5, 6, 3)


def test_a_crash_of_a_decoder_is_a_refusal(tmp_path, fresh, monkeypatch):
    (tmp_path / "slow.jpg").write_bytes(jpeg_of_scans(80, 6000))
    monkeypatch.setattr(
        decoding, "raise_if_disconnected", lambda: [p.send_signal(SIGSEGV) for p in decoding._processes]
    )
    with pytest.raises(ImageError, match=r"'slow.jpg' cannot be decoded: open it in another program and export .*\.$"):
        ask(tmp_path / "slow.jpg")


def test_damaged_heic_is_read_or_refused(tmp_path):
    """Some of them crash libheif."""
    rng = random.Random(0)
    for number in range(300):
        damaged = bytearray(PHONE_HEIC)
        for where in rng.sample(range(min(len(damaged), rng.choice([64, 300, 10_000]))), rng.randint(1, 8)):
            damaged[where] = rng.randrange(256)
        (tmp_path / f"{number}.heic").write_bytes(damaged)
        with contextlib.suppress(ImageError):
            assert ask(tmp_path / f"{number}.heic").ndim == 3


def test_a_decoder_ends_when_its_client_disconnects(tmp_path, fresh, monkeypatch):
    (tmp_path / "slow.jpg").write_bytes(jpeg_of_scans(80, 6000))
    running = []

    def hang_up():
        running.extend(decoding._processes)
        if running:
            raise errors.ClientDisconnected

    monkeypatch.setattr(decoding, "raise_if_disconnected", hang_up)
    with pytest.raises(errors.ClientDisconnected):
        ask(tmp_path / "slow.jpg")
    assert running[0].wait(10) != 0
