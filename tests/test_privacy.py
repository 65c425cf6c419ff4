"""The public page gives away no file, fetches nothing for a stranger, and forgets what people upload."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import gradio as gr
import httpx
import pytest
from bundles import photo, save_nuclei
from gradio.route_utils import delete_files_created_by_app
from pages import SIDES, file, served

from page.errors import NOT_UPLOADED, OUR_MISTAKE
from unet.images import save_png

ROOT = Path(__file__).parent.parent
HOUR = 3600

# The server's threads work within this process: what its own libraries warn each other of is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def listener():
    """A service on this machine that only this machine may reach; every request to it is kept."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_POST = do_GET  # noqa: N815 - names that http.server looks for

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, requests
        server.shutdown()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    save_nuclei(folder / "weights", working_pixels=60 * 60)
    save_png(photo(20, 30), folder / "secret.png")
    with served(folder) as page:
        page.secret = folder / "secret.png"  # a picture outside its cache that nobody may see
        yield page


def test_no_file_outside_the_cache_is_readable_by_url(page, listener):
    uploaded = page.upload("mine.png", b"my own")
    assert page.get(f"/gradio_api/file={uploaded}") == b"my own", "what was uploaded is served, so the test can fail"
    port, requests = listener
    secret, up = page.secret, "/..".join([""] * 12)
    twice = quote(quote(str(secret), safe=""), safe="")
    for path in (
        *(f"{start}{secret}" for start in ("/gradio_api/file=", "/file=", "/gradio_api/file=/", "/gradio_api/file=file://")),
        f"/gradio_api/file={quote(str(secret), safe='')}",
        f"/gradio_api/file={twice}",
        f"/gradio_api/file={page.cache}/../{secret.name}",
        f"/gradio_api/file={page.cache}/%2e%2e/{secret.name}",
        f"/gradio_api/file={Path(uploaded).parent}/../../{secret.name}",
        *(f"/{mount}{up}{secret}" for mount in ("static", "assets", "svelte", "theme.css", "gradio_api/deep_link")),
        *(f"/{mount}{quote(up, safe='')}{quote(str(secret), safe='')}" for mount in ("static/", "assets/", "svelte/")),
        f"/gradio_api/proxy=file://{secret}",
        f"/gradio_api/proxy=http://127.0.0.1:{port}/secret",
        f"/gradio_api/stream/{secret}/x/y/playlist.m3u8",
    ):  # fmt: skip
        assert secret.read_bytes() not in page.get(path), path
    for own in ("app.py", "tests/corpus.py", "../weights/nuclei/residual-add/config.json"):
        found = (ROOT / own) if not own.startswith("..") else page.secret.parent / own.removeprefix("../")
        assert found.read_bytes() not in page.get(f"/gradio_api/file={found}"), own
    assert b"PATH=" not in page.get("/gradio_api/file=/proc/self/environ")
    assert not requests


def takes_files(component):
    return "path" in str(component.data_model and component.data_model.model_json_schema())


def wrapped(number, at, demo, sent):
    """``sent`` where a handler's file stands, as that component wraps it."""
    handler = demo.fns[number]
    component = handler.inputs[at]
    if isinstance(component, gr.Gallery):
        sent = [{"image": sent, "caption": None}]
    elif getattr(component, "file_count", "single") == "multiple":
        sent = [sent]
    if at in handler.component_prop_inputs:
        sent = {"value": sent, "selected_index": 0}
    return [sent if i == at else None for i in range(len(handler.inputs))]


def file_inputs(demo):
    """Every place where a handler is sent a file: (number of the handler, which of its inputs)."""
    return [
        (number, at)
        for number, handler in demo.fns.items()
        if handler.fn is not None
        for at, component in enumerate(handler.inputs)
        if not component.stateful and takes_files(component)
    ]


def test_every_handler_opens_uploads_and_nothing_else(page, listener):
    """Whatever the request says of a file; and what is refused is not told apart."""
    port, requests = listener
    inside = f"http://127.0.0.1:{port}/secret.png"
    others = Path(page.upload("private.png", page.secret.read_bytes() + b"of somebody else"))
    for link, target in (("link.png", page.secret), ("folder", page.secret.parent)):
        (page.cache / link).symlink_to(target)
    paths = [
        str(page.secret),
        os.path.relpath(page.secret),
        f"{page.cache}/../{page.secret.name}",
        str(page.cache / "link.png"),
        str(page.cache / "folder" / page.secret.name),
        str(page.secret.parent),
        str(page.secret.with_name("no such file.png")),
        "/dev/zero",
        inside,
        "https://example.com/picture.png",
        # another visitor's upload: its folder is a salted hash of what is in it, and no folder is listed
        str(page.cache),
        str(others.parent),
        str(others.parent / "*.png"),
        str(page.cache / sha256(others.read_bytes()).hexdigest() / others.name),
        *({"path": str(page.secret)}, 7, "a\0b.png", "\ud800.png", "x" * 100_000),
    ]
    declared = {"meta": {"_type": "gradio.FileData"}}
    attacks = [{"path": path} | declared for path in paths]
    secret = {"path": paths[0]}
    attacks += [
        secret,
        {"path": paths[1]},
        *(secret | {"meta": meta} for meta in ({}, None, "gradio.FileData", {"_type": "gradio.Image"})),
        secret | {"is_stream": True} | declared,
        secret | {"url": f"/gradio_api/file={others}", "orig_name": "mine.png"} | declared,
    ]
    attacks += [{"path": "x.png", "url": url} | declared for url in (inside, f"file://{page.secret}")]
    sound = file(page.upload("sound.png", page.secret.read_bytes()))
    places = file_inputs(page.demo)
    names = {page.demo.fns[number].name for number, _ in places}
    assert len(page.endpoints) + len({"take_upload", "take_example", "take_truth", "begin"}) <= len(names)

    def attack_all(place):
        number, at = place
        _, said = page.event(number, wrapped(number, at, page.demo, sound))
        assert NOT_UPLOADED not in said.replace('\\"', '"'), "an upload is taken, so the test can fail"
        for attack in attacks:
            event, said = page.event(number, wrapped(number, at, page.demo, attack))
            assert (event, json.loads(said)["error"]) == ("error", NOT_UPLOADED), (page.demo.fns[number].name, attack)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(attack_all, places))
    for link in ("link.png", "folder"):
        (page.cache / link).unlink()
    assert not requests


def test_no_endpoint_reads_a_file_that_nobody_calls_one(page):
    """The same over the address that programs use."""
    for endpoint in page.endpoints:
        sound, files = page.arguments(endpoint, page.upload("sound.png", page.secret.read_bytes()))
        for at in files:
            attack = {"path": str(page.secret)}
            data = [*sound[:at], [attack] if isinstance(sound[at], list) else attack, *sound[at + 1 :]]
            event, said = page.call(endpoint, data)
            assert (event, json.loads(said)["error"]) == ("error", NOT_UPLOADED), endpoint


def sizes_of_body(page):
    """A body that is too large: said in its header, or only found out while it comes."""
    body = json.dumps({"data": [[file("x.png")] * 20_000, "nuclei"]}).encode()
    yield body
    yield (body[i : i + 9999] for i in range(0, len(body), 9999))


def test_a_body_that_is_too_large_is_not_parsed(page):
    for address in (*(f"call{endpoint}" for endpoint in page.endpoints), "queue/join", "reset", "cancel"):
        for body in sizes_of_body(page):
            kind = {"Content-Type": "application/json"}
            answer = page.client.post(f"gradio_api/{address}", content=body, headers=kind)
            assert answer.status_code == 413, address
            assert answer.json() == {"detail": "This request may have 250,000 bytes: send less at a time."}
    assert page.upload("large.png", bytes(300_000)), "files may be larger"


def test_too_many_values_are_refused_before_gradio_sees_them(page):
    picture = page.upload("sound.png", page.secret.read_bytes())
    for values in ([0] * 2000, [file(picture)] * 700, [[[]]] * 1000):
        for number, at in file_inputs(page.demo):
            data = [values if i == at else None for i in range(len(page.demo.fns[number].inputs))]
            event, said = page.event(number, data)
            assert (event, json.loads(said)["error"]) == (
                "error", "A request may have 2,000 values: send fewer files at a time.",
            )  # fmt: skip


@pytest.mark.parametrize("name", ["\ud800.png", "x" * 100_000])
def test_a_name_that_no_file_can_have_is_refused(page, name):
    picture = file(page.upload("sound.png", page.secret.read_bytes()), orig_name=name)
    for number, at in file_inputs(page.demo):
        event, said = page.event(number, wrapped(number, at, page.demo, picture))
        assert event == "error"
        assert json.loads(said)["error"].startswith("A name in this request is too long, or has characters that are")


def test_a_network_s_name_leads_to_no_folder_and_no_address(page, listener):
    port, requests = listener
    uploaded = page.upload("sound.png", page.secret.read_bytes())
    bundle = page.secret.parent / "weights" / "nuclei" / SIDES[0]
    names = [str(bundle), f"file://{bundle}", "weights/nuclei", "../weights", "ann/net@../../x", "a" * 9999]
    for name in (*names, f"http://127.0.0.1:{port}/ann", f"127.0.0.1:{port}/ann"):
        for endpoint, data in (("/segment", [name]), ("/compare", [SIDES[0], name])):
            event, said = page.call(endpoint, [file(uploaded), "nuclei", *data])
            assert event == "error", (endpoint, name)
            assert json.loads(said)["error"], "a sentence, not the nothing that a mistake of ours would be"
    assert not requests


def test_broken_inputs_give_sentences_and_never_a_stack_trace(page):
    sound_upload = page.upload("sound.png", page.secret.read_bytes())
    broken = {
        "cut off.png": page.secret.read_bytes()[:200],
        "empty.png": b"",
        "note.png": b"a note",
        "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }
    uploads = {name: page.upload(name, content) for name, content in broken.items()}
    for endpoint in page.endpoints:
        sound, (at, *_) = page.arguments(endpoint, sound_upload)
        several = isinstance(sound[at], list)
        for name, path in uploads.items():
            event, said = page.call(endpoint, [*sound[:at], [file(path)] if several else file(path), *sound[at + 1 :]])
            if event == "error":
                assert (json.loads(said)["error"] or "").endswith("."), (endpoint, name, said)
                assert str(page.cache) not in said
            assert name in said, (endpoint, said)


@pytest.mark.parametrize("wrong", [None, "none such", {"a": 1}, 7.5, ["a", None], True, "<b>" * 9999])
def test_whatever_is_sent_for_a_value_the_answer_is_a_sentence(page, wrong):
    uploaded = page.upload("sound.png", page.secret.read_bytes())
    for endpoint in page.endpoints:
        sound, _ = page.arguments(endpoint, uploaded)
        for at, parameter in enumerate(page.endpoints[endpoint]["parameters"]):
            event, said = page.call(endpoint, [*sound[:at], wrong, *sound[at + 1 :]])
            label = parameter["label"]
            if event == "complete":
                assert (wrong, label) in [(None, "left"), (None, "right"), (None, "truths")], "may be left out"
                continue
            sentence = json.loads(said)["error"]
            assert sentence, (endpoint, label)
            assert sentence.endswith("."), sentence
            assert sentence != OUR_MISTAKE, (endpoint, label)
            assert len(sentence) < 400
            assert not any(part in said for part in ("Traceback", 'File \\"', ".py", "site-packages", "<b>"))
            if wrong is None and label in ("image", "pictures"):
                assert "no picture" in said, (endpoint, said)


def test_questions_that_no_client_would_ask_are_answered_in_words(page):
    picture = file(page.upload("sound.png", page.secret.read_bytes()))
    event, said = page.call("/quantize", [picture])
    assert event == "error"
    assert "needed are image, colors, space, in this order" in json.loads(said)["error"]
    for path, sent in (
        ("call/nothing", {"data": []}),
        ("call/v2/nothing", {}),
        ("call/v2/quantize", {"image": picture, "colours": 8}),
        ("call/v2/quantize", {}),
        ("run/nothing", {"data": []}),
        ("queue/join", {"data": [], "fn_index": 9999, "session_hash": "a"}),
    ):
        answer = httpx.post(f"{page.url}gradio_api/{path}", json=sent)  # the page hangs up after each
        assert answer.status_code == 500
        assert answer.json()["error"].startswith("This cannot be asked here: /gradio_api/info lists what can"), path


def test_names_of_uploads_lead_nowhere(page):
    for name in ("../../../evil.png", "..\\..\\evil.png", "/etc/evil.png", "%2e%2e%2fevil.png", "a\0b.png", ".." * 9):
        path = Path(page.upload(name, b"x"))
        assert path.resolve().is_relative_to(page.cache.resolve()), name


def test_nobody_is_told_who_visits(page):
    config = page.client.get("config").json()
    assert config["analytics_enabled"] is False
    text = page.client.get("").text
    for host in ("google", "huggingface.co/front", "cdn.", "plausible", "gravatar"):
        assert f"//{host}" not in text


def test_what_people_upload_and_what_came_of_it_is_deleted(page):
    """Gradio deletes, every hour, what is older than an hour and known to it: after all of the above, that is all."""
    assert page.demo.delete_cache == (HOUR, HOUR)
    uploaded = page.upload("mine.png", page.secret.read_bytes())
    sound, _ = page.arguments("/quantize", uploaded)
    event, said = page.call("/quantize", sound)
    assert event == "complete"
    assert Path(uploaded).exists()
    assert Path(json.loads(said)[0]["path"]).exists()
    delete_files_created_by_app(page.demo, None)
    left = [path for path in page.cache.rglob("*") if path.is_file()]
    assert left == [], "only these would stay"
