"""Many pictures at once: every one of them a row, and an archive that unpacks anywhere."""

import csv
import io
import json
import zipfile
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pytest
from bundles import COLORS, NAMES, photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unet.archive import match_truths
from unet.batch import segment_many
from unet.compare import score
from unet.images import read_annotation, read_image, save_png
from unet.predict import Segmentation
from unet.tables import pooled

NETWORKS = ("residual-add", "crop-concat")


def encoded(array, **options):
    file = io.BytesIO()
    save_png(array, file, **options)
    return file.getvalue()


def ask(image):
    """Two networks that are rules: by brightness, and by the left neighbour's brightness."""
    first = image.mean(axis=2).astype(np.uint8) // 52
    maps = (first, np.roll(first, 1, axis=1))
    sure = np.ones(first.shape, np.float32)
    return tuple(Segmentation(labels, sure, NAMES, COLORS, 0.25, "cpu") for labels in maps)


def run(pictures, ask=ask, **options):
    target = io.BytesIO()
    rows = list(segment_many(pictures, ask, NETWORKS, target, **options))
    archive = zipfile.ZipFile(target)
    assert archive.testzip() is None
    return rows, archive


def table(archive):
    return list(csv.DictReader(io.StringIO(archive.read("scores.csv").decode())))


def test_the_archive_holds_the_exact_answers():
    image = photo(30, 41)
    (row,), archive = run([("garden.jpg", encoded(image))])
    for network, answer in zip(NETWORKS, ask(image), strict=True):
        labels = archive.read(f"{network}/labels/garden.png")
        np.testing.assert_array_equal(read_annotation(labels), answer.label_map)
        np.testing.assert_array_equal(read_image(labels), COLORS[answer.label_map])  # looks like what it says
        np.testing.assert_array_equal(read_image(archive.read(f"{network}/masks/garden.png")), COLORS[answer.label_map])
        assert Image.open(io.BytesIO(archive.read(f"{network}/overlays/garden.jpg"))).size == (41, 30)
    for file in archive.infolist():  # pictures are compressed already
        assert (file.compress_type == zipfile.ZIP_DEFLATED) == file.filename.endswith((".csv", ".json"))
    first, second = (answer.label_map for answer in ask(image))
    assert row.agreement == np.mean(first == second)
    assert row.size == (30, 41)
    assert json.loads(archive.read("classes.json")) == {
        "class_names": list(NAMES), "palette": COLORS.tolist(), "ignore_index": 255,
    }  # fmt: skip
    lines = table(archive)
    assert [line["network"] for line in lines] == list(NETWORKS)
    assert float(lines[1]["share tree"]) == pytest.approx(np.mean(second == 2), rel=1e-5)
    assert lines[0]["miou"] == ""


def test_what_a_network_has_to_say_stands_in_the_table():
    def short_of_memory(image):
        return tuple(replace(answer, note="The CPU answered.") for answer in ask(image))

    (row,), archive = run([("a.png", encoded(photo(9, 9)))], ask=short_of_memory)
    assert row.note == "The CPU answered."
    assert [line["note"] for line in table(archive)] == [row.note] * 2


def test_a_broken_picture_costs_the_others_nothing():
    rows, archive = run(
        [("a.png", encoded(photo(9, 9))), ("b.png", b"\x89PNG\r\n\x1a\nrest"), ("c.png", encoded(photo(8, 7)))]
    )
    assert [bool(row.note) for row in rows] == [False, True, False]
    assert "is damaged" in rows[1].note
    assert [line["note"] != "" for line in table(archive)] == [False, False, True, False, False]
    assert {PurePosixPath(name).stem for name in archive.namelist() if "/" in name} == {"a", "c"}


def test_truths_are_matched_by_name_and_scored_as_one():
    images = {f"{name}.JPG": photo(20, 30, seed) for seed, name in enumerate("abc")}
    truth = {name: ask(image)[0].label_map.copy() for name, image in images.items()}
    truth["b.JPG"][:5] = 255
    files = {"A.png": encoded(truth["a.JPG"]), "b.png": encoded(truth["b.JPG"]), "other.png": encoded(truth["c.JPG"])}
    matched, remarks = match_truths(images, files)
    assert list(matched) == ["a.JPG", "b.JPG"]
    assert remarks == ["No picture is called like the ground truth other.png."]
    rows, archive = run([(name, encoded(image)) for name, image in images.items()], truths=matched)
    assert [row.scores and row.scores[0].miou for row in rows] == [1, 1, None]
    first, second = pooled(rows)
    assert first.counts.sum() == 20 * 30 + 15 * 30
    both = [score(ask(images[name])[1].label_map, truth[name], len(NAMES)).confusion.counts for name in matched]
    np.testing.assert_array_equal(second.counts, sum(both))
    assert [line["miou"] != "" for line in table(archive)] == [True] * 4 + [False] * 2
    assert pooled(rows[2:]) is None


def test_two_truths_for_one_picture_are_no_truth():
    matched, remarks = match_truths(["cafe\u0301.jpg"], {"Café.png": b"1", "café.tif": b"2"})
    assert (matched, remarks) == ({}, ["The ground truths Café.png and café.tif have one name: none of them is used."])


def test_one_truth_for_two_pictures_is_no_truth():
    matched, remarks = match_truths(["one/1.png", "two/1.png", "two/2.png"], {"1.png": b"1", "2.png": b"2"})
    assert matched == {"two/2.png": b"2"}
    assert remarks == ["2 pictures are called like the ground truth 1.png: none is scored."]


def test_of_several_pages_the_first_is_read_and_said():
    page = Image.fromarray(photo(9, 9))
    file = io.BytesIO()
    page.save(file, "TIFF", save_all=True, append_images=[page])
    mask = Image.fromarray(np.eye(9) > 0)
    masks = io.BytesIO()
    mask.save(masks, "TIFF", save_all=True, append_images=[mask])
    (row,), archive = run([("stack.tif", file.getvalue())], truths={"stack.tif": masks.getvalue()})
    assert row.note.count("has several pages or frames: only the first is read.") == 2
    assert table(archive)[0]["note"] == row.note
    assert row.scores is not None


def test_a_truth_that_does_not_fit_says_why_and_the_answer_stays():
    (row,), archive = run([("a.png", encoded(photo(9, 9)))], truths={"a.png": encoded(np.zeros((3, 4), np.uint8))})
    assert row.scores is None
    assert row.agreement is not None
    assert "The ground truth is 4 x 3 pixels and the picture 9 x 9" in row.note
    assert "crop-concat/labels/a.png" in archive.namelist()


def test_who_stops_early_keeps_what_was_done():
    target = io.BytesIO()
    rows = segment_many([(f"{i}.png", encoded(photo(8, 8, i))) for i in range(5)], ask, NETWORKS, target)
    next(rows), next(rows)
    rows.close()
    archive = zipfile.ZipFile(target)
    assert len(table(archive)) == 4
    assert "residual-add/labels/1.png" in archive.namelist()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(max_size=40)
        | st.sampled_from(["../../etc/passwd", "C:\\x\\y.png", "con.png", "a.png", "A.PNG", "a-2.png", ".", "=1+1"]),
        min_size=1,
        max_size=5,
    )
)
def test_any_names_unpack_anywhere(names):
    picture = encoded(np.full((2, 2, 3), 99, np.uint8))
    rows, archive = run([(name, picture) for name in names])
    inside = [name for name in archive.namelist() if "/" in name]
    assert len({name.casefold() for name in inside}) == len(inside) == 6 * len(names)
    for name in inside:
        folder, kind, file = name.split("/")
        assert folder in NETWORKS
        assert kind in ("labels", "masks", "overlays")
        assert file.isprintable()
        assert not set(file) & set('<>:"\\|?*')
        assert not file.startswith(".")
        assert len(file.encode()) < 160
    assert [row.name for row in rows] == names
    for line in table(archive):
        assert not line["picture"].startswith(("=", "+", "-", "@"))
