"""Push bundles and the page to the Hugging Face Hub.

A push is checked before anything is sent, and is one commit a repository: whatever breaks in between, the Hub has the
old revision or the new one.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    RepoCard,
    hf_hub_download,
)
from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from huggingface_hub.utils import tqdm as hub_tqdm
from yaml import YAMLError

from unet.bundle import CARD_FILE, CARD_PICTURES, CONFIG_FILE, WEIGHTS_FILE, Bundle
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
class _Remote:
    """A repository as it is on the Hub before a push; revision None: it does not exist yet."""

    revision: str | None
    private: bool
    files: dict[str, RepoFile]

    def changes(self, files: dict[str, Path | bytes], stale: Iterable[str]) -> list:
        """The operations of a commit after which the repository has ``files`` and nothing of ``stale``."""
        additions = [
            CommitOperationAdd(name, str(content) if isinstance(content, Path) else content)
            for name, content in files.items()
            if name not in self.files or not _equals(self.files[name], content)
        ]
        return additions + [CommitOperationDelete(name) for name in stale if name in self.files]


@dataclass(frozen=True)
class _Push:
    repo_id: str
    message: str
    remote: _Remote
    operations: list
    tagged: str | None


def push_bundles(
    folders: Sequence[str | Path],
    namespace: str | None = None,
    *,
    private: bool = False,
    tag: str | None = None,
    progress: bool = True,
) -> list[str]:
    """Push each bundle to the model repository <namespace>/unet-<architecture>-<task>; returns their addresses.

    namespace: a user or an organisation; None is who is logged in. private: create repositories that only their owner
    sees. tag: name the revisions pushed, as "v1"; a tag is never moved. A repository that has the bundle already gets
    no new commit. Once a card is on the Hub, it is edited there: the text people wrote into it is kept.

    Raises HubError before anything is sent where a check fails, and where the push breaks off; then each repository
    has its old revision or its new one, and the same call completes it.
    """
    api = HfApi()
    bundles = {}
    for folder in map(Path, folders):
        bundle = _complete_bundle(folder)
        name = _repo_name(bundle)
        if name in bundles:
            raise HubError(f"{bundles[name][0]} and {folder} would both become {name}; push one of them")
        bundles[name] = folder, bundle
    if not bundles:
        raise HubError("there is no bundle to push; train one with train.py, or name the folders that hold them")
    _check_tag(tag)
    namespace = _check_account(api, namespace, list(bundles))
    try:
        pushes = [
            _plan(api, f"{namespace}/{name}", folder, bundle, private=private, tag=tag)
            for name, (folder, bundle) in bundles.items()
        ]
    except NETWORK_ERRORS as error:
        raise HubError(
            f"nothing was pushed, because the Hub could not be asked what it has: {explain(error)}"
        ) from error
    done: list[str] = []
    with _Bars(progress), hub_tqdm(pushes, desc="Pushing", unit="bundle") as bar:
        for push in bar:
            bar.set_postfix_str(push.repo_id)
            try:
                if push.remote.revision is None:
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


def _complete_bundle(folder: Path) -> Bundle:
    bundle = Bundle.load(folder)
    scores = bundle.scores.get("val")
    if not isinstance(scores, dict) or not isinstance(scores.get("miou"), int | float):
        raise HubError(f"{folder} has no scores on val, which its card shows; evaluate it first with train.py")
    return bundle


def _repo_name(bundle: Bundle) -> str:
    task, architecture = slug(bundle.task), slug(bundle.architecture)
    name = f"{PREFIX}{architecture}-{task}"
    if not task or not architecture or len(name) > 96:
        raise HubError(
            f"the task {bundle.task!r} with {bundle.architecture!r} makes no name of a repository; call the task by "
            "1 to 60 letters, digits and hyphens"
        )
    return name


def _check_tag(tag: str | None) -> None:
    if tag is not None and (not is_name(tag) or tag in ("main", "HEAD") or tag.endswith(".lock")):
        raise HubError(f"{tag!r} cannot name a version; use letters, digits, dots and hyphens, as in v1")


def _check_account(api: HfApi, namespace: str | None, names: list[str]) -> str:
    """The namespace to push to, once the token is known to be allowed to."""
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
    remote = _look(api, repo_id, "model", private=private)
    card = folder / CARD_FILE
    if CARD_FILE in remote.files:
        card = Path(hf_hub_download(repo_id, CARD_FILE, revision=remote.revision))
    text = model_card(bundle, repo_id=repo_id, folder=folder, existing=read_text(card))
    if not remote.files.get(CARD_FILE) or not _equals(remote.files[CARD_FILE], text.encode()):
        try:
            ModelCard(text).validate()
        except ValueError as error:
            raise HubError(f"the Hub does not accept the metadata of {repo_id}'s card: {error}") from error
    files: dict[str, Path | bytes] = {name: folder / name for name in (CONFIG_FILE, WEIGHTS_FILE)}
    files[CARD_FILE] = text.encode()
    files |= {name: folder / name for name in CARD_PICTURES if (folder / name).is_file()}
    operations = remote.changes(files, stale=[name for name in CARD_PICTURES if name not in files])
    tagged = None
    if tag and remote.revision:
        tagged = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id).tags}.get(tag)
        if tagged and (operations or tagged != remote.revision):
            raise HubError(
                f"{repo_id} has a version {tag} already, with other files; versions stay what they are: choose another "
                "name for this one"
            )
    message = f"{bundle.architecture} for {bundle.task}" + (f", {tag}" if tag else "")
    return _Push(repo_id, message, remote, operations, tagged)


def _look(api: HfApi, repo_id: str, kind: str, *, private: bool) -> _Remote:
    try:
        info = api.repo_info(repo_id, repo_type=kind)
    except RepositoryNotFoundError:
        return _Remote(None, private, {})
    if private and not info.private:
        raise HubError(
            f"{repo_id} exists and everybody can see it; make it private in its settings on the Hub, or push without "
            "asking for a private one"
        )
    tree = api.list_repo_tree(repo_id, recursive=True, revision=info.sha, repo_type=kind)
    return _Remote(info.sha, info.private, {entry.path: entry for entry in tree if isinstance(entry, RepoFile)})


def _commit(api: HfApi, push: _Push, kind: str) -> str | None:
    """One commit, made only on top of the revision that was looked at: nobody's edit in between is lost."""
    if not push.operations:
        return push.remote.revision
    return api.create_commit(
        push.repo_id,
        push.operations,
        commit_message=push.message,
        repo_type=kind,
        parent_commit=push.remote.revision,
    ).oid


def _equals(remote: RepoFile, content: Path | bytes) -> bool:
    """Has the Hub this content? Compared by git's or LFS's own hash, so nothing is downloaded."""
    content = content.read_bytes() if isinstance(content, Path) else content
    if remote.lfs is not None:
        return remote.lfs.sha256 == hashlib.sha256(content).hexdigest()
    return remote.blob_id == hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


# The page as a Space


def push_space(
    tree: str | Path,
    repo_id: str,
    *,
    namespace: str | None = None,
    private: bool = False,
    progress: bool = True,
) -> str:
    """Create or update the Gradio Space ``repo_id`` from the project's tree, in one commit; returns its address.

    repo_id: "name" or "owner/name". namespace: where the bundles were pushed; the Space then loads them from there
    (UNET_WEIGHTS) and the tree goes without them. None sends the bundles of weights/ along. A Space reads private
    bundles only where its settings have an HF_TOKEN secret.

    Only files that git tracks are sent, or, where the tree is no git checkout, those that .gitignore does not name.
    Raises HubError before anything is sent where a check fails, and where the push breaks off.
    """
    tree = Path(tree)
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
    _check_space(tree, paths)
    api = HfApi()
    owner, _, name = repo_id.rpartition("/")
    if not is_name(name) or (owner and not is_name(owner)):
        raise HubError(
            f"{repo_id!r} is no name for a Space; give 'name' or 'owner/name' in letters, digits and hyphens"
        )
    repo_id = f"{_check_account(api, owner or None, [name])}/{name}"
    try:
        remote = _look(api, repo_id, "space", private=private)
        variables = api.get_space_variables(repo_id) if remote.revision else {}
    except NETWORK_ERRORS as error:
        raise HubError(
            f"nothing was pushed, because the Hub could not be asked what it has: {explain(error)}"
        ) from error
    files: dict[str, Path | bytes] = {path.relative_to(tree).as_posix(): path for path in paths}
    picture = f"{api.endpoint}/spaces/{repo_id}/resolve/main/{THUMBNAIL}" if THUMBNAIL in files else None
    files["README.md"] = _space_readme(tree, models, picture)
    stale = [name for name in remote.files if name not in files and name != ".gitattributes"]
    push = _Push(repo_id, "The page", remote, remote.changes(files, stale), None)
    wanted, current = namespace, variables[WEIGHTS_VARIABLE].value if WEIGHTS_VARIABLE in variables else None
    try:
        with _Bars(progress):
            if remote.revision is None:
                api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
            # Both trees understand the variable, so it is set before the commit that needs it.
            if wanted and wanted != current:
                api.add_space_variable(repo_id, WEIGHTS_VARIABLE, wanted)
            _commit(api, push, "space")
            if current and not wanted:
                api.delete_space_variable(repo_id, WEIGHTS_VARIABLE)
    except (*NETWORK_ERRORS, ValueError) as error:
        raise HubError(
            f"the push broke off at {repo_id}: {explain(error)}. The Space has its old files or its new ones, never "
            "half of each. Run the same command again to complete the push."
        ) from error
    return f"{api.endpoint}/spaces/{repo_id}"


def _tracked_files(tree: Path) -> list[Path]:
    if (tree / ".git").exists():
        try:
            listing = subprocess.run(["git", "-C", str(tree), "ls-files", "-z"], capture_output=True)
        except OSError as error:
            raise HubError(f"{tree} is a git checkout, but git cannot be run ({error}); install it") from error
        if listing.returncode:
            said = " ".join(listing.stderr.decode(errors="replace").split())
            raise HubError(f"git could not list the files of {tree}: {said}")
        paths = [tree / name for name in listing.stdout.decode().split("\0") if name]
    else:
        patterns = [".git/", *_gitignore(tree)]
        paths = [path for path in tree.rglob("*") if not _is_ignored(path.relative_to(tree).as_posix(), patterns)]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def _gitignore(tree: Path) -> list[str]:
    path = tree / ".gitignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _is_ignored(name: str, patterns: Iterable[str]) -> bool:
    """Does .gitignore name this file or a folder above it? The last pattern that matches decides, as in git."""
    parts = name.split("/")
    ignored = False
    for pattern in patterns:
        kept, pattern = pattern.startswith("!"), pattern.removeprefix("!")
        ends = range(1, len(parts) + (not pattern.endswith("/")))  # "name/" means folders alone
        pattern = pattern.rstrip("/").removeprefix("**/")
        if "/" in pattern:  # from the root on
            found = any(_matches("/".join(parts[:end]), pattern.removeprefix("/")) for end in ends)
        else:
            found = any(fnmatch.fnmatchcase(parts[end - 1], pattern) for end in ends)
        ignored = not kept if found else ignored
    return ignored


def _matches(path: str, pattern: str) -> bool:
    same_depth = path.count("/") == pattern.count("/")  # in git "*" stops at "/", in fnmatch it does not
    return (same_depth or "**" in pattern) and fnmatch.fnmatchcase(path, pattern)


def _space_readme(tree: Path, models: list[str], thumbnail: str | None) -> bytes:
    """README.md, its front matter completed with what only a push knows: the models, fetched while the Space is
    built, and the address of its picture."""
    card = RepoCard((tree / "README.md").read_text(encoding="utf-8"))
    if models:
        card.data.models = card.data.preload_from_hub = models
    if thumbnail:
        card.data.thumbnail = thumbnail
    return str(card).encode()


def _check_space(tree: Path, paths: list[Path]) -> None:
    """Raises HubError, with every problem found, where the tree would not start as a Space."""
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


class _Bars:
    """The Hub client's progress bars, shown or not; as they were before once this is left."""

    def __init__(self, shown: bool) -> None:
        self.hide = not shown and not are_progress_bars_disabled()

    def __enter__(self) -> None:
        if self.hide:
            disable_progress_bars()

    def __exit__(self, *_: Any) -> None:
        if self.hide:
            enable_progress_bars()
