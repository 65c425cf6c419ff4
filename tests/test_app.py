"""The page in a real browser, and its doors for programs through gradio_client, on bundles with random weights."""

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
import zipfile
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from bundles import COLORS, NAMES, photo, small_bundle
from gradio import FileData
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from huggingface_hub import constants
from measuring import serve
from pages import PATIENCE, SIDES, answers, looked_at, saved, shows, size_of_view, upload, wait_for_other_answer
from PIL import Image
from playwright.sync_api import expect

import app
from page import answer as answer_section
from page import api, batch, inside, networks, session
from page.viewer import pattern_numbers
from training.card import write_card
from unet import Segmenter
from unet.compare import score
from unet.hub import find_bundles
from unet.images import ImageError, read_annotation, read_image, save_png
from unet.overlay import overlay

ROOT = Path(__file__).parent.parent

EXAMPLES = ROOT / "weights" / "nuclei" / "examples"
PICTURE = (EXAMPLES / "fluorescence.jpg").read_bytes()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two tasks with both sides: nuclei, which has examples with a ground truth, and one that the project has not."""
    folder = tmp_path_factory.mktemp("weights")
    for task, classes in (("nuclei", 2), ("garden", 5)):
        for seed, architecture in enumerate(SIDES):
            bundle = small_bundle(architecture, classes=classes, task=task, seed=seed, working_pixels=160 * 160)
            write_card(bundle, bundle.save(folder / task / architecture))
    small_bundle("residual-concat", task="garden", seed=2).save(folder / "garden" / "residual-concat")
    return folder


@pytest.fixture(scope="module")
def address(weights):
    with serve(weights, GRADIO_MCP_SERVER="True") as page:
        yield page.url


@pytest.fixture
def open_page(browser, address):
    """Open the page in a session of its own and wait for the first answer."""
    contexts = []

    def open_page(width=1280, height=900, *, query="", classes=2, colors=8, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(address + query)
        expect(page.locator("#legend li")).to_have_count(classes, timeout=PATIENCE)
        expect(page.locator("#palette .chip")).to_have_count(colors, timeout=PATIENCE)
        expect(page.locator(".viewer")).to_have_attribute("data-answer", "1", timeout=PATIENCE)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def picture(tmp_path):
    """A picture of 83 x 61 pixels, as a person would upload it."""
    save_png(photo(61, 83), tmp_path / "my picture.png")
    return tmp_path / "my picture.png"


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False, download_files=True)


def drop(page, path, selector, kind="image/png"):
    """Let a file go over an element, as a hand with a mouse does -> whether the browser is to open it itself."""
    return page.evaluate(
        """([bytes, name, type, selector]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, {type}));
            const drop = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
            return document.querySelector(selector).dispatchEvent(drop);
        }""",
        [list(path.read_bytes()), path.name, kind, selector],
    )


def both_saved(page, view):
    return [saved(page, side, view) for side in SIDES]


def pixels(page, source):
    """What an address of the page's shows: uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB"))


def colors_of(image):
    return len(np.unique(image.reshape(-1, 3), axis=0))


# ---- in the browser --------------------------------------------------------------------------------------------------


def test_opens_with_an_example_already_answered(open_page, address):
    page = open_page()
    expect(page.get_by_role("heading", name="Add or concat?")).to_be_visible()
    for side in SIDES:
        shows(page, "#headings", rf"{side}\s*seen at [\d× ]+.*skips are .*[\d.]+ M parameters")
    shows(page, "#agreement", r"They agree on (> )?[\d.]+ % of the picture")
    shows(page, "#scores", r"mIoU.*Dice.*Pixel accuracy")
    first, second = both_saved(page, "overlay")
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
    hosts = {url.split("/")[2] for url in page.requested if url.startswith("http")}
    assert hosts == {address.split("/")[2]}, "the page may ask no other host"


def test_upload_move_the_slider_read_the_results(open_page, picture):
    page = open_page()
    before = answers(page)
    upload(page, picture)
    wait_for_other_answer(page, before)
    assert size_of_view(page) == (61, 83)
    shows(page, "#scores", "No ground truth")

    number = page.get_by_label("number input for Colours")
    slider = page.get_by_label("range slider for Colours")
    number.fill("5")
    number.press("Enter")
    expect(page.locator(".chip")).to_have_count(5, timeout=PATIENCE)
    shows(page, "#palette", r"\b5 colours instead of [\d,]+ · PSNR [\d.]+ dB")
    for _ in range(4):
        slider.press("ArrowRight")
    expect(page.locator(".chip")).to_have_count(9, timeout=PATIENCE)
    slider.press("ArrowLeft")
    expect(page.locator(".chip")).to_have_count(8, timeout=PATIENCE)
    shows(page, "#palette", r"\b8 colours instead of ")
    expect(page.locator(".viewer")).to_have_attribute("data-colours", "8")
    expect(page.locator(".views").get_by_role("radio", name="Colours")).to_be_checked()  # it follows the slider
    painted = saved(page, "8 colours", "colours")
    assert painted.shape == (61, 83, 3)
    assert colors_of(painted) == 8  # and not the thousands that a lossy format makes of them
    shares = [float(chip.get_attribute("title").split()[2]) for chip in page.locator(".chip").all()]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.5)

    page.get_by_role("button", name="Reset to default value").last.click()
    shows(page, "#palette", r"\b8 colours")
    facts = page.locator("#palette").inner_text()
    page.get_by_role("radio", name="OKLab").check()
    expect(page.locator("#palette")).not_to_have_text(facts, timeout=PATIENCE)
    shows(page, "#palette", r"\b8 colours")


@pytest.mark.parametrize(("typed", "colors"), [("", 8), ("1", 2), ("100", 64), ("7.5", 8)])
def test_typed_number_becomes_one_that_the_slider_has(open_page, typed, colors):
    page = open_page()
    number = page.get_by_label("number input for Colours")
    number.fill(typed)
    number.press("Tab")
    expect(number).to_have_value(str(colors))
    expect(page.get_by_label("range slider for Colours")).to_have_value(str(colors))
    expect(page.locator(".chip")).to_have_count(colors, timeout=PATIENCE)
    expect(page.locator(".toast-body")).to_have_count(0)


@pytest.fixture
def garden(open_page, picture, weights):
    """The page with a picture of 83 x 61 pixels and five classes -> (page, picture, both segmentations)."""
    page = open_page(accept_downloads=True)
    upload(page, picture)
    wait_for_other_answer(page, 1)
    page.get_by_role("radio", name="Garden").check()
    wait_for_other_answer(page, 2)
    image = read_image(picture)
    return page, image, [Segmenter.load(weights / "garden" / side)(image) for side in SIDES]


def test_every_view_is_drawn_of_the_exact_label_maps(garden):
    page, image, found = garden
    first, second = (segmentation.label_map for segmentation in found)
    asked = answers(page)

    def view(name):
        page.locator(".views").get_by_role("radio", name=name).check()
        return both_saved(page, name.lower())

    for labels, drawn in zip((first, second), view("Masks"), strict=True):
        np.testing.assert_array_equal(drawn, COLORS[labels])

    expected = [overlay(image, labels, COLORS, opacity=0.55, unpainted=(0,)) for labels in (first, second)]
    for mixed, drawn in zip(expected, view("Overlay"), strict=True):
        assert np.abs(mixed.astype(int) - drawn).max() <= 2
    page.get_by_label("Opacity").fill("0")
    assert all(np.array_equal(drawn, image) for drawn in both_saved(page, "overlay"))

    for labels, drawn in zip((first, second), view("Outline"), strict=True):
        border = np.zeros(labels.shape, bool)
        across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
        border[:, 1:] |= across
        border[:, :-1] |= across
        border[1:] |= down
        border[:-1] |= down
        border &= labels > 0
        np.testing.assert_array_equal(drawn, np.where(border[..., None], COLORS[labels], image))

    for labels, drawn in zip((first, second), view("Disagreement"), strict=True):
        differs = first != second
        said = np.where((labels > 0)[..., None], COLORS[labels], image)
        np.testing.assert_array_equal(drawn[differs], said[differs])
        fog = drawn[~differs].astype(int)
        assert (np.ptp(fog, axis=1) <= 2).all()  # grey
        assert fog.min() >= 0.7 * 236

    for segmentation, drawn in zip(found, view("Confidence"), strict=True):
        brightness = drawn.astype(int).sum(axis=2)
        unsure, sure = np.quantile(segmentation.confidence, (0.3, 0.7))
        guessed, known = segmentation.confidence <= unsure, segmentation.confidence >= sure
        assert brightness[known].max() < brightness[guessed].min()
    expect(page.locator(".view-key")).to_contain_text("a guess, 20 %")

    page.locator(".views").get_by_role("radio", name="Colours").check()
    assert colors_of(saved(page, "8 colours", "colours")) == 8

    assert answers(page) == asked  # not asked again


def test_classes_are_switched_in_the_legend(garden):
    page, image, found = garden
    labels = found[0].label_map
    page.locator(".views").get_by_role("radio", name="Masks").check()
    street, tree = (page.locator(f'#legend [data-class="{index}"]') for index in (1, 2))
    street.click()
    expect(street).to_have_attribute("aria-pressed", "false")
    drawn = saved(page, SIDES[0], "masks")
    np.testing.assert_array_equal(drawn[labels == 1], image[labels == 1])
    np.testing.assert_array_equal(drawn[labels != 1], COLORS[labels][labels != 1])
    street.press("Enter")
    expect(street).to_have_attribute("aria-pressed", "true")
    tree.click(modifiers=["Shift"])
    drawn = saved(page, SIDES[0], "masks")
    np.testing.assert_array_equal(drawn, np.where((labels == 2)[..., None], COLORS[2], image))
    page.get_by_role("button", name="show all", exact=True).click()
    np.testing.assert_array_equal(saved(page, SIDES[0], "masks"), COLORS[labels])
    page.get_by_label("Patterns").check()
    drawn = saved(page, SIDES[0], "masks")
    patterns = pattern_numbers(COLORS)
    assert any(patterns)
    for index in np.unique(labels):  # a class's colour, and its strokes where another looks like it to somebody
        assert colors_of(drawn[labels == index]) == (2 if patterns[index] else 1)


def test_a_pixel_says_what_both_networks_see_there(garden):
    page, _, found = garden
    y, x = np.argwhere(found[0].label_map != found[1].label_map)[7]
    pane = looked_at(page)["panes"][0]

    def said(x, y):
        return "".join(
            rf"{side}: {NAMES[s.label_map[y, x]]}, {'> 99 %' if s.confidence[y, x] > 0.995 else '[0-9]+ %'}\s*"
            for side, s in zip(SIDES, found, strict=True)
        )

    at = {"x": pane["left"] + (x + 0.5) * pane["scale"], "y": pane["top"] + (y + 0.5) * pane["scale"]}
    canvas = page.locator(".viewer canvas")
    canvas.hover(position=at, force=True)
    shows(page, ".readout", rf"x {x}, y {y}\s*{said(x, y)}")
    canvas.click(position=at, force=True)
    shows(page, ".viewer [aria-live]", rf"x {x}, y {y}\s*{said(x, y)}")
    page.mouse.move(0, 0)
    shows(page, ".readout", rf"x {x}, y {y}")  # what was clicked stays

    canvas.press("c")
    canvas.press("ArrowLeft" if x > 40 else "ArrowRight")
    canvas.press("Shift+ArrowUp" if y > 30 else "Shift+ArrowDown")
    x, y = x + (-1 if x > 40 else 1), y + (-10 if y > 30 else 10)
    shows(page, ".viewer [aria-live]", rf"x {x}, y {y}\s*{said(x, y)}")
    canvas.press("Escape")
    shows(page, ".readout", "Point at the picture")


def screen(page, index, x, y):
    """The colour on the screen in the middle of a picture's pixel, in one of the panes."""
    return page.evaluate(
        """([index, x, y]) => new Promise((done) => requestAnimationFrame(() => {
            const {left, top, scale} = unetViewer.state().panes[index];
            const pen = document.querySelector(".viewer canvas").getContext("2d");
            const place = [left + (x + 0.5) * scale, top + (y + 0.5) * scale].map((c) => c * devicePixelRatio);
            done([...pen.getImageData(...place, 1, 1).data.slice(0, 3)]);
        }))""",
        [index, int(x), int(y)],
    )


def test_all_panes_zoom_together_and_the_divider_moves_by_keyboard(garden):
    page, image, found = garden
    first, second = (segmentation.label_map for segmentation in found)
    page.locator(".views").get_by_role("radio", name="Masks").check()
    divider, canvas = page.get_by_role("slider", name=re.compile("Divider")), page.locator(".viewer canvas")
    y, x = np.argwhere(first != second)[7]
    divider.press("Home")
    expect(divider).to_have_attribute("aria-valuenow", "0")
    assert screen(page, 0, x, y) == COLORS[second[y, x]].tolist()
    divider.press("End")
    assert screen(page, 0, x, y) == COLORS[first[y, x]].tolist()
    divider.press("ArrowLeft")
    expect(divider).to_have_attribute("aria-valuetext", "98 % residual-add, 2 % crop-concat")

    page.locator(".layouts").get_by_role("radio", name="Grid").check()
    expect(divider).to_be_hidden()
    for key in "+++":
        canvas.press(key)
    canvas.press("ArrowRight")
    state = looked_at(page)
    assert state["zoom"] == pytest.approx(1.4**3)
    assert state["x"] > 0.5
    corners = [(pane["left"] - pane["x"], pane["top"] - pane["y"], pane["scale"]) for pane in state["panes"]]
    assert all(corner == pytest.approx(corners[0]) for corner in corners)
    x, y = int(state["x"] * 83), int(state["y"] * 61)
    assert screen(page, 0, x, y) == COLORS[first[y, x]].tolist()
    assert screen(page, 1, x, y) == COLORS[second[y, x]].tolist()
    assert screen(page, 2, x, y) == image[y, x].tolist()

    canvas.dblclick()
    assert looked_at(page)["zoom"] == 1
    canvas.hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_function("unetViewer.state().zoom > 1")
    page.get_by_role("button", name="Show all of the picture").click()
    assert looked_at(page)["zoom"] == 1


def test_two_fingers_zoom_where_they_are(open_page):
    page = open_page(390, 844, has_touch=True)
    canvas = page.locator(".viewer canvas")
    canvas.scroll_into_view_if_needed()
    box, fingers = canvas.bounding_box(), page.context.new_cdp_session(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80), ("touchEnd", None)):
        points = [] if apart is None else [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function("unetViewer.state().zoom > 1.9")
    state = looked_at(page)
    assert state["zoom"] == pytest.approx(2, rel=0.01)
    assert (state["x"], state["y"]) == pytest.approx((0.5, 0.5), abs=0.01)


def test_errors_are_seen_where_there_is_a_truth(open_page, weights, picture):
    page = open_page(accept_downloads=True)
    page.locator(".views").get_by_role("radio", name="Errors").check()
    image = read_image(EXAMPLES / "fluorescence.jpg")
    truth = np.asarray(Image.open(EXAMPLES / "fluorescence.png")) > 0
    for side, drawn in zip(SIDES, both_saved(page, "errors"), strict=True):
        labels = Segmenter.load(weights / "nuclei" / side)(image).label_map
        false_alarm, missed = (labels == 1) & ~truth, (labels == 0) & truth
        np.testing.assert_array_equal(drawn[false_alarm], np.broadcast_to(COLORS[1], (false_alarm.sum(), 3)))
        np.testing.assert_array_equal(drawn[missed], image[missed])
        assert drawn[labels == truth].min() >= 0.7 * 236
    upload(page, picture)
    wait_for_other_answer(page, 1)
    expect(page.locator(".views").get_by_role("radio", name="Errors")).to_be_disabled()
    expect(page.locator(".views").get_by_role("radio", name="Overlay")).to_be_checked()


def test_of_answers_in_quick_succession_the_newest_is_shown(open_page):
    page, held = open_page(), []
    with page.expect_request("**/queue/join*"):
        page.route("**/queue/join*", lambda route: route.continue_() if held else held.append(route))
        for index in (1, 2, 3):  # the second and third have to wait for the first
            page.locator("#examples button").nth(index).click()
    held[0].continue_()
    newest = read_image(sorted(EXAMPLES.glob("*.jpg"))[3])
    page.wait_for_function(
        "([height, width]) => unetViewer.state().height === height && unetViewer.state().width === width",
        arg=list(newest.shape[:2]),
    )


@pytest.mark.parametrize("broken", [False, True])
def test_a_picture_that_comes_while_another_is_opened_is_shown(open_page, picture, tmp_path, broken):
    page, held = open_page(), []
    save_png(photo(30, 40), tmp_path / "first.png")
    if broken:
        (tmp_path / "first.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    page.route("**/queue/join*", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/queue/join*"):
        upload(page, tmp_path / "first.png")
    with page.expect_response("**/upload*"):
        upload(page, picture)
    expect(page.locator("#ways .note")).to_be_empty()
    held[0].continue_()
    page.wait_for_function("unetViewer.state().width === 83", timeout=PATIENCE)
    expect(page.locator(".waiting")).to_be_hidden(timeout=PATIENCE)
    assert size_of_view(page) == (61, 83)


def test_an_answer_may_arrive_before_its_picture(open_page, picture):
    page, held = open_page(), []
    page.route("**/picture.png", lambda route: route.continue_() if held else held.append(route))
    with page.expect_response("**/planes.bin"):
        upload(page, picture)
    held[0].continue_()
    wait_for_other_answer(page, 1)
    assert size_of_view(page) == (61, 83)


def test_networks_that_do_not_answer_can_be_asked_again(open_page):
    page = open_page()
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": "The queue is full."}))
    page.get_by_label("Ask the networks about it").check()
    shows(page, ".waiting", r"The networks did not answer\.\s*Ask again")
    expect(page.locator("html")).not_to_have_class(re.compile("asking"))
    page.unroute("**/queue/join*")
    page.get_by_role("button", name="Ask again").click()
    shows(page, ".badge", "answered in 8 colours")
    expect(page.locator(".waiting")).to_be_hidden()


def test_a_large_pictures_label_map_is_saved_at_its_full_size(open_page, weights, tmp_path):
    page = open_page(accept_downloads=True)
    large = photo(1000, 1100)
    save_png(large, tmp_path / "large.png")
    upload(page, tmp_path / "large.png")
    wait_for_other_answer(page, 1)
    assert np.prod(size_of_view(page)) <= 1_000_000
    for side in SIDES:
        expected = Segmenter.load(weights / "nuclei" / side)(large).label_map
        np.testing.assert_array_equal(saved(page, side, "label map"), expected)


def test_examples_and_tasks(open_page):
    page = open_page()
    before, scores = answers(page), page.locator("#scores").inner_text()
    page.locator("#examples button").nth(2).click()
    wait_for_other_answer(page, before)
    expect(page.locator("#scores")).not_to_have_text(scores, timeout=PATIENCE)
    shows(page, "#scores", "Dice")
    page.get_by_role("radio", name="Garden").check()
    shows(page, ".toast-body", "No picture of garden comes with this page: drop one of your own")
    expect(page.locator("#legend li")).to_have_count(5, timeout=PATIENCE)
    expect(page.locator("#examples button")).to_have_count(2, timeout=PATIENCE)
    shows(page, "#scores", "No ground truth")


def choose(page, side, name):
    menu = page.get_by_label(f"{side} network")
    menu.fill(name)
    menu.press("Enter")


def test_either_side_can_be_any_network(open_page):
    page = open_page(query="?task=garden", classes=5)
    left, right = (page.get_by_label(f"{side} network") for side in ("Left", "Right"))
    left_heading = page.locator(".network.side-a").inner_text()
    shows(page, "#headings", "skips are cropped and concatenated · convolutions unpadded")
    choose(page, "Right", "residual-concat")
    shows(page, "#headings", "residual-concat.*skips are concatenated · convolutions padded")
    assert page.locator(".network.side-a").inner_text() == left_heading  # not asked again
    choose(page, "Right", "residual-add")  # which is on the left: they change places
    shows(page, "#headings", "residual-concat.*residual-add")
    shows(page, ".toast-body", "residual-add was on the other side: the two change places.")
    expect(left).to_have_value("residual-concat")
    expect(right).to_have_value("residual-add")
    for name, reason in (
        ("nothing", "“nothing” is no network for garden"),
        ("ann/u", "could not be fetched from the Hub"),
    ):
        choose(page, "Left", name)
        shows(page, ".toast-body.error", reason)
        expect(left).to_have_value("residual-concat", timeout=PATIENCE)

    page.get_by_role("button", name="Card of residual-add").click()
    card = page.get_by_role("dialog", name="Card of the network")
    expect(card.get_by_role("heading", name="residual-add U-Net for garden")).to_be_visible(timeout=PATIENCE)
    expect(card).not_to_contain_text("pipeline_tag")
    page.keyboard.press("Escape")
    expect(card).not_to_be_visible()


def test_choices_while_a_network_is_fetched(open_page):
    """A slow download is a request that is held back here."""
    page, held = open_page(query="?task=garden", classes=5), []
    left = event_of(page, "find")
    page.route(
        "**/queue/join*", lambda route: held.append(route) if left in route.request.post_data else route.continue_()
    )

    def let_one_go():
        while not held:
            page.wait_for_timeout(50)
        held.pop().continue_()

    choose(page, "Left", "residual-concat")
    choose(page, "Right", "residual-add")  # which is on the left until then
    shows(page, "#headings", "crop-concat.*residual-add")
    let_one_go()
    shows(page, "#headings", "residual-concat.*residual-add")

    choose(page, "Left", "crop-concat")
    choose(page, "Left", "residual-add")
    let_one_go()
    let_one_go()
    shows(page, "#headings", "residual-add.*crop-concat")
    for side, name in (("Left", "residual-add"), ("Right", "crop-concat")):
        expect(page.get_by_label(f"{side} network")).to_have_value(name, timeout=PATIENCE)


def test_a_link_restores_what_is_seen(open_page, picture):
    settings = "?task=garden&example=flower&left=crop-concat&right=residual-concat&k=5&space=OKLab&quantised=1"
    page = open_page(query=settings, classes=5, colors=5, permissions=["clipboard-read", "clipboard-write"])
    shows(page, "#headings", "crop-concat.*residual-concat")
    shows(page, ".badge", "answered in 5 colours")
    expect(page.get_by_role("radio", name="OKLab")).to_be_checked()
    page.wait_for_timeout(1000)  # longer than the slider has to rest
    assert answers(page) == 1, "the networks are asked once"
    assert page.url.endswith(settings)
    page.get_by_label("range slider for Colours").press("ArrowRight")
    expect(page).to_have_url(re.compile(r"example=flower.*&k=6"), timeout=PATIENCE)
    page.get_by_role("button", name="Copy link").click()
    shows(page, "#jumps", "Copied: example, networks and settings")
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    upload(page, picture)
    expect(page).not_to_have_url(re.compile("example="), timeout=PATIENCE)
    page.get_by_role("button", name="Copy link").click()
    shows(page, "#jumps", "Your own picture is not in the link")


def test_a_link_to_what_is_not_there_shows_the_page_s_own(open_page):
    page = open_page(
        query="?task=moon&example=..%2Fx&left=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E&k=65&space=CMY&quantised=2"
    )
    shows(page, ".toast-body", r"The link’s networks are not shown: “\?img src\?x onerror\?alert\?1\?\?” is no network")
    shows(page, ".toast-body", "its own is shown for: task, example, k, space, quantised")
    shows(page, "#headings", "residual-add.*crop-concat")


WITHOUT_TOOLTIP = """() => [...document.querySelectorAll("button, input, select, textarea, summary")]
    .filter((control) => control.checkVisibility({ visibilityProperty: true }))
    .filter((control) => control.getBoundingClientRect().width > 1 && !control.closest("[title]"))
    .map((control) => control.outerHTML.slice(0, 200))"""


def test_every_control_has_a_tooltip(open_page, picture):
    page = open_page()
    save_png(photo(9, 9), picture.with_name("two.png"))
    page.locator("#batch-pictures input[type=file]").set_input_files([picture, picture.with_name("two.png")])
    for name, title in {
        "Remove this file": "Leave this file out",
        "Segment all": "Both networks, picture by picture",
        "Stop": "Stop here, and keep what is done",
    }.items():
        button = page.locator("#batch-files").get_by_role("button", name=name, exact=True).first
        expect(button).to_have_attribute("title", title, timeout=PATIENCE)
    page.get_by_role("button", name="Inside the networks").click()
    expect(page.locator("#each-skip")).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(f"({WITHOUT_TOOLTIP})().length === 0", timeout=PATIENCE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_stands_in_the_way_of_assistive_technology(open_page, scheme, width):
    page = open_page(width, 900, color_scheme=scheme)
    expect(page.locator("html")).not_to_have_class(re.compile("asking"))
    violations = Axe().run(page).response["violations"]
    assert [(found["id"], found["help"], [node["html"][:200] for node in found["nodes"]]) for found in violations] == []


def test_a_picture_from_the_webcam(open_page):
    page = open_page(permissions=["camera"])
    before = answers(page)
    page.get_by_role("button", name="Camera").click()
    # Before the camera's first frame the button does nothing.
    page.wait_for_function("() => document.querySelector('#camera video')?.videoWidth > 0")
    for name, title in (("Close the camera", "Go on without one"), ("capture photo", "Take a picture with the camera")):
        expect(page.locator("#camera").get_by_role("button", name=name)).to_have_attribute("title", title)
    page.locator("#camera").get_by_label("capture photo").click()
    wait_for_other_answer(page, before)
    expect(page.locator("#camera")).to_have_count(0)
    shows(page, "#scores", "No ground truth")

    page.get_by_role("button", name="Camera").click()  # it shows what it sees, not the photo
    page.wait_for_function("() => document.querySelector('#camera video')?.videoWidth > 0")
    page.locator("#camera").get_by_label("capture photo").click()
    wait_for_other_answer(page, before + 1)


def test_own_picture_is_kept_when_the_task_changes(open_page, picture):
    page = open_page()
    before = answers(page)
    upload(page, picture)
    wait_for_other_answer(page, before)
    page.get_by_role("radio", name="Garden").check()
    expect(page.locator("#legend li")).to_have_count(5, timeout=PATIENCE)
    assert size_of_view(page) == (61, 83)


def test_broken_file_is_a_sentence_and_the_last_picture_stays(open_page, tmp_path):
    page = open_page()
    before, size = answers(page), size_of_view(page)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    upload(page, tmp_path / "broken.png")
    shows(page, ".toast-body", "broken.png.* is damaged, cut off, or an unusual kind of PNG: download it again")
    expect(page.locator("#legend li")).to_have_count(2)
    assert (answers(page), size_of_view(page)) == (before, size)
    upload(page, tmp_path / "broken.png")  # the box takes the next file, and the same once more
    shows(page, ".toast-wrap", r"Error \(2\)")


def test_ground_truth_of_ones_own(open_page, picture, tmp_path):
    page = open_page()
    expect(page.locator("#ious tbody tr")).to_have_count(2)  # the example brings its own
    before = answers(page)
    upload(page, picture)
    wait_for_other_answer(page, before)
    shows(page, "#scores", "No ground truth")
    expect(page.locator("#ious tr")).to_have_count(0)
    truth = np.zeros((61, 83, 3), np.uint8)
    truth[10:40, 20:60] = COLORS[1]  # in the classes' colours
    truth[50:] = (255, 0, 255)
    save_png(truth, tmp_path / "truth.png")
    drop(page, tmp_path / "truth.png", "#truth button")
    shows(
        page,
        "#scores",
        r"Read as the classes’ colours. 18.0 % of it is not labelled.*mIoU.*Dice.*Boundary F1.*give or take 1 pixel",
    )
    shows(page, ".toast-body", "Colours of no class in the ground truth are left out as void: #ff00ff, 18 % of it.")
    shows(page, "#ious", r"background.*street.*%")
    page.locator("#truth").get_by_label("Remove this file").or_(
        page.locator("#truth").get_by_label("Clear")
    ).first.click()
    shows(page, "#scores", "No ground truth")
    save_png(np.eye(9) > 0, tmp_path / "small.png")
    upload(page, tmp_path / "small.png", "#truth")
    shows(
        page,
        ".toast-wrap",
        "The ground truth is 9 x 9 pixels and the picture 83 x 61: they must have one size.",
    )
    shows(page, "#scores", "No ground truth")


def test_ground_truth_is_kept_for_a_picture_that_is_not_answered(open_page, picture, tmp_path):
    page, held = open_page(), []
    save_png(np.eye(61, 83) > 0, tmp_path / "truth.png")
    page.route("**/planes.bin", lambda route: held.append(route))
    upload(page, picture)
    page.wait_for_function("unetViewer.state().width === 83", timeout=PATIENCE)
    upload(page, tmp_path / "truth.png", "#truth")
    shows(page, "#ious", r"street\s*1.2 % of the truth")
    for route in held:
        route.continue_()
    expect(page.locator(".toast-body")).to_have_count(0)


def test_many_pictures_come_back_as_one_archive(open_page, tmp_path):
    page = open_page(accept_downloads=True)
    page.get_by_role("button", name="Segment all").click()
    shows(page, ".toast-body", "There are no pictures yet")
    for seed, name in enumerate(("naïve (1).png", "two.png")):
        save_png(photo(40, 50, seed), tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    (tmp_path / "truths").mkdir()
    save_png(np.eye(40, 50) > 0, tmp_path / "truths" / "TWO.png")
    page.locator("#batch-pictures input[type=file]").set_input_files(
        [tmp_path / name for name in ("naïve (1).png", "broken.png", "two.png")]
    )
    drop(page, tmp_path / "truths" / "TWO.png", "#batch-truths button")
    expect(page.locator("#batch-truths .file-preview tr")).to_have_count(1)
    page.get_by_role("button", name="Segment all").click()
    shows(page, "#batch-progress", "3 of 3 pictures · took")
    rows = page.locator("#batch-table tbody tr")
    expect(rows.nth(0)).to_contain_text(re.compile(r"naïve \(1\)\.png\s*50 × 40\s*[\d.]+ %\s*–\s*–"))
    expect(rows.nth(1)).to_contain_text(re.compile(r"broken\.png.*is damaged.*left out", re.DOTALL))
    expect(rows.nth(2)).to_contain_text(re.compile(r"two\.png\s*50 × 40(\s*[\d.]+ %){3}"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Save all (ZIP)").click()
    assert download.value.suggested_filename == "nuclei-3-pictures.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        labels = read_annotation(archive.read("crop-concat/labels/two.png"))
        assert len(archive.namelist()) == 2 * 2 * 3 + 2
    assert labels.shape == (40, 50)


def event_of(page, handler):
    """How a request names the page's event that calls this handler, the first of several."""
    numbers = page.evaluate("gradio_config.dependencies.map(({ api_name, id }) => [api_name, id])")
    return f'"fn_index":{dict(numbers)[handler]},'


def test_one_run_at_a_time_and_a_full_queue_is_tried_again(open_page, picture):
    page, held = open_page(), []
    begin, examples, stop = (page.get_by_role("button", name=n) for n in ("Segment all", "Try the examples", "Stop"))
    run = event_of(page, "segment_all")
    page.route(
        "**/queue/join*", lambda route: held.append(route) if run in route.request.post_data else route.continue_()
    )
    page.locator("#batch-pictures input[type=file]").set_input_files(picture)
    begin.click()
    expect(stop).to_be_enabled(timeout=PATIENCE)
    expect(begin).to_be_disabled()
    expect(examples).to_be_disabled()
    held.pop().fulfill(status=503, json={"detail": "The queue is full."})
    for button in (begin, examples):
        expect(button).to_be_enabled(timeout=PATIENCE)
    expect(stop).to_be_disabled()
    page.unroute("**/queue/join*")
    begin.click()
    shows(page, "#batch-progress", "1 of 1 pictures · took")
    expect(examples).to_be_enabled(timeout=PATIENCE)


def test_row_of_the_table_opens_above(open_page, picture):
    page = open_page()
    page.locator("#batch-pictures input[type=file]").set_input_files(picture)
    page.get_by_role("button", name="Segment all").click()
    shows(page, "#batch-progress", "1 of 1 pictures · took")
    page.locator("#batch-table").get_by_role("button", name="my picture.png").click()
    wait_for_other_answer(page, 1)
    assert size_of_view(page) == (61, 83)


def test_stopping_keeps_what_is_done(open_page):
    page = open_page()
    file = io.BytesIO()
    save_png(np.zeros((1500, 1500, 3), np.uint8), file)  # small files that take long: the browser may be slower
    pictures = [{"name": f"{i}.png", "mimeType": "image/png", "buffer": file.getvalue()} for i in range(40)]
    page.locator("#batch-pictures input[type=file]").set_input_files(pictures)
    expect(page.locator("#batch-pictures .file-preview tr")).to_have_count(len(pictures), timeout=PATIENCE)
    page.get_by_role("button", name="Segment all").click()
    expect(page.locator("#batch-table tbody tr").first).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Stop").click()
    shows(page, "#batch-progress", "took")
    expect(page.get_by_role("button", name="Save all (ZIP)")).to_be_visible()
    assert 0 < page.locator("#batch-table tbody tr").count() < len(pictures)


def test_networks_see_the_quantised_picture_when_the_slider_rests(open_page):
    page = open_page()
    expect(page.locator(".badge")).to_be_hidden()
    page.get_by_label("Ask the networks about it").check()
    shows(page, ".badge", "answered in 8 colours")
    for _ in range(3):
        page.get_by_label("range slider for Colours").press("ArrowRight")
    shows(page, ".badge", "answered in 11 colours")
    page.locator(".badge button").click()
    expect(page.locator(".badge")).to_be_hidden(timeout=PATIENCE)
    expect(page.get_by_label("Ask the networks about it")).not_to_be_checked()

    page.get_by_label("Ask the networks about it").check()
    shows(page, ".badge", "answered in 11 colours")
    page.locator("#examples button").nth(1).click()  # another picture is asked about as it is
    expect(page.locator(".badge")).to_be_hidden(timeout=PATIENCE)
    expect(page.get_by_label("Ask the networks about it")).not_to_be_checked(timeout=PATIENCE)


def test_chart_of_answers_against_k(open_page):
    page = open_page()
    page.get_by_role("button", name="How few do they need?").click()
    drawn = page.get_by_role("img", name=re.compile("their agreement, for 2 to 64 colours"))
    expect(drawn).to_be_visible(timeout=PATIENCE)
    titles = drawn.locator("title").all_text_contents()
    assert [title.split(": ")[0] for title in titles] == [*SIDES, "both agree"]
    assert all("64 colours" in title for title in titles)
    for change in (
        page.locator("#examples button").nth(1).click,
        page.get_by_role("radio", name="OKLab").check,
        lambda: choose(page, "Left", "crop-concat"),
        page.locator("#truth").get_by_label("Clear").click,
    ):
        change()  # the chart is of what was before
        expect(drawn).to_have_count(0, timeout=PATIENCE)
        page.get_by_role("button", name="How few do they need?").click()
        expect(drawn.locator("title")).to_have_count(3, timeout=PATIENCE)


def test_a_new_picture_ends_the_chart_that_is_being_made(open_page, tmp_path):
    page = open_page()
    save_png(photo(1000, 1000), tmp_path / "large.png")  # for which ten answers take seconds
    upload(page, tmp_path / "large.png")
    wait_for_other_answer(page, 1)
    drawn = page.get_by_role("img", name=re.compile("their agreement, for 2 to"))
    page.get_by_role("button", name="How few do they need?").click()
    expect(drawn).to_be_visible(timeout=PATIENCE)
    page.locator("#examples button").nth(1).click()
    expect(drawn).to_have_count(0, timeout=PATIENCE)
    wait_for_other_answer(page, 2)
    page.wait_for_timeout(2000)
    expect(drawn).to_have_count(0)


def test_new_picture_is_seen_while_the_networks_are_asked(open_page, picture):
    page, held = open_page(), []
    page.route("**/planes.bin", lambda route: held.append(route))  # the answer does not arrive yet
    upload(page, picture)
    page.wait_for_function("unetViewer.state().width === 83", timeout=PATIENCE)
    assert size_of_view(page) == (61, 83)
    expect(page.locator(".waiting")).to_be_visible()
    expect(page.locator("html")).to_have_class(re.compile("asking"))  # what is said of the answer before is pale
    while not held:
        page.wait_for_timeout(50)
    held[0].continue_()
    wait_for_other_answer(page, 1)
    expect(page.locator(".waiting")).to_be_hidden()
    expect(page.locator("html")).not_to_have_class(re.compile("asking"))


def test_comparison_is_saved_as_one_picture(open_page):
    page = open_page(accept_downloads=True)
    page.locator(".save summary").click()
    with page.expect_download() as download:
        page.locator(".save").get_by_role("button", name="Comparison").click()
    assert download.value.suggested_filename == "comparison-overlay.png"
    with Image.open(download.value.path()) as comparison:
        width, height = comparison.size
    assert width > 1500
    assert height > 400


def test_server_that_is_gone_is_one_sentence(open_page):
    page = open_page()
    page.route("**/queue/join*", lambda route: route.abort())
    page.get_by_label("range slider for Colours").press("ArrowRight")
    shows(page, "#gone", "The page has lost its server.")
    page.unroute("**/queue/join*")
    page.get_by_label("range slider for Colours").press("ArrowRight")
    expect(page.locator("#gone")).to_have_count(0, timeout=PATIENCE)


@pytest.mark.parametrize("width", [360, 768, 820, 1000, 1024, 2560])
def test_nothing_is_cut_off_at_any_width(open_page, width):
    page = open_page(width, 900)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in (".stage", ".tools", ".views", "#colours", "#legend", "#score"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0, name
        if name != ".views" or width > 760:  # on a phone the row of views scrolls
            assert box["x"] + box["width"] <= width + 1, name


def test_dropped_anywhere_copied_and_saved(open_page, picture):
    page = open_page(permissions=["clipboard-read", "clipboard-write"], accept_downloads=True)
    chip = page.locator(".chip").first
    before, color = answers(page), chip.get_attribute("data-hex")
    assert not drop(page, picture, "#legend", "application/pdf")
    shows(page, "#ways .note", "That is no picture")
    assert not drop(page, picture, "#truth"), "beside the box for it"
    assert not drop(page, picture, "#legend", "")  # of HEIC and PPM some browsers know no type
    wait_for_other_answer(page, before)
    assert size_of_view(page) == (61, 83)

    expect(chip).not_to_have_attribute("data-hex", color, timeout=PATIENCE)  # the palette does not wait for the answer
    chip.press("Enter")
    expect(chip).to_have_class(re.compile("copied"))
    assert page.evaluate("navigator.clipboard.readText()") == chip.get_attribute("data-hex")

    starts = {"PNG": b"\x89PNG", "GPL": b"GIMP Palette", "ASE": b"ASEF", "JSON": b"{", "CSS": b":root {"}
    for kind, start in starts.items():
        with page.expect_download() as download:
            page.locator("#downloads").get_by_role("button", name=kind).click()
        assert download.value.suggested_filename == f"my picture-8-colours.{kind.lower()}"
        content = Path(download.value.path()).read_bytes()
        assert content.startswith(start)
        if kind == "PNG":
            saved = Image.open(io.BytesIO(content))
            assert (saved.mode, saved.size) == ("P", (83, 61))
            assert colors_of(np.asarray(saved.convert("RGB"))) == 8


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_jumps_while_it_opens(open_page, width):
    shift = open_page(width).evaluate(
        """() => new Promise((resolve) => {
            const sum = (entries) => entries.reduce((total, entry) => total + entry.value, 0);
            const observer = new PerformanceObserver((list) => resolve(sum(list.getEntries())));
            observer.observe({type: "layout-shift", buffered: true});
            setTimeout(() => resolve(sum(observer.takeRecords())), 2000);
        })"""
    )
    assert shift < 0.1, "what https://web.dev/articles/cls calls good"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_holds_on_a_phone(open_page, scheme):
    page = open_page(390, 844, color_scheme=scheme, has_touch=True)
    number = page.get_by_label("number input for Colours")
    number.fill("64")
    number.press("Enter")
    expect(page.locator(".chip")).to_have_count(64, timeout=PATIENCE)
    page.get_by_role("button", name="What am I looking at?").click()
    expect(page.get_by_role("link", name="Ronneberger, Fischer and Brox, 2015")).to_be_visible()
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 390
    order = (
        "#task",
        "#ways",
        "#examples",
        "#headings",
        ".viewer-bar",
        ".stage",
        "#colours",
        "#palette",
        "#legend",
        "#truth",
        "#ious",
    )
    tops = [page.locator(name).bounding_box()["y"] for name in order]
    assert tops == sorted(tops)


def test_inside_the_networks(open_page):
    page = open_page()
    expect(page.locator(".network-drawing")).to_have_count(0)  # nothing is computed before it is asked for
    page.get_by_role("button", name="Inside the networks").click()
    expect(page.get_by_role("group", name=re.compile("residual-add: .* is added to the decoder’s"))).to_be_visible()
    expect(page.get_by_role("group", name=re.compile("crop-concat: .* is concatenated with"))).to_be_visible()

    # Without a skip on the right: that drawing, picture and number change, the left's stay.
    full = page.locator("#without-b img").get_attribute("src")
    page.locator("#drawing-b").get_by_role("button", name="Level 0: leave its skip out").press("Enter")
    expect(page.locator("#drawing-b .cross")).to_have_count(1, timeout=PATIENCE)
    expect(page.locator("#without-b img")).not_to_have_attribute("src", full, timeout=PATIENCE)
    shows(page, "#costs-b", r"[\d.]+ %.*[\d.]+ % of [\d.]+ %")
    expect(page.locator("#drawing-a .cross")).to_have_count(0)
    page.locator("#drawing-b").get_by_role("button", name="Level 1: leave its skip out").click()
    expect(page.locator("#drawing-b .cross")).to_have_count(2, timeout=PATIENCE)
    page.locator("#drawing-b").get_by_role("button", name="Level 0: put its skip back").click()
    expect(page.locator("#drawing-b .cross")).to_have_count(1, timeout=PATIENCE)
    without = page.locator("#without-b img").get_attribute("src")
    page.locator("#without-view").get_by_label("With all").check()
    expect(page.locator("#without-b img")).not_to_have_attribute("src", without, timeout=PATIENCE)
    page.get_by_role("button", name="Leave out each skip in turn").click()
    expect(page.locator("#costs-a tbody tr")).to_have_count(3, timeout=PATIENCE)
    expect(page.locator("#costs-b tbody tr")).to_have_count(5, timeout=PATIENCE)

    page.get_by_role("tab", name="Feature maps").click()
    expect(page.locator("#carried-a figure")).to_have_count(4, timeout=PATIENCE)  # all that this small network has
    page.locator("#level").get_by_label("2", exact=True).check()
    shows(page, "#carried-a", "No skip here: level 2 is its bottleneck")
    page.get_by_role("tab", name="Tiles").click()
    shows(page, "#tiles-b", "in one tile.*a margin of 92 on each side, mirrored")
    page.locator("#tile").get_by_label("128").check()
    shows(page, "#tiles-b", "tiles. For the framed one")
    page.get_by_role("button", name="Compare their speed").click()
    shows(page, "#speed", r"crop-concat takes [\d.]+ times as long as residual-add: the median of 5 runs in turn")

    # Another picture: what is open follows.
    facts = page.locator("#tiles-a").inner_text()
    page.locator("#examples button").nth(1).click()
    expect(page.locator("#tiles-a")).not_to_have_text(facts, timeout=PATIENCE)


def test_sessions_do_not_see_each_other(open_page, picture, weights):
    mine, theirs = open_page(), open_page()
    upload(mine, picture)
    wait_for_other_answer(mine, 1)
    assert answers(theirs) == 1
    example = read_image(EXAMPLES / "fluorescence.jpg")
    expected = Segmenter.load(weights / "nuclei" / SIDES[0])(example).label_map
    np.testing.assert_array_equal(saved(theirs, SIDES[0], "label map"), expected)


# ---- for programs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", SIDES)
def test_segment_gives_the_exact_label_map(client, weights, picture, architecture):
    labels = Image.open(client.predict(handle_file(picture), "garden", architecture, api_name="/segment"))
    assert labels.mode == "P"
    expected = Segmenter.load(weights / "garden" / architecture)(read_image(picture)).label_map
    np.testing.assert_array_equal(np.asarray(labels), expected)


@pytest.mark.parametrize(("colors", "space"), [(2, "RGB"), (7, "OKLab"), (64, "RGB")])
def test_quantize_gives_exactly_k_colours(client, picture, colors, space):
    quantized = Image.open(client.predict(handle_file(picture), colors, space, api_name="/quantize"))
    assert (quantized.mode, quantized.size) == ("P", (83, 61))
    assert colors_of(np.asarray(quantized.convert("RGB"))) == colors


def test_compare_counts_what_segment_gives(client, picture):
    result = client.predict(handle_file(picture), "garden", api_name="/compare")
    first, second = (
        np.asarray(Image.open(client.predict(handle_file(picture), "garden", side, api_name="/segment")))
        for side in SIDES
    )
    assert result["agreement"] == pytest.approx((first == second).mean())
    assert result["shares"]["tree"] == pytest.approx(
        {"residual-add": (first == 2).mean(), "crop-concat": (second == 2).mean()}
    )


def test_score_is_what_the_library_counts(client, weights, picture, tmp_path):
    truth = np.random.default_rng(0).integers(0, 5, (61, 83), np.uint8)
    truth[:3] = 5  # the number after the last class
    save_png(truth, tmp_path / "truth.png")
    result = client.predict(handle_file(picture), handle_file(tmp_path / "truth.png"), "garden", api_name="/score")
    truth[:3] = 255
    for side in SIDES:
        labels = Segmenter.load(weights / "garden" / side)(read_image(picture)).label_map
        expected = score(labels, truth, 5)
        found = result["networks"][side]
        assert found["miou"] == pytest.approx(expected.miou)
        assert found["boundary_f1"] == pytest.approx(expected.boundary)
        assert list(found["iou"]) == ["background", "street", "tree", "car", "sky"]
        np.testing.assert_allclose([np.nan if iou is None else iou for iou in found["iou"].values()], expected.iou)
    assert result["truth"]["read_as"] == "class numbers, 5 being void"
    assert result["truth"]["void"] == pytest.approx(3 / 61)
    assert "taken for void" in result["truth"]["notes"][0]
    assert result["notes"] == []


def test_batch_is_an_archive_and_a_list(client, picture, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    files = [handle_file(picture), handle_file(tmp_path / "broken.png")]
    archive, rows = client.predict(files, "garden", api_name="/batch")
    assert [(row["name"], row["agreement"] is not None, row["note"] != "") for row in rows] == [
        ("my picture.png", True, False),
        ("broken.png", False, True),
    ]
    one = np.asarray(Image.open(client.predict(handle_file(picture), "garden", SIDES[1], api_name="/segment")))
    with zipfile.ZipFile(archive) as unpacked:
        np.testing.assert_array_equal(read_annotation(unpacked.read(f"{SIDES[1]}/labels/my picture.png")), one)


def code_of(chapter, language):
    """A block of code of docs/api.md, which the page shows, for the task and picture at hand."""
    shown = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").split(f"### {chapter}\n")[1]
    block = re.search(rf"```{language}\n(.*?)```", shown, re.DOTALL)[1]
    return block.replace('"streets"', '"garden"').replace('"road"', '"tree"')


@pytest.fixture
def in_a_folder(picture, tmp_path):
    """A folder with a picture and its ground truth, called as in the examples of code."""
    picture.rename(tmp_path / "street.jpg")
    save_png(np.eye(61, 83, dtype=np.uint8), tmp_path / "street.png")
    return tmp_path


@pytest.mark.parametrize(
    ("chapter", "language", "command"), [("Python", "python", [sys.executable, "-c"]), ("curl", "sh", ["bash", "-euc"])]
)
def test_the_examples_of_code_work(address, client, in_a_folder, chapter, language, command):
    answer = client.predict(handle_file(in_a_folder / "street.jpg"), "garden", api_name="/compare")
    program = code_of(chapter, language).replace("http://127.0.0.1:7860", address.rstrip("/"))
    done = subprocess.run([*command, program], cwd=in_a_folder, capture_output=True, text=True, timeout=120, check=True)
    assert str(answer["agreement"]) in done.stdout
    assert str(answer["shares"]["tree"]["crop-concat"]) in done.stdout


def test_the_same_functions_are_tools_for_assistants(address):
    """The server of these tests was started with GRADIO_MCP_SERVER=True, as the page's own words say."""
    assert "GRADIO_MCP_SERVER=True .venv/bin/python app.py" in code_of("MCP", "sh")
    where = json.loads(code_of("MCP", "json"))["mcpServers"]["add-or-concat"]["url"]

    def ask(method, **params):
        request = urllib.request.Request(
            where.replace("http://127.0.0.1:7860/", address),
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode(),
            {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(re.search(r"^data: (.*)$", answer.read().decode(), re.MULTILINE)[1])["result"]

    tools = {tool["name"]: tool for tool in ask("tools/list")["tools"]}
    assert list(tools) == [
        "segment_picture", "compare_networks", "score_networks", "quantize_picture", "segment_many_pictures",
    ]  # fmt: skip
    assert tools["score_networks"]["description"].startswith("Segment a picture with both networks and score them")
    assert tools["segment_many_pictures"]["inputSchema"]["required"] == ["pictures", "task"]
    picture = "data:image/jpeg;base64," + base64.b64encode(PICTURE).decode()
    said = ask("tools/call", name="compare_networks", arguments={"image": picture, "task": "garden"})
    assert not said["isError"]
    assert "agreement" in said["content"][0]["text"]


def test_refusals_are_sentences(client, picture, tmp_path):
    (tmp_path / "note.png").write_text("no picture")
    with pytest.raises(AppError, match=r"note\.png"):
        client.predict(handle_file(tmp_path / "note.png"), 8, "RGB", api_name="/quantize")
    with pytest.raises(AppError, match="Colours are 2 to 64"):
        client.predict(handle_file(picture), 65, "RGB", api_name="/quantize")


@pytest.fixture
def run_of_large_pictures(tmp_path, monkeypatch):
    """Two pictures of three tiles each, on their way through small networks."""
    for seed, architecture in enumerate(SIDES):
        small_bundle(architecture, task="garden", seed=seed).save(tmp_path / "weights" / "garden" / architecture)
    save_png(photo(200, 1100), tmp_path / "large.png")
    monkeypatch.setattr(networks, "WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(networks, "KNOWN_PIXELS", 0)
    monkeypatch.setattr(batch, "TICK", 0.01)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    networks.tasks.cache_clear()
    large = FileData(path=str(tmp_path / "large.png"), orig_name="large.png")
    yield batch.take("garden", networks.choose_sides("garden"), [large, large], None)
    networks.tasks.cache_clear()


def test_many_large_pictures_are_counted_in_tiles(run_of_large_pictures):
    *_, last = said = list(batch.segment_all(run_of_large_pictures))
    assert any(re.search("network [12], tile [123] of 3", progress) for progress, *_ in said)
    assert "<b>2</b> of 2 pictures" in last[0]
    with zipfile.ZipFile(last[2].value["path"]) as archive:
        assert "crop-concat/labels/large-2.png" in archive.namelist()


def test_a_large_picture_is_given_up_in_the_middle(run_of_large_pictures):
    for progress, *_ in (said := batch.segment_all(run_of_large_pictures)):
        if "tile " in progress:
            batch.stop(run_of_large_pictures)
            break
    *_, last = said
    assert "<b>0</b> of 2 pictures" in last[0]
    with zipfile.ZipFile(last[2].value["path"]) as archive:
        assert archive.namelist() == ["scores.csv"]


def test_what_a_visitor_walks_away_from_is_deleted(run_of_large_pictures, tmp_path):
    said = batch.segment_all(run_of_large_pictures)
    next(said), next(said)
    said.close()
    assert not list((tmp_path / "cache").rglob("*.zip"))


def test_importing_loads_no_weights_and_touches_no_network(weights):
    program = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('the network was touched')\n"
        "socket.socket.connect = refuse\n"
        "import app\n"
        "from unet import Segmenter\n"
        "def load(*_, **__): raise AssertionError('a network was loaded')\n"
        "Segmenter.load = load\n"
        "app.build_demo()\n"
        "assert 'torch._dynamo' not in sys.modules, 'torch has loaded its compiler, which takes a second'\n"
    )
    environment = os.environ | {"UNET_WEIGHTS": str(weights)}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, timeout=90)


def test_started_as_a_space_it_answers(weights, picture):
    """With the variables that Spaces set; the server then listens on every address and opens no browser."""
    as_a_space = {"SPACE_ID": "ann/two-u-nets", "SYSTEM": "spaces", "GRADIO_SERVER_NAME": "0.0.0.0"}
    with serve(weights, **as_a_space, SPACE_HOST="", SPACE_AUTHOR_NAME="ann", BROWSER="false") as page:
        client = Client(page.url, verbose=False)
        labels = Image.open(client.predict(handle_file(picture), "garden", "crop-concat", api_name="/segment"))
    expected = Segmenter.load(weights / "garden" / "crop-concat")(read_image(picture)).label_map
    np.testing.assert_array_equal(np.asarray(labels), expected)


@pytest.fixture
def networks_here(weights, monkeypatch):
    """The page's networks within this process."""
    monkeypatch.setattr(networks, "WEIGHTS", str(weights))
    networks.tasks.cache_clear()
    yield
    networks.tasks.cache_clear()


def test_without_gpu_time_the_networks_run_on_the_cpu(networks_here, monkeypatch):
    """What ZeroGPU raises when a visitor's minutes are used up, raised here in its place."""
    said = []
    monkeypatch.setattr(gr, "Info", said.append)

    def refuse(locations, image):
        raise gr.Error("try again in 3:00:00", title=title)

    monkeypatch.setattr(networks, "run_on_gpu", refuse)
    title = "ZeroGPU quota exceeded"
    locations = tuple(networks.tasks()["garden"][side] for side in SIDES)
    found = networks.run_networks(locations, photo(40, 50))
    assert [answer.device for answer in found] == ["cpu", "cpu"]
    assert "on the CPU" in said[0]
    title = "ZeroGPU worker error"
    with pytest.raises(gr.Error):
        networks.run_networks(locations, photo(40, 50))


def test_without_gpu_memory_the_feature_maps_come_from_the_cpu(networks_here, monkeypatch):
    """What has no smaller tiles to fall back to: torch's error, raised here in the GPU's place."""
    said = []
    monkeypatch.setattr(gr, "Info", said.append)

    def refuse(*inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    on_the_cpu = inside.joins.args[1]
    found = networks.run(refuse, on_the_cpu, networks.tasks()["garden"][SIDES[0]], photo(40, 50), 0, 64)
    assert "<img" in found
    assert "The GPU has no memory left for this. The networks run on the CPU" in said[0]


def test_drawings_are_there_before_the_picture_is_read(networks_here):
    """A picture may take seconds to read; what shows nothing of it does not wait."""

    image, sides = photo(41, 53), networks.choose_sides("garden")
    answer = answer_section.ask(session.Picture(Path("gone.png"), image), sides, False, 8, "RGB")
    answer = replace(answer, picture=replace(answer.picture, decoded=Path("gone.npy")))  # so its file must be read
    for side in (0, 1):
        assert inside.show_drawing(answer, ([0], [0]), side=side).count('class="cross"') == 1
        assert 'class="cross"' not in inside.show_drawing(answer, ([], []), side=side)
        inside.show_without(answer, "Changes", ([], []), side=side)
    with pytest.raises(ImageError):
        inside.show_tiles(answer, 64)


def test_a_network_that_ran_short_of_memory_says_so(networks_here, monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(gr, "Warning", said.append)

    def on_gpu(locations, image):
        first, second = networks.segment(locations, image)
        return replace(first, device="cuda"), replace(second, note="There was too little GPU memory.")

    monkeypatch.setattr(networks, "run_on_gpu", on_gpu)
    image = photo(41, 53, seed=2)
    picture = session.Picture(Path("photo.png"), image)
    answer_section.ask(picture, networks.choose_sides("garden"), False, 8, "RGB")
    assert said == ["crop-concat: There was too little GPU memory."]

    save_png(photo(41, 53, seed=1), tmp_path / "photo.png")  # another one: answers are remembered
    asked = api.compare_networks(str(tmp_path / "photo.png"), "garden")
    assert asked["notes"] == ["crop-concat: There was too little GPU memory."]


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [("", r"Train them with `python train\.py`"), ("none", "neither a folder here nor a namespace on the Hub")],
)
def test_without_bundles_it_says_what_to_do(tmp_path, monkeypatch, folder, sentence):
    monkeypatch.setattr(networks, "WEIGHTS", str(tmp_path / folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    networks.tasks.cache_clear()
    with pytest.raises(SystemExit, match=sentence):
        app.build_demo()
    networks.tasks.cache_clear()


def test_without_a_place_for_uploads_it_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file" / "x"))
    with pytest.raises(SystemExit, match="set GRADIO_TEMP_DIR to a folder"):
        app.main()


def test_a_port_that_is_taken_is_said_in_a_sentence(weights):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment = os.environ | {
            "UNET_WEIGHTS": str(weights),
            "GRADIO_SERVER_PORT": str(taken.getsockname()[1]),
            "GRADIO_NUM_PORTS": "1",  # else it tries the next
        }
        done = subprocess.run(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 1
    assert "The page cannot be served: Cannot find empty port" in done.stderr
    assert "Traceback" not in done.stderr


def test_committed_bundles_load_and_answer():
    found = find_bundles(ROOT / "weights")
    assert {(task, side) for task in ("streets", "nuclei") for side in SIDES} <= {bundle[:2] for bundle in found}
    for bundle in found:
        segmenter = Segmenter.load(bundle.location)
        examples = sorted((ROOT / "weights" / bundle.task / "examples").glob("*.jpg"))
        image = read_image(examples[0]) if examples else photo(90, 120)
        result = segmenter(image)
        assert result.label_map.shape == image.shape[:2]
        assert (segmenter.bundle.task, segmenter.bundle.architecture) == (bundle.task, bundle.architecture)
