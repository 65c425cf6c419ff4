"""The page without a server: its folder, and what a browser makes of it."""

import base64
import functools
import gzip
import json
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from bundles import COLORS, NAMES, front_matter, small_bundle
from playwright.sync_api import expect

import train
from unet import Bundle, PaletteLadder, Segmenter, read_image
from unet.__main__ import main
from unet.palette import MAX_COLORS
from unet.web import ROOT, RUNTIME_FILES, BundleError, export_page, fetch_runtime

STREET = ROOT / "weights" / "streets" / "examples" / "0016E5_08055.jpg"
PATIENCE = 120_000  # milliseconds; for machines that are busy with something else


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Bundles as a user has them, by name."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {
        name: small_bundle(name, working_pixels=10_000, seed=seed)
        for seed, name in enumerate(("residual-add", "crop-concat"))
    }
    return {name: Bundle.load(bundle.save(folder / name)) for name, bundle in made.items()}


@pytest.fixture(scope="module")
def runtime(pytestconfig):
    """The pinned ONNX Runtime for browsers, fetched once."""
    folder = pytestconfig.cache.mkdir("onnxruntime-web")
    if not all((folder / "package" / name).exists() for name in RUNTIME_FILES):
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed")
        fetch_runtime(folder)
    return folder / "package"


@pytest.fixture(scope="module")
def site(networks, runtime, tmp_path_factory):
    return export_page(networks, tmp_path_factory.mktemp("site") / "page", runtime)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def page(browser, site):
    """The page on loopback, in a browser that reaches nothing else; `page.asked` are the addresses it asked for."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.asked, page.url_of_site = [], f"http://127.0.0.1:{server.server_port}/"
        page.on("request", lambda request: page.asked.append((request.method, request.url)))
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.goto(page.url_of_site)
        expect(page.locator("#status")).to_contain_text("took", timeout=PATIENCE)
        yield page
        page.close()
        server.shutdown()


def show_street(page):
    page.locator("#file").set_input_files(STREET)
    expect(page.locator("canvas").first).to_have_attribute("width", "480")
    expect(page.locator("body")).not_to_have_class("asking", timeout=PATIENCE)


def canvas(page, side):
    """What one side of the stage shows: uint8 (H, W, 3)."""
    size, values = page.evaluate(
        """side => {
            const canvas = document.querySelectorAll("canvas")[side];
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let text = "";
            for (const value of data) text += String.fromCharCode(value);
            return [[canvas.height, canvas.width, 4], btoa(text)];
        }""",
        side,
    )
    return np.frombuffer(base64.b64decode(values), np.uint8).reshape(size)[..., :3]


def test_the_browser_answers_as_python_does_and_sends_nothing(page, networks):
    assert canvas(page, 0).shape == (427, 640, 3), "the first example is answered already"
    show_street(page)
    page.get_by_text("Masks").click()
    image = read_image(STREET)
    for side, (name, bundle) in enumerate(networks.items()):
        found = Segmenter(bundle, device="cpu", precision="float32")(image)
        assert np.mean((canvas(page, side) == COLORS[found.label_map]).all(axis=2)) >= 0.999, name
        shares = page.locator(f"tbody td:nth-child({side + 2})").all_inner_texts()
        counts = np.bincount(found.label_map.ravel(), minlength=len(NAMES)) / found.label_map.size
        assert [float(share.removesuffix(" %")) for share in shares] == pytest.approx(100 * counts, abs=0.6)
    assert page.locator("tbody th").all_inner_texts() == list(NAMES)
    assert all(method == "GET" and url.startswith((page.url_of_site, "blob:")) for method, url in page.asked)


def test_colours_follow_the_slider_and_keys_move_the_divider(page):
    show_street(page)
    expect(page.locator("#k")).to_have_attribute("max", str(MAX_COLORS))
    page.locator("#k").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("output")).to_have_text("5 colours")
    image = read_image(STREET)
    reduced = canvas(page, 1)
    np.testing.assert_array_equal(canvas(page, 0), image)
    assert len(np.unique(reduced.reshape(-1, 3), axis=0)) == page.locator("#strip i").count() == 5
    palette = PaletteLadder(image)[5]
    best = palette.decode(palette.encode(image))
    error, best = (np.mean((found - image.astype(float)) ** 2) for found in (reduced, best))
    assert error < 1.15 * best
    page.locator("#split").focus()
    before = page.locator("#picture").get_attribute("style")
    page.keyboard.press("ArrowRight")
    assert page.locator("#picture").get_attribute("style") != before


def test_what_was_chosen_last_is_shown(page):
    """Of two decoders the first is held back, and so is every camera."""
    page.evaluate(
        """() => {
            const { createImageBitmap } = window;
            window.createImageBitmap = (...picture) => {
                window.createImageBitmap = createImageBitmap;
                return new Promise((done) => (window.release = () => done(createImageBitmap(...picture))));
            };
            navigator.mediaDevices.getUserMedia = async () => {
                const stream = document.createElement("canvas").captureStream();
                await new Promise((allow) => asked.push([stream, allow]));
                return stream;
            };
            window.asked = [];
        }"""
    )
    page.locator("#examples button").first.click()
    page.wait_for_function("'release' in window")
    show_street(page)
    page.evaluate("release()")
    for _ in range(2):
        page.locator("#camera").click()
    page.evaluate("asked.forEach(([_, allow]) => allow())")
    expect(page.locator("#camera")).to_have_text("Stop")
    expect(page.locator("canvas").first).to_have_attribute("width", "480")
    assert page.evaluate("asked.map(([stream]) => stream.active)") == [False, True]
    page.locator("#camera").click()
    assert page.evaluate("asked.map(([stream]) => stream.active)") == [False, False]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(page, scheme):
    page.emulate_media(color_scheme=scheme)
    found = Axe().run(page)
    assert not found.response["violations"], found.generate_report()


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_nothing_is_cut_off_and_targets_are_large(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for target in page.locator("button, label, #split, #strip").all():
        assert target.bounding_box()["height"] >= 44


def test_small_enough_and_from_relative_addresses(site):
    packed = sum(len(gzip.compress(path.read_bytes(), 6)) for path in site.rglob("*") if path.is_file())
    assert packed < 15e6
    text = "".join((site / name).read_text() for name in ("index.html", "page.js", "page.css"))
    assert "://" not in text
    assert sum((ROOT / "web" / name).read_text().count("\n") for name in ("index.html", "page.js")) <= 300
    about = json.loads((site / "page.json").read_text())
    assert all((site / path).is_file() for path in about["examples"])
    assert [network["name"] for network in about["networks"]] == ["residual-add", "crop-concat"]


@pytest.fixture
def package(tmp_path):
    """A stand-in for the unpacked package."""
    for name in RUNTIME_FILES:
        (tmp_path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "package" / name).write_bytes(b"runtime")
    return tmp_path / "package"


def test_what_makes_no_page_is_refused_before_anything_is_written(networks, package, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    full = tmp_path / "full"
    full.mkdir()
    (full / "index.html").write_text("somebody's")
    other = {"left": networks["residual-add"], "right": small_bundle("crop-concat", classes=2)}
    for given, folder, runtime, message in [
        (other, tmp_path / "new", package, "two networks with the same classes"),
        ({"left": networks["residual-add"]}, tmp_path / "new", package, "two networks with the same classes"),
        (networks, full, package, "holds other files"),
        (networks, tmp_path / "new", tmp_path, "is missing"),
        (networks, tmp_path / "new", None, "npm is not installed"),
    ]:
        with pytest.raises(BundleError, match=message):
            export_page(given, folder, runtime)
        assert not (tmp_path / "new").exists()
    assert (full / "index.html").read_text() == "somebody's"


def test_the_command_writes_the_page_again(networks, package, tmp_path, capsys):
    sources = [str(bundle.save(tmp_path / name)) for name, bundle in networks.items()]
    command = ["export", *sources, "--web", str(tmp_path / "page"), "--onnxruntime-web", str(package)]
    assert [main(command), main(command)] == [0, 0]
    assert "any static host" in capsys.readouterr().out
    for name in ("index.html", "page.json", "left.onnx", "right.onnx", *(Path(name).name for name in RUNTIME_FILES)):
        assert (tmp_path / "page" / name).is_file()
    assert main(["export", *sources, "-o", str(tmp_path / "x.onnx")]) == 2
    assert "--web DIR" in capsys.readouterr().err


def test_a_static_space_is_that_folder(hub, networks, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("unet.web.fetch_runtime", lambda folder: package)
    for name, bundle in networks.items():
        bundle.save(tmp_path / "test" / name)
    command = ["--push-space", "two", "--static", "--task", "test", "--data", str(tmp_path), "--output", str(tmp_path)]
    assert [train.main(command), train.main(command)] == [0, 0]
    assert f"published: {hub.url}/spaces/ann/two" in capsys.readouterr().out
    files = hub.space("ann/two").files
    assert front_matter(files["README.md"].decode())["sdk"] == "static"
    assert {"index.html", "page.js", "page.json", "left.onnx", "right.onnx"} <= set(files)
    assert json.loads(files["page.json"])["task"] == "test"
    assert train.main([*command[:1], "no name", *command[2:]]) == 2
    assert "no name for a Space" in capsys.readouterr().err
