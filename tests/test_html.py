"""What the page says and draws on the server, worked by hand; names from a bundle are text."""

import re

import numpy as np
import pytest
from bundles import small_bundle

from page import answer as answer_section
from page import batch, components, palettes, scores, views
from page.components import render
from page.networks import Network
from page.viewer import pattern_numbers, perceived_distances
from training.datasets import TASKS
from unet.compare import compare
from unet.images import indexed_picture
from unet.objects import Counted
from unet.predict import Segmentation, Segmenter
from unet.tables import Row

PALETTE = np.array([(0, 0, 0), (200, 100, 0), (0, 100, 200)], np.uint8)


def comparison(first, second, names, truth=None):
    palette = PALETTE[: len(names)]
    answers = (
        Segmentation(np.array(labels, np.uint8), np.ones(np.shape(labels), np.float32), names, palette, 0.1, "cpu")
        for labels in (first, second)
    )
    return compare(*answers).with_truth(truth)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.0 %"), (0.0001, "< 0.1 %"), (0.306, "30.6 %"), (0.99951, "> 99.9 %"), (1, "100.0 %")],
)
def test_percent(share, text):
    assert components.percent(share) == text


@pytest.mark.parametrize(("duration", "text"), [(0.071, "0.07 s"), (0.996, "1.0 s"), (1.44, "1.4 s"), (37.8, "38 s")])
def test_seconds(duration, text):
    assert components.seconds(duration) == text


def test_parameters():
    assert components.parameters(662_305) == "0.66 M"
    assert components.parameters(31_032_460) == "31.0 M"


def test_swatches_are_buttons_largest_share_first():
    html = palettes.draw(np.array([(255, 0, 16), (1, 2, 3)], np.uint8), np.array([0.25, 0.75]), 2, 0.0)
    assert re.findall(r'<button[^>]*data-hex="(#\w+)"', html) == ["#010203", "#ff0010"]
    assert "Copy #ff0010, 25.0 % of the picture" in html


def test_palette_facts():
    colors, shares = np.zeros((8, 3), np.uint8), np.full(8, 1 / 8)
    # 12 levels of squared distance over three channels are 4 a channel: 10 log10(255^2 / 4) = 42.1 dB.
    facts = palettes.draw(colors, shares, 35_120, 12.0)
    assert "<b>8</b> colours instead of 35,120 · <span" in facts
    assert "Mean squared error 4.0" in facts
    assert "<b>42.1 dB</b>" in facts
    assert "8 · every pixel exact<" in palettes.draw(colors, shares, 8, 0.0)


def test_scores_name_the_better_one_and_say_so_where_there_is_no_truth():
    truth = np.array([[0, 1, 1, 1]], np.uint8)
    table = scores.score_table(("a", "b"), comparison([[0, 1, 1, 1]], [[0, 0, 0, 1]], ("background", "leaf"), truth))
    assert "<td><b>100.0 %</b></td><td>50.0 %</td>" in table  # Dice and pixel accuracy of b are both one half
    assert table.count("<b>") == 4
    assert "of “leaf”" in table
    assert "give or take 1 pixel<" in table
    assert "No ground truth" in scores.score_table(("a", "b"), comparison([[0]], [[0]], ("x", "y")))


def test_bars_are_as_long_as_the_iou_and_a_class_in_neither_has_none():
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    answer = comparison([[0, 0, 1, 1]], [[0, 0, 0, 1]], ("sky", "leaf", "car"), truth)
    bars = scores.iou_bars(("one", "other"), answer, PALETTE)
    rows = re.findall(r"<tr.*?</tr>", bars)[1:]
    assert [re.findall(r"width:([\d.]+)%", row) for row in rows] == [
        ["100.00", "66.67"],
        ["100.00", "50.00"],
        ["0.00", "0.00"],
    ]
    assert "50.0 % of the truth" in rows[0]
    assert "absent" in rows[2]
    assert rows[2].count("–") == 2
    assert scores.iou_bars(("one", "other"), comparison([[0]], [[0]], ("x", "y")), PALETTE) == ""


def test_many_pictures_are_a_table_with_a_sum():
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    answer = comparison([[0, 0, 1, 1]], [[0, 0, 0, 1]], ("sky", "<b>"), truth)
    row = Row("<i>.png", "i", (1, 4), answer.agreement, answer.shares, (0.1, 0.1), answer.scores)
    broken = Row("broken.png", note="It is <damaged>.")
    table = batch.batch_table(("one", "other"), [row, broken], ("sky", "<b>"), PALETTE[:2])
    assert (
        "&lt;i&gt;.png</button><small>4 × 1</small></th><td>75.0 %</td><td><b>100.0 %</b></td><td>58.3 %</td>" in table
    )
    assert 'aria-label="other: sky 75.0 %, &lt;b&gt; 25.0 %"' in table
    assert "It is &lt;damaged&gt;." in table
    assert "All 1 with a ground truth" in table


def test_names_from_a_bundle_are_text():
    name = "<img src=x onerror=alert(1)>"
    answer = comparison([[0, 1]], [[1, 1]], (name, "b"), np.array([[0, 1]], np.uint8))
    for html in (
        answer_section.legend((name, name), answer, PALETTE[:2]),
        scores.score_table((name, name), answer),
        scores.iou_bars((name, name), answer, PALETTE[:2]),
        render("truth_line", how=name, void=0.5),
        render(
            "headings",
            sides=[
                {"name": name, "facts": [name], "tagline": name, "size": [name], "card": card} for card in (name, None)
            ],
        ),
    ):
        assert "<img" not in html
        assert "&lt;img" in html


def test_classes_that_look_alike_to_somebody_have_different_patterns():
    palette = np.array([(0, 0, 0), (255, 255, 255), (200, 80, 60), (110, 125, 60), (205, 82, 60)], np.uint8)
    distances = perceived_distances(palette)
    np.testing.assert_allclose(distances, distances.T)
    assert distances[0, 1] == pytest.approx(100, abs=0.1), "black and white are 100 apart, for all eyes"
    normal = np.abs(palette[2].astype(int) - palette[3]).max()
    assert normal > 80, "red and olive are nothing alike for most eyes"
    assert distances[2, 3] < 20, "but for some"
    numbers = pattern_numbers(palette)
    assert numbers[0] == numbers[1] == 0, "who is told apart by colour needs no pattern"
    assert len({numbers[2], numbers[3], numbers[4]}) == 3


@pytest.mark.parametrize("task", TASKS)
def test_every_known_palette_needs_few_patterns(task):
    palette = np.array(TASKS[task].palette, np.uint8)
    numbers, alike = np.array(pattern_numbers(palette)), perceived_distances(palette) < 20
    same = numbers[:, None] == numbers
    assert not (same & alike & ~np.eye(len(palette), dtype=bool)).any()
    assert numbers.max() <= 6


def test_disagreement_shows_each_sides_class_and_fog_elsewhere():
    image = np.full((1, 3, 3), (10, 20, 30), np.uint8)
    first, second = np.array([[1, 1, 0]], np.uint8), np.array([[1, 2, 1]], np.uint8)
    left = views.disagreement_view(image, first, second, PALETTE, unpainted=(0,))
    right = views.disagreement_view(image, second, first, PALETTE, unpainted=(0,))
    fog = left[0, 0]
    assert fog[0] == fog[1] == fog[2] > 150
    np.testing.assert_array_equal(right[0, 0], fog)
    np.testing.assert_array_equal(left[0, 1], PALETTE[1])
    np.testing.assert_array_equal(right[0, 1], PALETTE[2])
    np.testing.assert_array_equal(left[0, 2], image[0, 2])  # background says nothing: the clear picture
    np.testing.assert_array_equal(right[0, 2], PALETTE[1])


def test_paint_has_the_palettes_colours_and_keeps_the_labels():
    labels = np.array([[0, 1], [2, 1]], np.uint8)
    picture = indexed_picture(labels, PALETTE)
    np.testing.assert_array_equal(np.asarray(picture), labels)
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), PALETTE[labels])


def test_objects_are_counted_in_words():
    one, none = Counted(np.array([310]), np.array([[2.0, 3.0]])), Counted(np.zeros(0, int), np.zeros((0, 2)))
    line = answer_section.objects_line(("<a>", "b"), (one, none), "nucleus", "nuclei")
    assert "&lt;a&gt;: <b>1</b> nucleus, median 310 px²<" in line
    assert "b: <b>0</b> nuclei<" in line
    assert "<b>0</b> cells<" in answer_section.objects_line(("a", "b"), (one, none), "cell", "my pictures")
    assert answer_section.objects_line(("a", "b"), None, "sky", "streets") == ""


def test_the_heading_says_at_which_size_the_network_sees_a_thin_picture():
    segmenter, side = Segmenter(small_bundle("crop-concat", working_pixels=43_200)), Network("a", "")
    h, w = segmenter.working_picture(np.zeros((40, 4000, 3), np.uint8)).shape[:2]
    heading = answer_section.heading(side, segmenter, (40, 4000))
    assert heading["facts"][0] == f"seen at {w} × {h} of 4000 × 40"
