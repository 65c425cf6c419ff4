"""Push bundles and the page to the Hugging Face Hub.

A push is checked before anything is sent, and is one commit a repository: each has its old revision or its new one.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, RepoCard, hf_hub_download
from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import tqdm
from huggingface_hub.utils.sha import git_hash
from yaml import YAMLError

from unet.bundle import CARD_FILE, CARD_PICTURES, CONFIG_FILE, WEIGHTS_FILE, Bundle
from unet.export import ONNX_FILE, to_onnx
from unet.hub import (
    LOG_IN,
    NETWORK_ERRORS,
    PREFIX,
    WEIGHTS_VARIABLE,
    HubError,
    explain,
    find_bundles,
    is_name,
    one_line,
)
from unet.web import export_page

from .card import model_card, read_text, slug

#: What a link to the Space shows.
THUMBNAIL = "assets/page.png"
_Files = dict[str, Path | bytes]  # by their names in the repository


@dataclass(frozen=True)
class _Push:
    """One commit to come; a new repository has no revision."""

    repo_id: str
    kind: str
    message: str
    files: _Files
    stale: list[str]
    revision: str | None
    tag: str | None = None


def check_push(
    bundles: Iterable[tuple[str, str]], namespace: str | None = None, *, tag: str | None = None
) -> list[str]:
    """Check names, tag and token of a push.

    Returns the ids of the repositories.
    bundles: (task, architecture) each. namespace: a user or an organisation; None is the account of the token.
    Raises HubError for a name or a tag that the Hub does not take, and for a token that may not write there.
    """
    names = []
    for task, architecture in bundles:
        names.append(f"{PREFIX}{slug(architecture)}-{slug(task)}")
        if not slug(task) or not slug(architecture) or len(names[-1]) > 96:
            raise HubError(
                f"the task {task!r} with {architecture!r} makes no name of a repository on the Hub; give the task "
                "another name with --task: 1 to 60 letters, digits and hyphens"
            )
    if tag is not None and (not is_name(tag) or tag in ("main", "HEAD") or tag.endswith(".lock")):
        raise HubError(f"{tag!r} cannot name a version; use letters, digits, dots and hyphens, as in v1")
    if namespace and not is_name(namespace):
        raise HubError(f"{namespace!r} cannot be a user or an organisation on the Hub; check the name")
    return _writable(HfApi(), namespace, names)


def push_bundles(
    folders: Sequence[str | Path],
    namespace: str | None = None,
    *,
    private: bool = False,
    tag: str | None = None,
    loaded: Mapping[Path, Bundle] | None = None,
) -> list[str]:
    """Push each bundle to its repository; returns the addresses.

    They are called <namespace>/unet-<architecture>-<task>. One that has the bundle already gets no new commit; what
    people wrote into its card is kept.
    namespace: a user or an organisation; None is the account of the token. private: create repositories that only their
    owner sees. tag: name the revisions pushed, as "v1"; a tag is never moved. loaded: bundles in hand, by folder.

    Raises HubError before anything is sent where a check fails, and where the push breaks off; then each repository
    has its old revision or its new one, and the same call completes it.
    """
    api = HfApi()
    if not folders:
        raise HubError("there is no bundle to push; train one with train.py, or name the folders that hold them")
    bundles = {Path(folder): (loaded or {}).get(Path(folder)) or Bundle.load(folder) for folder in folders}
    for folder, bundle in bundles.items():
        scores = bundle.scores.get("val")
        if not isinstance(scores, dict) or not isinstance(scores.get("miou"), int | float):
            raise HubError(f"{folder} has no scores on val, which its card shows; evaluate it first with train.py")
    repo_ids = check_push(((b.task, b.architecture) for b in bundles.values()), namespace, tag=tag)
    if doubled := {repo_id for repo_id in repo_ids if repo_ids.count(repo_id) > 1}:
        raise HubError(f"several of these folders would both become {doubled.pop()}; push one of them")
    with _asking():
        pushes = [
            _plan(api, repo_id, folder, bundle, private=private, tag=tag)
            for repo_id, (folder, bundle) in zip(repo_ids, bundles.items(), strict=True)
        ]
    for number, push in enumerate(tqdm(pushes, desc="Pushing", unit="bundle")):
        done, left = (", ".join(repo_ids[part]) or "none" for part in (slice(number), slice(number, None)))
        with _sending(push.repo_id, f"Done: {done}. Not done: {left}; each of them is as it was before or complete"):
            if push.revision is None:
                api.create_repo(push.repo_id, private=private, exist_ok=True)
            revision = _commit(api, push)
            if push.tag:
                api.create_tag(push.repo_id, tag=push.tag, revision=revision)
    return [f"{api.endpoint}/{repo_id}" for repo_id in repo_ids]


def _writable(api: HfApi, namespace: str | None, names: list[str]) -> list[str]:
    """Ids of the repositories, which the token may write."""
    with _asking():
        account = api.whoami()
    user, organisations = account["name"], {org["name"]: org for org in account.get("orgs", [])}
    namespace = namespace or user
    if namespace != user and namespace not in organisations:
        allowed = ", ".join([user, *organisations])
        raise HubError(f"you are {user} on the Hub and cannot push to {namespace!r}; yours are: {allowed}")
    if organisations.get(namespace, {}).get("roleInOrg") == "read":
        raise HubError(f"{user} may only read in {namespace}; ask one of its admins for the write or contributor role")
    token = account.get("auth", {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise HubError(f"the token {token.get('displayName', '')!r} may only read; {LOG_IN}")
    repo_ids = [f"{namespace}/{name}" for name in names]
    if token.get("role") == "fineGrained":
        scopes = token.get("fineGrained", {}).get("scoped", [])
        writable = {scope["entity"].get("name") for scope in scopes if "repo.write" in scope.get("permissions", [])}
        refused = [repo_id for repo_id in repo_ids if not {namespace, repo_id} & writable]
        if refused:
            raise HubError(
                f"the fine-grained token {token.get('displayName', '')!r} may not write {refused[0]}; tick "
                f"'Write access to contents of all repos' for {namespace} in its settings, or {LOG_IN}"
            )
    return repo_ids


def _plan(api: HfApi, repo_id: str, folder: Path, bundle: Bundle, *, private: bool, tag: str | None) -> _Push:
    """What a push of this bundle will change."""
    revision, present = _repo_state(api, repo_id, "model", private=private)
    card = folder / CARD_FILE
    if CARD_FILE in present:
        card = Path(hf_hub_download(repo_id, CARD_FILE, revision=revision))
    text = model_card(bundle, repo_id=repo_id, folder=folder, existing=read_text(card))
    try:
        ModelCard(text).validate()
    except ValueError as error:
        raise HubError(f"the Hub does not accept the metadata of {repo_id}'s card: {error}") from error
    files: _Files = {name: folder / name for name in (CONFIG_FILE, WEIGHTS_FILE)}
    # Another version of torch may write other bytes for the same network.
    if ONNX_FILE not in present or not _has_files(api, repo_id, revision, files):
        files[ONNX_FILE] = to_onnx(bundle)
    files[CARD_FILE] = text.encode()
    files |= {name: folder / name for name in CARD_PICTURES if (folder / name).is_file()}
    message = f"{bundle.architecture} for {bundle.task}" + (f", {tag}" if tag else "")
    stale = [name for name in CARD_PICTURES if name in present and name not in files]
    if tag and revision and tag in {ref.name for ref in api.list_repo_refs(repo_id).tags}:
        if not _has_files(api, repo_id, tag, files):
            raise HubError(
                f"{repo_id} has a version {tag} already, with other files; versions stay what they are: choose another "
                "name for this one"
            )
        tag = None
    return _Push(repo_id, "model", message, files, stale, revision, tag)


def _repo_state(api: HfApi, repo_id: str, kind: str, *, private: bool) -> tuple[str | None, list[str]]:
    """Revision and files; HubError if public against ``private``."""
    try:
        info = api.repo_info(repo_id, repo_type=kind)
    except RepositoryNotFoundError:
        return None, []
    if private and not info.private:
        raise HubError(
            f"{repo_id} exists and everybody can see it; make it private in its settings on the Hub, or push without "
            "asking for a private one"
        )
    return info.sha, [file.rfilename for file in info.siblings]


def _commit(api: HfApi, push: _Push) -> str:
    """Send a commit; returns its revision."""
    operations = [CommitOperationAdd(name, content) for name, content in push.files.items()]
    operations += [CommitOperationDelete(name) for name in push.stale]
    # On top of the revision looked at: no edit in between is lost. The client leaves out unchanged files.
    return api.create_commit(
        push.repo_id, operations, commit_message=push.message, repo_type=push.kind, parent_commit=push.revision
    ).oid


def _has_files(api: HfApi, repo_id: str, revision: str | None, files: _Files) -> bool:
    """Whether a revision has these files, by their hashes."""
    entries = api.get_paths_info(repo_id, list(files), revision=revision)
    remote = {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in entries}
    for name, content in files.items():
        content = content.read_bytes() if isinstance(content, Path) else content
        if remote.get(name) not in (git_hash(content), hashlib.sha256(content).hexdigest()):
            return False
    return True


@contextmanager
def _asking() -> Iterator[None]:
    """Raise HubError where the Hub cannot be asked."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise HubError(f"nobody is logged in to the Hub; {LOG_IN}, or set HF_TOKEN") from error
    except NETWORK_ERRORS as error:
        raise HubError(f"nothing was pushed, because the Hub could not be asked: {explain(error)}") from error


@contextmanager
def _sending(repo_id: str, state: str) -> Iterator[None]:
    """Raise HubError where a push breaks off."""
    try:
        yield
    except (*NETWORK_ERRORS, ValueError) as error:
        raise HubError(
            f"the push broke off at {repo_id}: {explain(error)}. {state}, never half of each. Run the same command "
            "again to complete the push."
        ) from error


# The page as a Space


def check_space_name(repo_id: str) -> str:
    """The whole name of a Space that the token may write.

    Raises HubError for another, and for what is no name.
    """
    if not all(map(is_name, repo_id.split("/", 1))):
        raise HubError(
            f"{repo_id!r} is no name for a Space; give 'name' or 'owner/name' in letters, digits and hyphens"
        )
    owner, _, name = repo_id.rpartition("/")
    return _writable(HfApi(), owner or None, [name])[0]


def check_space(tree: Path) -> tuple[_Files, RepoCard]:
    """The files that git tracks, and README.md.

    Raises HubError for a tree that would not start.
    """
    try:
        command = ["git", "-C", str(tree), "ls-files", "-z"]
        listing = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = " ".join(getattr(error, "stderr", str(error)).split())
        raise HubError(
            f"git cannot list the files of {tree}: {said}. A Space is what git tracks: install git, and in a "
            "downloaded archive run `git init` and `git add .` first"
        ) from error
    paths = {name: tree / name for name in sorted(listing.split("\0")) if name}
    files: _Files = {name: path for name, path in paths.items() if path.is_file() and not path.is_symlink()}
    if absent := [name for name in ("README.md", "requirements.txt") if name not in files]:
        raise HubError(f"a Space needs {' and '.join(absent)}, which {tree} does not track")
    try:
        card = RepoCard(read_text(tree / "README.md"))
    except (ValueError, YAMLError) as error:
        raise HubError(f"the front matter of README.md is not valid YAML: {one_line(error)}") from error
    pin = re.search(r"^gradio(?:\[[^\]]*\])?\s*==\s*([\w.]+)", read_text(tree / "requirements.txt"), re.MULTILINE)
    sdk, version, app, python = map(card.data.get, ("sdk", "sdk_version", "app_file", "python_version"))
    problems = {
        f"sdk is {sdk!r}, it must be 'gradio'": sdk != "gradio",
        "requirements.txt does not pin gradio with ==": pin is None,
        f"sdk_version is {version!r}, requirements.txt pins gradio {pin and pin[1]}": pin and str(version) != pin[1],
        f"app_file is {app!r}, which is no file of the tree": app not in files,
        "python_version is not set": not python,
    }
    if any(problems.values()):
        found = "; ".join(problem for problem, is_there in problems.items() if is_there)
        raise HubError(f"the front matter of README.md does not make a Space: {found}")
    return files, card


def push_space(tree: str | Path, repo_id: str, *, namespace: str | None = None, private: bool = False) -> str:
    """Push this page to a Gradio Space; returns its address.

    tree: a git checkout; the files that git tracks are sent. repo_id: "name" or "owner/name". namespace: where the
    bundles were pushed; the Space then loads them from there (UNET_WEIGHTS) and the tree goes without them. None sends
    the bundles of weights/ along. A Space reads private bundles only where its settings have an HF_TOKEN secret.

    Raises HubError before anything is sent where a check fails, and where the push breaks off.
    """
    tree = Path(tree)
    files, card = check_space(tree)
    bundles = {path.parent for path in files.values() if path.name == WEIGHTS_FILE}
    if namespace:
        files = {name: path for name, path in files.items() if path.parent not in bundles}
        card.data.models = card.data.preload_from_hub = [found.location for found in find_bundles(namespace)]
        if not card.data.models:
            raise HubError(f"{namespace} has no bundle on the Hub yet; push them first")
    elif not bundles:
        raise HubError(f"{tree} has no bundle that git tracks; add weights/ to it, or push the bundles and name where")
    api, repo_id = HfApi(), check_space_name(repo_id)
    if THUMBNAIL in files:
        card.data.thumbnail = f"{api.endpoint}/spaces/{repo_id}/resolve/main/{THUMBNAIL}"
    files["README.md"] = str(card).encode()
    return _push_space(api, repo_id, "gradio", "The page", files, namespace=namespace, private=private)


def push_static_space(networks: Mapping[str, Bundle], repo_id: str, *, private: bool = False) -> str:
    """Push a page that visitors' browsers run; returns its address.

    networks: the two that it shows. Raises HubError as `push_space` does, and what `export_page` raises.
    """
    api, repo_id = HfApi(), check_space_name(repo_id)
    with tempfile.TemporaryDirectory() as folder:
        paths = [path for path in export_page(networks, folder).rglob("*") if path.is_file()]
        files: _Files = {path.relative_to(folder).as_posix(): path for path in paths}
        return _push_space(api, repo_id, "static", "The page without a server", files, private=private)


def _push_space(
    api: HfApi, repo_id: str, sdk: str, message: str, files: _Files, *, namespace: str | None = None, private: bool
) -> str:
    """Make a Space of these files; returns its address."""
    with _asking():
        revision, present = _repo_state(api, repo_id, "space", private=private)
        variables = api.get_space_variables(repo_id) if revision else {}
    stale = [name for name in present if name not in files and name != ".gitattributes"]
    current = variables[WEIGHTS_VARIABLE].value if WEIGHTS_VARIABLE in variables else None
    with _sending(repo_id, "The Space has its old files or its new ones"):
        if revision is None:
            api.create_repo(repo_id, repo_type="space", space_sdk=sdk, private=private, exist_ok=True)
        # Both trees understand the variable, so it is set before the commit that needs it.
        if namespace and namespace != current:
            api.add_space_variable(repo_id, WEIGHTS_VARIABLE, namespace)
        _commit(api, _Push(repo_id, "space", message, files, stale, revision))
        if current and not namespace:
            api.delete_space_variable(repo_id, WEIGHTS_VARIABLE)
    return f"{api.endpoint}/spaces/{repo_id}"
