"""The networks are what the papers and the seeds say, parameter for parameter."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unet import ARCHITECTURES, UNet
from unet.model import ConvBlock, UNetConfig, center_crop, count_parameters


def narrow(name, divisor=8, **changes):
    config = ARCHITECTURES[name]
    return dataclasses.replace(config, widths=tuple(w // divisor for w in config.widths), **changes)


def with_random_statistics(net, seed=0):
    """Weights and running statistics as after some training: no BatchNorm is the identity, no bias is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
                for tensor in (module.bias, module.running_mean):
                    tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
    return net.eval()


def plain_conv(state, name, x, padding):
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)


def plain_up(state, name, x):
    return F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2)


def plain_residual(state, x, skip):
    """The residual network, restated: three times [same-padded 3x3, ReLU, BatchNorm]; block, then join."""

    def block(name, x):
        for i in (1, 2, 3):
            x = plain_conv(state, f"{name}.conv{i}", x, padding=1).clamp(min=0)
            mean, variance, gamma, beta = (
                state[f"{name}.norm{i}.{key}"].view(1, -1, 1, 1)
                for key in ("running_mean", "running_var", "weight", "bias")
            )
            x = gamma * (x - mean) / (variance + 1e-3).sqrt() + beta
        return x

    def join(encoder, x):
        return encoder + x if skip == "add" else torch.cat((encoder, x), dim=1)

    first = block("encoder.0", x)
    second = block("encoder.1", F.max_pool2d(first, 2))
    bottom = block("encoder.2", F.max_pool2d(second, 2))
    x = join(second, block("decoder.0.block", plain_up(state, "decoder.0.up", bottom)))
    x = join(first, block("decoder.1.block", plain_up(state, "decoder.1.up", x)))
    return plain_conv(state, "head", x, padding=0)


def plain_crop(state, x, skip):
    """Figure 1 of arXiv 1505.04597, restated: twice [unpadded 3x3, ReLU]; crop, join, then block."""

    def block(name, x):
        for i in (1, 2):
            x = plain_conv(state, f"{name}.conv{i}", x, padding=0).clamp(min=0)
        return x

    skips = []
    for level in range(4):
        skips.append(block(f"encoder.{level}", x))
        x = F.max_pool2d(skips[-1], 2)
    x = block("encoder.4", x)
    for level in range(4):
        x = plain_up(state, f"decoder.{level}.up", x)
        encoder = skips.pop()
        cut_h, cut_w = ((encoder.shape[axis] - x.shape[axis]) // 2 for axis in (2, 3))
        encoder = encoder[:, :, cut_h : encoder.shape[2] - cut_h, cut_w : encoder.shape[3] - cut_w]
        x = encoder + x if skip == "add" else torch.cat((encoder, x), dim=1)
        x = block(f"decoder.{level}.block", x)
    return plain_conv(state, "head", x, padding=0)


@pytest.mark.parametrize(
    ("name", "plain", "size"),
    [
        ("residual-add", plain_residual, (36, 52)),
        ("residual-concat", plain_residual, (36, 52)),
        ("crop-concat", plain_crop, (188, 204)),
        ("crop-add", plain_crop, (188, 204)),
    ],
)
def test_equals_a_plain_restatement(name, plain, size):
    torch.manual_seed(1)
    net = with_random_statistics(UNet(narrow(name, num_outputs=5)))
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = plain(net.state_dict(), x, ARCHITECTURES[name].skip)
        torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-5)


def test_residual_add_has_the_published_number_of_parameters():
    net = UNet(ARCHITECTURES["residual-add"])
    assert count_parameters(net) == 662_305
    statistics = sum(b.numel() for n, b in net.named_buffers() if n.endswith(("running_mean", "running_var")))
    assert count_parameters(net) + statistics == 664_225
    assert {(m.eps, m.momentum) for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-3, 0.01)}
    blocks = [m for m in net.modules() if isinstance(m, ConvBlock)]
    assert [block.dropout.p for block in blocks] == [0.2, 0.3, 0.4, 0.3, 0.2]


def test_crop_concat_is_the_paper_s_network():
    config = dataclasses.replace(ARCHITECTURES["crop-concat"], num_outputs=12)
    net = UNet(config)
    assert sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in net.modules()) == 23
    assert count_parameters(net) == 31_032_460
    assert config.output_size((572, 572)) == (388, 388)
    assert config.margin == 92


def test_twins_change_nothing_but_the_skip():
    for name, twin in (("residual-add", "residual-concat"), ("crop-concat", "crop-add")):
        assert dataclasses.replace(ARCHITECTURES[name], skip=ARCHITECTURES[twin].skip) == ARCHITECTURES[twin]


def test_valid_sizes_of_crop_concat():
    config = ARCHITECTURES["crop-concat"]
    for m in range(4, 60):
        assert config.output_size((16 * m + 124, 188)) == (16 * m - 60, 4)
    for size in range(1, 700):
        if size < 188 or (size - 124) % 16:
            with pytest.raises(ValueError, match="nearest sizes"):
                config.output_size((size, 572))


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [
        ("crop-concat", (573, 572), "572x572 or 588x572"),
        ("crop-concat", (10, 300), "188x300"),
        ("residual-add", (30, 64), "28x64 or 32x64"),
        ("residual-add", (2, 3), "4x4"),
    ],
)
def test_a_size_that_does_not_fit_names_the_nearest_that_do(name, size, nearest):
    net = UNet(narrow(name)).eval()
    with pytest.raises(ValueError, match=rf"do: {nearest}\."):
        net(torch.zeros(1, 3, *size))
    for choice in nearest.split(" or "):
        h, w = map(int, choice.split("x"))
        assert net(torch.zeros(1, 3, h, w)).shape[2:] == net.config.output_size((h, w))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_input_size_is_the_smallest_whose_output_covers(name):
    config = ARCHITECTURES[name]
    for length in (1, 4, 5, 100, 388, 389):
        size = config.input_size((length, length))
        assert config.output_size(size)[0] >= length
        if size[0] > config._smallest_length():
            assert config.output_size((size[0] - config.stride,) * 2)[0] < length


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_receptive_radius_is_how_far_an_output_looks(name):
    """By the gradient: no output depends on an input row further away, and one does on a row just as far."""
    torch.manual_seed(0)
    config = narrow(name, divisor=32, batch_norm="none", dropout=())
    net = UNet(config).double().eval()
    for parameter in net.parameters():  # positive weights: no ReLU hides a dependency
        parameter.data.abs_().clamp_(min=1e-3)
    x = torch.ones(1, 3, *config.input_size((2 * config.receptive_radius + config.stride, 1)), dtype=torch.double)
    x.requires_grad_()
    logits = net(x)
    furthest = 0
    for row in range(config.receptive_radius, config.receptive_radius + config.stride):
        (gradient,) = torch.autograd.grad(logits[0, 0, row, 0], x, retain_graph=True)
        seen = gradient.abs().sum(dim=(0, 1, 3)).nonzero().flatten() - config.margin
        furthest = max(furthest, row - int(seen.min()), int(seen.max()) - row)
    assert furthest == config.receptive_radius


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_gets_a_gradient(name):
    net = UNet(narrow(name, num_outputs=3)).train()
    net(torch.randn(2, 3, 188, 188)).square().mean().backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_level_shapes_are_those_of_a_run(name):
    config = narrow(name)
    net, size, joins = UNet(config).eval(), config.input_size((40, 70)), []
    logits = net(torch.randn(1, 3, *size), watch=joins.append)
    *levels, bottleneck = config.level_shapes(size)
    assert [join.level for join in joins] == list(range(len(levels)))[::-1]
    for join in joins:
        level = levels[join.level]
        assert tuple(join.encoder.shape[1:]) == level.encoder
        assert tuple(join.decoder.shape[1:]) == level.decoder
        assert tuple(join.joined.shape[1:]) == level.joined
    assert bottleneck.encoder[0] == config.widths[-1]
    assert levels[0].output[1:] == logits.shape[2:] == config.output_size(size)


def test_level_shapes_of_crop_concat_are_the_paper_s_figure_1():
    full, *_, fourth, bottleneck = ARCHITECTURES["crop-concat"].level_shapes((572, 572))
    assert full == ((64, 568, 568), (64, 392, 392), (64, 392, 392), (128, 392, 392), (64, 388, 388))
    assert fourth == ((512, 64, 64), (512, 56, 56), (512, 56, 56), (1024, 56, 56), (512, 52, 52))
    assert bottleneck == ((1024, 28, 28), None, None, None, (1024, 28, 28))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_skip_left_out_equals_weights_that_ignore_it(name):
    """Zeroing a skip is what the network computes when nothing behind the join listens to the encoder's channels.

    For an added skip, that the sum is the decoder's map alone.
    """
    torch.manual_seed(3)
    config = narrow(name, num_outputs=3)
    net = with_random_statistics(UNet(config))
    x, level = torch.randn(1, 3, *config.input_size((20, 20))), 0
    joins = []
    with torch.no_grad():
        without = net(x, without_skips=[level], watch=joins.append)
        assert not joins[-1].encoder.any()
        assert (without - net(x)).abs().max() > 1e-3
        if config.skip == "add":
            assert joins[-1].joined.equal(joins[-1].decoder)
        else:
            reader = net.head if config.join == "after_block" else net.decoder[-1].block.conv1
            reader.weight[:, : config.widths[level]] = 0
            torch.testing.assert_close(net(x), without, atol=1e-5, rtol=1e-5)


def test_runs_with_and_without_a_skip_do_not_disturb_each_other():
    """One network, shared by the page's threads."""
    net = with_random_statistics(UNet(narrow("residual-add")))
    x = torch.randn(1, 3, 32, 32)
    asked = [(), (0,), (1,), (0, 1)] * 6

    def run(levels):
        with torch.inference_mode():
            return net(x, without_skips=levels)

    expected = {levels: run(levels) for levels in set(asked)}
    with ThreadPoolExecutor(4) as threads:
        for levels, logits in zip(asked, threads.map(run, asked), strict=True):
            torch.testing.assert_close(logits, expected[levels])


def test_a_level_without_a_skip_is_refused():
    net = UNet(narrow("residual-add"))
    with pytest.raises(ValueError, match=r"no skip at level 2; .* 0 \(full resolution\) to 1"):
        net(torch.zeros(1, 3, 16, 16), without_skips=[2])
    with pytest.raises(ValueError, match="has its skips nowhere"):
        dataclasses.replace(ARCHITECTURES["crop-add"], widths=(4,)).check_skips([0])


def test_folding_batch_norm_changes_the_logits_by_less_than_1e_4():
    torch.manual_seed(0)
    net = with_random_statistics(UNet(narrow("crop-concat", num_outputs=4, batch_norm="before_relu")))
    folded = net.fold_batch_norm()
    x = torch.randn(1, 3, 204, 188)
    with torch.no_grad():
        assert (net(x) - folded(x)).abs().max() < 1e-4
    assert folded.config == narrow("crop-concat", num_outputs=4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules()), "the network itself is left as it was"


def test_batch_norm_after_the_relu_is_not_folded():
    with pytest.raises(ValueError, match="cannot be folded"):
        UNet(narrow("residual-add")).fold_batch_norm()


@pytest.mark.parametrize(
    ("field", "value"),
    [("skip", "multiply"), ("join", "never"), ("batch_norm", True), ("widths", ()), ("dropout", (0.1,))],
)
def test_a_wrong_config_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(ARCHITECTURES["crop-concat"], **{field: value})


def test_config_survives_json_s_lists():
    config = ARCHITECTURES["residual-add"]
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
    assert UNetConfig(**fields) == config


def test_center_crop_takes_the_middle():
    x = torch.arange(36).view(1, 1, 6, 6)
    assert center_crop(x, (2, 4)).tolist() == [[[[13, 14, 15, 16], [19, 20, 21, 22]]]]
