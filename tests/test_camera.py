"""The live camera: what it answers, how it refuses, and that it is off whenever nobody looks."""

import base64
import io
import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from bombs import jpeg_of_scans
from bundles import PNG, photo, save_nuclei
from pages import PATIENCE, SIDES, served, upload
from PIL import Image
from playwright.sync_api import expect

from page import camera, networks
from unet import Segmenter
from unet.images import read_image
from unet.overlay import OPACITY

# The server's threads work within this process: what its own libraries warn each other of is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")

EXAMPLE = Path(__file__).parents[1] / "weights" / "nuclei" / "examples" / "fluorescence.jpg"
#: Before the page's own scripts: a camera as `plan` has it, {wait, error, color}, and a list of all that were opened.
CAMERA = """
window.plan = {};
window.cameras = [];
const openCamera = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  if (plan.wait) await new Promise((done) => setTimeout(done, plan.wait));
  if (plan.error) throw new DOMException("", plan.error);
  const stream = plan.color ? painted(plan.color) : await openCamera(wanted);
  cameras.push(...stream.getTracks());
  return stream;
};
function painted(color) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
  const context = canvas.getContext("2d");
  setInterval(() => Object.assign(context, { fillStyle: color }).fillRect(0, 0, 64, 48), 50);
  return canvas.captureStream(20);
}
"""
#: One pixel of each pane.
PIXELS = """
[...document.querySelectorAll("#live canvas")].map((c) => [...c.getContext("2d").getImageData(9, 9, 1, 1).data])
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    save_nuclei(folder / "weights", working_pixels=40 * 40)
    with served(folder) as page:
        yield page


@pytest.fixture(scope="module")
def visitors(page, browser):
    """Two visitors' tabs, each in a session of its own."""
    contexts = [browser.new_context() for _ in range(2)]
    tabs = []
    for context in contexts:
        context.set_default_timeout(PATIENCE)
        tabs.append(context.new_page())
        tabs[-1].add_init_script(CAMERA)
        tabs[-1].goto(page.url)
    yield tabs
    for context in contexts:
        context.close()


@pytest.fixture
def tab(visitors):
    """A visitor with the browser's own camera, switched off."""
    visitors[0].evaluate("plan = {}; cameras.length = 0")
    return visitors[0]


def switch(tab):
    return tab.get_by_role("switch", name="Live")


def pace(tab):
    return tab.locator("#live .pace")


def start(tab):
    switch(tab).click()
    expect(pace(tab)).to_have_text(re.compile(r"\d a second, \d\.\d\d s behind"), timeout=PATIENCE)


def says_off(tab, sentence):
    """The switch is off, every camera that was opened is, and this is said."""
    expect(switch(tab)).to_have_attribute("aria-checked", "false")
    expect(tab.locator("#live canvas").first).to_be_hidden()
    expect(tab.locator("#ways .note")).to_have_text(sentence)
    assert set(tab.evaluate("cameras.map((track) => track.readyState)")) <= {"ended"}


def jpeg(image):
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=85)
    return camera.JPEG + base64.b64encode(content.getvalue()).decode()


def asked(picture, *, sides=None, colors=8, fitted=None, view="Overlay"):
    event = gr.EventData(None, {"number": 7, "picture": picture, "view": view})
    return camera.answer(sides, colors, "RGB", fitted, event)


def layer(pane):
    return Image.open(io.BytesIO(base64.b64decode(pane["layer"].partition(",")[2])))


# ---- what is answered ------------------------------------------------------------------------------------------------


def test_each_layer_is_what_its_network_says_of_the_frame(page):
    sides = networks.choose_sides("nuclei")
    sent = jpeg(photo(60, 80))
    answer, _ = asked(sent, sides=sides)
    assert answer["number"] == 7
    assert [pane["name"] for pane in answer["panes"]] == list(SIDES)
    frame = read_image(base64.b64decode(sent.partition(",")[2]))
    for side, pane in zip(sides, answer["panes"], strict=True):
        found = Segmenter.load(side.location)(frame)
        drawn = np.asarray(layer(pane).convert("RGBA"))
        assert (drawn[..., :3] == found.palette[found.label_map]).all()
        assert (drawn[..., 3] == np.array([0, round(255 * OPACITY)])[found.label_map]).all(), "background is left out"
        assert 0 < found.label_map.mean() < 1


def test_k_colours_serve_for_a_second_and_are_fitted_anew_for_another_k(monkeypatch):
    now = 100.0
    monkeypatch.setattr(camera.time, "monotonic", lambda: now)
    first, second = jpeg(photo(60, 80)), jpeg(photo(60, 80, seed=1) // 2)
    answer, fitted = asked(first, view="Colours", colors=5)
    assert [pane["name"] for pane in answer["panes"]] == ["Camera", "5 colours"]
    drawn = np.asarray(layer(answer["panes"][1]).convert("RGBA"))
    assert len(np.unique(drawn.reshape(-1, 4), axis=0)) == 5
    assert (drawn[..., 3] == 255).all()
    now += 0.9
    assert asked(second, view="Colours", colors=5, fitted=fitted)[1] is fitted
    assert len(asked(second, view="Colours", colors=6, fitted=fitted)[1].palette) == 6
    now += 0.2
    assert asked(second, view="Colours", colors=5, fitted=fitted)[1].palette != fitted.palette


@pytest.mark.parametrize("color", [(0, 0, 0), (192, 32, 32)])
def test_a_plain_frame_has_one_colour(color):
    answer, _ = asked(jpeg(np.full((48, 64, 3), color, np.uint8)), view="Colours")
    assert answer["panes"][1]["name"] == "1 colour"


@pytest.mark.parametrize(
    "sent",
    [
        None,
        7,
        "",
        "/etc/passwd",
        "http://127.0.0.1/picture.jpg",
        "data:image/svg+xml;base64,PHN2Zy8+",
        camera.JPEG + "not base64",
        camera.JPEG + base64.b64encode(b"no picture").decode(),
        camera.JPEG + "A" * camera.FRAME_BYTES,
        camera.JPEG + base64.b64encode(PNG).decode(),
        camera.JPEG + base64.b64encode(jpeg_of_scans(2000, 64)).decode(),
        jpeg(np.zeros((641, 480, 3), np.uint8)),
    ],
)
def test_anything_but_a_small_jpeg_is_refused(sent):
    with pytest.raises(gr.Error, match=r"frame|pixels"):
        asked(sent)


def test_zero_gpu_is_never_asked(page, monkeypatch, tmp_path):
    """On a machine that says it has CUDA and has none, as ZeroGPU's page does outside of its calls."""
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sides = networks.choose_sides("nuclei")
    copies = [replace(side, location=shutil.copytree(side.location, tmp_path / side.name)) for side in sides]
    with pytest.raises((AssertionError, RuntimeError)):
        Segmenter.load(copies[0].location)
    answer, _ = asked(jpeg(photo(60, 80)), sides=copies)
    assert len(answer["panes"]) == 2


# ---- in the browser --------------------------------------------------------------------------------------------------


def test_both_networks_answer_the_camera_and_no_frame_waits(tab):
    frames = []
    tab.on("request", lambda request: frames.extend([1] * ('"picture":"data:' in (request.post_data or ""))))
    start(tab)
    assert tab.locator("#live figcaption").all_inner_texts() == list(SIDES)
    tab.wait_for_function("performance.getEntriesByName('live answer').length > 4", timeout=PATIENCE)
    spans = tab.evaluate("performance.getEntriesByName('live answer').map((m) => [m.startTime, m.duration])")
    assert all(start + lag <= following for (start, lag), (following, _) in itertools.pairwise(spans))
    assert len(frames) <= tab.evaluate("performance.getEntriesByName('live answer').length") + 1
    sizes = tab.evaluate("[...document.querySelectorAll('#live canvas')].map((c) => `${c.width} x ${c.height}`)")
    assert sizes == ["640 x 480"] * 2, "the picture stays sharp, whatever size is asked about"
    switch(tab).click()
    says_off(tab, "")


def test_two_visitors_see_their_own_camera(visitors):
    """In k colours at once, each with a plain picture of another colour."""
    colors = {"#c02020": (192, 32, 32), "#2040c0": (32, 64, 192)}
    for tab, color in zip(visitors, colors, strict=True):
        tab.evaluate(f"plan = {{ color: '{color}' }}")
        start(tab)
        tab.locator("#live label", has_text="Colours").click()
        expect(tab.locator("#live figcaption").last).to_have_text("1 colour", timeout=PATIENCE)
    for _ in range(5):
        for tab, color in zip(visitors, colors, strict=True):
            tab.wait_for_timeout(100)
            for pixel in tab.evaluate(PIXELS):
                assert np.abs(np.subtract(pixel[:3], colors[color])).max() < 12, color
    for tab in visitors:
        tab.locator("#live label", has_text="Overlay").click()
        tab.get_by_role("button", name="Stop the camera").click()
        says_off(tab, "")


def test_the_camera_goes_off_when_it_is_left(tab):
    def look_at_another_tab():
        tab.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
        tab.evaluate("document.dispatchEvent(new Event('visibilitychange')); delete document.hidden")

    def scroll_away():
        tab.add_style_tag(content="body::after { content: ''; display: block; height: 300vh }")
        tab.evaluate("scrollTo(0, document.body.scrollHeight)")

    for leave, sentence in (
        (look_at_another_tab, ""),
        (lambda: upload(tab, EXAMPLE), ""),
        (scroll_away, "The camera went off: it was out of sight."),
    ):
        start(tab)
        leave()
        expect(switch(tab)).to_have_attribute("aria-checked", "false", timeout=PATIENCE)
        says_off(tab, sentence)


def test_an_answer_drawn_after_the_camera_went_off_says_nothing(tab):
    tab.evaluate("""held = []; decode = HTMLImageElement.prototype.decode;
        HTMLImageElement.prototype.decode = function () {
            return new Promise((go) => held.push(go)).then(() => decode.call(this)); }; null""")
    switch(tab).click()
    tab.wait_for_function("held.length >= 2", timeout=PATIENCE)
    switch(tab).click()
    says_off(tab, "")
    tab.evaluate("HTMLImageElement.prototype.decode = decode; held.forEach((go) => go())")
    tab.wait_for_timeout(300)
    assert pace(tab).text_content() == ""
    assert tab.evaluate("performance.getEntriesByName('live answer').length") == 0


def test_a_camera_that_opens_after_it_was_switched_off_goes_off(tab):
    tab.evaluate("plan = { wait: 500 }")
    switch(tab).click()
    expect(switch(tab)).to_have_attribute("aria-checked", "true")
    switch(tab).click()
    tab.wait_for_function("cameras.length === 1 && cameras[0].readyState === 'ended'")
    says_off(tab, "")


def test_a_photo_takes_the_place_of_the_stream_and_closes_its_own_camera(tab):
    start(tab)
    tab.locator("[data-way=camera]").click()
    expect(switch(tab)).to_have_attribute("aria-checked", "false")
    tab.wait_for_function("document.querySelector('#camera video')?.videoWidth")
    assert tab.evaluate("cameras.filter((track) => track.readyState === 'live').length") == 1
    tab.get_by_role("button", name="Close the camera").click()
    tab.wait_for_function("cameras.every((track) => track.readyState === 'ended')")
    expect(tab.locator(".viewer .stage")).to_be_visible()


def test_why_there_is_no_camera_is_said_in_a_sentence(tab):
    for error, sentence in (
        ("NotFoundError", "No camera was found"),
        ("NotReadableError", "Another program uses the camera"),
        ("AbortError", "The camera does not start"),
    ):
        tab.evaluate(f"plan = {{ error: '{error}' }}")
        switch(tab).click()
        says_off(tab, re.compile(sentence))
    tab.locator("[data-way=camera]").click()
    expect(tab.locator("#ways .note")).to_contain_text("The camera does not start")


def test_a_refused_camera_is_said_in_a_sentence(page, tab):
    """By the browser itself: the page is not allowed to use it."""

    def forbid(route):
        answer = route.fetch()
        route.fulfill(response=answer, headers=answer.headers | {"permissions-policy": "camera=()"})

    tab.route(page.url, forbid)
    tab.goto(page.url)
    switch(tab).click()
    expect(switch(tab)).to_have_attribute("aria-checked", "false", timeout=PATIENCE)
    says_off(tab, re.compile("The camera is not allowed"))
    tab.locator("#ways .note").evaluate("note => note.textContent = ''")
    tab.locator("[data-way=camera]").click()
    expect(tab.locator("#ways .note")).to_contain_text("The camera is not allowed")
