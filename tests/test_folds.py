"""Folds hold every picture out once; their scores become a mean and an interval."""

import pytest
from folders import write_pairs

from training.dataset import load_dataset
from training.folds import fold, summarise


def test_every_picture_is_held_out_once(tmp_path):
    dataset = load_dataset(write_pairs(tmp_path / "discs", [(24, 28)] * 7))
    parts = [fold(dataset, number, 3, seed=0) for number in range(3)]
    held_out = [path.name for part in parts for path in part.val.images]
    assert sorted(held_out) == [f"{i:03}.png" for i in range(7)]
    for part in parts:
        assert not set(part.val.images) & set(part.train.images)
        assert len(part.val) + len(part.train) == 7
        assert (part.val.label_map(0) <= 1).all()


def test_the_interval_is_student_s():
    found = summarise([0.5, 0.6, 0.7], pictures=30)
    assert found["miou"] == 0.6
    assert found["interval"] == pytest.approx([0.6 - 4.3027 * 0.1 / 3**0.5, 0.6 + 4.3027 * 0.1 / 3**0.5], abs=1e-4)
    assert summarise([0.1, 0.9], pictures=30)["interval"] == [0.0, 1.0]
