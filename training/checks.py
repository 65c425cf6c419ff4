"""Compare bundles with the pictures of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from unet.bundle import AVERAGED, Bundle, BundleError, read_config

from .dataset import DataError, Dataset


def check_folders(folders: Iterable[Path], dataset: Dataset) -> None:
    """Raise DataError before overwriting a bundle of other pictures."""
    pictures, classes = dataset.record["name"], [*dataset.class_names]
    for folder in folders:
        with suppress(BundleError):  # nothing that could be lost
            config = read_config(folder)
            name, trained = config.get("data", {}).get("name"), config.get("class_names")
            if (name and name != pictures) or (trained and trained != classes):
                raise DataError(
                    f"{folder} holds a network trained on other pictures ({name}: {_listed(trained)}), and training on "
                    f"{pictures} ({_listed(classes)}) would overwrite it; give this task another name with --task "
                    "NAME, or another folder with --output, or delete that folder"
                )


def may_know_val(source: Bundle, dataset: Dataset) -> bool:
    """Whether a bundle has learnt from pictures that are held out."""
    return source.data.get("name") == dataset.record["name"] and _trained_on_others(source.training, dataset)


def check_evaluation(folders: Iterable[Path], dataset: Dataset) -> None:
    """Raise DataError where the pictures cannot score a bundle."""
    for folder in folders:
        config = read_config(folder)
        trained = config.get("class_names")
        if trained != [*dataset.class_names]:
            raise DataError(
                f"{folder} tells other classes apart ({_listed(trained)}) than the pictures have "
                f"({_listed(dataset.class_names)}); name them in classes.json as they were, or train again"
            )
        if _trained_on_others(config["training"], dataset):
            raise DataError(
                f"{folder} may have learnt from pictures that are held out now: it was trained on others than are left "
                "here. Put pictures that it has not seen into val/, or give --seed as then, or train again"
            )


def is_reported(folder: Path, *, folds: int | None, average: bool) -> bool:
    """Whether the bundle has every score that is asked for."""
    scores = read_config(folder)["scores"]
    wanted = ["val", *(["val" + AVERAGED] if average else [])]
    return all(name in scores for name in wanted) and folds in (None, scores.get("folds", {}).get("folds"))


def _trained_on_others(training: Mapping[str, Any], dataset: Dataset) -> bool:
    """Whether pictures drawn for val may have been trained on."""
    # Bundles of before do not say.
    return dataset.held_out and training.get("trained_on") not in (None, dataset.training_digest())


def _listed(names: Iterable[str] | None) -> str:
    return ", ".join(map(str, names or ()))
