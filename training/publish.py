"""Push bundles and the page to the Hugging Face Hub.

A push is checked before anything is sent, and is one commit a repository: whatever breaks in between, the Hub has the
old revision or the new one.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    ModelInfo,
    RepoCard,
    SpaceInfo,
    hf_hub_download,
)
from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import tqdm as hub_tqdm
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

from .card import model_card, read_text, slug

#: What a link to the Space shows.
THUMBNAIL = "assets/page.png"


@dataclass(frozen=True)
class _Push:
    """What a push will make of one repository."""

    repo_id: str
    message: str
    operations: list[CommitOperationAdd | CommitOperationDelete]
    revision: str | None  # of the repository now; None: it does not exist yet
    tagged: bool = False  # the revision has the tag, with these files


def check_push(
    bundles: Iterable[tuple[str, str]], namespace: str | None = None, *, tag: str | None = None
) -> tuple[str, list[str]]:
    """Check names, tag and token of a push, before its bundles exist.

    Returns the namespace and the names of the repositories.
    bundles: (task, architecture) each. namespace: a user or an organisation; None is the account of the token.
    Raises HubError for a name or a tag that the Hub does not take, and for a token that may not write there.
    """
    names = [_repo_name(task, architecture) for task, architecture in bundles]
    _check_tag(tag)
    if namespace and not is_name(namespace):
        raise HubError(f"{namespace!r} cannot be a user or an organisation on the Hub; check the name")
    return _check_account(HfApi(), namespace, names), names


def push_bundles(
    folders: Sequence[str | Path],
    namespace: str | None = None,
    *,
    private: bool = False,
    tag: str | None = None,
    loaded: Mapping[Path, Bundle] | None = None,
) -> list[str]:
    """Push each bundle to the model repository <namespace>/unet-<architecture>-<task>; returns their addresses.

    namespace: a user or an organisation; None is the account of the token. private: create repositories that only their
    owner sees. tag: name the revisions pushed, as "v1"; a tag is never moved. loaded: bundles in hand, by folder. A
    repository that has the bundle already gets no new commit. Once a card is on the Hub, it is edited there: the text
    people wrote into it is kept.

    Raises HubError before anything is sent where a check fails, and where the push breaks off; then each repository
    has its old revision or its new one, and the same call completes it.
    """
    api = HfApi()
    bundles = {Path(folder): (loaded or {}).get(Path(folder)) or Bundle.load(folder) for folder in folders}
    _check_bundles(bundles)
    namespace, names = check_push(
        ((bundle.task, bundle.architecture) for bundle in bundles.values()), namespace, tag=tag
    )
    try:
        pushes = [
            _plan(api, f"{namespace}/{name}", folder, bundle, private=private, tag=tag)
            for name, (folder, bundle) in zip(names, bundles.items(), strict=True)
        ]
    except NETWORK_ERRORS as error:
        raise HubError(
            f"nothing was pushed, because the Hub could not be asked what it has: {explain(error)}"
        ) from error
    done: list[str] = []
    with hub_tqdm(pushes, desc="Pushing", unit="bundle") as bar:
        for push in bar:
            bar.set_postfix_str(push.repo_id)
            try:
                if push.revision is None:
                    api.create_repo(push.repo_id, private=private, exist_ok=True)
                revision = _commit(api, push, "model")
                if tag and not push.tagged:
                    api.create_tag(push.repo_id, tag=tag, revision=revision)
            except (*NETWORK_ERRORS, ValueError) as error:
                left = [other.repo_id for other in pushes if other.repo_id not in done]
                raise HubError(
                    f"the push broke off at {push.repo_id}: {explain(error)}. Done: {', '.join(done) or 'none'}. "
                    f"Not done: {', '.join(left)}; each of them is as it was before or complete, never half of each. "
                    "Run the same command again to complete the push."
                ) from error
            done.append(push.repo_id)
    return [f"{api.endpoint}/{repo_id}" for repo_id in done]


def _check_bundles(bundles: Mapping[Path, Bundle]) -> None:
    """Raise HubError for no bundle, missing scores, or equal names."""
    if not bundles:
        raise HubError("there is no bundle to push; train one with train.py, or name the folders that hold them")
    taken: dict[str, Path] = {}
    for folder, bundle in bundles.items():
        scores = bundle.scores.get("val")
        if not isinstance(scores, dict) or not isinstance(scores.get("miou"), int | float):
            raise HubError(f"{folder} has no scores on val, which its card shows; evaluate it first with train.py")
        name = _repo_name(bundle.task, bundle.architecture)
        if name in taken:
            raise HubError(f"{taken[name]} and {folder} would both become {name}; push one of them")
        taken[name] = folder


def _repo_name(task: str, architecture: str) -> str:
    name = f"{PREFIX}{slug(architecture)}-{slug(task)}"
    if not slug(task) or not slug(architecture) or len(name) > 96:
        raise HubError(
            f"the task {task!r} with {architecture!r} makes no name of a repository on the Hub; give the task another "
            "name with --task: 1 to 60 letters, digits and hyphens"
        )
    return name


def _check_tag(tag: str | None) -> None:
    if tag is not None and (not is_name(tag) or tag in ("main", "HEAD") or tag.endswith(".lock")):
        raise HubError(f"{tag!r} cannot name a version; use letters, digits, dots and hyphens, as in v1")


def _check_account(api: HfApi, namespace: str | None, names: list[str]) -> str:
    """Check that the token may write; returns the namespace."""
    try:
        account = api.whoami()
    except LocalTokenNotFoundError as error:
        raise HubError(f"nobody is logged in to the Hub; {LOG_IN}, or set HF_TOKEN") from error
    except NETWORK_ERRORS as error:
        raise HubError(f"the Hub could not be asked who you are: {explain(error)}") from error
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
    if token.get("role") == "fineGrained":
        writable = {
            scope["entity"].get("name")
            for scope in token.get("fineGrained", {}).get("scoped", [])
            if "repo.write" in scope.get("permissions", [])
        }
        refused = [name for name in names if not {namespace, f"{namespace}/{name}"} & writable]
        if refused:
            raise HubError(
                f"the fine-grained token {token.get('displayName', '')!r} may not write {namespace}/{refused[0]}; tick "
                f"'Write access to contents of all repos' for {namespace} in its settings, or {LOG_IN}"
            )
    return namespace


def _plan(api: HfApi, repo_id: str, folder: Path, bundle: Bundle, *, private: bool, tag: str | None) -> _Push:
    """What a push of this bundle will change; nothing is sent yet."""
    info = _look(api, repo_id, "model", private=private)
    present = [file.rfilename for file in info.siblings] if info else []
    card = folder / CARD_FILE
    if CARD_FILE in present:
        card = Path(hf_hub_download(repo_id, CARD_FILE, revision=info.sha))
    existing = read_text(card)
    text = model_card(bundle, repo_id=repo_id, folder=folder, existing=existing)
    if CARD_FILE not in present or text != existing:
        try:
            ModelCard(text).validate()
        except ValueError as error:
            raise HubError(f"the Hub does not accept the metadata of {repo_id}'s card: {error}") from error
    files: dict[str, Path | bytes] = {name: folder / name for name in (CONFIG_FILE, WEIGHTS_FILE)}
    # Another version of torch may write other bytes for the same network.
    if ONNX_FILE not in present or not _has_files(api, repo_id, info.sha, files):
        files[ONNX_FILE] = to_onnx(bundle)
    files[CARD_FILE] = text.encode()
    files |= {name: folder / name for name in CARD_PICTURES if (folder / name).is_file()}
    operations = _operations(files, [name for name in CARD_PICTURES if name in present and name not in files])
    tagged = False
    if tag and info:
        target = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}.get(tag)
        tagged = target == info.sha and _has_files(api, repo_id, info.sha, files)
        if target and not tagged:
            raise HubError(
                f"{repo_id} has a version {tag} already, with other files; versions stay what they are: choose another "
                "name for this one"
            )
    message = f"{bundle.architecture} for {bundle.task}" + (f", {tag}" if tag else "")
    return _Push(repo_id, message, operations, info.sha if info else None, tagged)


def _operations(
    files: dict[str, Path | bytes], stale: Iterable[str]
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Operations of a commit; the client drops unchanged files."""
    additions = [
        CommitOperationAdd(name, str(content) if isinstance(content, Path) else content)
        for name, content in files.items()
    ]
    return additions + [CommitOperationDelete(name) for name in stale]


def _look(api: HfApi, repo_id: str, kind: str, *, private: bool) -> ModelInfo | SpaceInfo | None:
    """Look a repository up; None where there is none.

    Raises HubError for a public one where ``private`` is asked for.
    """
    try:
        info = api.repo_info(repo_id, repo_type=kind)
    except RepositoryNotFoundError:
        return None
    if private and not info.private:
        raise HubError(
            f"{repo_id} exists and everybody can see it; make it private in its settings on the Hub, or push without "
            "asking for a private one"
        )
    return info


def _commit(api: HfApi, push: _Push, kind: str) -> str:
    """Commit on top of the revision looked at: no edit in between is lost."""
    return api.create_commit(
        push.repo_id, push.operations, commit_message=push.message, repo_type=kind, parent_commit=push.revision
    ).oid


def _has_files(api: HfApi, repo_id: str, revision: str, files: dict[str, Path | bytes]) -> bool:
    """Whether a revision has these files, by their hashes; nothing is downloaded."""
    remote = {entry.path: entry for entry in api.get_paths_info(repo_id, list(files), revision=revision)}
    for name, content in files.items():
        content = content.read_bytes() if isinstance(content, Path) else content
        sha1 = hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
        found = remote.get(name)
        if found is None:
            return False
        same = found.lfs.sha256 == hashlib.sha256(content).hexdigest() if found.lfs else found.blob_id == sha1
        if not same:
            return False
    return True


# The page as a Space


def check_space(tree: Path, repo_id: str) -> None:
    """Raise HubError for a wrong name or a tree that would not start."""
    owner, _, name = repo_id.rpartition("/")
    if not is_name(name) or (owner and not is_name(owner)):
        raise HubError(
            f"{repo_id!r} is no name for a Space; give 'name' or 'owner/name' in letters, digits and hyphens"
        )
    _check_tree(tree, _tracked_files(tree))


def push_space(tree: str | Path, repo_id: str, *, namespace: str | None = None, private: bool = False) -> str:
    """Create or update a Gradio Space in one commit; returns its address.

    tree: a git checkout; the files that git tracks are sent. repo_id: "name" or "owner/name". namespace: where the
    bundles were pushed; the Space then loads them from there (UNET_WEIGHTS) and the tree goes without them. None sends
    the bundles of weights/ along. A Space reads private bundles only where its settings have an HF_TOKEN secret.

    Raises HubError before anything is sent where a check fails, and where the push breaks off.
    """
    tree = Path(tree)
    check_space(tree, repo_id)
    api = HfApi()
    owner, _, name = repo_id.rpartition("/")
    files, models = _space_files(tree, namespace)
    repo_id = f"{_check_account(api, owner or None, [name])}/{name}"
    picture = f"{api.endpoint}/spaces/{repo_id}/resolve/main/{THUMBNAIL}" if THUMBNAIL in files else None
    files["README.md"] = _space_readme(tree, models, picture)
    try:
        info = _look(api, repo_id, "space", private=private)
        variables = api.get_space_variables(repo_id) if info else {}
    except NETWORK_ERRORS as error:
        raise HubError(
            f"nothing was pushed, because the Hub could not be asked what it has: {explain(error)}"
        ) from error
    present = [file.rfilename for file in info.siblings] if info else []
    stale = [name for name in present if name not in files and name != ".gitattributes"]
    push = _Push(repo_id, "The page", _operations(files, stale), info.sha if info else None)
    current = variables[WEIGHTS_VARIABLE].value if WEIGHTS_VARIABLE in variables else None
    try:
        if push.revision is None:
            api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        # Both trees understand the variable, so it is set before the commit that needs it.
        if namespace and namespace != current:
            api.add_space_variable(repo_id, WEIGHTS_VARIABLE, namespace)
        _commit(api, push, "space")
        if current and not namespace:
            api.delete_space_variable(repo_id, WEIGHTS_VARIABLE)
    except (*NETWORK_ERRORS, ValueError) as error:
        raise HubError(
            f"the push broke off at {repo_id}: {explain(error)}. The Space has its old files or its new ones, never "
            "half of each. Run the same command again to complete the push."
        ) from error
    return f"{api.endpoint}/spaces/{repo_id}"


def _space_files(tree: Path, namespace: str | None) -> tuple[dict[str, Path | bytes], list[str]]:
    """Files of a Space by name, and models it loads from ``namespace``."""
    paths = _tracked_files(tree)
    bundles = {path.parent for path in paths if path.name == WEIGHTS_FILE}
    models: list[str] = []
    if namespace:
        paths = [path for path in paths if path.parent not in bundles]
        models = [bundle.location for bundle in find_bundles(namespace)]
        if not models:
            raise HubError(f"{namespace} has no bundle on the Hub yet; push them first")
    elif not bundles:
        raise HubError(f"{tree} has no bundle that git tracks; add weights/ to it, or push the bundles and name where")
    return {path.relative_to(tree).as_posix(): path for path in paths}, models


def _tracked_files(tree: Path) -> list[Path]:
    """The files that git tracks in ``tree``. Raises HubError where git cannot say."""
    try:
        listing = subprocess.run(["git", "-C", str(tree), "ls-files", "-z"], capture_output=True)
    except OSError as error:
        raise HubError(f"git cannot be run ({error}); install it, a Space is what git tracks") from error
    if listing.returncode:
        said = " ".join(listing.stderr.decode(errors="replace").split())
        raise HubError(
            f"git cannot list the files of {tree}: {said}. A Space is what git tracks: in a downloaded archive, run "
            "`git init` and `git add .` first"
        )
    paths = [tree / name for name in listing.stdout.decode().split("\0") if name]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def _space_readme(tree: Path, models: list[str], thumbnail: str | None) -> bytes:
    """Complete README.md's front matter: models to preload, address of the picture."""
    card = RepoCard((tree / "README.md").read_text(encoding="utf-8"))
    if models:
        card.data.models = card.data.preload_from_hub = models
    if thumbnail:
        card.data.thumbnail = thumbnail
    return str(card).encode()


def _check_tree(tree: Path, paths: list[Path]) -> None:
    """Raise HubError, with every problem, for a tree that would not start."""
    names = {path.relative_to(tree).as_posix() for path in paths}
    absent = [name for name in ("README.md", "requirements.txt") if name not in names]
    if absent:
        raise HubError(f"a Space needs {' and '.join(absent)}, which {tree} does not track")
    try:
        front = RepoCard((tree / "README.md").read_text(encoding="utf-8")).data.to_dict()
    except (ValueError, YAMLError) as error:
        raise HubError(f"the front matter of README.md is not valid YAML: {one_line(error)}") from error
    requirements = (tree / "requirements.txt").read_text(encoding="utf-8")
    pin = re.search(r"^gradio(?:\[[^\]]*\])?\s*==\s*([\w.]+)", requirements, re.MULTILINE)
    problems = []
    if front.get("sdk") != "gradio":
        problems.append(f"sdk is {front.get('sdk')!r}, it must be 'gradio'")
    if pin is None:
        problems.append("requirements.txt does not pin gradio with ==")
    elif str(front.get("sdk_version")) != pin[1]:
        problems.append(f"sdk_version is {front.get('sdk_version')!r}, requirements.txt pins gradio {pin[1]}")
    if front.get("app_file") not in names:
        problems.append(f"app_file is {front.get('app_file')!r}, which is no file of the tree")
    if not front.get("python_version"):
        problems.append("python_version is not set")
    if problems:
        raise HubError(f"the front matter of README.md does not make a Space: {'; '.join(problems)}")
