"""The command line, from a folder of pictures to a bundle, as a person runs it."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from bundles import small_bundle
from folders import disc, write_dataset, write_pairs, write_side_by_side

import train
from training.dataset import load_dataset
from training.datasets import TASKS
from training.evaluate import evaluate, scores
from training.record import commit_of
from unet import Segmenter, TestTimeAugmentation

ROOT = Path(__file__).parents[1]
QUICK = ["--epochs", "2", "--batch-size", "4", "--crop", "24", "32", "--width", "0.0625", "--validate-every", "1"]


@pytest.fixture(autouse=True)
def fresh_process():
    """Accelerate keeps its state in the process; each run here stands for a new one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()


def run(tmp_path, *arguments):
    return train.main([*QUICK, "--output", str(tmp_path / "weights"), "--runs", str(tmp_path / "runs"), *arguments])


def test_a_folder_becomes_two_bundles_with_scores_and_cards(tmp_path, capsys):
    data = write_dataset(tmp_path / "discs", classes={"class_names": ["ground", "disc"]})
    assert run(tmp_path, "--data", str(data)) == 0
    printed = capsys.readouterr().out
    assert (
        "read as: pictures in images/ and masks in labels/ (classes.json); train 6, val 2, test 0; 2 classes" in printed
    )
    assert "disc" in printed
    for architecture, parameters in (("residual-add", "after_relu"), ("crop-concat", "none")):
        folder = tmp_path / "weights/discs" / architecture
        config = json.loads((folder / "config.json").read_text())
        assert config["config"]["batch_norm"] == parameters, "the paper's network has its BatchNorm folded away"
        assert config["training"]["seed"] == 0
        assert config["training"]["epochs"] == 2
        assert "--data <discs>" in config["training"]["command"]
        assert "--output" not in config["training"]["command"]
        assert str(tmp_path) not in json.dumps(config)
        val = config["scores"]["val"]
        assert set(val["iou"]) == {"ground", "disc"}
        assert val["pictures"] == 2
        assert "ground" in (folder / "README.md").read_text()
        assert f"mIoU {val['miou']:.4f}" in printed
        image, labels = disc(40, 48, 7)
        assert Segmenter.load(folder)(image).label_map.shape == labels.shape
        assert not (tmp_path / "runs/discs" / architecture / "checkpoint").exists()
        for name in ("curves.png", "confusion.png", "examples.png"):
            assert (folder / name).stat().st_size > 1000
            assert f"({name})" in (folder / "README.md").read_text()


def test_what_is_scored_is_what_was_saved(tmp_path):
    """Scoring the loaded bundle again gives the stored numbers."""
    data = write_dataset(tmp_path / "discs")
    assert run(tmp_path, "--data", str(data), "--architectures", "residual-add") == 0
    folder = tmp_path / "weights/discs/residual-add"
    stored = json.loads((folder / "config.json").read_text())["scores"]["val"]
    segmenter = Segmenter.load(folder)
    again = scores(evaluate(segmenter, load_dataset(data).val), segmenter.bundle.class_names, 2)
    assert again == stored
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "README.md").unlink()
    assert run(tmp_path, "--data", str(data), "--architectures", "residual-add", "--evaluate") == 0
    assert json.loads((folder / "config.json").read_text())["scores"]["val"] == stored
    assert (folder / "README.md").exists()
    assert (folder / "model.safetensors").read_bytes() == weights


def test_an_evaluation_reads_no_training_picture_and_tells_averaged_scores_apart(tmp_path, capsys):
    data = write_dataset(tmp_path / "discs", classes={"class_names": ["ground", "disc"]})
    given = ["--data", str(data), "--architectures", "residual-add"]
    assert run(tmp_path, *given) == 0
    folder = tmp_path / "weights/discs/residual-add"
    plain = json.loads((folder / "config.json").read_text())["scores"]
    assert set(plain) == {"val", "calibration"}
    assert "averaged" not in (folder / "README.md").read_text()
    for path in (data / "train/images").iterdir():
        path.write_bytes(b"no picture")
    capsys.readouterr()
    assert run(tmp_path, *given, "--evaluate", "--average") == 0
    stored = json.loads((folder / "config.json").read_text())["scores"]
    assert stored["val"] == plain["val"]
    averaged = stored["val_averaged"]
    assert averaged["averaging"] == {"flip": True, "scales": [0.75, 1.0, 1.25]}
    segmenter = Segmenter.load(folder, averaging=TestTimeAugmentation())
    again = scores(evaluate(segmenter, load_dataset(data).val), segmenter.bundle.class_names, 2)
    assert again.items() <= averaged.items()
    words = "averaged over flips and 3 scales (0.75, 1, 1.25)"
    printed, card = capsys.readouterr().out, (folder / "README.md").read_text()
    (line,) = (line for line in printed.splitlines() if line.endswith(words))
    assert line.startswith(f"  mIoU {averaged['miou']:.4f} ")
    assert f"| **mean** | **{stored['val']['miou']:.3f}** |" in card
    assert f"| mean, {words} | {averaged['miou']:.3f} | {averaged['mean_dice']:.3f} |" in card
    # Scored again without the flag they stay; on other pictures they would no longer belong.
    assert run(tmp_path, *given, "--evaluate") == 0
    assert json.loads((folder / "config.json").read_text())["scores"] == stored
    (data / "val/images/001.png").unlink()
    (data / "val/labels/001.png").unlink()
    assert run(tmp_path, *given, "--evaluate") == 0
    assert set(json.loads((folder / "config.json").read_text())["scores"]) == {"val", "calibration"}
    head = card.split("---")[1]
    assert "averaged" not in head
    assert head.count("mean_iou") == 2, "one in the list of metrics, one with the plain score"


def test_the_record_names_the_commit_of_the_code(tmp_path):
    """Weights that an earlier training left in the tree do not make the code another one."""

    def git(*command):
        identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
        done = subprocess.run(["git", *identity, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert commit_of(tmp_path) is None
    (tmp_path / "weights").mkdir()
    for name in ("train.py", "weights/config.json"):
        (tmp_path / name).write_text("1")
    git("init", "-q"), git("add", "-A"), git("commit", "-qm", "first")
    (tmp_path / "weights" / "config.json").write_text("2")
    (tmp_path / "untracked").touch()
    assert commit_of(tmp_path) == git("rev-parse", "--short=12", "HEAD")
    (tmp_path / "train.py").write_text("2")
    assert commit_of(tmp_path) == git("rev-parse", "--short=12", "HEAD") + "-dirty"


def test_large_pictures_are_looked_at_where_what_is_labelled_fits_in(tmp_path, capsys):
    data = write_dataset(tmp_path / "discs", size=(300, 400), train=4)
    given = ["--data", str(data), "--architectures", "residual-add"]

    def working_pixels():
        config = json.loads((tmp_path / "weights/discs/residual-add/config.json").read_text())
        return config["training"]["working_pixels"]

    assert run(tmp_path, *given) == 0
    side = (np.pi * 75**2 / (300 * 400) * working_pixels()) ** 0.5  # of the square of a disc's area
    assert side == pytest.approx(67, rel=0.02), "residual-add sees 33 pixels in every direction"
    assert f"of every picture {working_pixels():,} pixels or so are looked at" in capsys.readouterr().out
    assert run(tmp_path, *given, "--working-pixels", "5000") == 0
    assert working_pixels() == 5000
    assert run(tmp_path, *given, "--working-pixels", "0") == 0
    assert working_pixels() is None
    assert "of every picture all pixels are looked at" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the Hub client's own, about LFS
def test_push_publishes_what_was_trained_and_anyone_can_load_it(tmp_path, hub, capsys):
    data = write_dataset(tmp_path / "My discs")
    assert run(tmp_path, "--data", str(data), "--push", "--tag", "v1") == 0
    assert "unet-residual-add-my-discs" in capsys.readouterr().out
    image, _ = disc(40, 48, 7)
    for architecture in ("residual-add", "crop-concat"):
        local = Segmenter.load(tmp_path / "weights/My discs" / architecture)(image)
        loaded = Segmenter.load(f"ann/unet-{architecture}-my-discs", revision="v1")(image)
        assert (local.label_map == loaded.label_map).all()
        assert (local.confidence == loaded.confidence).all()
    # Publishing again without training changes nothing, and says so by not failing.
    assert run(tmp_path, "--task", "My discs", "--data", str(data), "--no-train", "--push", "ann") == 0


def test_wrong_data_stops_before_anything_is_written(tmp_path, capsys):
    data = write_dataset(tmp_path / "discs")
    (data / "train/labels/000.png").write_bytes(b"")
    (data / "val/images/001.png").write_bytes(b"junk")
    assert run(tmp_path, "--data", str(data)) == 2
    message = capsys.readouterr().err
    assert "2 problems" in message
    assert "000.png" in message
    assert "001.png" in message
    assert not (tmp_path / "weights").exists()
    assert not (tmp_path / "runs").exists()


def test_a_bundle_that_cannot_be_written_costs_no_training(tmp_path, capsys):
    data = write_dataset(tmp_path / "discs")
    given = ["--data", str(data), "--architectures", "residual-add"]
    (tmp_path / "weights").write_text("a file where a folder should be")
    assert run(tmp_path, *given) == 2
    (sentence,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("train.py:"))
    assert "weights" in sentence
    assert sentence.endswith("run the same command again, with --resume")
    (tmp_path / "weights").unlink()
    history = (tmp_path / "runs/discs/residual-add/history.jsonl").read_text()
    assert run(tmp_path, *given, "--resume") == 0
    assert (tmp_path / "runs/discs/residual-add/history.jsonl").read_text() == history, "no epoch was trained again"
    assert Segmenter.load(tmp_path / "weights/discs/residual-add")


def test_colour_pairs_are_scored_beside_the_earlier_result(tmp_path, capsys):
    write_side_by_side(tmp_path / "pairs")
    given = ["--task", "cityscapes", "--data", str(tmp_path / "pairs"), "--architectures", "residual-add"]
    assert run(tmp_path, *given) == 0
    printed = capsys.readouterr().out
    assert "the colours of Cityscapes pairs" in printed
    assert "vegetation" in printed
    folder = tmp_path / "weights/cityscapes/residual-add"
    prior = json.loads((folder / "config.json").read_text())["scores"]["prior_result"]
    assert prior["size"] == [96, 128]
    assert f"{prior['pixel_accuracy']:.1%}; an earlier result: 84.2 %" in printed
    assert Segmenter.load(folder).bundle.class_names == TASKS["cityscapes"].class_names
    assert "prior_result" not in (folder / "README.md").read_text(), "it is no split with scores of its own"


def test_an_unknown_task_needs_data(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "--task", "cats")
    assert stop.value.code == 2
    assert "say with --data where its pictures are" in capsys.readouterr().err


def test_pushing_without_bundles_says_so(tmp_path, capsys):
    assert run(tmp_path, "--task", "nuclei", "--no-train", "--push", "someone") == 2
    assert "config.json does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_printed_command_continues(tmp_path, stop):
    """Stopped by Ctrl-C, or as containers and clusters do, then resumed as advised: as if it had not been stopped."""
    data = write_pairs(tmp_path / "discs", [(40, 48)] * 8)
    arguments = [
        "--data", str(data), "--architectures", "residual-add", *QUICK, "--epochs", "24", "--save-every", "4",
        "--output", str(tmp_path / "weights"), "--runs", str(tmp_path / "runs"),
    ]  # fmt: skip

    process = subprocess.Popen(
        [sys.executable, "train.py", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    history = tmp_path / "runs/discs/residual-add/history.jsonl"
    while process.poll() is None and not (history.exists() and history.read_text().count("\n") >= 2):
        time.sleep(0.05)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "everything is saved" in errors
    assert shlex.split(errors.splitlines()[-1]) == ["python", "train.py", *arguments, "--resume"]
    assert not (tmp_path / "weights").exists()
    if stop == signal.SIGTERM:  # from here on it is the same
        return

    assert train.main(arguments) == 2, "an unfinished run is not begun anew by accident"
    assert train.main([*arguments, "--resume"]) == 0
    assert len(history.read_text().splitlines()) == 24
    weights = (tmp_path / "weights/discs/residual-add/model.safetensors").stat()
    assert train.main([*arguments, "--resume"]) == 0, "a finished network is not trained again"
    assert (tmp_path / "weights/discs/residual-add/model.safetensors").stat() == weights
    fresh = ["--output", str(tmp_path / "whole"), "--runs", str(tmp_path / "whole_runs")]
    assert train.main([*arguments, *fresh]) == 0
    interrupted = Segmenter.load(tmp_path / "weights/discs/residual-add", precision="float32")
    image, _ = disc(40, 48, 3)
    whole = Segmenter.load(tmp_path / "whole/discs/residual-add", precision="float32")
    assert (whole(image).label_map == interrupted(image).label_map).all()
    np.testing.assert_array_equal(whole(image).confidence, interrupted(image).confidence)


def test_a_run_cut_off_in_its_second_network_goes_on(tmp_path, monkeypatch):
    """What the checkpoint of the second holds must not depend on whether the first was trained in the same process."""
    data = write_dataset(tmp_path / "discs")
    arguments = ["--data", str(data), "--architectures", "residual-add", "residual-concat", "--epochs", "3"]
    validated = []
    evaluated = train.evaluate

    def killed_in_the_second(segmenter, *arguments, **options):
        validated.append(segmenter.bundle.architecture)
        if validated.count("residual-concat") == 2:
            raise KeyboardInterrupt
        return evaluated(segmenter, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(train, "evaluate", killed_in_the_second)
        assert run(tmp_path, *arguments) == 130
    checkpoint = tmp_path / "runs/discs/residual-concat/checkpoint"
    assert len(list(checkpoint.glob("*.safetensors"))) == 1, "the one that measures the pace is not kept"
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    first = (tmp_path / "weights/discs/residual-add/model.safetensors").stat()
    assert run(tmp_path, *arguments) == 2, "without --resume"
    assert (tmp_path / "weights/discs/residual-add/model.safetensors").stat() == first, "it was not trained again"
    assert run(tmp_path, *arguments, "--resume") == 0
    whole = tmp_path / "whole"
    assert run(whole, *arguments) == 0
    for architecture in ("residual-add", "residual-concat"):
        weights = (tmp_path / "weights/discs" / architecture / "model.safetensors").read_bytes()
        assert weights == (whole / "weights/discs" / architecture / "model.safetensors").read_bytes()


def test_a_run_cut_off_in_its_report_makes_it_when_resumed(tmp_path, monkeypatch):
    data = write_dataset(tmp_path / "discs")
    arguments = ["--data", str(data), "--architectures", "residual-add", "--epochs", "1"]

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("training.evaluate.draw_examples", killed)
        assert run(tmp_path, *arguments) == 130
    folder = tmp_path / "weights/discs/residual-add"
    weights = (folder / "model.safetensors").read_bytes()
    assert not (folder / "README.md").exists()
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    assert run(tmp_path, *arguments, "--resume") == 0
    assert (folder / "README.md").exists()
    assert json.loads((folder / "config.json").read_text())["scores"]["val"]["pictures"]
    assert (folder / "model.safetensors").read_bytes() == weights, "it was not trained again"


def test_a_finished_run_of_other_settings_is_not_said_to_be_this_one(tmp_path, capsys):
    data = write_pairs(tmp_path / "discs", [(40, 48)] * 5)
    given = ["--data", str(data), "--architectures", "residual-add", "--folds", "2", "--resume"]
    assert run(tmp_path, *given) == 0
    folder = tmp_path / "weights/discs/residual-add"
    capsys.readouterr()
    assert run(tmp_path, *given) == 0
    assert f"{folder} is finished already" in capsys.readouterr().out
    assert run(tmp_path, *given, "--epochs", "3") == 2
    assert "was begun with other settings (epochs: 2 then, 3 now)" in capsys.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    del config["scores"]["val"]
    (folder / "config.json").write_text(json.dumps(config))
    weights = (tmp_path / "runs/discs/residual-add/fold-1/bundle/model.safetensors").stat()
    assert run(tmp_path, *given) == 0, "the report is made again, of folds that are finished"
    assert (tmp_path / "runs/discs/residual-add/fold-1/bundle/model.safetensors").stat() == weights
    assert run(tmp_path, *given, "--evaluate") == 0
    assert "folds" in json.loads((folder / "config.json").read_text())["scores"], "they belong to the training"


def test_too_little_memory_on_the_gpu_says_what_to_do(tmp_path, capsys, monkeypatch):
    def fill_the_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nMore words")

    monkeypatch.setattr(train, "measure_pace", fill_the_memory)
    assert run(tmp_path, "--data", str(write_dataset(tmp_path / "discs"))) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    for words in ("CUDA out of memory.", "--resume", "--batch-size", "--crop", "--width"):
        assert words in sentence


def test_help_names_every_task_and_architecture(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = capsys.readouterr().out
    for word in ("streets", "nuclei", "hands", "--resume", "--push"):
        assert word in text


def test_a_training_starts_from_a_bundle_of_other_classes_and_says_so(tmp_path, capsys):
    data = write_dataset(tmp_path / "discs", classes={"class_names": ["ground", "disc"]})
    assert run(tmp_path, "--data", str(data), "--architectures", "residual-add") == 0
    other = write_dataset(tmp_path / "others", classes={"class_names": ["ground", "disc", "ring"]})
    first = tmp_path / "weights/discs/residual-add"
    given = ["--data", str(other), "--start-from", str(first), "--width", "0.1"]
    assert run(tmp_path, *given) == 0
    folder = tmp_path / "weights/others/residual-add"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["residual-add"], "its architecture, no other"
    config = json.loads((folder / "config.json").read_text())
    before = json.loads((first / "config.json").read_text())["training"]
    assert config["training"]["started_from"] == {
        "task": "discs", "architecture": "residual-add", "widths": [2, 4, 8], "new_head": True, "pictures_seen": 16,
        "seconds": before["seconds"], "hardware": before["hardware"], "processes": 1,
    }  # fmt: skip
    assert config["config"]["widths"] == [3, 6, 13]
    assert (
        "- Started from: the weights of residual-add for discs (2, 4 and 8 channels)"
        in (folder / "README.md").read_text()
    )
    assert "<residual-add>" in config["training"]["command"]
    capsys.readouterr()
    assert run(tmp_path, *given[:-2], "--width", "0.05") == 2
    assert "a network may only grow" in capsys.readouterr().err
    assert run(tmp_path, "--data", str(other), "--start-from", "no/such folder") == 2


def test_check_says_how_a_folder_is_read_and_trains_nothing(tmp_path, capsys):
    data = write_dataset(tmp_path / "discs", classes={"class_names": ["ground", "disc"]})
    assert run(tmp_path, "--data", str(data), "--check") == 0
    first, *table = capsys.readouterr().out.splitlines()
    layout = "pictures in images/ and masks in labels/ (classes.json)"
    assert first == f"read as: {layout}; train 6, val 2, test 0; 2 classes: ground, disc"
    assert [row.split()[2] for row in table] == ["name", "ground", "disc"]
    (data / "val/labels/000.png").write_bytes(b"")
    assert run(tmp_path, "--data", str(data), "--check") == 2
    assert "000.png" in capsys.readouterr().err
    assert not (tmp_path / "weights").exists()
    assert not (tmp_path / "runs").exists()


def test_own_folder_named_like_a_known_set_is_not_that_set(tmp_path):
    data = write_dataset(tmp_path / "nuclei")
    assert run(tmp_path, "--data", str(data), "--architectures", "residual-add") == 0
    config = json.loads((tmp_path / "weights/nuclei/residual-add/config.json").read_text())
    assert config["data"] == {"name": "nuclei", "source": "the folder nuclei"}
    assert config["class_names"] == ["background", "object"]


def test_a_bundle_of_other_pictures_is_not_overwritten(tmp_path, capsys):
    bundle = small_bundle("residual-add", classes=2, task="nuclei")
    bundle.class_names, bundle.data = TASKS["nuclei"].class_names, TASKS["nuclei"].record()
    folder = bundle.save(tmp_path / "weights/nuclei/residual-add")
    weights = (folder / "model.safetensors").read_bytes()
    given = ["--data", str(write_dataset(tmp_path / "nuclei")), "--architectures", "residual-add"]
    assert run(tmp_path, *given) == 2
    message = capsys.readouterr().err
    for word in (str(folder), "Data Science Bowl 2018", "--task NAME", "--output"):
        assert word in message
    assert (folder / "model.safetensors").read_bytes() == weights
    assert not (tmp_path / "runs").exists()
    assert run(tmp_path, *given, "--check") == 0
    assert run(tmp_path, *given, "--task", "nuclei") == 0, "so they are pictures of the known set"
    assert run(tmp_path, *given, "--task", "mine") == run(tmp_path, *given, "--task", "mine") == 0


def test_a_folder_of_the_same_name_with_other_classes_overwrites_nothing(tmp_path, capsys, monkeypatch):
    first = write_dataset(tmp_path / "a/data", classes={"class_names": ["ground", "disc"]})
    second = write_dataset(tmp_path / "b/data", classes={"class_names": ["plants", "soil"]})
    monkeypatch.chdir(first)
    assert run(tmp_path, "--data", ".", "--architectures", "residual-add") == 0
    config = tmp_path / "weights/data/residual-add/config.json"
    kept = config.read_bytes()
    assert json.loads(kept)["data"] == {"name": "data", "source": "the folder data"}
    assert run(tmp_path, "--data", str(second), "--architectures", "residual-add") == 2
    assert "other pictures (data: ground, disc), and training on data (plants, soil)" in capsys.readouterr().err
    assert config.read_bytes() == kept


@pytest.mark.parametrize("names", [["plants", "soil"], ["ground", "disc", "ring"]])
def test_pictures_of_other_classes_are_not_evaluated(tmp_path, capsys, names):
    bundle = small_bundle("residual-add", classes=2)
    bundle.class_names = ("ground", "disc")
    folder = bundle.save(tmp_path / "weights/mine/residual-add")
    kept = (folder / "config.json").read_bytes()
    data = write_dataset(tmp_path / "discs", classes={"class_names": names})
    given = ["--data", str(data), "--task", "mine", "--architectures", "residual-add", "--evaluate"]
    assert run(tmp_path, *given) == 2
    message = capsys.readouterr().err
    for words in ("(ground, disc)", f"({', '.join(names)})", "classes.json", str(folder)):
        assert words in message
    assert [path.name for path in folder.iterdir() if path.name not in ("config.json", "model.safetensors")] == []
    assert (folder / "config.json").read_bytes() == kept


def test_pictures_that_were_learnt_from_are_not_held_out_later(tmp_path, capsys):
    data = write_pairs(tmp_path / "discs", [(40, 48)] * 9)
    given = ["--data", str(data), "--architectures", "residual-add"]
    assert run(tmp_path, *given) == 0
    assert run(tmp_path, *given, "--evaluate") == 0
    kept = (tmp_path / "weights/discs/residual-add/config.json").read_bytes()
    write_pairs(tmp_path / "more", [(40, 48)], first_seed=99)
    for kind in ("images", "labels"):
        (new,) = (tmp_path / "more" / kind).iterdir()
        shutil.copy(new, data / kind / f"new{new.suffix}")
    assert run(tmp_path, *given, "--evaluate") == 2
    assert "may have learnt from pictures that are held out now" in capsys.readouterr().err
    assert (tmp_path / "weights/discs/residual-add/config.json").read_bytes() == kept
    (data / "train").mkdir()
    for kind in ("images", "labels"):
        (new,) = (data / kind).glob("new.*")
        (data / "val" / kind).mkdir(parents=True)
        new.rename(data / "val" / kind / new.name)
        (data / kind).rename(data / "train" / kind)
    assert run(tmp_path, *given, "--evaluate") == 0, "of a picture that it has not seen"


def test_test_split_is_scored_on_its_own(tmp_path, capsys):
    data = write_dataset(tmp_path / "discs")
    write_pairs(data / "test", [(40, 48)] * 3, first_seed=300)
    assert run(tmp_path, "--data", str(data), "--architectures", "residual-add") == 0
    scores = json.loads((tmp_path / "weights/discs/residual-add/config.json").read_text())["scores"]
    assert (scores["val"]["pictures"], scores["test"]["pictures"]) == (2, 3)
    assert "test, 3 pictures" in capsys.readouterr().out
    shutil.rmtree(data / "test")
    assert run(tmp_path, "--data", str(data), "--architectures", "residual-add", "--evaluate") == 0
    scores = json.loads((tmp_path / "weights/discs/residual-add/config.json").read_text())["scores"]
    assert "test" not in scores, "nothing that these pictures do not measure is kept"


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [
        (["--seed", "-1"], "--seed: it must be a whole number from 0 to"),
        (["--working-pixels", "-5"], "--working-pixels: it must be a whole number from 0 to"),
        (["--epochs", "2.5"], "--epochs: it must be a whole number from 1 to"),
        (["--learning-rate", "nan"], "--learning-rate: it must be a number above 0"),
        (["--width", "nan"], "--width: it must be a number above 0, 8 at most, not 'nan'"),
        (["--minutes", "0"], "--minutes: it must be a number above 0"),
        (["--minutes", "5"], "--epochs and --minutes both say how long"),
        (["--tag", "v1"], "--tag names what --push publishes"),
        (["--task", "a/b"], "--task 'a/b' names a folder and cannot hold / or"),
        (["--task", ".."], "--task '..' names a folder"),
    ],
)
def test_a_wrong_flag_says_what_is_allowed(tmp_path, capsys, flags, allowed):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "--data", str(tmp_path), *flags)
    assert stop.value.code == 2
    assert allowed in capsys.readouterr().err


def test_one_pixel_at_the_deepest_level_is_refused(tmp_path, capsys):
    data = write_dataset(tmp_path / "discs")
    given = ["--data", str(data), "--architectures", "residual-add", "--batch-size", "1", "--crop", "4", "4"]
    assert run(tmp_path, *given) == 2
    assert "one pixel at the deepest level" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("猫", ["--push"], "makes no name of a repository"),
        ("cats", ["--push", "--tag", "my tag"], "cannot name a version"),
        ("cats", ["--push", "no one"], "cannot be a user"),
        ("cats", ["--push", "stranger"], "cannot push to 'stranger'"),
        ("cats", ["--push-space", "a b"], "no name for a Space"),
        ("cats", ["--push", "--push-space", "stranger/page"], "cannot push to 'stranger'"),
        (
            "cats",
            ["--push", "--push-space", "page", "--static", "--architectures", "residual-add"],
            "shows two networks",
        ),
    ],
)
def test_a_push_that_cannot_work_is_refused_before_the_training(tmp_path, hub, capsys, task, flags, message):
    data = write_dataset(tmp_path / task)
    assert run(tmp_path, "--data", str(data), *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_too_few_minutes_are_refused_with_how_many_it_takes(tmp_path, capsys):
    data = write_dataset(tmp_path / "discs")
    given = [a for a in QUICK if a not in ("--epochs", "2")] + ["--data", str(data), "--minutes", "0.01"]
    folders = ["--output", str(tmp_path / "weights"), "--runs", str(tmp_path / "runs")]
    assert train.main([*given, *folders]) == 2
    assert "more for each network" in capsys.readouterr().err
    assert not (tmp_path / "weights").exists()


def test_few_pictures_get_more_epochs_and_the_time_is_said_beforehand(tmp_path, capsys, monkeypatch):
    data = write_dataset(tmp_path / "discs")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fit", stop)
    folders = ["--output", str(tmp_path / "weights"), "--runs", str(tmp_path / "runs")]
    given = ["--data", str(data), "--architectures", "residual-add", "--width", "0.1", "--crop", "24", "32"]
    assert train.main([*given, *folders]) == 130
    printed = capsys.readouterr().out
    assert "residual-add: 1500 epochs, because 6 pictures make 1 steps an epoch and 1,500 are needed: about " in printed
    assert "(1,500 steps of " in printed


def test_folds_give_a_mean_and_an_interval(tmp_path, capsys):
    data = write_pairs(tmp_path / "discs", [(40, 48)] * 5)
    given = ["--data", str(data), "--architectures", "residual-add"]
    assert run(tmp_path, *given, "--folds", "6") == 2
    assert "5 pictures cannot be split into 6 folds" in capsys.readouterr().err
    assert run(tmp_path, *given, "--folds", "2") == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "weights/discs/residual-add"
    found = json.loads((folder / "config.json").read_text())["scores"]["folds"]
    assert (found["folds"], found["pictures"], len(found["each"])) == (2, 5, 2)
    assert found["miou"] == pytest.approx(sum(found["each"]) / 2, abs=1e-4)
    low, high = found["interval"]
    assert 0 <= low <= found["miou"] <= high <= 1
    assert f"95 % interval {low:.4f} to {high:.4f}" in printed
    assert f"(95 % interval {low:.3f} to {high:.3f})" in (folder / "README.md").read_text()


def test_folds_may_be_asked_for_later(tmp_path):
    given = ["--data", str(write_pairs(tmp_path / "discs", [(40, 48)] * 5)), "--architectures", "residual-add"]
    assert run(tmp_path, *given) == 0
    weights = (tmp_path / "weights/discs/residual-add/model.safetensors").stat()
    assert run(tmp_path, *given, "--folds", "2", "--resume") == 0
    assert (tmp_path / "weights/discs/residual-add/model.safetensors").stat() == weights, "it was not trained again"
    config = json.loads((tmp_path / "weights/discs/residual-add/config.json").read_text())
    assert config["scores"]["folds"]["folds"] == 2


def test_a_start_that_may_have_learnt_from_val_is_said(tmp_path, capsys):
    data = write_pairs(tmp_path / "discs", [(40, 48)] * 9)
    given = ["--data", str(data), "--architectures", "residual-add"]
    assert run(tmp_path, *given) == 0
    start = ["--start-from", str(tmp_path / "weights/discs/residual-add")]
    assert run(tmp_path / "again", *given, *start) == 0
    assert "may have learnt" not in capsys.readouterr().out
    assert run(tmp_path / "other", *given, *start, "--seed", "1") == 0
    assert "may have learnt from pictures that are held out now" in capsys.readouterr().out


def test_a_terminal_without_the_letters_of_a_class_gets_them_escaped(tmp_path):
    data = write_dataset(tmp_path / "cells", classes={"class_names": ["背景", "細胞"]})
    done = subprocess.run(
        [sys.executable, "train.py", "--data", str(data), "--check"],
        cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"\\u7d30\\u80de" in done.stdout
