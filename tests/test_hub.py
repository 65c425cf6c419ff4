"""Finding and fetching, with the real client against a Hub on loopback (loopback_hub.py)."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bundles import PNG, logits, save_bundle
from huggingface_hub import constants
from loopback_hub import Fault, Repo
from safetensors.torch import load_file, save_file

from training.publish import push_bundles
from unet import Bundle, BundleError, Segmenter
from unet.hub import HubError, fetch_bundle, find_bundles

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, see conftest.py

ROOT = Path(__file__).parent.parent


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
    assert set(repo.files) == {
        ".gitattributes",
        "config.json",
        "model.onnx",
        "model.safetensors",
        "README.md",
        "examples.png",
    }
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


CLIENT = """
import json, sys
from pathlib import Path
from unet import Segmenter
from training.publish import push_bundles
from unet.hub import find_bundles
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
