"""Any size comes back at its own size, and tiles meet without a seam."""

import dataclasses
import itertools
import math
import weakref

import numpy as np
import pytest
import torch
from bundles import photo, small_bundle
from PIL import Image

from unet import ARCHITECTURES, Segmenter, TestTimeAugmentation, UNet
from unet.predict import SMALLEST_TILE
from unet.tiling import STRIP_PIXELS, mirrored


def whole_and_tiled(segmenter, image, tile):
    return segmenter(image, tile=4096), segmenter(image, tile=tile)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("working_pixels", [None, 9_000, 45_000])
def test_tiled_equals_whole(name, working_pixels, bfloat16):
    segmenter = Segmenter(small_bundle(name, working_pixels=working_pixels, divisor=16))
    assert segmenter.dtype == (torch.bfloat16 if bfloat16 else torch.float32)
    image = photo(151, 217)
    whole, tiled = whole_and_tiled(segmenter, image, tile=64)
    assert len(np.unique(whole.label_map)) > 1, "a constant answer would prove nothing"
    # Sums of other-sized arrays may round differently: a pixel on the edge between two classes may fall either way.
    assert (whole.label_map == tiled.label_map).mean() > 0.9999
    np.testing.assert_allclose(whole.confidence, tiled.confidence, atol=1e-3 if bfloat16 else 1e-5)


@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
@pytest.mark.parametrize("levels", [[0], [0, 1]])
def test_tiled_equals_whole_without_a_skip(name, levels):
    segmenter = Segmenter(small_bundle(name, divisor=16), precision="float32")
    image = photo(151, 217)
    whole, tiled = (segmenter(image, tile=tile, without_skips=levels) for tile in (4096, 64))
    assert len(np.unique(whole.label_map)) > 1, "a constant answer would prove nothing"
    assert (whole.label_map != segmenter(image).label_map).mean() > 0.01, "the skip carries something"
    assert (whole.label_map == tiled.label_map).mean() > 0.9999
    np.testing.assert_allclose(whole.confidence, tiled.confidence, atol=1e-5)


@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
@pytest.mark.parametrize("working_pixels", [None, 20_000])
def test_the_layout_is_what_is_run(name, working_pixels):
    segmenter = Segmenter(small_bundle(name, working_pixels=working_pixels, divisor=16))
    image, seen = photo(151, 217), []
    segmenter.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    segmenter(image, tile=64)
    layout = segmenter.layout((151, 217), tile=64)
    working = segmenter.working_picture(image)
    assert layout.working_size == working.shape[:2]
    assert len(layout.tiles) > 3
    covered = np.zeros((151, 217), int)
    for tile, x in zip(layout.tiles, seen, strict=True):
        covered[tile.rows.pixels, tile.columns.pixels] += 1
        fed = torch.from_numpy(tile.read(working)).permute(2, 0, 1)[None]
        assert tuple(x.shape[2:]) == tile.input_size
        assert x.equal(segmenter.bundle.preprocessing.normalise(fed))
    assert (covered == 1).all()


def test_the_margin_of_the_paper_s_network_is_mirrored():
    (tile,) = Segmenter(small_bundle("crop-concat", divisor=32)).layout((388, 388)).tiles
    assert (tile.rows.window, tile.rows.read) == (range(388), range(-92, 480))
    image = photo(388, 388)
    np.testing.assert_array_equal(tile.read(image), np.pad(image, ((92, 92), (92, 92), (0, 0)), mode="reflect"))
    # A margin wider than the picture is mirrored again and again.
    np.testing.assert_array_equal(
        mirrored(image[:3, :1], range(-4, 6), range(2))[:, 0], image[[0, 1, 2, 1] * 2 + [0, 1], 0]
    )


def test_the_halo_of_a_padded_network_ends_at_the_picture_s_border():
    segmenter = Segmenter(small_bundle("residual-add", divisor=32))
    first, *_, last = segmenter.layout((640, 1000), tile=256).tiles
    halo = 36  # the receptive radius, in whole strides of 4
    assert segmenter.net.config.receptive_radius == 33
    assert (first.rows.window, first.rows.read) == (range(256), range(256 + halo))
    assert (last.columns.window, last.columns.read) == (range(768, 1000), range(768 - halo, 1000))


@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
def test_tiles_equal_one_pass_of_the_bare_network(name):
    """Against the network itself, without any of our tiling: mirrored by numpy, run once, cut out."""
    bundle = small_bundle(name)
    segmenter = Segmenter(bundle, precision="float32")
    image = photo(150, 203)
    config = bundle.net.config
    h, w = config.input_size(image.shape[:2])
    after = (h - 150 - config.margin, w - 203 - config.margin)
    padded = np.pad(image, ((config.margin, after[0]), (config.margin, after[1]), (0, 0)), mode="reflect")
    x = torch.from_numpy(padded).permute(2, 0, 1)[None].float()
    x = (x - torch.tensor(bundle.preprocessing.mean).view(1, 3, 1, 1)) / torch.tensor(bundle.preprocessing.std).view(
        1, 3, 1, 1
    )
    with torch.no_grad():
        logits = bundle.net(x)[0, :, :150, :203]
    result = segmenter(image, tile=48)
    assert (result.label_map == logits.argmax(dim=0).numpy()).mean() > 0.9999
    np.testing.assert_allclose(result.confidence, logits.softmax(dim=0).amax(dim=0).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
@pytest.mark.parametrize("size", [(1, 1), (1, 97), (2, 3), (5, 1), (47, 61), (188, 4), (33, 260)])
@pytest.mark.parametrize("working_pixels", [None, 900])
def test_every_size_comes_back_as_it_was(name, size, working_pixels):
    segmenter = Segmenter(small_bundle(name, working_pixels=working_pixels, divisor=16))
    result = segmenter(photo(*size), tile=64)
    assert result.label_map.shape == result.confidence.shape == size
    assert result.label_map.dtype == np.uint8
    assert result.confidence.dtype == np.float32
    assert result.label_map.max() < 5
    assert 1 / 5 <= result.confidence.min() <= result.confidence.max() <= 1


@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
@pytest.mark.parametrize("working_pixels", [None, 10_000, 43_200])
def test_thin_pictures_cost_at_most_twice_a_square_one(name, working_pixels):
    """The cost is all that the network is fed, margins included, which the working size then bounds too."""
    segmenter = Segmenter(small_bundle(name, working_pixels=working_pixels, divisor=32))

    def cost(size):
        return sum(math.prod(tile.input_size) for tile in segmenter.layout(size).tiles)

    for length in (900, 5000, 65_535, 500_000):
        for width in (1, 2, 7, 80):
            side = math.isqrt(length * width)
            assert cost((width, length)) <= 2 * cost((side, side)), (width, length)
            turned = segmenter.layout((length, width)).working_size[::-1]
            assert segmenter.layout((width, length)).working_size == turned
    for size in ((480, 640), (1080, 1920), (600, 6000), (33, 260), (3000, 4000), (1, 1)):
        expected = segmenter.bundle.preprocessing.working_size(size)
        assert segmenter.layout(size).working_size == expected, "others are seen as they are"


@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
def test_a_row_of_half_a_million_pixels_is_answered_in_a_few_tiles(name):
    segmenter, fed = Segmenter(small_bundle(name, working_pixels=43_200, divisor=32)), []
    segmenter.net.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0][0, 0].numel()))
    result = segmenter(photo(1, 500_000))
    assert result.label_map.shape == result.confidence.shape == (1, 500_000)
    assert sum(fed) <= 2 * math.prod(segmenter.net.config.input_size((208, 208)))


def test_two_classes_share_one_logit():
    result = Segmenter(small_bundle("residual-add", classes=2))(photo(40, 40))
    assert set(np.unique(result.label_map)) == {0, 1}
    assert result.confidence.min() >= 0.5
    assert result.shares().sum() == pytest.approx(1)
    assert result.shares()[1] == pytest.approx(result.label_map.mean())


def test_a_network_sees_the_working_size_and_answers_at_the_picture_s():
    """A picture and its enlargement look alike to a network that works at a fixed number of pixels."""
    segmenter = Segmenter(small_bundle("residual-add", working_pixels=48 * 64), precision="float32")
    rows, columns = np.mgrid[:48, :64]  # smooth: shrinking the enlargement gives the small picture back
    small = np.dstack([np.sin(rows / 7), np.sin(columns / 9), np.cos((rows + columns) / 11)])
    small = (small * 100 + 128).astype(np.uint8)
    large = np.kron(small, np.ones((3, 3, 1), np.uint8))
    answer = segmenter(large).label_map
    assert answer.shape == (144, 192)
    # The middle of each 3x3 block lies on the small picture's pixel; between them the logits are interpolated.
    assert (answer[1::3, 1::3] == segmenter(small).label_map).mean() > 0.95


@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
def test_a_large_picture_seen_small_is_answered_in_strips(name):
    """Its logits are torch's own bilinear enlargement of the small picture's, and never all in memory at once."""
    bundle, image = small_bundle(name, working_pixels=1000, divisor=16), photo(1300, 1000)
    parts = list(Segmenter(bundle, precision="float32").tiles(image))
    assert len(parts) > 1
    assert all(logits[0].numel() <= STRIP_PIXELS for _, _, logits in parts)
    small = bundle.preprocessing.resize(image)
    bundle.preprocessing = dataclasses.replace(bundle.preprocessing, working_pixels=None)
    ((_, _, logits),) = Segmenter(bundle, precision="float32").tiles(small)
    expected = torch.nn.functional.interpolate(logits[None], image.shape[:2], mode="bilinear")[0]
    np.testing.assert_allclose(torch.cat([logits for _, _, logits in parts], dim=1), expected, atol=1e-4)


def test_the_same_picture_gives_the_same_answer():
    segmenter, image = Segmenter(small_bundle("crop-concat")), photo(90, 120)
    first, second = segmenter(image), segmenter(image)
    assert (first.label_map == second.label_map).all()
    assert (first.confidence == second.confidence).all()


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 4), np.uint8)],
)
def test_another_array_is_refused(image):
    with pytest.raises(ValueError, match="uint8 RGB picture"):
        Segmenter(small_bundle("residual-add", divisor=16))(image)


def test_progress_counts_the_tiles():
    segmenter, calls = Segmenter(small_bundle("crop-concat", divisor=16)), []
    segmenter(photo(151, 217), tile=64, progress=lambda done, total: calls.append((done, total)))
    total = len(segmenter.layout((151, 217), tile=64).tiles)
    assert total > 3
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_only_a_network_that_has_not_run_is_warmed_up():
    segmenter, runs = Segmenter(small_bundle("crop-concat", divisor=16)), []
    segmenter.net.register_forward_hook(lambda *_: runs.append(None))
    segmenter.warm_up()
    assert len(runs) == 1
    segmenter.warm_up()
    segmenter(photo(30, 40))
    segmenter.warm_up()
    assert len(runs) == 2


def short_of_memory(segmenter, pixels):
    """The segmenter, with a network that finds no room for inputs of more pixels."""

    def refuse(_, inputs):
        if inputs[0][0, 0].numel() > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory")

    segmenter.net.register_forward_pre_hook(refuse)
    return segmenter


@pytest.mark.parametrize("averaging", [None, TestTimeAugmentation()])
@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
def test_where_memory_is_short_tiles_get_smaller(name, averaging):
    image, fed, calls = photo(300, 300), [], []
    untroubled, troubled = (
        Segmenter(small_bundle(name, divisor=16), precision="float32", averaging=averaging) for _ in range(2)
    )
    untroubled.net.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0][0, 0].numel()))
    expected, tiles = untroubled(image, tile=128), len(fed) // (1 if averaging is None else 6)
    found = short_of_memory(troubled, max(fed))(image, progress=lambda *call: calls.append(call))
    assert "tiles of 512 pixels: 128 were used" in found.note
    assert not expected.note
    assert calls == [(done, tiles) for done in range(1, tiles + 1)]
    np.testing.assert_array_equal(found.label_map, expected.label_map)
    np.testing.assert_array_equal(found.confidence, expected.confidence)


class OnAFullCard(Segmenter):
    """Stands for one on a GPU whose memory others hold: what the GPU is asked for fails, what the CPU does is real."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.device, self.asked = torch.device("cuda"), []

    def run(self, working, tile, **options):
        self.asked.append(max(tile.input_size))
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_where_no_tile_fits_the_cpu_answers_and_the_next_picture_may_fit_again():
    bundle, image = small_bundle("crop-concat", divisor=16), photo(300, 300)
    expected = Segmenter(bundle, precision="float32")(image)
    segmenter = OnAFullCard(bundle, device="cpu", precision="float32")
    for _ in range(2):
        found = segmenter(image)
        assert (found.device, expected.device) == ("cpu", "cpu")
        assert "the CPU segmented it" in found.note
        np.testing.assert_array_equal(found.label_map, expected.label_map)
        np.testing.assert_array_equal(found.confidence, expected.confidence)
        assert len(segmenter.asked) == 4, "with tiles of 512, 256, 128 and 64"
        assert segmenter.asked.pop() < SMALLEST_TILE + 200
        segmenter.asked.clear()


def test_a_network_that_finds_no_room_on_the_card_is_loaded_on_the_cpu(monkeypatch):
    """Where a device is named, too little memory is an error."""
    bundle = small_bundle("residual-add", divisor=16)

    def to(net, device, **options):
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.nn.Module.to(net, device, **options)

    expected = Segmenter(bundle)(photo(40, 50))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(UNet, "to", to)
    segmenter = Segmenter(bundle)
    assert segmenter.device.type == "cpu"
    np.testing.assert_array_equal(segmenter(photo(40, 50)).label_map, expected.label_map)
    with pytest.raises(torch.OutOfMemoryError):
        Segmenter(bundle, device="cuda")


def test_a_cpu_without_memory_says_so():
    with pytest.raises(torch.OutOfMemoryError):
        short_of_memory(Segmenter(small_bundle("residual-add", divisor=16)), 0)(photo(20, 20))


def test_a_retry_finds_the_memory_of_the_first_try_free():
    """Tensors of the failed try must be gone by then; the exception's frames hold them."""
    segmenter, alive = Segmenter(small_bundle("residual-add", divisor=16)), []

    def fail_once(_, inputs):
        assert all(tensor() is None for tensor in alive)
        alive.append(weakref.ref(inputs[0]))
        if len(alive) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    segmenter.net.register_forward_pre_hook(fail_once)
    assert segmenter(photo(40, 40)).note
    assert len(alive) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("megabytes", [200, 8])
def test_on_a_gpu_with_little_memory_the_labels_are_the_same(megabytes):
    image, total = photo(1200, 1600), torch.cuda.get_device_properties(0).total_memory
    expected = Segmenter(small_bundle("crop-concat", divisor=1), precision="float32")(image)
    segmenter = Segmenter(small_bundle("crop-concat", divisor=1), precision="float32")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + megabytes * 2**20) / total)
    try:
        found = segmenter(image)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert found.note
    assert found.device == ("cuda" if megabytes > 100 else "cpu")
    assert (found.label_map == expected.label_map).mean() > 0.99, "TF32 and the CPU round differently"


def test_a_level_without_a_skip_is_refused():
    with pytest.raises(ValueError, match="no skip at level 4"):
        Segmenter(small_bundle("crop-concat", divisor=16))(photo(20, 20), without_skips=[4])


def test_a_tile_smaller_than_the_stride_is_refused():
    with pytest.raises(ValueError, match="at least 18"):
        Segmenter(small_bundle("crop-concat"))(photo(50, 50), tile=8)


def probabilities(segmenter, image, tile=4096):
    """float32 (k, H, W) from the logits of all tiles."""
    whole = torch.full((len(segmenter.bundle.class_names), *image.shape[:2]), torch.nan)
    for rows, columns, logits in segmenter.tiles(image, tile=tile):
        assert whole[:, rows, columns].isnan().all(), "every pixel comes once"
        logits = torch.cat([0 * logits, logits]) if len(logits) == 1 else logits
        whole[:, rows, columns] = logits.softmax(dim=0)
    return whole


@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
@pytest.mark.parametrize("classes", [2, 5])
def test_averaged_probabilities_are_the_mean_of_every_look_s(name, classes):
    """Each look on its own is what a bundle with that working size, or the mirrored picture, gives."""
    image, scales = photo(90, 120), (0.5, 1.0, 1.5)

    def one_look(scale, mirrored):
        bundle = small_bundle(name, classes=classes, working_pixels=round(scale**2 * 80 * 60), divisor=16)
        found = probabilities(Segmenter(bundle, precision="float32"), image[:, ::-1] if mirrored else image)
        return found.flip(2) if mirrored else found

    expected = torch.stack([one_look(*look) for look in itertools.product(scales, (False, True))]).mean(dim=0)
    bundle = small_bundle(name, classes=classes, working_pixels=80 * 60, divisor=16)
    averaged = Segmenter(bundle, precision="float32", averaging=TestTimeAugmentation(scales=scales))
    np.testing.assert_allclose(probabilities(averaged, image), expected, atol=1e-5)
    np.testing.assert_allclose(averaged(image).confidence, expected.amax(dim=0), atol=1e-5)


@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
@pytest.mark.parametrize("working_pixels", [None, 9_000])
def test_averaged_and_tiled_equals_averaged_and_whole(name, working_pixels):
    bundle = small_bundle(name, working_pixels=working_pixels, divisor=16)
    segmenter, image = Segmenter(bundle, precision="float32", averaging=TestTimeAugmentation()), photo(151, 217)
    whole = probabilities(segmenter, image)
    assert len(whole.argmax(dim=0).unique()) > 1
    np.testing.assert_allclose(probabilities(segmenter, image, tile=64), whole, atol=1e-5)


@pytest.mark.parametrize("name", ["residual-add", "crop-concat"])
@pytest.mark.parametrize("size", [(64, 96), (61, 1)])
def test_with_flips_a_mirrored_picture_gets_the_mirrored_answer(name, size):
    image = photo(*size)
    once, averaged = (
        Segmenter(small_bundle(name, divisor=16), precision="float32", averaging=averaging)
        for averaging in (None, TestTimeAugmentation(scales=(1.0,)))
    )
    expected = probabilities(averaged, image).flip(2)
    np.testing.assert_allclose(probabilities(averaged, image[:, ::-1], tile=48), expected, atol=1e-5)
    if size[1] > 1:
        plain = probabilities(once, image).flip(2)
        assert (probabilities(once, image[:, ::-1]) - plain).abs().max() > 1e-3, "which a single look does not give"


def test_without_mkldnn_the_cpu_answers_in_float32(monkeypatch):
    """PyTorch for Apple's processors has none, and asking it what it supports is an error there."""

    def missing():
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_is_mkldnn_bf16_supported'")

    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", missing, raising=False)
    assert Segmenter(small_bundle("residual-add", divisor=16), device="cpu").dtype == torch.float32


def test_one_look_is_the_plain_answer_bit_for_bit():
    bundle, image = small_bundle("crop-concat", divisor=16), photo(90, 120)
    plain, averaged = Segmenter(bundle), Segmenter(bundle, averaging=TestTimeAugmentation(flip=False, scales=(1.0,)))
    assert (plain(image).label_map == averaged(image).label_map).all()
    assert (plain(image).confidence == averaged(image).confidence).all()


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,)])
def test_scales_must_be_positive(scales):
    with pytest.raises(ValueError, match="all above 0"):
        TestTimeAugmentation(scales=scales)


def test_pillow_images_are_segmented_and_other_things_refused():
    segmenter, image = Segmenter(small_bundle("residual-add", divisor=16)), photo(40, 52)
    pillow = Image.fromarray(image)
    assert np.array_equal(segmenter(pillow).label_map, segmenter(image).label_map)
    for wrong in ("street.jpg", image.tolist(), None, pillow.convert("L")):
        with pytest.raises(ValueError, match="uint8 RGB picture"):
            segmenter(wrong)
