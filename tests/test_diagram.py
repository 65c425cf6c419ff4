"""The drawing shows the network's real sizes, whatever the network, and is well-formed whatever it is called."""

import base64
import dataclasses
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from bundles import photo, small_bundle
from PIL import Image

from page import diagram
from page.components import render
from page.features import ablations, joins
from unet import ARCHITECTURES, Segmenter, UNetConfig
from unet.model import Join

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


# ---- tiles, feature maps, losses -------------------------------------------------------------------------------------


def boxes(svg, kind):
    return [tuple(int(e.get(key)) for key in ("y", "x", "height", "width")) for e in of_class(svg, kind)]


@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
def test_the_tiles_drawn_are_those_of_the_layout(name):
    segmenter = Segmenter(small_bundle(name, divisor=32, working_pixels=20_000))
    image = photo(151, 217)
    layout = segmenter.layout((151, 217), tile=64)
    tile = layout.tile_at(75, 108)
    svg = diagram.tiling(layout, tile, segmenter.working_picture(image))

    def box(rows, columns):
        return rows.start, columns.start, len(rows), len(columns)

    assert boxes(svg, "tile") == [box(t.rows.window, t.columns.window) for t in layout.tiles]
    assert boxes(svg, "window") == [box(tile.rows.window, tile.columns.window)]
    assert boxes(svg, "read") == [box(tile.rows.read, tile.columns.read)]
    left, top, width, height = map(int, ElementTree.fromstring(svg).get("viewBox").split())
    for other in layout.tiles:
        assert top <= other.rows.read.start
        assert other.rows.read.stop <= top + height
        assert left <= other.columns.read.start
        assert other.columns.read.stop <= left + width


def test_tiling_facts_are_the_paper_s():
    segmenter = Segmenter(small_bundle("crop-concat", divisor=32))
    layout = segmenter.layout((388, 388))
    facts = diagram.tiling_facts(layout, layout.tiles[0], segmenter.net.config)
    assert "reads 572 × 572 pixels to answer 388 × 388" in facts
    assert "margin of 92" in facts


def features(skip):
    maps = np.zeros((3, 4, 4), np.float32)
    maps[1, 1:3, 1:3] = [[5, -5], [5, -5]]
    decoder = np.zeros((3, 2, 2), np.float32)
    decoder[1], decoder[2] = [[-5, 5], [-5, 5]], [[1, 2], [3, 4]]
    cropped = maps[:, 1:3, 1:3]
    joined = cropped + decoder if skip == "add" else np.concatenate([cropped, decoder])
    return Join(0, maps, decoder, joined)


def decoded(html):
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        for data in re.findall(r"base64,([^\"]+)", html)
    ]


def test_added_maps_share_a_scale_so_that_what_is_seen_adds_up():
    html = joins(features("add"), count=1)
    encoder, decoder, total = decoded(html)
    assert "3 + 3 channels become 3" in html
    assert "channel 1<" in html
    np.testing.assert_array_equal(encoder[1:3, 1:3], decoder[:, ::-1])  # opposite signs, one scale
    assert (total == total[0, 0]).all()  # they cancel
    assert encoder.shape[:2] == (4, 4)
    assert 'style="width:100.0%"' in html
    assert html.count('style="width:50.0%"') == 2


def test_concatenated_maps_follow_the_encoder_s():
    html = joins(features("concat"), count=1)
    assert len(decoded(html)) == 2
    assert "channels 0 to 2 of what is joined" in html
    assert "channels 3 to 5 of what is joined" in html
    assert "channel 4<" in html  # the decoder's channel 1 lies behind the encoder's three


def test_ablations_are_counted_against_the_full_answer_and_the_truth():
    full, without, truth = (np.array([row], np.uint8) for row in ([0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 1, 255]))
    html = ablations([([0], full), ([1, 0], without)], full, truth, 2, 2)
    assert '<th scope="row">0</th>' in html
    assert '<th scope="row">all</th>' in html
    assert "width:75.0%" in html
    # Without: IoU of 0 is 1/3, of 1 is 0. In full: 1/2 and 1/2.
    assert "16.7 % <small>of 50.0 %</small>" in html
    assert '<th scope="row">0, 1</th>' in ablations([([1, 0], without)], full, truth, 2, 3)
    assert "mIoU" not in ablations([([0], full)], full, None, 2, 2)


def test_the_table_of_both_skips():
    cells = {"add": {"scores": [0.5, 0.7]}, "concat": {"scores": [0.6, 0.9]}}
    paired = {"difference": 0.15, "interval": [-0.4853, 0.7853]}
    made = {"task": "nuclei", "body": "crop", "widths": [8, 16, 32], "epochs": 4, "metric": "Dice", "seeds": 2}
    html = render("skips_table", rows=[{**made, **cells, "paired": paired}])
    assert '<th scope="row">nuclei, crop <small>8 to 32 channels, 4 epochs</small></th>' in html
    assert "<td>60.0 %</td><td>75.0 %</td><td>+15.0 points</td><td>-48.5 to +78.5</td><td>2</td>" in html


def test_a_halo_is_named_where_one_is_read():
    segmenter = Segmenter(small_bundle("residual-add", divisor=32))
    for tile, expected in ((512, "in one tile. The network reads 300 × 400"), (256, "2 × 2 tiles. .*with a halo")):
        layout = segmenter.layout((300, 400), tile=tile)
        facts = diagram.tiling_facts(layout, layout.tiles[0], segmenter.net.config)
        assert re.search(expected, facts)
        assert ("halo" in facts) == (tile == 256)
