"""Pushing, with the real client against a Hub on loopback (loopback_hub.py)."""

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from bundles import PNG, SCORES, front_matter, logits, photo, save_bundle
from loopback_hub import Fault
from PIL import Image

from training.publish import push_bundles, push_space
from unet import Bundle, BundleError, Segmenter, read_image
from unet.export import to_onnx
from unet.hub import HubError, find_bundles

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, see conftest.py


def refused(push, *args, **kwargs):
    """What a push says where it breaks off; nothing where it does not."""
    try:
        push(*args, **kwargs)
    except HubError as error:
        return str(error)
    return ""


def test_pushing_again_changes_nothing(hub, tmp_path):
    folders = [save_bundle(tmp_path / name, name) for name in ("residual-add", "crop-concat")]
    push_bundles(folders, tag="v1")
    before = hub.saved()
    push_bundles(folders, tag="v1")
    push_bundles(folders)
    assert hub.saved() == before


def test_the_cards_lines_run_the_pushed_network_without_torch(hub, tmp_path, monkeypatch):
    folder = save_bundle(tmp_path / "bundle")
    push_bundles([folder])
    card = hub.model("ann/unet-residual-add-streets").files["README.md"].decode()
    lines = next(block for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "onnxruntime" in block)
    assert "torch" not in lines
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo(40, 50)).save("picture.jpg")
    found = {}
    exec(lines, found)
    answer = Segmenter.load(folder, device="cpu", precision="float32")(read_image("picture.jpg"))
    assert np.mean(found["label_map"] == answer.label_map) >= 0.999
    np.testing.assert_allclose(found["confidence"], answer.confidence, atol=1e-3)


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
        ".gitattributes", "LICENSE", "config.json", "model.onnx", "model.safetensors", "README.md", "examples.png"
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
        "no scores on val, which": save_bundle(tmp_path / "d", scores={"val": {}}),
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
def test_a_push_cut_off_at_any_request_leaves_the_old_or_the_new_revision(hub, tmp_path, monkeypatch, kind, times):
    names = {"residual-add": "ann/unet-residual-add-streets", "residual-concat": "ann/unet-residual-concat-streets"}
    old = [save_bundle(tmp_path / "old" / "residual-add", "residual-add", seed=1)]
    new = [save_bundle(tmp_path / "new" / name, name, seed=2) for name in names]
    (new[0] / "curves.png").write_bytes(PNG)
    push_bundles(old)
    # Exported once each: a hundred times is most of this test's time.
    exported = {name: to_onnx(Bundle.load(folder)) for name, folder in zip(names, new, strict=True)}
    monkeypatch.setattr("training.publish.to_onnx", lambda bundle: exported[bundle.architecture])
    before = hub.saved()
    first = hub.model(names["residual-add"]).files
    for _ in range(2):  # the second time the card on the Hub is in the client's cache, as it is below
        hub.restore(before)
        hub.requests.clear()
        push_bundles(new, tag="v1")
    requests = len(hub.requests)
    last = {repo_id: hub.model(repo_id).files for repo_id in names.values()}
    assert requests > 15
    for at in range(0, requests, 1 if kind == "error" else 3):
        hub.restore(before)
        hub.fault = Fault(at, kind, times)
        refusal = refused(push_bundles, new, tag="v1")
        assert refusal or kind != "error"
        assert "\n" not in refusal
        hub.fault = None
        assert hub.model(names["residual-add"]).files in (first, last[names["residual-add"]])
        if ("model", names["residual-concat"]) in hub.repos:
            files = hub.model(names["residual-concat"]).files
            assert list(files) == [".gitattributes"] or files == last[names["residual-concat"]]
        push_bundles(new, tag="v1")
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


@pytest.fixture
def tree(tmp_path):
    """A small project, in a git checkout."""
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


def test_a_tree_without_git_is_refused_with_what_to_do(hub, tree):
    shutil.rmtree(tree / ".git")
    with pytest.raises(HubError, match=r"A Space is what git tracks.*git init"):
        push_space(tree, "two-u-nets")
    assert not hub.requests


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
        refusal = refused(push_space, tree, "two-u-nets", namespace="ann")
        assert refusal or kind == "lost"
        assert "\n" not in refusal
        hub.fault = None
        assert hub.space("ann/two-u-nets").files in (old, new)
        push_space(tree, "two-u-nets", namespace="ann")
        assert hub.space("ann/two-u-nets").files == new
        assert hub.space("ann/two-u-nets").variables == {"UNET_WEIGHTS": "ann"}
        assert len(hub.space("ann/two-u-nets").messages) == 3
