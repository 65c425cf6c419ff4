"""The table of added against concatenated skips: worked numbers, and the whole way on a set of discs."""

import json
from pathlib import Path

import numpy as np
import pytest
import skips
from accelerate.state import AcceleratorState, PartialState
from folders import write_dataset

import train
from unet import UNetConfig

ROOT = Path(__file__).parents[1]


QUICK = ["--epochs", "1", "--batch-size", "4", "--crop", "24", "32", "--width", "0.0625"]


def test_paired_test_by_hand():
    """Differences 0.01, 0.03, 0.02: mean 0.02, deviation 0.01, so t = 2 sqrt(3) with 2 degrees of freedom.

    There F(t) = 1/2 + t / (2 sqrt(2 + t^2)): p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(12 / 14), and the interval's
    half is 4.3027 times 0.01 / sqrt(3).
    """
    found = skips.over_seeds([0.80, 0.81, 0.82], [0.81, 0.84, 0.84])
    assert found["difference"] == pytest.approx(0.02)
    assert found["p"] == pytest.approx(1 - np.sqrt(12 / 14), abs=1e-4)
    assert found["interval"] == pytest.approx(
        [0.02 - 4.3027 * 0.01 / np.sqrt(3), 0.02 + 4.3027 * 0.01 / np.sqrt(3)], abs=1e-4
    )


def test_multiply_adds_by_hand():
    """A 3x3 convolution from 3 to 4 channels on 256x256, and the head from 4 to 1."""
    one_level = UNetConfig(widths=(4,), convolutions=1, padded=True, skip="add", join="after_block")
    assert skips.multiply_adds(one_level) == 256 * 256 * (9 * 3 * 4 + 4)


def test_the_whole_way_and_again_without_training(tmp_path, capsys, monkeypatch):
    data = write_dataset(tmp_path / "discs", val=8, classes={"class_names": ["background", "nucleus"]})
    where = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "skips.json")]
    given = ["--tasks", "nuclei", "--bodies", "residual", "--seeds", "2", "--data", f"nuclei={data}", *where, *QUICK]
    trained = []
    one = train.main

    def counted(arguments):
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()
        trained.append(arguments)
        return one(arguments)

    monkeypatch.setattr(train, "main", counted)
    assert skips.main(given) == 0
    assert len(trained) == 4
    (row,) = json.loads((tmp_path / "skips.json").read_text())
    assert (row["task"], row["body"], row["metric"], row["seeds"]) == ("nuclei", "residual", "Dice", [0, 1])
    assert row["paired"]["difference"] == pytest.approx(
        np.mean(row["concat"]["scores"]) - np.mean(row["add"]["scores"]), abs=2e-4
    )
    for skip in ("add", "concat"):
        for seed in range(2):
            config = tmp_path / f"runs/seed{seed}/weights/nuclei/residual-{skip}/config.json"
            stored = json.loads(config.read_text())["scores"]["val"]["dice"]["nucleus"]
            assert row[skip]["scores"][seed] == pytest.approx(stored or 0, abs=1e-4)
    assert skips.skips([row]) in capsys.readouterr().out
    assert skips.main(given) == 0
    assert len(trained) == 4, "what is trained is not trained again"
    (again,) = json.loads((tmp_path / "skips.json").read_text())
    assert again["paired"] == row["paired"]

    # What another machine trained stays; networks of other epochs are another row.
    elsewhere = (
        row | {"seeds": [0, 1, 5]} | {skip: row[skip] | {"scores": [0.1, 0.2, 0.9]} for skip in ("add", "concat")}
    )
    for before, seeds in ((elsewhere, [0, 1, 5]), (elsewhere | {"epochs": 20}, [0, 1])):
        (tmp_path / "skips.json").write_text(json.dumps([before]))
        assert skips.main(given) == 0
        (again,) = json.loads((tmp_path / "skips.json").read_text())
        assert (again["seeds"], again["epochs"]) == (seeds, 1)
        assert again["add"]["scores"] == row["add"]["scores"] + [0.9] * (len(seeds) - 2)

    config = tmp_path / "runs/seed1/weights/nuclei/residual-add/config.json"
    record = json.loads(config.read_text())
    record["training"]["epochs"] = 3
    config.write_text(json.dumps(record))
    with pytest.raises(SystemExit, match=r"Only equals .*, 1 epochs; .*seed1.*, 3 epochs\. Delete"):
        skips.main(given)


def test_all_pairs_together_are_a_row_of_their_own():
    """Differences of 0.01, 0.03, 0.02 in one row and of 0.02 three times in the other: mean 0.02."""
    cell = {"parameters": 1, "multiply_adds": 1, "seconds": 1.0}
    rows = [
        {
            "task": task,
            "body": "crop",
            "widths": [8, 16],
            "epochs": 1,
            "metric": "mIoU",
            "hardware": "1 CPU thread",
            "add": cell | {"scores": [0.80, 0.81, 0.82]},
            "concat": cell | {"scores": concat},
            "paired": skips.over_seeds([0.80, 0.81, 0.82], concat),
        }
        for task, concat in (("streets", [0.81, 0.84, 0.84]), ("nuclei", [0.82, 0.83, 0.84001]))
    ]
    assert [line.split(" | ")[:3] for line in skips.skips(rows).splitlines()[-3:]] == [
        ["| streets", "crop", "+0.0200"],
        ["| nuclei", "crop", "+0.0200"],
        ["| all", "6 pairs", "+0.0200"],
    ]
    assert "| all |" not in skips.skips(rows[:1])
