"""Segment many pictures into a table and files.

A picture that cannot be read becomes a row that says why; the others are not affected. Names may come from strangers:
in the archive they are plain, unique file names.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image

from . import images
from .archive import Archive, ZipArchive, network_folders, picture_files
from .compare import Scores, compare, score
from .ground_truth import read_truth
from .images import MAX_PIXELS, ImageError, Source, save_png
from .objects import Counted, Object, coco_annotation, count_objects, find_objects, geojson, labelme, measurements
from .overlay import overlay, unpainted_classes
from .predict import Segmentation
from .tables import Row, write_tables

#: The networks' answers to one picture, uint8 (H, W, 3).
Ask = Callable[[np.ndarray], Sequence[Segmentation]]
Item = TypeVar("Item")
Result = TypeVar("Result")


def segment_many(
    pictures: Iterable[tuple[str, Source]], ask: Ask, networks: Sequence[str], target: BinaryIO, **options: Any
) -> Iterator[Row]:
    """Segment pictures, (name, source), into a ZIP, row by row.

    networks: names for folders and columns. options: as for `Work`.

    The archive holds, for each network, labels/ (palette PNG of class numbers), masks/ (RGB PNG) and overlays/ (JPEG);
    scores.csv and classes.json. It is complete when the iterator is exhausted, or closed early.
    """
    pictures, rows = list(pictures), []
    files = picture_files(name for name, _ in pictures)
    with ZipArchive(target, "w") as archive:
        work = Work(ask, network_folders(networks), archive, **options)
        try:
            for row in work.rows((*picture, file) for picture, file in zip(pictures, files, strict=True)):
                rows.append(row)
                yield row
        finally:
            write_tables(archive, rows, networks, work.classes)


@dataclass
class Work:
    """How pictures become rows and files.

    truths: ground truths by the name of their picture, see `match_truths`. objects: options of `find_objects`, or None
    where no objects are written. max_pixels: larger pictures become rows with a note. reader: has `read_image` and
    `read_annotation`. ahead: pictures that are read and written beside the networks. classes: (names, palette) of the
    networks, once a picture was segmented.
    """

    ask: Ask
    networks: Sequence[str]
    archive: Archive
    truths: Mapping[str, Source] = field(default_factory=dict)
    objects: Mapping[str, Any] | None = None
    max_pixels: int | None = MAX_PIXELS
    reader: Any = images
    ahead: int = 0
    classes: tuple[tuple[str, ...], np.ndarray] | None = None

    def rows(self, pictures: Iterable[tuple[str, Source, str]]) -> Iterator[Row]:
        """Segment pictures, (name, source, file name), in order."""
        return _map_ahead(self._finish, self._answered(pictures), self.ahead)

    def _answered(self, pictures: Iterable[tuple[str, Source, str]]) -> Iterator[tuple[Any, ...]]:
        for picture, image, notes in _map_ahead(self._read, pictures, self.ahead):
            answers = self.ask(image) if image is not None else ()
            if answers:
                self.classes = answers[0].class_names, answers[0].palette
            yield picture, image, notes, answers

    def _read(self, picture: tuple[str, Source, str]) -> tuple[Any, np.ndarray | None, list[str]]:
        notes: list[str] = []
        try:
            image = self.reader.read_image(picture[1], max_pixels=self.max_pixels, notify=notes.append)
        except ImageError as error:
            image, notes = None, [str(error)]
        return picture, image, notes

    def _finish(self, done: tuple[Any, np.ndarray | None, list[str], Sequence[Segmentation]]) -> Row:
        """Score one picture's answers, and write its files."""
        (name, _, file), image, notes, answers = done
        if image is None:
            return Row(name, note=" ".join(notes))
        notes = [*notes, *dict.fromkeys(answer.note for answer in answers if answer.note)]
        scores = self._scores(name, answers, notes)
        agreement = compare(*answers).agreement if len(answers) == 2 else None
        found = [] if self.objects is None else [find_objects(answer, **self.objects) for answer in answers]
        if self.objects is None:
            counted = [count_objects(answer.label_map, answer.class_names) for answer in answers]
        else:
            counted = [Counted.of(objects) for objects in found]
        objects = tuple((len(some.areas), some.median_area) for some in counted) if all(counted) else None
        shares, seconds = np.stack([answer.shares() for answer in answers]), tuple(answer.seconds for answer in answers)
        row = Row(name, file, image.shape[:2], agreement, shares, seconds, scores, objects, " ".join(notes))
        for network, answer in zip(self.networks, answers, strict=True):
            _write_pictures(self.archive, network, file, image, answer)
        for network, objects in zip(self.networks, found, strict=False):
            row.annotations.append(_write_objects(self.archive, network, row, objects))
        return row

    def _scores(self, name: str, answers: Sequence[Segmentation], notes: list[str]) -> tuple[Scores, ...] | None:
        if name not in self.truths:
            return None
        names, palette = answers[0].class_names, answers[0].palette
        try:
            truth = read_truth(self.truths[name], names, palette, max_pixels=self.max_pixels, reader=self.reader)
            scores = tuple(score(answer.label_map, truth.labels, len(names)) for answer in answers)
        except ValueError as error:  # ImageError and TruthError are
            notes.append(str(error))
            return None
        notes += truth.notes
        return scores


def _map_ahead(function: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """``map`` in a thread, ``ahead`` results ahead."""
    if not ahead:  # in the caller's context
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(1) as thread:
        for item in items:
            pending.append(thread.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _write_pictures(archive: Archive, folder: str, name: str, image: np.ndarray, segmentation: Segmentation) -> None:
    labels, palette = segmentation.label_map, segmentation.palette
    with archive.open(f"{folder}/labels/{name}.png", "w") as file:
        save_png(labels, file, palette=palette)
    with archive.open(f"{folder}/masks/{name}.png", "w") as file:
        save_png(palette[labels], file)
    drawn = overlay(image, labels, palette, unpainted=unpainted_classes(segmentation.class_names))
    with archive.open(f"{folder}/overlays/{name}.jpg", "w") as file:
        Image.fromarray(drawn).save(file, "JPEG", quality=92)


def _write_objects(archive: Archive, folder: str, row: Row, objects: list[Object]) -> list[dict[str, Any]]:
    """Write LabelMe and GeoJSON files -> COCO annotations."""
    archive.writestr(f"{folder}/labelme/{row.file}.json", json.dumps(labelme(objects, row.name, row.size)))
    archive.writestr(f"{folder}/geojson/{row.file}.geojson", json.dumps(geojson(objects)))
    return [coco_annotation(found, row.size) | {"measurements": measurements(found)} for found in objects]
