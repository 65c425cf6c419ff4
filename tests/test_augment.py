"""Pictures and labels are augmented as one, from memory and from disk alike."""

import dataclasses
import resource
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from folders import disc, write_pairs
from PIL import Image

from training.augment import Augmentation, PixelStore
from training.dataset import DataError, load_dataset
from unet.metrics import IGNORE_INDEX

UNCHANGED = Augmentation(scale=(1, 1), flip=False, color=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


SIZES = [(24, 30), (40, 20), (33, 33)]


def store(sizes=SIZES, working_pixels=None):
    return PixelStore([disc(h, w, i) for i, (h, w) in enumerate(sizes)], working_pixels, "cpu")


@pytest.mark.parametrize("index", range(len(SIZES)))
def test_unchanged_and_whole_it_is_the_picture(index):
    image, labels = disc(*SIZES[index], index)
    images, label_maps = store().batch(
        torch.tensor([index]), SIZES[index], augmentation=UNCHANGED, generator=generator()
    )
    np.testing.assert_allclose(images[0].permute(1, 2, 0), image, atol=1e-3)
    assert (label_maps[0].numpy() == labels).all()


def test_the_margin_is_mirrored_and_what_is_outside_is_void():
    image, labels = disc(24, 30, 0)
    images, label_maps = store().batch(
        torch.tensor([0]), (28, 36), margin=40, augmentation=UNCHANGED, generator=generator()
    )
    assert images.shape == (1, 3, 108, 116)
    padded = np.pad(image, ((42, 42), (43, 43), (0, 0)), mode="reflect")
    np.testing.assert_allclose(images[0].permute(1, 2, 0), padded, atol=1e-3)
    expected = np.pad(labels, ((2, 2), (3, 3)), constant_values=IGNORE_INDEX)
    assert (label_maps[0].numpy() == expected).all()


@pytest.mark.parametrize("rotate", [False, True])
def test_picture_and_labels_move_together(rotate):
    """Paint the labels into the picture: whatever the augmentation, a label still lies on its colour."""
    pairs = []
    for h, w in SIZES:
        labels = (np.add.outer(np.arange(h) // 8, np.arange(w) // 8) % 3).astype(np.uint8)
        pairs.append((np.repeat(labels[..., None] * 100, 3, axis=2), labels))
    flat = PixelStore(pairs, None, "cpu")
    augmentation = Augmentation(scale=(1.5, 2.5), rotate=rotate, color=0)
    images, labels = flat.batch(torch.arange(3).repeat(4), (20, 20), augmentation=augmentation, generator=generator(5))
    pure = (images[:, 0] % 100 == 0) & (labels != IGNORE_INDEX)  # between two squares colours are blended
    assert pure.float().mean() > 0.5
    assert (images[:, 0][pure] / 100 == labels[pure]).all()


def test_every_way_to_turn_and_flip_occurs():
    image = np.zeros((20, 20, 3), np.uint8)
    image[:10, :5] = 255
    one = PixelStore([(image, np.zeros((20, 20), np.uint8))], None, "cpu")
    augmentation = Augmentation(scale=(1, 1), rotate=True, color=0)
    images, _ = one.batch(
        torch.zeros(200, dtype=torch.long), (20, 20), augmentation=augmentation, generator=generator()
    )
    assert len({(image > 128).numpy().tobytes() for image in images}) == 8


def test_batches_follow_from_the_generator_alone():
    arguments = (torch.arange(3), (16, 16))
    first, again, other = (
        store().batch(*arguments, augmentation=Augmentation(), generator=generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_colours_stay_within_bounds():
    images, _ = store().batch(torch.arange(3), (16, 16), augmentation=Augmentation(color=0.9), generator=generator())
    assert images.min() >= 0
    assert images.max() <= 255


def test_statistics_and_shares_count_pixels_not_pictures():
    pairs = [(np.full((1, 3, 3), 30, np.uint8), np.array([[0, 0, 1]], np.uint8)),
             (np.full((1, 1, 3), 70, np.uint8), np.array([[IGNORE_INDEX]], np.uint8))]  # fmt: skip
    tiny = PixelStore(pairs, None, "cpu")
    assert tiny.preprocessing.mean == pytest.approx((40, 40, 40))
    assert tiny.preprocessing.std == pytest.approx((20, 20, 20))
    assert tiny.class_shares(3).tolist() == pytest.approx([2 / 3, 1 / 3, 0])


def test_pictures_are_stored_at_their_working_size():
    resized = store(working_pixels=400)
    assert resized.sizes.tolist() == [[18, 22], [28, 14], [20, 20]]
    assert resized.preprocessing.working_pixels == 400


def pairs_on_disk(root):
    """Pictures of several sizes in a folder, as the trainer sees them."""
    write_pairs(root / "train", SIZES)
    write_pairs(root / "val", SIZES[:1])
    return load_dataset(root).train


@pytest.mark.parametrize("working_pixels", [None, 400])
@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(), Augmentation(scale=(0.2, 0.3), rotate=True), Augmentation(scale=(4, 5), rotate=True)],
)
def test_pixels_in_a_file_give_the_same_batches_bit_for_bit(tmp_path, working_pixels, augmentation):
    pairs = pairs_on_disk(tmp_path)
    memory = PixelStore(pairs, working_pixels, "cpu")
    file = PixelStore(pairs, working_pixels, "cpu", cache=tmp_path / "run")
    assert file.preprocessing == memory.preprocessing
    assert file.class_shares(2).equal(memory.class_shares(2))
    indices = torch.tensor([2, 0, 1, 1, 0, 2] * 4)
    for margin in (0, 30):
        batches = [
            which.batch(indices, (17, 20), margin=margin, augmentation=augmentation, generator=generator(3))
            for which in (memory, file)
        ]
        assert all(one.equal(other) for one, other in zip(*batches, strict=True))


def test_a_set_larger_than_memory_gives_the_same_batches(tmp_path):
    """In a process that may allocate 90 MB more, 120 MB of pixels are read from the file."""
    write_pairs(tmp_path, [(20, 20)] * 38)
    for i in range(38):
        labels = np.add.outer(np.arange(1000), np.arange(1000)) // (50 + i) % 2
        Image.fromarray(labels.astype(bool)).save(tmp_path / f"labels/{i:03}.png")
        Image.fromarray(np.uint8(40 + 5 * i + 9 * labels)).save(tmp_path / f"images/{i:03}.png", compress_level=1)
    script = """
import re, resource, sys
from pathlib import Path
import torch
from training.augment import Augmentation, PixelStore
from training.dataset import load_dataset

torch.set_num_threads(1)
pairs = load_dataset(sys.argv[1]).train
used = int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (90 << 20),) * 2)
try:
    bytearray(120 << 20)
    sys.exit("the limit does not hold")
except MemoryError:
    pass
store = PixelStore(pairs, None, "cpu", cache=Path(sys.argv[1], "run"))
batch = store.batch(torch.arange(30), (50, 60), augmentation=Augmentation(), generator=torch.Generator().manual_seed(0))
torch.save(batch, Path(sys.argv[1], "batch.pt"))
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    file = torch.load(tmp_path / "batch.pt")
    memory = PixelStore(load_dataset(tmp_path).train, None, "cpu").batch(
        torch.arange(30), (50, 60), augmentation=Augmentation(), generator=generator()
    )
    assert all(one.equal(other) for one, other in zip(file, memory, strict=True))


def test_the_file_of_pixels_is_built_once_and_anew_when_anything_changes(tmp_path):
    pairs, cache = pairs_on_disk(tmp_path), tmp_path / "run"

    def file(pairs=pairs, working_pixels=None):
        store = PixelStore(pairs, working_pixels, "cpu", cache=cache)
        (path,) = cache.iterdir()
        return path.name, path.stat().st_mtime_ns, store.pixels.clone()

    first, again = file(), file()
    assert first[:2] == again[:2]
    (cache / "pixels-left.partial").write_bytes(b"by a killed run")
    names = {first[0], file(working_pixels=400)[0], file(dataclasses.replace(pairs, ambiguous="nearest"))[0]}
    image = np.asarray(Image.open(pairs.images[0])).copy()
    image[0, 0] = 255 - image[0, 0]
    Image.fromarray(image).save(pairs.images[0])
    changed = file()
    assert len(names | {changed[0]}) == 4
    assert not changed[2].equal(first[2])


def test_a_build_that_is_cut_off_leaves_nothing_that_is_taken_for_whole(tmp_path):
    pairs, cache = pairs_on_disk(tmp_path), tmp_path / "run"
    sound = pairs.pairs[2].annotation.read_bytes()
    pairs.pairs[2].annotation.write_bytes(sound[:40])
    with pytest.raises(ValueError, match=r"002\.png"):
        PixelStore(pairs, None, "cpu", cache=cache)
    assert not list(cache.iterdir())
    pairs.pairs[2].annotation.write_bytes(sound)
    assert PixelStore(pairs, None, "cpu", cache=cache).pixels.equal(PixelStore(pairs, None, "cpu").pixels)


def test_a_full_disk_is_told_in_a_sentence_and_leaves_no_half_file(tmp_path):
    """The limit on the size of a file stands for a disk that fills up while the file is written."""
    pairs, cache = pairs_on_disk(tmp_path), tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"could not be written to .*run .*; free some space there"):
            PixelStore(pairs, None, "cpu", cache=cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(cache.iterdir())


def test_a_disk_too_small_is_seen_before_any_picture_is_read(tmp_path, monkeypatch):
    pairs = pairs_on_disk(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    monkeypatch.setattr(type(pairs), "image", None)
    with pytest.raises(DataError, match="No space left"):
        PixelStore(pairs, None, "cpu", cache=tmp_path / "run")
