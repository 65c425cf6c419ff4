"""A training may begin with the weights of a trained network, its function unchanged."""

import dataclasses

import pytest
import torch
from bundles import small_bundle
from folders import disc

from training.augment import PixelStore
from training.checkpoint import TrainingError
from training.start_from import start_from
from unet import ARCHITECTURES, UNet

STORE = PixelStore([disc(80, 90, i) for i in range(3)], None, "cpu")


def trained(architecture, **options):
    """A bundle whose BatchNorm, where it has one, has seen pictures."""
    bundle = small_bundle(architecture, divisor=16, **options)
    size = bundle.net.config.input_size((64, 64))
    bundle.net.train()(torch.randn(2, 3, *size))
    bundle.net.eval()
    return bundle


def fresh(bundle, *, times=1, **changes):
    """A network as train.py makes it for this architecture, ``times`` as wide."""
    config = ARCHITECTURES[bundle.architecture]
    widths = [round(times * width) for width in bundle.net.config.widths]
    norm = "before_relu" if config.batch_norm == "none" else config.batch_norm
    outputs = bundle.net.config.num_outputs
    return UNet(dataclasses.replace(config, widths=widths, batch_norm=norm, **{"num_outputs": outputs, **changes}))


@pytest.mark.parametrize("times", [1, 1.5, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_logits_are_those_of_the_trained_network(architecture, times):
    bundle = trained(architecture)
    net = fresh(bundle, times=times)
    start_from(net, bundle, bundle.class_names, STORE)
    images = torch.randn(2, 3, *net.config.input_size((40, 56)))
    expected = bundle.net(images)
    net.eval()
    torch.testing.assert_close(net(images), expected, rtol=0, atol=1e-4)
    if net.config.batch_norm == "before_relu":
        torch.testing.assert_close(net.fold_batch_norm()(images), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_channel_of_a_widened_network_learns(architecture):
    """A copied channel that stayed equal to its twin, or a new one that no gradient reaches, would add nothing."""
    bundle = trained(architecture)
    net = fresh(bundle, times=2)
    start_from(net, bundle, bundle.class_names, STORE)
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0)
    images = torch.randn(2, 3, *net.config.input_size((40, 56)))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for _ in range(2):  # at the first step only what looks at new channels moves
        optimizer.zero_grad()
        net(images).square().mean().backward()
        optimizer.step()
    for name, p in net.named_parameters():
        if p.ndim == 4:
            moved = (p != before[name]).flatten(1).any(dim=1)
            assert moved.float().mean() > 0.5, name  # some ReLUs of a random network are dead
    for layer in net.encoder:
        rows = layer.conv1.weight.detach().flatten(1)
        assert torch.cdist(rows, rows).fill_diagonal_(1).min() > 1e-3


def test_other_classes_get_a_new_head():
    bundle = trained("residual-add")
    net = fresh(bundle, num_outputs=1)
    head = net.head.weight.detach().clone()
    record = start_from(net, bundle, ("background", "cell"), STORE)
    assert record["new_head"]
    assert torch.equal(net.head.weight, head)
    assert torch.equal(net.encoder[0].conv1.weight, bundle.net.encoder[0].conv1.weight)
    assert not start_from(fresh(bundle), bundle, bundle.class_names, STORE)["new_head"]


def test_another_body_and_narrower_levels_are_refused():
    bundle = trained("residual-add")
    with pytest.raises(TrainingError, match=r"another architecture.*skip"):
        start_from(UNet(ARCHITECTURES["residual-concat"]), bundle, bundle.class_names, STORE)
    with pytest.raises(TrainingError, match="may only grow"):
        start_from(fresh(bundle, times=0.5), bundle, bundle.class_names, STORE)
