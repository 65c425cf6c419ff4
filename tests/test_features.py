"""The feature maps shown are those that met in the network, and add up, or lie behind one another, as they must."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bundles import photo, small_bundle

from page.features import skip_features, strongest
from unet import ARCHITECTURES, Segmenter
from unet.model import Join


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("level", [0, 1])
def test_what_is_joined_is_the_sum_or_the_stack(name, level):
    segmenter = Segmenter(small_bundle(name, working_pixels=4_000), precision="float32")
    config, tile = segmenter.net.config, segmenter.layout((90, 120)).middle
    found = skip_features(segmenter, photo(90, 120), level, tile)
    shapes = config.level_shapes(tile.input_size)[level]
    assert found.encoder.shape == shapes.encoder
    assert found.decoder.shape == shapes.decoder
    assert found.joined.shape == shapes.joined
    h, w = found.decoder.shape[1:]
    cut = (found.encoder.shape[1] - h) // 2, (found.encoder.shape[2] - w) // 2
    assert (min(cut) > 0) != config.padded
    cropped = found.encoder[:, cut[0] : cut[0] + h, cut[1] : cut[1] + w]
    joined = cropped + found.decoder if config.skip == "add" else np.concatenate([cropped, found.decoder])
    np.testing.assert_array_equal(found.joined, joined)


def test_they_are_those_of_the_tile_that_is_asked_for():
    """The first level's encoder maps by hand: the first block on the tile's mirrored, normalised picture."""
    segmenter = Segmenter(small_bundle("crop-concat"), precision="float32")
    image, net = photo(150, 200), segmenter.net
    tile = segmenter.layout((150, 200), tile=64).tiles[2]
    found = skip_features(segmenter, image, 0, tile)
    x = segmenter.bundle.preprocessing.normalise(torch.from_numpy(tile.read(image)).permute(2, 0, 1)[None])
    with torch.no_grad():
        for conv in (net.encoder[0].conv1, net.encoder[0].conv2):
            x = F.conv2d(x, conv.weight, conv.bias).relu()
    np.testing.assert_allclose(found.encoder, x[0].numpy(), atol=1e-5)


def test_the_tile_in_the_middle_labels_the_middle():
    middle = Segmenter(small_bundle("residual-add", divisor=32)).layout((700, 1300)).middle
    assert (middle.rows.window, middle.columns.window) == (range(512), range(512, 1024))


@pytest.mark.parametrize(
    ("skip", "expected"), [("add", [[0, 0], [2, 2], [1, 1]]), ("concat", [[1, 0], [2, 2], [0, 1]])]
)
def test_the_strongest_channels_are_those_that_vary_most(skip, expected):
    # Each channel is -a, a: its standard deviation is a, whatever it is shifted by.
    encoder, decoder = (
        np.array(deviations, np.float32)[:, None, None] * np.array([[[-1, 1]]], np.float32)
        for deviations in ([1, 4, 3], [9, 0, 2])
    )
    joined = encoder + decoder if skip == "add" else np.concatenate([encoder, decoder])
    join = Join(0, encoder + 100, decoder, joined)
    assert strongest(join, 9).tolist() == expected
    assert strongest(join, 1).tolist() == expected[:1]


def test_a_level_without_a_skip_is_refused():
    segmenter = Segmenter(small_bundle("residual-concat", divisor=16))
    with pytest.raises(ValueError, match="no skip at level 2"):
        skip_features(segmenter, photo(20, 20), 2, segmenter.layout((20, 20)).middle)
