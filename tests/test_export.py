"""The ONNX file answers as Segmenter does, for any size and every architecture."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from bundles import COLORS, NAMES, photo, small_bundle
from PIL import Image

from unet import ARCHITECTURES, Bundle, Segmenter, read_image
from unet.export import equal_labels, export

WEIGHTS = Path(__file__).parents[1] / "weights"
SHIPPED = ("nuclei/residual-add", "streets/residual-concat", "streets/crop-concat", "hands/residual-add")
PICTURE = read_image(WEIGHTS / "nuclei" / "examples" / "pink-stain.jpg")
SIZES = ((120, 160), (97, 131), (61, 47), (130, 90), (24, 37))


def resized(size):
    return np.asarray(Image.fromarray(PICTURE).resize(size[::-1]))


def saved(bundle, folder):
    """The bundle with the float16 weights that a user has."""
    return Bundle.load(bundle.save(folder))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_label_real_pictures_as_segmenter_does(name, tmp_path):
    bundle = Bundle.load(WEIGHTS / name)
    path = export(bundle, tmp_path / "model.onnx")
    for size in SIZES:
        assert equal_labels(path, bundle, [resized(size)]) >= 0.999
    parameters = sum(p.numel() for p in bundle.net.parameters())
    assert path.stat().st_size < 2 * parameters + 100_000
    if parameters < 700_000:
        assert path.stat().st_size <= 3_000_000


@pytest.mark.parametrize(("classes", "working_pixels"), [(2, None), (5, 5000)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_answers_at_every_size(architecture, classes, working_pixels, tmp_path):
    made = small_bundle(architecture, classes=classes, working_pixels=working_pixels)
    bundle = saved(dataclasses.replace(made, temperature=1.7), tmp_path)
    session = onnxruntime.InferenceSession(export(bundle, tmp_path / "model.onnx"))
    segmenter = Segmenter(bundle, device="cpu", precision="float32")
    for size in [(1, 1), (2, 3), (9, 16), (97, 61), (64, 128)]:
        image = photo(*size)
        label_map, confidence = session.run(None, {"image": image})
        answer = segmenter(image)
        assert (label_map.dtype, confidence.dtype) == (np.uint8, np.float32)
        assert (label_map.shape, confidence.shape) == (size, size)
        assert np.mean(label_map == answer.label_map) >= 0.999
        np.testing.assert_allclose(confidence, answer.confidence, atol=1e-3)


def test_thin_pictures_are_answered_at_their_size(tmp_path):
    session = onnxruntime.InferenceSession(export(small_bundle("crop-concat"), tmp_path / "model.onnx"))
    for size in [(1, 120), (130, 1)]:
        assert [found.shape for found in session.run(None, {"image": photo(*size)})] == [size, size]


def test_classes_and_palette_travel_with_the_file(tmp_path):
    path = export(small_bundle("residual-add"), tmp_path / "new" / "model.onnx")
    known = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert json.loads(known["class_names"]) == list(NAMES)
    assert json.loads(known["palette"]) == COLORS.tolist()
    assert (known["task"], known["architecture"]) == ("test", "residual-add")
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_exporting_leaves_the_network_as_it_was(tmp_path):
    bundle, image = small_bundle("residual-add"), photo(40, 50)
    segmenter = Segmenter(bundle, device="cpu", precision="float32")
    before = segmenter(image).confidence
    export(bundle, tmp_path / "model.onnx")
    np.testing.assert_array_equal(segmenter(image).confidence, before)


def test_another_network_is_told_apart(tmp_path):
    path = export(small_bundle("residual-add", seed=1), tmp_path / "model.onnx")
    other = dataclasses.replace(small_bundle("residual-add", seed=2), task="other")
    assert equal_labels(path, other, [photo(40, 50)]) < 0.9
