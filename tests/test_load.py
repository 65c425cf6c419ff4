"""Many at once, and those who leave: nobody gets another's answer, waits for who is gone, or leaves anything for good.

The page runs within this process, so that what it still holds can be looked at; the clients speak HTTP.
"""

import copy
import json
import os
import threading
import time
from pathlib import Path

import httpx
import load
import numpy as np
import pytest
from bundles import photo, save_nuclei
from pages import served

from page import api, batch, cleanup, networks
from page.errors import OUR_MISTAKE
from unet import Segmenter
from unet.images import save_png

ROOT = Path(__file__).parent.parent

PATIENCE = 60  # seconds; for machines that are busy with something else

# The server's threads work within this process: what its own libraries warn each other of is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    save_nuclei(folder / "weights")
    with pytest.MonkeyPatch.context() as patch, served(folder) as page:
        patch.setattr(cleanup, "EVERY", 0.1)
        yield page


@pytest.fixture
def sessions(page):
    return page.demo.state_holder.session_data


@pytest.fixture(scope="module")
def visitors(page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("visitors")
    both = [Segmenter.load(Path(networks.WEIGHTS) / "nuclei" / name) for name in ("residual-add", "crop-concat")]
    return [load.Visitor(page, number, both, folder) for number in range(8)]


@pytest.fixture
def visitor(visitors):
    with visitors[0] as visitor:
        yield visitor


def until(condition):
    """Wait for what the page does by itself."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- many ------------------------------------------------------------------------------------------------------------


def test_everybody_at_once_is_answered_about_their_own_picture(visitors):
    answers = load.rush(visitors, 4)
    assert {answer.failure for answer in answers} <= {"", load.FULL}
    assert {answer.kind for answer in answers if not answer.failure} == set(load.KINDS)


@pytest.mark.parametrize("kind", load.KINDS)
def test_another_s_answer_would_be_noticed(visitors, kind):
    """Whoever sends one picture and expects the answers to another one complains, through every door."""
    mine, confused = visitors[0], copy.copy(visitors[1])
    if "upload" in kind:  # nothing is computed there: what is fetched is changed
        confused.fetch = lambda file: mine.picture.read_bytes()
    else:
        confused.picture, confused.truth = mine.picture, mine.truth
    with confused, pytest.raises(load.WrongError):
        load.KINDS[kind](confused)


def test_a_full_queue_says_so_and_nothing_else_is_an_excuse(page, visitor, monkeypatch):
    monkeypatch.setattr(page.demo._queue, "max_size", 0)
    with pytest.raises(load.WrongError, match=load.FULL):
        visitor.compare()


def test_nobody_goes_past_the_queue(visitor):
    asked = visitor.http.post("run/compare", json={"data": [visitor.upload(), "nuclei", None, None]})
    assert asked.status_code == 404


# ---- what they leave -------------------------------------------------------------------------------------------------


def test_a_call_leaves_no_session_and_a_closed_page_not_for_long(sessions, visitor, monkeypatch):
    visitor.compare()
    visitor.visit()
    until(lambda: [session.is_closed for session in sessions.values()].count(False) == 0)
    assert sessions, "a page that lost its connection may come back"
    monkeypatch.setattr(cleanup, "CLOSED", 0)
    until(lambda: not sessions)


def test_what_open_pages_look_at_is_bounded(sessions, visitor, monkeypatch):
    visitor.event("older", visitor.event_of("open_page"))
    visitor.event("newer", visitor.event_of("open_page"))
    values = [value for value in sessions["newer"].state_data.values() if value is not None]
    monkeypatch.setattr(cleanup, "HELD_BYTES", cleanup.held_bytes(values) * 3 // 2)
    until(lambda: "older" not in sessions)
    assert "newer" in sessions
    taken = visitor.event_of("take_upload")
    visitor.event("older", taken, visitor.upload())
    with pytest.raises(load.WrongError, match=r"left alone for too long.* load it again"):
        visitor.event("older", visitor.event_of("ask", after=taken), None, None, False, 8, "RGB")


def test_arrays_are_counted_once_wherever_they_are():
    array = np.zeros((10, 20, 3), np.uint8)
    run = batch.Run("task", None, [], 0, {"a": array[:5]}, [])
    assert cleanup.held_bytes([array, (array, {"b": run}), "text", None]) == 600


def test_files_are_deleted_by_their_age_and_beyond_a_limit(page, visitor, tmp_path, monkeypatch):
    paths = []
    for i in range(4):
        paths.append(Path(visitor.upload(visitor.truth)["path"]) if i == 0 else tmp_path / f"{i}.png")
        if i:
            save_png(photo(40, 50, seed=i), paths[-1])
            paths[-1] = Path(visitor.upload(paths[-1])["path"])
    size = paths[-1].stat().st_size
    foreign, broken_off = page.cache / "of another page" / "x.png", page.cache / "tmp123"
    foreign.parent.mkdir()
    foreign.write_bytes(b"x")
    broken_off.write_bytes(b"x")
    cleanup.delete_files(page.demo, max_bytes=size * 5 // 2)
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert not paths[0].parent.exists(), "nor is its folder left"
    assert broken_off.exists()
    cleanup.delete_files(page.demo, now=time.time() + cleanup.HOUR - 60)
    assert paths[-1].exists()
    cleanup.delete_files(page.demo, now=time.time() + cleanup.HOUR + 60)
    assert not any(path.exists() for path in (*paths, broken_off))
    assert foreign.exists()
    kept = [path for block in page.demo.blocks.values() for path in getattr(block, "keep_in_cache", ())]
    assert all(os.path.exists(path) for path in kept)


def test_an_upload_that_breaks_off_is_deleted_in_time(page, visitor):
    def half():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(2_000_000)
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        visitor.http.post("upload", content=half(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    until(lambda: list(page.cache.glob("tmp*")))
    cleanup.delete_files(page.demo, now=time.time() + 2 * cleanup.HOUR)
    assert not [path for path in page.cache.glob("tmp*") if path.is_file()]


# ---- who leaves ------------------------------------------------------------------------------------------------------


class Gate:
    """One of the networks, which stops after its first tile until it is opened; how wide the pictures are it saw."""

    def __init__(self):
        self.begun, self.opened, self.tiles = threading.Event(), threading.Event(), []

    def hook(self, net, inputs, outputs):
        self.tiles.append(tuple(inputs[0].shape[2:]))
        self.begun.set()
        assert self.opened.wait(PATIENCE)


@pytest.fixture
def gate():
    segmenter = networks.segmenter(networks.tasks()["nuclei"]["residual-add"])
    segmenter.warm_up()
    gate = Gate()
    hook = segmenter.net.register_forward_hook(gate.hook)
    yield gate
    gate.opened.set()
    hook.remove()


class Client(threading.Thread):
    """Asks, and waits for the answer until it hangs up."""

    def __init__(self, visitor, *, session=None, number=None, function=None, values=()):
        super().__init__()
        if function:
            event = visitor.post(f"call/{function}", json={"data": values})["event_id"]
            self.address, self.event = f"call/{function}/{event}", event
        else:
            sent = {"data": values, "fn_index": number, "session_hash": session}
            self.event = visitor.post("queue/join", json=sent)["event_id"]
            self.address = f"queue/data?session_hash={session}"
        self.http = httpx.Client(base_url=visitor.http.base_url, timeout=600)
        self.connected, self.leaving = threading.Event(), threading.Event()
        self.start()
        assert self.connected.wait(PATIENCE)

    def run(self):
        with self.http.stream("GET", self.address):
            self.connected.set()
            self.leaving.wait(PATIENCE)
        self.http.close()

    def leave(self):
        self.leaving.set()
        self.join()


@pytest.fixture
def large(visitor, tmp_path):
    """An upload of three tiles, which nobody knows the answer to."""
    save_png(photo(100, 1200, seed=time.monotonic_ns() % 2**32), tmp_path / "large.png")
    return visitor.upload(tmp_path / "large.png")


def ask(visitor, door, large):
    """Somebody who asks about the large picture through this door."""
    if door == "page":
        taken = visitor.event_of("take_upload")
        visitor.event("leaving", visitor.event_of("open_page"))
        visitor.event("leaving", taken, large)
        number = visitor.event_of("ask", after=taken)
        return Client(visitor, session="leaving", number=number, values=(None, None, False, 8, "RGB"))
    values = {
        "segment": (large, "nuclei", "residual-add"),
        "batch": ([large, large], "nuclei", None, "residual-add", "crop-concat"),
    }
    return Client(visitor, function=door, values=values[door])


@pytest.mark.parametrize("door", ["segment", "batch", "page"])
def test_who_leaves_while_being_answered_frees_the_place_after_a_tile(page, visitor, gate, large, door):
    client = ask(visitor, door, large)
    assert gate.begun.wait(PATIENCE)
    client.leave()
    until(lambda: not page.demo._queue.event_ids_to_events[client.event].alive)
    gate.opened.set()
    until(lambda: client.event not in page.demo._queue.event_ids_to_events)
    assert len(gate.tiles) == 1, "of three"
    assert not list(page.cache.rglob("*nuclei-2-pictures.zip"))
    visitor.compare()


def test_who_leaves_the_queue_is_never_answered(page, visitor, gate, large, tmp_path):
    first = ask(visitor, "segment", large)
    assert gate.begun.wait(PATIENCE)
    save_png(photo(70, 90, seed=5), tmp_path / "small.png")
    values = (visitor.upload(tmp_path / "small.png"), "nuclei", "residual-add")
    second = Client(visitor, function="segment", values=values)
    assert len(page.demo._queue) == 1
    second.leave()
    until(lambda: len(page.demo._queue) == 0)
    gate.opened.set()
    until(lambda: first.event not in page.demo._queue.event_ids_to_events)
    first.leave()
    assert len(gate.tiles) == 3


def test_a_cancelled_question_is_given_up(page, visitor, gate, large):
    client = ask(visitor, "segment", large)
    assert gate.begun.wait(PATIENCE)
    number = visitor.event_of("segment")
    cancel = {"session_hash": client.event, "fn_index": number, "event_id": client.event}
    assert visitor.http.post("cancel", json=cancel).json() == {"success": True}
    until(lambda: client.event not in page.demo._queue.event_ids_to_events)
    gate.opened.set()
    client.leave()
    visitor.compare()
    assert sum(width > 400 for _, width in gate.tiles) == 1


# ---- what does not fit -----------------------------------------------------------------------------------------------


def test_a_mistake_of_ours_is_a_sentence_too(visitor, monkeypatch, capsys):
    def broken(*_):
        raise ZeroDivisionError("in /a/folder")

    monkeypatch.setattr(api, "compare", broken)
    with pytest.raises(load.WrongError) as caught:
        visitor.compare()
    assert json.loads(str(caught.value).partition("data: ")[2])["error"] == OUR_MISTAKE
    assert "ZeroDivisionError: in /a/folder" in capsys.readouterr().err
