"""The drawing shows the network's real sizes, whatever the network, and is well-formed whatever it is called."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import pytest

from unet import ARCHITECTURES, UNetConfig, diagram

PAPER = dataclasses.replace(ARCHITECTURES["crop-concat"], num_outputs=12)


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


def of_class(svg, name):
    return [e for e in ElementTree.fromstring(svg).iter() if name in e.get("class", "").split()]


def titles(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("title")]


def test_the_paper_s_network_has_the_numbers_of_its_figure_1():
    svg = diagram.network(PAPER, (572, 572), name="crop-concat")
    shown = " / ".join(texts(svg))
    for shape in ("64 × 568 × 568", "128 × 280 × 280", "256 × 136 × 136", "512 × 64 × 64", "1024 × 28 × 28"):
        assert shape in shown
    for shape in ("in 3 × 572 × 572", "head 1 × 1, out 12 × 388 × 388", "512 × 52 × 52", "128 × 196 × 196"):
        assert shape in shown
    assert [text for text in texts(svg) if text.startswith("crop")] == [f"crop {n} a side" for n in (88, 40, 16, 4)]
    convolutions = [title for title in titles(svg) if ": " in title and title.startswith("Convolution")]
    assert len(convolutions) == 18
    assert "Convolution 3 × 3 and ReLU, 1 of 2: 64 × 570 × 570" in convolutions


@pytest.mark.parametrize("size", [(572, 572), (540, 668), (188, 1004)])
def test_what_crop_keeps_is_to_scale(size):
    svg = diagram.network(PAPER, size, name="crop-concat")
    levels = PAPER.level_shapes(size)
    for level, away, kept in zip(levels, of_class(svg, "away"), of_class(svg, "kept"), strict=False):
        for side, axis in (("height", 1), ("width", 2)):
            drawn = float(kept.get(side)) / float(away.get(side))
            assert drawn == pytest.approx(level.decoder[axis] / level.encoder[axis], abs=0.02)
        middles = [float(box.get("x")) + float(box.get("width")) / 2 for box in (away, kept)]
        assert middles[0] == pytest.approx(middles[1], abs=0.1)


@pytest.mark.parametrize(
    "config",
    [
        *ARCHITECTURES.values(),
        PAPER,
        UNetConfig(widths=(5,), convolutions=1, padded=True, skip="add", join="before_block"),
        UNetConfig(widths=(4, 4), convolutions=4, padded=False, skip="add", join="after_block", num_outputs=200),
        UNetConfig(widths=(2048, 64, 8, 8, 8, 8, 8), convolutions=2, padded=True, skip="concat", join="after_block"),
    ],
)
def test_any_network_fits_into_its_drawing(config):
    size = config.input_size((100, 140))
    svg = diagram.network(config, size, name="any")
    skips = len(config.widths) - 1
    assert len(of_class(svg, "sign")) == len(of_class(svg, "kept")) == skips
    assert len([text for text in texts(svg) if text == "max-pool"]) == skips
    _, _, width, height = map(float, ElementTree.fromstring(svg).get("viewBox").split())
    for box in ElementTree.fromstring(svg).iter("rect"):
        assert float(box.get("x")) >= 0
        assert float(box.get("x")) + float(box.get("width")) <= width
        assert 0 <= float(box.get("y")) <= height - float(box.get("height"))
    for line in ElementTree.fromstring(svg).iter("polyline"):
        for x, y in re.findall(r"([-\d.]+),([-\d.]+)", line.get("points")):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height


def test_words_say_what_the_drawing_shows():
    words = diagram.network_words(PAPER, (572, 572), name="crop-concat")
    assert "Level 3: the encoder’s 512 × 64 × 64, cropped to 512 × 56 × 56, is concatenated with the decoder’s" in words
    assert "added to the decoder’s" in diagram.network_words(ARCHITECTURES["crop-add"], (572, 572), name="x")
    assert "cropped" not in diagram.network_words(ARCHITECTURES["residual-add"], (64, 64), name="x")


def test_skips_left_out_are_crossed_out():
    svg = diagram.network(PAPER, (572, 572), name="x", without_skips=[1, 3])
    assert texts(svg).count("zeros") == len(of_class(svg, "cross")) == 2
    assert "crop 88 a side" in texts(svg)
    with pytest.raises(ValueError, match="no skip at level 4"):
        diagram.network(PAPER, (572, 572), name="x", without_skips=[4])


def test_a_name_from_a_bundle_is_text():
    svg = diagram.network(PAPER, (572, 572), name='"><script>alert(1)</script>')
    assert "<script" not in svg
    assert ElementTree.fromstring(svg).get("aria-label").startswith('"><script>')
