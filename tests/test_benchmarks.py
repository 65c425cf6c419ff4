"""Every benchmark runs on tiny networks and prints its tables."""

import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import batch
import camera
import few_hours
import growth
import inference
import load
import masks
import measuring
import numpy as np
import objects
import palette
import pytest
import recipe
import start
import start_from
import training_speed
import users
from bundles import photo, small_bundle
from folders import write_dataset, write_pairs
from PIL import Image

from training.dataset import load_dataset
from training.datasets import TASKS
from unet import Segmenter
from unet.predict import TestTimeAugmentation

ROOT = Path(__file__).parent.parent
SIDES = ("residual-add", "crop-concat")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for architecture in SIDES:
        small_bundle(architecture, classes=2, task="nuclei", working_pixels=60 * 60).save(
            folder / "nuclei" / architecture
        )
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "nuclei", train=4, val=2, size=(60, 72))


@pytest.fixture(scope="module")
def page(weights):
    with measuring.serve(weights) as page:
        yield page


@pytest.fixture
def served(page, monkeypatch):
    """One page for the benchmarks that start one, which takes seconds."""

    @contextmanager
    def serve(*_):
        yield page

    for script in (camera, start, users, load):
        monkeypatch.setattr(script, "serve", serve)


def rows(text):
    """{first cell: other cells} of every Markdown table."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_repeats_are_interleaved():
    turns = []
    seconds = measuring.interleaved({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 2)
    assert turns == ["a", "b"] * 3  # the first round does not count
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_a_table_is_put_between_its_markers_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "ROOT", tmp_path)
    begin, end = "<!-- growth: python benchmarks/growth.py --write -->", "<!-- end of growth -->"
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("nothing of it\n", encoding="utf-8")
    document = tmp_path / "docs" / "benchmarks.md"
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n", encoding="utf-8")
    measuring.publish("growth", "| new |", write=False)
    assert measuring.place("growth")[2] == "old"
    measuring.publish("growth", "| new |", write=True)
    assert document.read_text(encoding="utf-8") == f"before\n{begin}\n| new |\n{end}\nafter\n"
    document.write_text(f"{begin}\n{end}\nafter\n", encoding="utf-8")  # no line between them
    with pytest.raises(SystemExit, match="no document has"):
        measuring.publish("growth", "| new |", write=True)
    assert "after" in document.read_text(encoding="utf-8")


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_every_benchmark_has_its_place_in_the_documentation(script):
    if script != "measuring":
        assert "| " in measuring.place(script)[2]


def test_words_are_aligned_left_and_numbers_right():
    assert measuring.table(("a", "b", "c"), [("x", "y", 1)], text=2) == "| a | b | c |\n|---|---|--:|\n| x | y | 1 |"


@pytest.mark.parametrize("working_pixels", [None, 50 * 50])
@pytest.mark.parametrize("architecture", SIDES)
def test_the_usual_way_gives_the_same_answer(architecture, working_pixels):
    bundle = small_bundle(architecture, working_pixels=working_pixels)
    image = photo(75, 93)
    labels, confidence = inference.whole_picture(bundle)(image)
    ours = Segmenter(bundle, precision="float32")(image)
    assert (labels == ours.label_map).mean() > 0.999
    np.testing.assert_allclose(confidence, ours.confidence, atol=1e-3)


def tables(text):
    """Every Markdown table, as lists of cells."""
    blocks = [[line for line in block.splitlines() if line.startswith("|")] for block in text.split("\n\n")]
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in block] for block in blocks if block]


def test_inference(weights, pictures, capsys, bfloat16):
    inference.main(["--quick", "--weights", str(weights), "--data", f"nuclei={pictures}", "--width", "0.0625"])
    text = capsys.readouterr().out
    speeds, *_, limits = tables(text)
    assert ("Segmenter, bfloat16" in speeds[0]) == ("TFLOP/s in bfloat16" in text) == bfloat16
    assert {len(cells) for cells in speeds} == {len(speeds[0])}
    found = rows(text)
    for side in SIDES:
        assert "×" in found[f"{side}, nuclei"][speeds[0].index("Segmenter, float32") - 1]
        assert "%" in found[side][-1]
        assert len(found[side]) == len(limits[0]) - 1
    assert found["both networks"][0].endswith("%")
    assert [cell.split(", ")[-1] for cell in found["**all**"]] == ["100%"] * len(found["**all**"])


def test_inference_without_the_other_library_leaves_its_column_out(monkeypatch):
    monkeypatch.setattr(inference, "segmentation_models_pytorch", None)
    options = inference.parse_arguments(["--quick", "--width", "0.0625"])
    found = rows(inference.speed([], options)[1])
    assert found["network"][-1] == "float32, NCHW, whole picture"
    assert {len(cells) for cells in found.values()} == {len(found["network"])}


def test_no_second_is_counted_twice(weights):
    """The networks run inside the segmenters, whose own seconds are the rest."""
    file = (ROOT / "weights/nuclei/examples/fluorescence.jpg").read_bytes()
    segmenters = [Segmenter.load(weights / "nuclei" / side) for side in SIDES]
    begun = time.perf_counter()
    seconds = inference.one_picture(file, segmenters)
    assert sum(seconds.values()) <= time.perf_counter() - begun
    assert min(seconds.values()) > 0
    assert [*seconds][2:4] == ["resizing, tiles, labels, confidences", "both networks"]


def test_growth(weights, tmp_path, capsys):
    bundle = str(weights / "nuclei" / "residual-add")
    growth.main(["--networks", bundle, "--megapixels", "0.01", "--plot", str(tmp_path / "growth.png")])
    found = rows(capsys.readouterr().out)
    times = next(cells for name, cells in found.items() if name.endswith("nuclei/residual-add"))
    assert times[0] == "time"
    assert times[-2].endswith("s a Mpx")
    assert found["network"][1] == "0.01 Mpx"
    assert found[""][1].endswith(" MB")
    assert (tmp_path / "growth.png").stat().st_size > 1000


def test_the_line_through_exact_times_is_exact():
    found = [{"pixels": n, "seconds": 0.5 + 2e-6 * n} for n in (1e5, 1e6, 1e8)]
    fixed, rate, residual = growth.line_through(found)
    assert fixed == pytest.approx(0.5)
    assert rate == pytest.approx(2e-6)
    assert residual == pytest.approx(0, abs=1e-9)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # DataLoader's workers, from Python 3.12 on
def test_training(pictures, capsys, bfloat16):
    training_speed.main(
        ["--quick", "--task", "nuclei", "--data", f"nuclei={pictures}", "--width", "0.0625", "--crop", "32", "32"]
    )
    text = capsys.readouterr().out
    assert f"fit in {'bfloat16' if bfloat16 else 'float32'};" in text
    assert (" bfloat16 matrix product |" in text) == ("TFLOP/s in bfloat16" in text) == bfloat16
    for side in SIDES:
        lines = [line for line in text.splitlines() if line.startswith(f"| {side} |")]
        assert len(lines) == 2
        assert "×" in lines[0]
        assert lines[1].endswith("% |")


def test_masks(tmp_path, capsys):
    data = write_dataset(tmp_path / "streets", val=5)
    Image.new("RGB", (8, 8)).save(tmp_path / "like.jpg", quality=75)
    masks.main(["--data", f"streets={data}", "--like", str(tmp_path / "like.jpg")])
    found = rows(capsys.readouterr().out)
    assert found["exact"][:2] == ["0.00%", "100.00%"]
    assert float(found["encode_mask"][1].rstrip("%")) > 98


def test_start_from(pictures, weights, capsys):
    command = ["--data", f"nuclei={pictures}", "--start", str(weights / "nuclei" / "residual-add")]
    start_from.main([*command, "--pictures", "3", "--minutes", "0.01", "--seeds", "1", "--crop", "24", "24"])
    found = rows(capsys.readouterr().out)
    assert [0 < float(found[name][0]) <= 1 for name in ("nothing", "nuclei, residual-add")] == [True, True]


def test_recipe(pictures, capsys, tmp_path, monkeypatch):
    variants = {"recipe": {}, "no Dice": {"dice": 0.0}, "no zoom": {"scale": (1.0, 1.0)}}
    monkeypatch.setattr(recipe, "VARIANTS", variants)
    command = ["--task", "nuclei", "--data", f"nuclei={pictures}", "--epochs", "1", "--crop", "24", "24"]
    command += ["--runs", str(tmp_path)]
    recipe.main(command)
    found = rows(capsys.readouterr().out)
    assert [*found][-3:] == [*variants]
    miou, points, _ = found["no Dice"]
    assert float(points) == pytest.approx(100 * (float(miou) - float(found["recipe"][0])), abs=0.11)
    assert [found["recipe"][1], float(found["no zoom"][0]) > 0] == ["", True]

    monkeypatch.setattr(recipe, "fit", None)  # nothing is trained again
    recipe.main(command)
    assert rows(capsys.readouterr().out) == found


def test_few_hours(pictures, weights, capsys, tmp_path, monkeypatch):
    command = ["--task", "nuclei", "--data", f"nuclei={pictures}", "--weights", str(weights), "--epochs", "2"]
    command += ["--crop", "24", "24", "--seeds", "2", "--runs", str(tmp_path)]
    few_hours.main(command)
    text = capsys.readouterr().out
    found = rows(text)
    assert [*found][1:] == [*few_hours.WAYS]
    assert len(list((tmp_path / "nuclei" / "answers").iterdir())) == 4
    miou, points, interval = found["distilled"]
    difference = 100 * (float(miou.split()[0]) - float(found["recipe"][0].split()[0]))
    assert float(points) == pytest.approx(difference, abs=0.07)
    low, high = map(float, interval.split(" to "))
    assert low <= float(points) <= high

    monkeypatch.setattr(few_hours, "train_bundle", None)  # nothing is trained again
    few_hours.main(command)
    assert capsys.readouterr().out == text


def test_two_classes_are_answered_as_one_network_answers_them(pictures, weights, tmp_path):
    """The teacher's sum over networks gives one network's own labels where there is but one."""
    shutil.copytree(weights / "nuclei" / "residual-add", tmp_path / "weights" / "nuclei" / "residual-add")
    args = SimpleNamespace(task="nuclei", weights=tmp_path / "weights", runs=tmp_path)
    dataset = load_dataset(pictures, task=TASKS["nuclei"])
    segmenter = Segmenter.load(weights / "nuclei" / "residual-add", averaging=TestTimeAugmentation())
    found = list(few_hours.answers(dataset, args))
    assert len(found) == len(dataset.train)
    for image, answer in found:
        assert np.array_equal(answer, segmenter(image).label_map)


@pytest.mark.usefixtures("served")
def test_start(weights, capsys):
    start.main(["--quick", "--weights", str(weights)])
    text = capsys.readouterr().out
    assert "torch" in text.splitlines()[0]
    found = rows(text)
    assert found["memory at rest"][0].endswith(" MB")
    assert found["the page answers"][0].endswith(" s")


@pytest.mark.usefixtures("served")
def test_users(weights, capsys):
    users.main(["--quick", "--weights", str(weights)])
    found = rows(capsys.readouterr().out)
    assert found["answered"] == ["4 of 4"]
    assert float(found["k colours meanwhile"][0].split()[0]) > 0


@pytest.mark.usefixtures("served")
def test_camera(weights, capsys):
    camera.main(["--quick", "--weights", str(weights), "--task", "nuclei"])
    found = rows(capsys.readouterr().out)
    assert len(found) == 4 + 1
    for rate, lag in found.values():
        assert rate == "answers a second" or float(rate.split()[0]) > 0
        assert lag == "lag" or float(lag.split()[0]) > 0


@pytest.mark.usefixtures("served")
def test_load(weights, capsys, monkeypatch):
    monkeypatch.setattr(load, "REST", 0.0)
    monkeypatch.setattr(load, "GROWTH", 9.0)  # so short a load says nothing of memory
    assert load.main(["--clients", "7", "--seconds", "1", "--weights", str(weights)]) == 0
    found = rows(capsys.readouterr().out)
    for kind in load.KINDS:
        answered, _, errors, wait = found[kind]
        assert int(answered) > 0
        assert errors == "0"
        assert wait.endswith(" s")
    assert found["memory at rest, before and after"][0].count(" MB") == 2


@pytest.mark.usefixtures("served")
def test_a_wrong_answer_while_the_page_warms_up_counts(weights, capsys, monkeypatch):
    answers = iter([1, 0])

    def ask(_):
        load.check("ask", next(answers), 0)

    monkeypatch.setattr(load, "REST", 0.0)
    monkeypatch.setattr(load, "KINDS", {"ask": ask})
    assert load.main(["--clients", "1", "--seconds", "0", "--weights", str(weights)]) == 1
    assert "1 × ask: 100.0% away" in capsys.readouterr().err


def test_palette(capsys, monkeypatch):
    monkeypatch.setattr(palette, "KS", (2, 8))
    monkeypatch.setattr(palette, "pictures", lambda quick: {"photo": photo(30, 40)})
    palette.main(["--quick"])
    found = rows(capsys.readouterr().out)
    assert found["PaletteLadder, k = 1 to 64, 0.12 megapixels"][0].endswith(" s")
    assert float(found["photo"][0]) == pytest.approx(1, abs=0.1)
    assert len(found["photo"]) == 1 + len(palette.OTHERS)


def test_batch(weights, capsys):
    batch.main(["--quick", "--pictures", "3", "--weights", str(weights)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| nuclei, ")]
    assert len(lines) == 2 * len(SIDES)
    assert all(line.endswith(" % |") for line in lines)


def test_objects(weights, tmp_path, capsys):
    """One disc a picture: true masks count without an error."""
    write_pairs(tmp_path, [(60, 72)] * 2)
    (tmp_path / "counts.json").write_text('{"000": 1, "001": 1}')
    objects.main([str(tmp_path), "--weights", str(weights)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| true masks |")]
    assert len(lines) == 2
    assert all(line.endswith("| +0.0 % | 0.0 % | 0.0 % |") for line in lines)
