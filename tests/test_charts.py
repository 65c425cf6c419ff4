"""Charts show the numbers they are given, as PNGs that do not change when the numbers do not."""

import numpy as np
import pytest
from bundles import photo

from training.charts import draw_confusion, draw_curves, draw_examples
from unet.images import read_image

HISTORY = [{"epoch": e, "loss": 2 / e} | ({"score": e / 10} if e % 2 == 0 else {}) for e in range(1, 7)]


def has_color(picture, color, tolerance=12):
    return (np.abs(picture.astype(int) - color).max(axis=2) <= tolerance).any()


def test_curves_draw_both_lines(tmp_path):
    draw_curves(HISTORY, tmp_path / "curves.png")
    picture = read_image(tmp_path / "curves.png")
    assert has_color(picture, (0x2B, 0x6C, 0xB0))
    assert has_color(picture, (0xC2, 0x62, 0x0E))
    draw_curves([{"epoch": 1, "loss": 1.0}], tmp_path / "one.png")


@pytest.mark.parametrize("classes", [2, 11, 30])
def test_confusion_matrix_is_dark_where_the_counts_are(tmp_path, classes):
    names = [f"class {i}" for i in range(classes)]
    draw_confusion(np.eye(classes, dtype=np.int64) * 100, names, tmp_path / "right.png")
    draw_confusion(np.zeros((classes, classes), np.int64), names, tmp_path / "nothing.png")
    assert has_color(read_image(tmp_path / "right.png"), (8, 48, 107))
    assert not has_color(read_image(tmp_path / "nothing.png"), (8, 48, 107))


def test_examples_show_truth_answer_and_mistakes(tmp_path):
    palette = np.array([(0, 90, 0), (200, 0, 90)], np.uint8)
    truth = np.zeros((30, 40), np.uint8)
    truth[:10] = 255
    answer = truth * 0
    answer[20:] = 1
    draw_examples([("worst", photo(30, 40), truth, answer)], palette, tmp_path / "shown.png")
    draw_examples([("worst", None, truth, answer)], palette, tmp_path / "kept_back.png")
    shown, kept_back = read_image(tmp_path / "shown.png"), read_image(tmp_path / "kept_back.png")
    for picture in (shown, kept_back):
        assert has_color(picture, palette[0], 0)
        assert has_color(picture, palette[1], 0)
        assert has_color(picture, (0, 0, 0), 0)
    assert shown.shape[1] > kept_back.shape[1], "a picture that may not be shown has no column"


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        draw_curves(HISTORY, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
