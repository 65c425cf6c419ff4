"""A bundle loads as it was saved, and is refused with the reason where it is not one."""

import json
import pickle

import numpy as np
import pytest
import torch
from bundles import small_bundle
from safetensors.torch import load_file, save_file

from unet import ARCHITECTURES, Bundle, BundleError, Preprocessing


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_saved_and_loaded_again(name, tmp_path):
    bundle = small_bundle(name, working_pixels=1234)
    bundle.scores = {"val": {"miou": 0.5}}
    bundle.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    assert loaded.net.config == bundle.net.config
    assert loaded.preprocessing == bundle.preprocessing
    assert (loaded.task, loaded.architecture, loaded.class_names) == (bundle.task, name, bundle.class_names)
    assert (loaded.palette == bundle.palette).all()
    assert loaded.scores == bundle.scores
    assert not loaded.net.training
    for key, tensor in bundle.net.state_dict().items():
        expected = tensor.half().to(tensor.dtype) if tensor.is_floating_point() else tensor
        assert torch.equal(loaded.net.state_dict()[key], expected), key


def test_weights_may_be_read_by_whoever_may_read_the_config(tmp_path):
    small_bundle("residual-add").save(tmp_path)
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1, "the page may be run by another user than the training"


def test_numbers_too_large_for_float16_stay_float32(tmp_path):
    bundle = small_bundle("residual-add")
    bundle.net.head.weight.data.fill_(1e6)
    bundle.save(tmp_path)
    assert load_file(tmp_path / "model.safetensors")["head.weight"].dtype == torch.float32
    assert Bundle.load(tmp_path).net.head.weight.eq(1e6).all()


def change_config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json does not exist"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors does not exist"),
    "not json": (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "bundle format None"),
    "deep json": (lambda f: (f / "config.json").write_text("[" * 100_000), "cannot be read as JSON"),
    "newer": (lambda f: change_config(f, lambda c: c.update(format=99)), "bundle format 99"),
    "no classes": (lambda f: change_config(f, lambda c: c.pop("class_names")), "'class_names' is missing"),
    "older": (lambda f: change_config(f, lambda c: c.update(format=0)), "bundle format 0, this version reads 1"),
    "of another project": (lambda f: change_config(f, lambda c: c.pop("format")), "bundle format None"),
    "a folder": (lambda f: [(f / "config.json").unlink(), (f / "config.json").mkdir()], "cannot be read as JSON"),
    "weights are a folder": (
        lambda f: [(f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()],
        "not a complete safetensors file",
    ),
    "endless levels": (lambda f: change_config(f, lambda c: c["config"].update(widths=[4] * 40)), "10 levels"),
    "padded perhaps": (lambda f: change_config(f, lambda c: c["config"].update(padded="no")), "padded is 'no'"),
    "enlarged without end": (
        lambda f: change_config(f, lambda c: c["preprocessing"].update(working_pixels=10**15)),
        "from 1 to 50,000,000",
    ),
    "half a pixel": (
        lambda f: change_config(f, lambda c: c["preprocessing"].update(working_pixels=1.5)),
        "whole number",
    ),
    "no mean": (lambda f: change_config(f, lambda c: c["preprocessing"].update(mean=[np.nan] * 3)), "three numbers"),
    "words for a mean": (lambda f: change_config(f, lambda c: c["preprocessing"].update(mean="abc")), "not describe"),
    "colour out of range": (lambda f: change_config(f, lambda c: c["palette"][0].__setitem__(0, 300)), "300"),
    "numbers for names": (lambda f: change_config(f, lambda c: c.update(class_names=[1, 2, 3, 4, 5])), "words, got 1"),
    "one name twice": (lambda f: change_config(f, lambda c: c.update(class_names=["a"] * 5)), "two classes have one"),
    "no task": (lambda f: change_config(f, lambda c: c.update(task=None)), "words, got None"),
    "scores of a stranger": (lambda f: change_config(f, lambda c: c.update(scores="good")), "config.json does"),
    "foreign field": (lambda f: change_config(f, lambda c: c["config"].update(depth=3)), "depth"),
    "wrong skip": (lambda f: change_config(f, lambda c: c["config"].update(skip="no")), "skip is 'no'"),
    "larger than memory": (
        lambda f: change_config(f, lambda c: c["config"].update(widths=[10**6] * 5)),
        "architecture's is",
    ),
    "larger than numbers": (lambda f: change_config(f, lambda c: c["config"].update(widths=[10**12] * 5)), "overflow"),
    "sixty levels": (lambda f: change_config(f, lambda c: c["config"].update(widths=[1] * 60)), "10 levels"),
    "endless block": (lambda f: change_config(f, lambda c: c["config"].update(convolutions=10**9)), "100 convolutions"),
    "few colours": (lambda f: change_config(f, lambda c: c["palette"].pop()), "palette of shape"),
    "cut off": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        "not a complete safetensors file",
    ),
    "pickle": (
        lambda f: torch.save({"head.weight": torch.zeros(1)}, f / "model.safetensors"),
        "not a complete safetensors file",
    ),
    "huge header": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64), "not a complete safetensors file"),
    "missing tensor": (lambda f: change_weights(f, lambda t: t.pop("head.bias")), "missing head.bias"),
    "extra tensor": (lambda f: change_weights(f, lambda t: t.update(x=torch.zeros(1))), "unexpected x"),
    "wrong shape": (lambda f: change_weights(f, lambda t: t.update({"head.bias": torch.zeros(9)})), r"\[9\]"),
    "wrong dtype": (
        lambda f: change_weights(f, lambda t: t.update({"head.bias": torch.zeros(5, dtype=torch.int8)})),
        "dtype I8",
    ),
    "not finite": (
        lambda f: change_weights(f, lambda t: t["head.bias"].fill_(np.nan)),
        "not finite in head.bias",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_bundle_is_refused_with_the_reason(case, tmp_path):
    small_bundle("crop-concat", divisor=16).save(tmp_path)
    breaks, reason = BROKEN[case]
    breaks(tmp_path)
    with pytest.raises(BundleError, match=reason):
        Bundle.load(tmp_path)


class Bomb:
    """A pickle of it writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin", "model.pkl"])
def test_no_pickle_is_ever_read(name, tmp_path):
    small_bundle("residual-add", divisor=16).save(tmp_path / "bundle")
    (tmp_path / "bundle" / name).write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    if name in ("config.json", "model.safetensors"):
        with pytest.raises(BundleError):
            Bundle.load(tmp_path / "bundle")
    else:
        Bundle.load(tmp_path / "bundle")
    assert not (tmp_path / "executed").exists()
    pickle.loads((tmp_path / "bundle" / name).read_bytes()).close()
    assert (tmp_path / "executed").exists(), "the bomb itself works"


def test_names_and_colours_must_be_as_many_as_the_classes():
    bundle = small_bundle("residual-add")
    with pytest.raises(ValueError, match="tells 5 classes apart, but 1 names"):
        Bundle(bundle.net, "test", "residual-add", ("one",), np.zeros((1, 3)), bundle.preprocessing)


def test_working_size_keeps_the_shape_and_the_number_of_pixels():
    fixed = Preprocessing((0, 0, 0), (1, 1, 1), working_pixels=180 * 240)
    assert fixed.working_size((360, 480)) == (180, 240)
    assert fixed.working_size((3000, 4000)) == (180, 240)
    assert fixed.working_size((36, 48)) == (180, 240)
    assert fixed.working_size((1, 10_000_000)) == (1, 657_267)
    assert Preprocessing((0, 0, 0), (1, 1, 1)).working_size((7, 9)) == (7, 9)
