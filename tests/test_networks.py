"""Which networks the page offers, what it makes of those that a visitor names, and what it remembers."""

import dataclasses
import json
import math
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from bundles import photo, small_bundle
from safetensors.torch import load_file, save_file

from page import networks
from page.errors import refusal
from training.publish import push_bundles
from unet import Segmenter
from unet.bundle import BundleError
from unet.hub import fetch_bundle, visitors_cache

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the Hub client's own

SCORES = {"miou": 0.5, "iou": [0.5] * 5}


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """A folder with a task of three networks, one of two of which none is preferred, and one with a single network."""
    for task, architectures in {
        "garden": ("residual-add", "crop-concat", "residual-concat"),
        "beach": ("crop-add", "residual-concat"),
        "lonely": ("residual-add",),
    }.items():
        for seed, architecture in enumerate(architectures):
            bundle = small_bundle(architecture, task=task, seed=seed, divisor=16)
            bundle.save(tmp_path / "weights" / task / architecture)
    monkeypatch.setattr(networks, "WEIGHTS", str(tmp_path / "weights"))
    networks.tasks.cache_clear()
    yield tmp_path / "weights"
    networks.tasks.cache_clear()


def push(folder, *, task="garden", seed=9, **changes):
    bundle = dataclasses.replace(small_bundle("residual-add", task=task, seed=seed, divisor=16), **changes)
    bundle.scores = {"val": SCORES}
    bundle.save(folder)
    return push_bundles([folder])[0].split("/", 3)[3]


def test_a_task_is_offered_with_two_networks_and_begins_with_the_preferred(offered):
    assert {task: set(found) for task, found in networks.tasks().items()} == {
        "beach": {"crop-add", "residual-concat"},
        "garden": {"residual-add", "crop-concat", "residual-concat"},
    }
    assert networks.default_names("garden") == ("residual-add", "crop-concat")
    assert set(networks.default_names("beach")) == {"crop-add", "residual-concat"}


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def put_nan(folder):
    weights = load_file(folder / "model.safetensors")
    weights["head.bias"].fill_(math.nan)
    save_file(weights, folder / "model.safetensors")


def put_a_folder(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


BAD = {
    "cut off": lambda folder: os.truncate(folder / "model.safetensors", 5000),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "nan": put_nan,
    "a folder": put_a_folder,
    "no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "a list": lambda folder: (folder / "config.json").write_text("[]"),
    "wrong types": lambda folder: edit_config(folder, config={"widths": "wide"}, class_names=7, preprocessing=None),
    "words for numbers": lambda folder: edit_config(folder, palette="red", data="none"),
    "a million classes": lambda folder: edit_config(folder, class_names=[str(i) for i in range(10**6)]),
    "another order": lambda folder: edit_config(folder, class_names=["street", "background", "tree", "car", "sky"]),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_bundle_is_left_out_by_name_in_the_log(offered, caplog, bad):
    BAD[bad](offered / "garden" / "residual-add")
    assert set(networks.tasks()) == {"beach", "garden"}
    assert set(networks.tasks()["garden"]) == {"crop-concat", "residual-concat"}
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("garden/residual-add is left out: ")
    assert len(caplog.messages[0]) < 1000
    assert networks.class_names("garden") == ("background", "street", "tree", "car", "sky")


def test_folders_of_this_machine_are_in_no_refusal():
    for sentence, shown in {
        "/srv/page/weights/garden/net/config.json does not exist": "config.json does not exist",
        "There is no file '/tmp/gradio/ab/x.png': check it.": "There is no file 'x.png': check it.",
        "See https://huggingface.co/ann/net, or ann/net@main.": "See https://huggingface.co/ann/net, or ann/net@main.",
        "Ann/net and 1/2 of it stay.": "Ann/net and 1/2 of it stay.",
    }.items():
        assert str(refusal(sentence).message).lower() == shown.lower()


def test_a_network_from_the_hub_at_a_revision(offered, hub, tmp_path):
    repo_id = push(tmp_path / "first")
    old = hub.model(repo_id).refs["main"]
    push(tmp_path / "second", seed=10)
    image = photo(40, 50)
    newest, pinned = networks.choose("garden", repo_id), networks.choose("garden", f"{repo_id}@{old}")
    for network, folder in ((newest, "second"), (pinned, "first")):
        expected = Segmenter.load(tmp_path / folder)(image).label_map
        np.testing.assert_array_equal(networks.segmenter(network.location)(image).label_map, expected)
    assert newest.card == f"{hub.url}/{repo_id}"
    assert pinned.card == f"{hub.url}/{repo_id}/tree/{old}"
    assert networks.choose("garden", "crop-concat").card is None


def test_a_download_is_said_and_nothing_else(offered, hub, tmp_path, monkeypatch):
    said, repo_id = [], push(tmp_path / "bundle")
    monkeypatch.setattr(networks.gr, "Info", said.append)
    networks.choose("garden", "crop-concat")
    with pytest.raises(BundleError):
        networks.choose("garden", "ann/nothing")
    assert said == []
    networks.choose("garden", repo_id)
    networks.choose("garden", repo_id)
    assert said == [f"Fetching {repo_id} from the Hub …"]


def test_what_does_not_fit_is_refused_in_a_sentence(offered, hub, tmp_path):
    def refused(name, reason):
        with pytest.raises(BundleError, match=reason):
            networks.choose("garden", name)

    refused("<b>", r"“\?b\?” is no network for garden: choose residual-add, crop-concat, residual-concat, or name")
    refused("../weights/garden/residual-add", "is no network for garden")
    refused("ann/nothing", "no such model on the Hub that you may see; check the name, and only public ones")
    other = push(tmp_path / "other", class_names=("a", "b", "c", "d", "e"), task="sea")
    refused(other, r"does not know the classes of garden \(background, street, tree, car, sky\)")
    preprocessing = dataclasses.replace(small_bundle("residual-add").preprocessing, working_pixels=10**7)
    refused(push(tmp_path / "slow", preprocessing=preprocessing), "looks at 10 million pixels of every picture")
    hub.model(other).private = True
    refused(other, "only public ones can be used here")


def test_of_a_visitor_s_networks_only_a_few_stay_loaded(offered, tmp_path):
    own = networks.segmenter(networks.tasks()["garden"]["crop-concat"])
    places = [str(small_bundle("residual-add", divisor=16).save(tmp_path / str(i))) for i in range(6)]
    first, *_, last = [networks.segmenter(place) for place in places]
    assert networks.segmenter(places[-1]) is last
    assert networks.segmenter(places[0]) is not first
    assert networks.segmenter(networks.tasks()["garden"]["crop-concat"]) is own


def test_on_the_disk_stay_those_that_were_asked_for_last_and_the_page_s_own(offered, hub, tmp_path, monkeypatch):
    names = ("first", "second", "third")
    repos = [push(tmp_path / name, seed=seed, task=name) for seed, name in enumerate(names)]
    ordinary = fetch_bundle(repos[1])  # by whoever runs the page
    places = {name: Path(networks.choose("garden", name).location) for name in repos[:2]}
    assert all(place.is_relative_to(visitors_cache()) for place in places.values())
    size = sum(path.stat().st_size for path in places[repos[0]].iterdir())
    monkeypatch.setattr(networks, "HUB_CACHE_BYTES", size * 5 // 2)
    networks.choose("garden", repos[0])
    networks.choose("garden", repos[2])
    assert places[repos[0]].is_dir()
    assert not places[repos[1]].exists(), "the one that was asked for the longest ago"
    assert (ordinary / "model.safetensors").is_file(), "what the page has not fetched is not its to delete"
    networks._load_for_a_while.cache_clear()
    with pytest.raises(BundleError, match="no longer kept here: choose it again"):
        networks.segmenter(str(places[repos[1]]))
    assert networks.segmenter(networks.choose("garden", repos[1]).location).bundle.task == "second"


def test_what_turns_out_to_be_no_bundle_is_bounded_too(offered, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "HUB_CACHE_BYTES", 0)
    repo_id = push(tmp_path / "other", class_names=("a", "b", "c", "d", "e"), task="sea")
    with pytest.raises(BundleError):
        networks.choose("garden", repo_id)
    assert not list(visitors_cache().rglob("*.safetensors"))


def test_where_a_stranger_s_bundle_lies_is_not_said(offered, hub, tmp_path):
    repo_id = push(tmp_path / "odd")
    files = hub.model(repo_id).commits[hub.model(repo_id).refs["main"]]
    files["config.json"] = (b"{}", False)
    with pytest.raises(BundleError) as caught:
        networks.choose("garden", repo_id)
    assert repo_id in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_only_what_is_not_known_is_asked(monkeypatch):
    asked = []

    def run(locations, image):
        asked.append(locations)
        return tuple((location, image.sum()) for location in locations)

    def ask(names, image):
        return networks.segmentations([networks.Network(name, name) for name in names], image)

    monkeypatch.setattr(networks, "run_networks", run)
    monkeypatch.setattr(networks, "_known", OrderedDict())
    image, other = photo(40, 50), photo(40, 50, seed=1)
    assert ask("ab", image) == (("a", image.sum()), ("b", image.sum()))
    ask("ca", image.copy())
    ask("bc", image)
    ask("ab", other)
    ask("ab", image.reshape(50, 40, 3))
    assert asked == [("a", "b"), ("c",), ("a", "b"), ("a", "b")]
    for seed in range(networks.KNOWN_ANSWERS):
        ask("a", photo(4, 5, seed=seed))
    del asked[:]
    ask("a", image)
    assert asked == [("a",)], "the oldest is forgotten"


def test_a_network_runs_once_before_it_is_timed(offered):
    location = networks.tasks()["beach"]["crop-add"]
    runs = []
    networks.segmenter(location).net.register_forward_hook(lambda *_: runs.append(None))
    (once,) = networks.segment((location,), photo(40, 50))
    assert len(runs) == 2
    (again,) = networks.segment((location,), photo(40, 50))
    assert len(runs) == 3
    np.testing.assert_array_equal(once.label_map, again.label_map)
