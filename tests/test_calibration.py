"""One temperature makes confidence a probability, and changes no class."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from bundles import photo, small_bundle

from training.calibration import calibrate, calibration_error, fit_temperature, usual_confidence
from unet import Bundle, Segmenter


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_spoilt_logits_is_found(outputs, temperature):
    """Classes drawn from the softmax of logits; then the logits are multiplied, as an overconfident network's."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, outputs, generator=generator)
    shares = torch.cat([-logits, logits], 1).div(2).softmax(1) if outputs == 1 else logits.softmax(1)
    truth = torch.multinomial(shares, 1, generator=generator)[:, 0]
    assert fit_temperature(logits * temperature, truth) == pytest.approx(temperature, rel=0.05)
    assert calibration_error(logits, truth) < 0.02
    if temperature == 3.0:
        assert calibration_error(logits * temperature, truth) > 0.05


def test_calibration_error_of_worked_numbers():
    """Two pixels at confidence 0.8, one right: the gap is 0.3; one at 0.6, right: 0.4."""
    at = lambda p: float(np.log(p / (1 - p)))  # noqa: E731
    logits, truth = torch.tensor([[at(0.8)], [at(0.8)], [at(0.6)]]), torch.tensor([1, 0, 1])
    assert calibration_error(logits, truth) == pytest.approx((2 * 0.3 + 0.4) / 3, abs=1e-6)


def test_usual_confidence_is_what_19_of_20_pictures_reach():
    pictures = [torch.full((4, 1), 3.0)] * 19 + [torch.zeros(4, 1), torch.zeros(0, 1)]
    assert 0.5 < usual_confidence(pictures) <= torch.sigmoid(torch.tensor(3.0)).item()
    assert usual_confidence([]) == 0


@pytest.mark.parametrize("classes", [2, 5])
def test_confidence_follows_the_temperature_and_the_label_map_does_not(tmp_path, classes):
    bundle = small_bundle("residual-add", classes=classes, divisor=16)
    image = photo(40, 56)
    before = Segmenter(bundle, precision="float32")(image)
    found = calibrate(Segmenter(bundle, precision="float32"), [(image, (before.label_map + 1) % classes)] * 2)
    assert found["temperature"] == bundle.temperature > 1, "every pixel is wrong, so nothing is sure"
    assert found["ece"] < found["ece_before"]
    bundle.save(tmp_path)
    after = Segmenter.load(tmp_path, precision="float32")(image)
    same = Segmenter(dataclasses.replace(Bundle.load(tmp_path), temperature=1.0), precision="float32")(image)
    assert (after.label_map == same.label_map).all()
    assert after.confidence.mean() < before.confidence.mean() - 0.05


def test_a_bundle_without_a_temperature_has_1(tmp_path):
    small_bundle("residual-add", divisor=16).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["temperature"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Bundle.load(tmp_path).temperature == 1.0
