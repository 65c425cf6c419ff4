"""Cards, fetching and pushing, with the real client against a Hub on loopback (loopback_hub.py)."""

import dataclasses
import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants
from huggingface_hub.repocard_data import model_index_to_eval_results
from loopback_hub import Fault, Repo
from safetensors.torch import load_file, save_file

from unet import ARCHITECTURES, Bundle, BundleError, Preprocessing, Segmenter, UNet
from unet.hub import BEGIN, END, HubError, fetch_bundle, find_bundles, model_card, push_bundles, push_space, write_card

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, see conftest.py

ROOT = Path(__file__).parent.parent
PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)
SCORES = {
    "miou": 0.51239,
    "mean_dice": 0.6,
    "pixel_accuracy": 0.9,
    "iou": {"road": 0.5, "sky": 0.52478, "tree": None},
    "dice": {"road": 0.55, "sky": 0.65, "tree": float("nan")},
    "pictures": 101,
}
RECORD = {
    "data": {
        "name": "CamVid",
        "source": "367 frames",
        "license": "cc-by-nc-4.0",
        "terms": "Research use.",
        "url": "https://example.org/camvid",
    },
    "training": {
        "command": "python train.py --task streets",
        "commit": "0123abc",
        "versions": {"torch": "2.11.0"},
        "hardware": "2 CPU cores",
        "seconds": 4000,
        "seed": 1000,
        "steps": 30000,
        "best_step": 28000,
    },
    "scores": {"val": SCORES},
}


def make_bundle(architecture="residual-add", *, task="streets", seed=0, **record):
    """An untrained bundle with an eighth of the architecture's width."""
    torch.manual_seed(seed)
    config = ARCHITECTURES[architecture]
    net = UNet(dataclasses.replace(config, widths=[width // 8 for width in config.widths], num_outputs=3)).eval()
    normal = Preprocessing((100, 110, 120), (50, 60, 70), working_pixels=10_000)
    palette = np.array([[128, 64, 128], [70, 130, 180], [107, 142, 35]])
    return Bundle(net, task, architecture, ("road", "sky", "tree"), palette, normal, **{**RECORD, **record})


def save_bundle(folder, *args, **kwargs):
    folder = make_bundle(*args, **kwargs).save(folder)
    write_card(folder)
    return folder


def logits(source, revision=None):
    segmenter = Segmenter.load(source, revision=revision, device="cpu", precision="float32")
    image = np.random.default_rng(7).integers(0, 256, (90, 110, 3), np.uint8)
    ((_, _, values),) = segmenter.tiles(image)
    return values


def refused(push, *args, **kwargs):
    """What a push says where it breaks off; nothing where it does not."""
    try:
        push(*args, **kwargs)
    except HubError as error:
        return str(error)
    return ""


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


# Cards


def test_card_says_what_the_bundle_records():
    text = model_card(make_bundle(), repo_id="ann/unet-residual-add-streets")
    for expected in (
        'Segmenter.load("ann/unet-residual-add-streets", revision="main")',
        "| road | 0.500 | 0.550 |",
        "| tree | – | – |",
        "| **mean** | **0.512** | **0.600** |",
        "101 pictures",
        "Pixel accuracy 0.900",
        "python train.py --task streets",
        "- Seed: 1000",
        "- Steps: 30,000",
        "- Weights kept: those of step 28,000, the best on val",
        "- Time: 1 h 7 min",
        "- Versions: torch 2.11.0",
        "Research use.",
        "<https://example.org/camvid>",
        "about 10,000 pixels",
        "The widths are 4, 8 and 16 here; residual-add usually has 32, 64 and 128.",
        "Not the network of this paper",
        "ronneberger2015unet",
    ):
        assert expected in text


def test_card_of_the_paper_network_has_the_sizes_of_its_figure_1():
    bundle = make_bundle()
    bundle.net = UNet(dataclasses.replace(ARCHITECTURES["crop-concat"], num_outputs=3))
    bundle.architecture = "crop-concat"
    text = model_card(bundle)
    for expected in (
        "64 x 568x568   --- crop to 392x392, concatenate -->  64 x 388x388",
        "512 x 64x64    --- crop to 56x56, concatenate -->    512 x 52x52",
        "1024 x 28x28",
        "31,031,875 parameters",
        "The network of this paper, parameter for parameter",
    ):
        assert expected in text
    assert "usually has" not in text


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_card_metadata(architecture):
    front = front_matter(model_card(make_bundle(architecture)))
    assert front["library_name"] == "unet"
    assert front["pipeline_tag"] == "image-segmentation"
    assert front["license"] == "cc-by-nc-4.0"
    assert "license_name" not in front
    assert "datasets" not in front
    assert architecture in front["tags"]
    assert "streets" in front["tags"]
    name, results = model_index_to_eval_results(front["model-index"])
    assert name == f"unet-{architecture}-streets"
    assert {r.metric_type: r.metric_value for r in results} == {"mean_iou": 0.5124, "f1": 0.6, "accuracy": 0.9}
    assert {(r.dataset_name, r.dataset_split) for r in results} == {("CamVid", "val")}
    assert front["metrics"] == ["mean_iou", "f1", "accuracy"]


def test_licence_of_the_data_is_the_licence_of_the_card():
    data = {"name": "Hands", "license": "other", "license_name": "Research only", "url": "https://example.org/terms"}
    other = model_card(make_bundle(data=data | {"hub_dataset": "ann/hands"}))
    front = front_matter(other)
    assert (front["license"], front["license_name"]) == ("other", "research-only")
    assert front["license_link"] == "https://example.org/terms"
    assert front["datasets"] == ["ann/hands"]
    free = front_matter(model_card(make_bundle(data={"license": "cc0-1.0"}), existing=other))
    assert free["license"] == "cc0-1.0"
    assert not {"license_name", "license_link"} & set(free)


def test_what_is_not_recorded_is_left_out():
    text = model_card(make_bundle(data={}, training={}, scores={"val": {"miou": float("nan"), "iou": None}}))
    front = front_matter(text)
    assert set(front) == {"library_name", "pipeline_tag", "tags"}
    assert "None" not in text
    assert "nan" not in text
    assert "## How it was trained" not in text
    assert "## What it was trained on" not in text


def test_pictures_are_shown_where_they_are(tmp_path):
    folder = make_bundle().save(tmp_path)
    assert "![" not in write_card(folder).read_text()
    (folder / "confusion.png").write_bytes(PNG)
    text = write_card(folder).read_text()
    assert "](confusion.png)" in text
    assert "curves.png" not in text


def test_writing_a_card_again_changes_nothing(tmp_path):
    folder = make_bundle().save(tmp_path)
    first = write_card(folder).read_text()
    assert write_card(folder).read_text() == first
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_what_a_person_wrote_into_a_card_stays(tmp_path):
    folder = save_bundle(tmp_path)
    card = folder / "README.md"
    text = card.read_text().replace("library_name: unet\n", "library_name: unet\nlanguage: en\nco2: {emissions: 3}\n")
    text = text.replace("tags:\n", "tags:\n- driving\n").replace("0.512", "0.999")
    text = text.replace(BEGIN, f"Hello *before*.\n\n{BEGIN}").replace(END, f"{END}\n\n## Thanks\n\nTo all.")
    card.write_bytes(text.replace("\n", "\r\n").encode())
    after = write_card(folder).read_text()
    assert "Hello *before*.\n\n" + BEGIN in after
    assert after.rstrip().endswith(END + "\n\n## Thanks\n\nTo all.")
    assert "0.999" not in after
    assert "**0.512**" in after
    front = front_matter(after)
    assert front["language"] == "en"
    assert front["co2"] == {"emissions": 3}
    assert front["tags"][0] == "driving"
    assert "u-net" in front["tags"]


def test_a_card_without_our_part_gets_it_at_the_end():
    text = model_card(make_bundle(), existing="# Mine\n\nWords.\n")
    assert text.index("Words.") < text.index(BEGIN)
    assert model_card(make_bundle(), existing=text) == text


@pytest.mark.parametrize("text", [BEGIN, f"{END} {BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_card_with_broken_markers_is_not_touched(text, tmp_path):
    folder = make_bundle().save(tmp_path)
    (folder / "README.md").write_text(text)
    with pytest.raises(HubError, match=r"once"):
        write_card(folder)
    assert (folder / "README.md").read_text() == text


@pytest.mark.parametrize("front", ["a: [", "- a\n- b", "just text"])
def test_a_card_with_a_broken_front_matter_is_refused(front):
    with pytest.raises(HubError, match=r"front matter.*not valid"):
        model_card(make_bundle(), existing=f"---\n{front}\n---\n")


def test_strange_names_cannot_break_the_card():
    bundle = make_bundle(data={"name": f"a|b\n\n# c {END} <script>"}, scores={"val": {"iou": {"x|y\nz": 0.5}}})
    bundle.class_names = ("x|y\nz", END, "c")
    text = model_card(bundle)
    assert text.count(END) == 1
    assert "<script>" not in text
    assert "\n# c" not in text
    assert "| x\\|y z | 0.500 | – |" in text


# Fetching


@pytest.mark.parametrize("architecture", ["residual-add", "crop-concat"])
@pytest.mark.parametrize("suffixes", [(".safetensors", ".png"), ("no such suffix",)], ids=["lfs", "regular"])
def test_push_and_load_back_bit_equal(hub, tmp_path, architecture, suffixes):
    hub.lfs_suffixes = suffixes
    folder = save_bundle(tmp_path / "bundle", architecture)
    (folder / "examples.png").write_bytes(PNG)
    (folder / "notes.txt").write_text("mine")
    repo_id = f"ann/unet-{architecture}-streets"
    assert push_bundles([folder]) == [f"{hub.url}/{repo_id}"]
    repo = hub.model(repo_id)
    assert set(repo.files) == {".gitattributes", "config.json", "model.safetensors", "README.md", "examples.png"}
    assert len(repo.messages) == 2
    assert not repo.private
    assert bool(hub.lfs) == (suffixes[0] == ".safetensors")
    assert f'Segmenter.load("{repo_id}", revision="main")' in repo.files["README.md"].decode()

    assert torch.equal(logits(repo_id), logits(folder))
    local, remote = Bundle.load(folder), Bundle.load(fetch_bundle(repo_id))
    assert remote.class_names == local.class_names
    assert remote.preprocessing == local.preprocessing
    fetched = fetch_bundle(repo_id)
    assert sorted(p.name for p in fetched.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_revisions_are_kept_apart(hub, tmp_path):
    first, second = save_bundle(tmp_path / "a", seed=1), save_bundle(tmp_path / "b", seed=2)
    repo_id = "ann/unet-residual-add-streets"
    push_bundles([first], tag="v1")
    push_bundles([second], tag="v2")
    commit = hub.model(repo_id).tags["v1"]
    for revision, folder in {"v1": first, "v2": second, "main": second, None: second, commit: first}.items():
        assert torch.equal(logits(repo_id, revision), logits(folder))
    assert not torch.equal(logits(first), logits(second))
    with pytest.raises(HubError, match=r"has no revision v3"):
        Segmenter.load(repo_id, revision="v3")


def test_what_cannot_be_fetched_says_why(hub, tmp_path, monkeypatch):
    folder = save_bundle(tmp_path / "bundle")
    push_bundles([folder], private=True)
    repo_id = "ann/unet-residual-add-streets"
    assert hub.model(repo_id).private
    with pytest.raises(HubError, match=r"there is no folder ann/nothing here and no such model"):
        fetch_bundle("ann/nothing")
    with pytest.raises(HubError, match=r"neither a folder here nor a name"):
        fetch_bundle("ann/no such name")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match=r"does not accept the token.*hf auth login"):
        fetch_bundle(repo_id)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(BundleError, match=r"hf auth login"):
        Segmenter.load(repo_id)
    hub.model(repo_id).private, hub.model(repo_id).gated = False, True
    with pytest.raises(HubError, match=r"gated: ask for access"):
        fetch_bundle(repo_id)
    monkeypatch.setenv("HF_TOKEN", "hf_read")
    hub.model(repo_id).private, hub.model(repo_id).gated = True, False
    assert Bundle.load(fetch_bundle(repo_id)).task == "streets"


def test_a_stranger_s_bundle_is_fetched_without_a_token_and_not_too_large(hub, tmp_path):
    push_bundles([save_bundle(tmp_path / "bundle")], private=True)
    repo_id = "ann/unet-residual-add-streets"
    assert fetch_bundle(repo_id).is_dir()
    with pytest.raises(HubError, match=r"no such model on the Hub that you may see.*only public ones"):
        fetch_bundle(repo_id, anonymous=True, max_bytes=10**9)
    hub.model(repo_id).private, hub.model(repo_id).gated = False, True
    with pytest.raises(HubError, match=r"gated: only public ones can be used here"):
        fetch_bundle(repo_id, anonymous=True)
    hub.model(repo_id).gated = False
    size = sum(path.stat().st_size for path in fetch_bundle(repo_id, anonymous=True).iterdir())
    assert fetch_bundle(repo_id, anonymous=True, max_bytes=size).is_dir()
    with pytest.raises(HubError, match=r"MB are the most here"):
        fetch_bundle(repo_id, anonymous=True, max_bytes=size - 1)


def test_only_safetensors_are_read(hub, tmp_path):
    push_bundles([save_bundle(tmp_path / "bundle")])
    repo = hub.model("ann/unet-residual-add-streets")
    files = {path: (content, False) for path, content in repo.files.items()}
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    repo.commit(files, "pickles")
    with pytest.raises(HubError, match=r"no model.safetensors. Only safetensors"):
        fetch_bundle(repo.id)
    assert not [request for request in hub.requests if "pytorch_model" in request]


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape", "text"])
def test_foreign_tensors_are_refused(hub, tmp_path, change):
    folder = save_bundle(tmp_path / "bundle")
    push_bundles([folder])
    tensors = load_file(folder / "model.safetensors")
    if change == "missing":
        del tensors["head.bias"]
    elif change == "unexpected":
        tensors["more"] = torch.zeros(1)
    elif change == "shape":
        tensors["head.bias"] = torch.zeros(4)
    save_file(tensors, tmp_path / "foreign")
    content = b"text" if change == "text" else (tmp_path / "foreign").read_bytes()
    repo = hub.model("ann/unet-residual-add-streets")
    repo.commit({**repo.commits[repo.refs["main"]], "model.safetensors": (content, True)}, "foreign")
    hub.lfs[hashlib.sha256(content).hexdigest()] = content
    with pytest.raises(BundleError, match=r"model.safetensors"):
        Segmenter.load(repo.id)


def test_without_a_network_the_copy_fetched_last_is_used(hub, tmp_path):
    folder = save_bundle(tmp_path / "bundle")
    push_bundles([folder])
    repo_id = "ann/unet-residual-add-streets"
    hub.fault = Fault(0)
    with pytest.raises(HubError, match=r"could not be fetched.*try again later"):
        fetch_bundle(repo_id)
    hub.fault = None
    first = fetch_bundle(repo_id)
    for kind in ("error", "refused"):
        hub.fault = Fault(0) if kind == "error" else None
        if kind == "refused":
            constants.ENDPOINT = "http://127.0.0.1:9"  # nobody listens there; the fixture puts it back
        assert fetch_bundle(repo_id) == first
    with pytest.raises(HubError, match=r"cannot be reached.*check the network"):
        fetch_bundle("ann/unet-crop-concat-streets")


@pytest.mark.parametrize("kind", ["truncate", "disconnect", "error"])
def test_a_download_that_breaks_off_is_refused_and_can_be_repeated(hub, tmp_path, kind):
    folder = save_bundle(tmp_path / "bundle")
    push_bundles([folder])
    hub.fault = Fault(0, kind, path="/lfs/")
    with pytest.raises(HubError, match=r"could not be fetched"):
        fetch_bundle("ann/unet-residual-add-streets")
    hub.fault = None
    assert torch.equal(logits("ann/unet-residual-add-streets"), logits(folder))


def test_a_full_disk_on_the_way_down_is_named(hub, tmp_path):
    folder = save_bundle(tmp_path / "bundle")
    push_bundles([folder])
    assert (folder / "model.safetensors").stat().st_size > 20_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, limits[1]))
    try:
        with pytest.raises(HubError, match=r"File too large"):
            fetch_bundle("ann/unet-residual-add-streets")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Bundle.load(fetch_bundle("ann/unet-residual-add-streets")).task == "streets"


def test_a_copy_cut_off_on_disk_is_refused(hub, tmp_path):
    push_bundles([save_bundle(tmp_path / "bundle")])
    weights = fetch_bundle("ann/unet-residual-add-streets") / "model.safetensors"
    weights.resolve().write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"not a complete safetensors file"):
        Segmenter.load("ann/unet-residual-add-streets")


# Pushing


def test_pushing_again_changes_nothing(hub, tmp_path):
    folders = [save_bundle(tmp_path / name, name) for name in ("residual-add", "crop-concat")]
    push_bundles(folders, tag="v1")
    before = hub.saved()
    push_bundles(folders, tag="v1")
    push_bundles(folders)
    assert hub.saved() == before


def test_only_what_changed_is_sent(hub, tmp_path):
    folder = save_bundle(tmp_path / "bundle")
    (folder / "curves.png").write_bytes(PNG)
    push_bundles([folder])
    repo = hub.model("ann/unet-residual-add-streets")
    repo.commit({**repo.commits[repo.refs["main"]], "LICENSE": (b"mine", False)}, "a person's")
    (folder / "curves.png").unlink()
    (folder / "examples.png").write_bytes(PNG + b"1")
    hub.requests.clear()
    push_bundles([folder])
    assert set(repo.files) == {
        ".gitattributes", "LICENSE", "config.json", "model.safetensors", "README.md", "examples.png"
    }  # fmt: skip
    assert "](examples.png)" in repo.files["README.md"].decode()
    assert len([request for request in hub.requests if request.startswith("PUT")]) == 1


def test_a_card_edited_on_the_hub_keeps_its_text(hub, tmp_path):
    folder = save_bundle(tmp_path / "bundle", seed=1)
    push_bundles([folder])
    repo = hub.model("ann/unet-residual-add-streets")
    text = repo.files["README.md"].decode() + "\n## Thanks\n\nTo all.\n"
    text = text.replace("---\n", "---\nlanguage: en\n", 1)
    repo.commit({**repo.commits[repo.refs["main"]], "README.md": (text.encode(), False)}, "a person's")
    push_bundles([save_bundle(tmp_path / "next", seed=2, scores={"val": {**SCORES, "miou": 0.7}})])
    after = repo.files["README.md"].decode()
    assert after.rstrip().endswith("To all.")
    assert front_matter(after)["language"] == "en"
    assert "**0.700**" in after
    assert "**0.512**" not in after


def test_an_edit_made_during_a_push_is_not_lost(hub, tmp_path):
    push_bundles([save_bundle(tmp_path / "a", seed=1)])
    repo = hub.model("ann/unet-residual-add-streets")

    def edit(path):
        if "/commit/" in path:
            hub.before = None
            repo.commit({**repo.commits[repo.refs["main"]], "README.md": (b"---\n{}\n---\nMine.", False)}, "a person's")

    hub.before = edit
    second = save_bundle(tmp_path / "b", seed=2)
    with pytest.raises(HubError, match=r"somebody else changed the repository"):
        push_bundles([second])
    assert repo.files["README.md"].endswith(b"Mine.")
    push_bundles([second])
    assert repo.files["README.md"].startswith(b"---")
    assert b"Mine." in repo.files["README.md"]


def test_names_of_repositories(hub, tmp_path):
    folder = save_bundle(tmp_path / "bundle", task="My Own Pictures (2)")
    assert push_bundles([folder], "lab") == [f"{hub.url}/lab/unet-residual-add-my-own-pictures-2"]
    (task, architecture, location), *rest = find_bundles("lab")
    assert (task, architecture) == ("my-own-pictures-2", "residual-add")
    assert not rest
    assert torch.equal(logits(location), logits(folder))


@pytest.mark.parametrize(
    ("token", "namespace", "message"),
    [
        (None, None, "nobody is logged in.*hf auth login.*write role"),
        ("hf_wrong", None, "does not accept the token.*hf auth login"),
        ("hf_read", None, "may only read.*hf auth login.*write role"),
        ("hf_fine_read", None, "may not write ann/unet-residual-add-streets.*Write access"),
        ("hf_fine", "lab", "may not write lab/unet-residual-add-streets"),
        ("hf_write", "stranger", "you are ann.*cannot push to 'stranger'.*ann, lab, museum"),
        ("hf_write", "museum", "may only read in museum"),
    ],
)
def test_who_may_not_push_is_told_before_anything_is_sent(hub, tmp_path, monkeypatch, token, namespace, message):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=message):
        push_bundles([save_bundle(tmp_path / "bundle")], namespace)
    assert not hub.repos
    assert not [request for request in hub.requests if not request.startswith("GET")]


@pytest.mark.parametrize("token", ["hf_write", "hf_fine"])
def test_who_may_push(hub, tmp_path, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    push_bundles([save_bundle(tmp_path / "bundle")], "ann")
    assert list(hub.repos) == [("model", "ann/unet-residual-add-streets")]


def test_what_is_wrong_is_told_before_anything_is_sent(hub, tmp_path):
    good = save_bundle(tmp_path / "good", "crop-concat")
    cases = {
        "no scores on val": save_bundle(tmp_path / "a", scores={}),
        "makes no name": save_bundle(tmp_path / "b", task="日本"),
        "would both become": save_bundle(tmp_path / "c", "crop-concat", seed=3),
        "does not exist": tmp_path / "nothing",
    }
    cut = cases["not a complete safetensors"] = save_bundle(tmp_path / "e")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-1])
    binary = cases["not UTF-8"] = save_bundle(tmp_path / "f")
    (binary / "README.md").write_bytes(b"\xff\xfe")
    invalid = cases["does not accept the metadata.*license_link"] = save_bundle(
        tmp_path / "g", data={"license": "other", "url": "httpx:no link"}
    )
    assert invalid
    for message, folder in cases.items():
        with pytest.raises(BundleError, match=message):
            push_bundles([good, folder])
    for tag in ("", "no spaces", "main", "-v1", "a..b"):
        with pytest.raises(HubError, match=r"cannot name a version"):
            push_bundles([good], tag=tag)
    with pytest.raises(HubError, match=r"no bundle to push"):
        push_bundles([])
    assert not hub.repos


def test_a_version_is_never_moved(hub, tmp_path):
    folder = save_bundle(tmp_path / "a", seed=1)
    push_bundles([folder], tag="v1")
    before = hub.saved()
    with pytest.raises(HubError, match=r"has a version v1 already.*choose another name"):
        push_bundles([save_bundle(tmp_path / "b", seed=2)], tag="v1")
    assert hub.saved() == before


def test_a_private_push_to_a_public_repository_is_refused(hub, tmp_path):
    folder = save_bundle(tmp_path / "a")
    push_bundles([folder])
    with pytest.raises(HubError, match=r"everybody can see it"):
        push_bundles([folder], private=True)


@pytest.mark.parametrize(("kind", "times"), [("error", 10**9), ("disconnect", 1), ("lost", 1)])
def test_a_push_cut_off_at_any_request_leaves_the_old_or_the_new_revision(hub, tmp_path, kind, times):
    names = {"residual-add": "ann/unet-residual-add-streets", "residual-concat": "ann/unet-residual-concat-streets"}
    old = [save_bundle(tmp_path / "old" / "residual-add", "residual-add", seed=1)]
    new = [save_bundle(tmp_path / "new" / name, name, seed=2) for name in names]
    (new[0] / "curves.png").write_bytes(PNG)
    push_bundles(old)
    before = hub.saved()
    first = hub.model(names["residual-add"]).files
    for _ in range(2):  # the second time the card on the Hub is in the client's cache, as it is below
        hub.restore(before)
        hub.requests.clear()
        push_bundles(new, tag="v1")
    requests = len(hub.requests)
    last = {repo_id: hub.model(repo_id).files for repo_id in names.values()}
    assert requests > 15
    for at in range(requests):
        hub.restore(before)
        hub.fault = Fault(at, kind, times)
        refusal = refused(push_bundles, new, tag="v1", progress=False)
        assert refusal or kind != "error"
        assert "\n" not in refusal
        hub.fault = None
        assert hub.model(names["residual-add"]).files in (first, last[names["residual-add"]])
        if ("model", names["residual-concat"]) in hub.repos:
            files = hub.model(names["residual-concat"]).files
            assert list(files) == [".gitattributes"] or files == last[names["residual-concat"]]
        push_bundles(new, tag="v1", progress=False)
        for repo_id, files in last.items():
            repo = hub.model(repo_id)
            assert repo.files == files
            assert repo.tags == {"v1": repo.refs["main"]}
        assert [len(hub.model(repo_id).messages) for repo_id in names.values()] == [3, 2]


def test_a_push_that_breaks_off_says_what_is_done(hub, tmp_path):
    folders = [save_bundle(tmp_path / name, name) for name in ("residual-add", "crop-concat")]
    hub.fault = Fault(1, path="/commit/")
    with pytest.raises(
        HubError,
        match=r"broke off at ann/unet-crop-concat-streets: .*try again later.* Done: ann/unet-residual-add-streets\. "
        r"Not done: ann/unet-crop-concat-streets;.*Run the same command again",
    ):
        push_bundles(folders)


# Finding


def test_bundles_are_found_in_a_folder_and_in_a_namespace(hub, tmp_path):
    weights = tmp_path / "weights"
    folders = [save_bundle(weights / "streets" / name, name) for name in ("crop-concat", "residual-add")]
    folders += [save_bundle(weights / "hands" / "crop-add", "crop-add", task="hands")]
    (weights / "streets" / "examples").mkdir()
    push_bundles(folders)
    hub.repos["model", "ann/unet-of-somebody-else"] = Repo("ann/unet-of-somebody-else", "model", private=False)
    expected = [("hands", "crop-add"), ("streets", "residual-add"), ("streets", "crop-concat")]
    assert [found[:2] for found in find_bundles(weights)] == expected
    assert [found[:2] for found in find_bundles("ann")] == expected
    for found in [*find_bundles(weights), *find_bundles("ann")]:
        assert Segmenter.load(found.location).bundle.architecture == found.architecture
    assert find_bundles("nobody") == []
    with pytest.raises(HubError, match=r"neither a folder here nor a namespace"):
        find_bundles(tmp_path / "nothing")


# The Space

REQUIREMENTS = "gradio==6.31.0\ntorch==2.11.0\n"
README = """---
title: Two U-Nets
sdk: gradio
sdk_version: 6.31.0
python_version: "3.12.12"
app_file: app.py
---
# Two U-Nets
"""


@pytest.fixture(params=["git", "no git"])
def tree(request, tmp_path):
    """A small project, in a git checkout or without git."""
    tree = tmp_path / "tree"
    for name, text in {
        "README.md": README,
        "requirements.txt": REQUIREMENTS,
        "app.py": "print('page')",
        ".gitignore": "# comment\n/runs/\n__pycache__/\n*.log\n!keep.log\n/data\n*.partial\n",
        "unet/__init__.py": "",
        "unet/__pycache__/x.pyc": "no",
        "unet/runs/keep.py": "runs of another kind",
        "runs/last/checkpoint.pt": "no",
        "data/photo.jpg": "no",
        "train.log": "no",
        "keep.log": "yes",
        "weights/streets/examples/photo.jpg": "yes",
        "assets/page.png": "yes",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    save_bundle(tree / "weights" / "streets" / "residual-add")
    if request.param == "git":
        subprocess.run(["git", "init", "-q", str(tree)], check=True)
        subprocess.run(["git", "-C", str(tree), "add", "."], check=True)
        (tree / "untracked.txt").write_text("no")
    return tree


BUNDLE_FILES = {f"weights/streets/residual-add/{name}" for name in ("README.md", "config.json", "model.safetensors")}
TREE_FILES = {
    ".gitattributes", ".gitignore", "README.md", "requirements.txt", "app.py", "keep.log", "unet/__init__.py",
    "unet/runs/keep.py", "weights/streets/examples/photo.jpg", "assets/page.png",
}  # fmt: skip


def test_a_space_is_the_tree_without_what_is_ignored(hub, tree):
    assert push_space(tree, "two-u-nets") == f"{hub.url}/spaces/ann/two-u-nets"
    space = hub.space("ann/two-u-nets")
    assert set(space.files) == TREE_FILES | BUNDLE_FILES
    assert not space.variables
    assert len(space.messages) == 2


def test_a_space_points_at_the_pushed_models_and_is_updated(hub, tree):
    with pytest.raises(HubError, match=r"ann has no bundle on the Hub yet"):
        push_space(tree, "ann/two-u-nets", namespace="ann")
    push_bundles([tree / "weights" / "streets" / "residual-add"])
    push_space(tree, "ann/two-u-nets", namespace="ann", private=True)
    space = hub.space("ann/two-u-nets")
    assert set(space.files) == TREE_FILES
    assert space.variables == {"UNET_WEIGHTS": "ann"}
    assert space.private
    front = front_matter(space.files["README.md"].decode())
    assert front["models"] == front["preload_from_hub"] == ["ann/unet-residual-add-streets"]
    assert front["thumbnail"] == f"{hub.url}/spaces/ann/two-u-nets/resolve/main/assets/page.png"
    assert {key: front[key] for key in front_matter(README)} == front_matter(README)
    assert space.files["README.md"].decode().endswith("# Two U-Nets\n")
    push_space(tree, "ann/two-u-nets", namespace="ann")
    assert len(space.messages) == 2
    (tree / "keep.log").unlink()
    (tree / "app.py").write_text("print('new')")
    push_space(tree, "ann/two-u-nets")
    assert set(space.files) == TREE_FILES - {"keep.log"} | BUNDLE_FILES
    assert space.files["app.py"] == b"print('new')"
    assert not space.variables


def test_a_tree_that_would_not_start_is_refused(hub, tree):
    (tree / "README.md").write_text(
        README.replace("6.31.0", "6.30.0").replace("gradio", "docker").replace("app.py", "x")
    )
    with pytest.raises(HubError, match=r"sdk is 'docker'.*sdk_version is '6.30.0'.*gradio 6.31.0.*app_file is 'x'"):
        push_space(tree, "two-u-nets")
    (tree / "README.md").write_text(README.replace('python_version: "3.12.12"\n', ""))
    with pytest.raises(HubError, match=r"python_version is not set"):
        push_space(tree, "two-u-nets")
    (tree / "README.md").write_text("---\na: [\n---\n")
    with pytest.raises(HubError, match=r"not valid YAML"):
        push_space(tree, "two-u-nets")
    (tree / "README.md").unlink()
    with pytest.raises(HubError, match=r"a Space needs README.md"):
        push_space(tree, "two-u-nets")
    assert not hub.repos


def test_names_and_tokens_of_a_space(hub, tree, monkeypatch):
    for name in ("", "a b", "a/b/c", "-x"):
        with pytest.raises(HubError, match=r"no name for a Space"):
            push_space(tree, name)
    with pytest.raises(HubError, match=r"cannot push to 'stranger'"):
        push_space(tree, "stranger/two-u-nets")
    monkeypatch.setenv("HF_TOKEN", "hf_read")
    with pytest.raises(HubError, match=r"may only read"):
        push_space(tree, "two-u-nets")
    assert not hub.repos


@pytest.mark.parametrize("kind", ["error", "lost"])
def test_a_space_cut_off_at_any_request_is_old_or_new(hub, tree, kind):
    push_bundles([tree / "weights" / "streets" / "residual-add"])
    push_space(tree, "two-u-nets")
    before, old = hub.saved(), hub.space("ann/two-u-nets").files
    (tree / "app.py").write_text("print('new')")
    hub.requests.clear()
    push_space(tree, "two-u-nets", namespace="ann")
    requests, new = len(hub.requests), hub.space("ann/two-u-nets").files
    for at in range(requests):
        hub.restore(before)
        hub.fault = Fault(at, kind, 1 if kind == "lost" else 10**9)
        refusal = refused(push_space, tree, "two-u-nets", namespace="ann", progress=False)
        assert refusal or kind == "lost"
        assert "\n" not in refusal
        hub.fault = None
        assert hub.space("ann/two-u-nets").files in (old, new)
        push_space(tree, "two-u-nets", namespace="ann", progress=False)
        assert hub.space("ann/two-u-nets").files == new
        assert hub.space("ann/two-u-nets").variables == {"UNET_WEIGHTS": "ann"}
        assert len(hub.space("ann/two-u-nets").messages) == 3


# As a user's own process


CLIENT = """
import json, sys
from pathlib import Path
from unet import Segmenter
from unet.hub import find_bundles, push_bundles
import numpy as np
push_bundles(sys.argv[1:], tag="v1") if sys.argv[1:] else None
found = find_bundles("ann")
segmenter = Segmenter.load(found[0].location, revision="v1", device="cpu", precision="float32")
result = segmenter(np.arange(40 * 50 * 3).astype(np.uint8).reshape(40, 50, 3))
print(json.dumps([found, float(result.confidence.sum())]))
"""


def test_in_a_process_of_its_own_and_then_offline(hub, tmp_path):
    """The client as the environment sets it up: push, list and load; then list and load with the Hub gone."""
    folder = save_bundle(tmp_path / "bundle")
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_write",
        "PYTHONPATH": str(ROOT),
    }

    def client(*args, **more):
        command = [sys.executable, "-W", "error", "-W", "ignore:Use 'content=", "-c", CLIENT, *map(str, args)]
        done = subprocess.run(command, env=environment | more, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    pushed = client(folder)
    assert "Pushing" in pushed.stderr
    online = json.loads(pushed.stdout)
    assert online[0] == [["streets", "residual-add", "ann/unet-residual-add-streets"]]
    offline = json.loads(client(HF_HUB_OFFLINE="1").stdout)
    assert offline == online
