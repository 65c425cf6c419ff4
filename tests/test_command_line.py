"""`python -m unet`: folders are segmented completely, once, and every picture that fails is named."""

import csv
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bundles import photo, save_nuclei, small_bundle

from unet import Bundle, Segmenter, read_image
from unet.__main__ import main
from unet.batch import segment_many
from unet.images import read_annotation, save_png

ROOT = Path(__file__).parents[1]


@pytest.fixture
def photos(tmp_path):
    """Three pictures, a broken one and a note in a folder; two bundles beside it."""
    save_nuclei(tmp_path / "weights")
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        save_png(photo(40, 50 + seed, seed), folder / f"{name}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def bundles(photos):
    return [str(photos.parent / "weights" / "nuclei" / name) for name in ("residual-add", "crop-concat")]


def table(folder, name="scores.csv"):
    return list(csv.DictReader((folder / name).read_text().splitlines()))


def times(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("labels/*"))}


def test_the_folder_holds_what_the_archive_of_the_page_holds(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(photos), "--bundle", *bundles(photos), "-o", str(out)]) == 1
    assert "left out: broken.jpg: 'broken.jpg' is damaged" in capsys.readouterr().err
    segmenters = [Segmenter.load(bundle) for bundle in bundles(photos)]
    target = io.BytesIO()
    pictures = [(path.name, path) for path in sorted(photos.iterdir()) if path.suffix != ".txt"]
    networks = ("residual-add", "crop-concat")
    list(segment_many(pictures, lambda image: [segmenter(image) for segmenter in segmenters], networks, target))
    archive = zipfile.ZipFile(target)
    written = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    assert set(archive.namelist()) == {name for name in written if not name.startswith("records/")}
    for name in archive.namelist():
        if name != "scores.csv":  # which has seconds
            assert archive.read(name) == written[name].read_bytes()
    assert [line["picture"] for line in table(out)] == [
        "a.png",
        "a.png",
        "b.png",
        "b.png",
        "broken.jpg",
        "c.png",
        "c.png",
    ]


def test_what_is_finished_is_kept_and_what_changed_is_done_again(photos, tmp_path):
    out, (bundle, other) = tmp_path / "out", bundles(photos)
    command = ["segment", str(photos), "-o", str(out), "--bundle"]
    (photos / "broken.jpg").unlink()
    assert main([*command, bundle]) == 0
    first, scores = times(out), table(out)
    assert main([*command, bundle]) == 0
    assert times(out) == first
    assert table(out) == scores
    save_png(photo(30, 30, 9), photos / "b.png")
    assert main([*command, bundle]) == 0
    changed = {path.name for path, time in times(out).items() if time != first[path]}
    assert changed == {"b.png"}
    evaluated = Bundle.load(bundle)
    for change in ({"temperature": 2.0}, {"class_names": ("ground", "road")}, {"palette": [(9, 9, 9), (0, 0, 200)]}):
        evaluated = dataclasses.replace(evaluated, **change)
        evaluated.save_config(bundle)
        first = times(out)
        assert main([*command, bundle]) == 0
        assert all(time != first[path] for path, time in times(out).items()), change
    shutil.copytree(other, tmp_path / "retrained")
    assert main([*command, str(tmp_path / "retrained")]) == 0
    assert table(out)[0]["network"] == "crop-concat"


def test_after_a_kill_the_same_command_finishes(photos, tmp_path, monkeypatch):
    out, (bundle, _) = tmp_path / "out", bundles(photos)
    (photos / "broken.jpg").unlink()
    command = ["segment", str(photos), "-o", str(out), "--bundle", bundle]
    calls = []

    def interrupted(self, image, **options):
        calls.append(image)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return answer(self, image, **options)

    answer = Segmenter.__call__
    monkeypatch.setattr(Segmenter, "__call__", interrupted)
    assert main(command) == 130
    assert not (out / "scores.csv").exists()
    monkeypatch.undo()
    assert main(command) == 0
    assert [line["picture"] for line in table(out)] == ["a.png", "b.png", "c.png"]


def test_scores_and_objects_are_written_where_asked_for(photos, tmp_path, capsys):
    out, truths, (bundle, _) = tmp_path / "out", tmp_path / "truths", bundles(photos)
    truths.mkdir()
    label_map = Segmenter.load(bundle)(read_image(photos / "a.png")).label_map
    save_png(label_map, truths / "A.png")
    options = ["--truths", str(truths), "--objects", "street", "--min-area", "3"]
    assert main(["segment", str(photos / "a.png"), "--bundle", bundle, "-o", str(out), *options]) == 0
    assert "residual-add: mIoU 1.0000" in capsys.readouterr().out
    (line,) = table(out)
    objects = table(out, "objects.csv")
    assert len(objects) == int(line["objects"]) > 0
    assert min(int(found["area"]) for found in objects) >= 3
    coco = json.loads((out / "residual-add" / "coco.json").read_text())
    assert len(coco["annotations"]) == len(objects)
    assert coco["categories"] == [{"id": 2, "name": "street"}]
    for kind in ("labelme/a.json", "geojson/a.geojson"):
        assert json.loads((out / "residual-add" / kind).read_text())
    own = out / "annotations" / "coco.json"
    own.parent.mkdir()
    own.write_text("{}")
    assert main(["segment", str(photos / "b.png"), "--bundle", bundle, "-o", str(out)]) == 0
    assert own.exists()
    own.unlink()
    assert not [*out.rglob("objects.csv"), *out.rglob("coco.json")], "of a.png, which scores.csv does not name"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no folder and no picture"),
        (["empty"], "there are no pictures here"),
        (["photos", "--objects", "tree"], "there is no class 'tree'; the classes are background, street"),
        (["photos", "--truths", "nowhere"], "nowhere is no folder and no picture"),
    ],
)
def test_misuse_is_said_before_any_work(photos, tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["segment", *arguments, "--bundle", bundles(photos)[0], "-o", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_networks_of_other_classes_are_refused(photos, tmp_path, capsys):
    other = small_bundle("residual-add").save(tmp_path / "other")
    assert main(["segment", str(photos), "--bundle", bundles(photos)[0], str(other), "-o", str(tmp_path / "out")]) == 2
    assert "with the same classes" in capsys.readouterr().err


def test_processes_share_the_pictures_and_one_table_is_complete(photos, tmp_path):
    out = tmp_path / "out"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command = ["-m", "unet", "segment", str(photos), "--bundle", bundles(photos)[0], "-o", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "left out: broken.jpg" in done.stderr
    assert [line["picture"] for line in table(out)] == ["a.png", "b.png", "broken.jpg", "c.png"]
    assert len(times(out)) == 3


def test_quantize_writes_a_palette_png_of_k_colours(tmp_path, capsys):
    save_png(photo(40, 50), tmp_path / "photo.png")
    assert main(["quantize", str(tmp_path / "photo.png"), "-k", "5", "-o", str(tmp_path / "out.png")]) == 0
    assert len(np.unique(read_annotation(tmp_path / "out.png"))) == 5
    with pytest.raises(SystemExit):
        main(["quantize", str(tmp_path / "photo.png"), "-k", "1", "-o", str(tmp_path / "out.png")])
    assert "1 is not one of 2 to 256" in capsys.readouterr().err


def test_a_smallest_area_below_one_is_refused(photos, tmp_path, capsys):
    options = ["--objects", "street", "--min-area", "0", "-o", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main(["segment", str(photos), "--bundle", bundles(photos)[0], *options])
    assert "0 is no whole number of at least 1" in capsys.readouterr().err


def test_export_checks_the_file_it_wrote(photos, tmp_path, capsys):
    path = tmp_path / "new" / "model.onnx"
    pictures = [str(photos / "a.png"), str(photos / "b.png")]
    assert main(["export", bundles(photos)[0], "-o", str(path), "--check", *pictures]) == 0
    assert "% of the pixels the same class as Segmenter" in capsys.readouterr().out
    assert path.exists()
