"""Every odd file of the corpus through the page: asked by a program over HTTP, and dropped by a person in a browser."""

import json

import numpy as np
import pytest
from bundles import save_nuclei
from corpus import CASES
from pages import PATIENCE, SIDES, answers, file, saved, served, shows, upload, wait_for_other_answer
from playwright.sync_api import expect

from page import decoding, session
from unet import Segmenter
from unet.images import ImageError, read_annotation, read_image

# The server's threads work within this process: what its own libraries warn each other of is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")

BY_NAME = {case.name: case for case in CASES}
# On one page, one after the other.
IN_THE_BROWSER = (
    "photoshop.jpg", "empty.jpg", "exif turn 6.jpg", "text.png", "interlaced 16 bit.png", "cut off.png", "rgba.png",
    "drawing.svg", "pages.tif", "paper.pdf", "animated.gif", "bomb.png", "photo.avif", "phone.heic", "cut off.heic",
    "with\nnewline.png", "<b>bold<∕b>\n \u202egnp.png", "🏞️ 写真 #1?.webp", "one byte.png", "1x5000.png",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    save_nuclei(folder / "weights", working_pixels=60 * 60)
    with served(folder) as page:
        yield page


@pytest.fixture(scope="module")
def label_map(page):
    """What the network says of uint8 (H, W, 3), remembered: many files of the corpus hold the same picture."""
    segmenter, known = Segmenter.load(page.cache.parent / "weights" / "nuclei" / SIDES[0]), {}

    def ask(image):
        key = image.shape, image.tobytes()
        if key not in known:
            known[key] = segmenter(image).label_map
        return known[key]

    return ask


@pytest.mark.parametrize("case", CASES, ids=str)
def test_programs_get_what_the_library_reads_or_its_refusal(page, label_map, case):
    path = page.upload(case.name, case.data)
    event, said = page.call("/segment", [file(path), "nuclei", SIDES[0]])
    if case.image is None:
        with pytest.raises(ImageError) as refusal:  # as the library refuses it, or where memory is short
            decoding.read_image(path, max_pixels=session.MAX_PIXELS, notify=print)
        assert event == "error"
        assert json.loads(said)["error"] == str(refusal.value)
        return
    assert event == "complete", said
    (answer,) = json.loads(said)
    np.testing.assert_array_equal(read_annotation(answer["path"]), label_map(read_image(path)))


def test_dropped_one_after_the_other_they_are_answered_or_refused_in_a_toast(page, browser):
    """The first one counts too: a box that was used once must go on leaving files as they are."""
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    tab = context.new_page()
    tab.goto(page.url)
    expect(tab.locator(".viewer")).to_have_attribute("data-answer", "1", timeout=PATIENCE)
    tab.get_by_label("Opacity").fill("0")  # what is saved of the overlay is the picture then
    toast, colors = tab.locator(".toast-body"), tab.get_by_label("number input for Colours")
    for number, name in enumerate(IN_THE_BROWSER, start=2):
        case, before = BY_NAME[name], answers(tab)
        upload(tab, {"name": name, "mimeType": "", "buffer": case.data})
        if case.image is None:
            shows(tab, "body", rf"Error\s.*({case.refusal})|That is no picture: choose")
            colors.fill(str(number))  # the palette is still that of the picture before
            expect(tab.locator(".chip")).to_have_count(number, timeout=PATIENCE)
            assert answers(tab) == before
        else:
            wait_for_other_answer(tab, before)
            tab.locator(".views").get_by_role("radio", name="Overlay").check()  # colours were shown
            image = read_image(case.data, notify=lambda _: None)
            np.testing.assert_array_equal(saved(tab, SIDES[0], "overlay"), image)
            if case.several_pages:
                shows(tab, ".toast-body", "only the first is read")
            else:
                expect(toast).to_have_count(0)
        tab.evaluate("document.querySelectorAll('.toast-close').forEach((cross) => cross.click())")
        expect(toast).to_have_count(0, timeout=PATIENCE)
    context.close()
