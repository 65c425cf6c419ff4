"""A bundle on disk and the same bundle on the Hugging Face Hub: fetch, card, push; and the page as a Space.

A push is checked before anything is sent, and is one commit a repository: whatever breaks in between, the Hub has the
old revision or the new one. Only safetensors are read, and Bundle.load checks every tensor of them.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
    RepoCard,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    scan_cache_dir,
    snapshot_download,
)
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, yaml_dump
from huggingface_hub.utils import tqdm as hub_tqdm
from yaml import YAMLError

from .bundle import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, Bundle, BundleError
from .cards import PICTURES, describe
from .model import ARCHITECTURES

#: Our text in a card lies between these; what a person writes outside them is kept.
BEGIN, END = "<!-- unet:begin -->", "<!-- unet:end -->"

#: The environment variable that tells the page where its bundles are: a folder or a namespace on the Hub.
WEIGHTS_VARIABLE = "UNET_WEIGHTS"

#: What a link to the Space shows.
THUMBNAIL = "assets/page.png"

_PREFIX = "unet-"
_FILES = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
_LOG_IN = "run `hf auth login` with a token of the write role from https://huggingface.co/settings/tokens"
# What the client raises when the network or the server fails; an answer that is no JSON comes from no Hub.
_NETWORK_ERRORS = (HTTPError, OSError, RuntimeError, JSONDecodeError)


class HubError(BundleError):
    """Something that the Hub, the network or a check before a push did not allow; the message says what to do."""


class FoundBundle(NamedTuple):
    """Where a task's network is: ``location`` is what Segmenter.load takes."""

    task: str
    architecture: str
    location: str


# Fetching


def fetch_bundle(
    repo_id: str,
    *,
    revision: str | None = None,
    anonymous: bool = False,
    max_bytes: int | None = None,
    cache: Path | None = None,
) -> Path:
    """Download the bundle ``repo_id`` ("user/name") at ``revision`` (branch, tag or commit); returns its folder.

    Only config.json, model.safetensors and README.md are fetched. Without a network the copy fetched last is used.
    anonymous: ask without a token, for what everybody may see. max_bytes: what the files may have together, which is
    known before they are fetched. cache: a folder of its own for what is fetched, see `forget_bundles`; None for the
    Hub's. Raises HubError, a BundleError, where it cannot be had.
    """
    what = f"{repo_id} at revision {revision}" if revision else repo_id
    token = False if anonymous else None
    log_in = "only public ones can be used here" if anonymous else "run `hf auth login` if it is private"
    try:
        size = _bytes_to_fetch(repo_id, revision, token) if anonymous or max_bytes is not None else 0
        if max_bytes is not None and size > max_bytes:
            raise HubError(f"{what} has {size / 1e6:,.1f} MB, and {max_bytes / 1e6:,.1f} MB are the most here")
        folder = Path(
            snapshot_download(repo_id, revision=revision, allow_patterns=_FILES, token=token, cache_dir=cache)
        )
    except HFValidationError as error:
        raise HubError(f"{repo_id!r} is neither a folder here nor a name on the Hub (user/name)") from error
    except GatedRepoError as error:
        ask = "ask for access on its page on the Hub, then run `hf auth login` with that account"
        raise HubError(f"{what} is gated: {log_in if anonymous else ask}") from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"there is no folder {repo_id} here and no such model on the Hub that you may see; check the name, and "
            f"{log_in}"
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(
            f"{repo_id} has no revision {revision or 'main'}; its page on the Hub lists its branches and tags"
        ) from error
    except _NETWORK_ERRORS as error:
        raise HubError(f"{what} could not be fetched from the Hub: {_reason(error)}") from error
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        raise HubError(
            f"{what} is not a bundle of this project: it has no {' and no '.join(missing)}. Only safetensors are read."
        )
    return folder


def visitors_cache() -> Path:
    """Where a public page keeps what strangers name: beside the Hub's cache, which belongs to whoever runs the page."""
    return Path(constants.HF_HUB_CACHE).with_name("add-or-concat-visitors")


def forget_bundles(cache: Path, *, max_bytes: int) -> None:
    """Delete the revisions in ``cache`` that were touched the longest ago, until the rest has at most ``max_bytes``.

    A folder is touched, as `os.utime` does, by who uses it.
    """
    try:
        found = scan_cache_dir(cache)
        revisions = [revision for repo in found.repos for revision in repo.revisions]
        revisions.sort(key=lambda revision: revision.snapshot_path.stat().st_mtime, reverse=True)
    except (CacheNotFound, FileNotFoundError):  # nothing was fetched yet, or another page is deleting
        return
    total, forgotten = 0, []
    for revision in revisions:
        total += revision.size_on_disk
        if total > max_bytes:
            forgotten.append(revision.commit_hash)
    if forgotten:
        found.delete_revisions(*forgotten).execute()


def _bytes_to_fetch(repo_id: str, revision: str | None, token: bool | None) -> int:
    """Asks for each file, as a download does: so that a copy fetched with a token is not had without one."""
    total = 0
    for name in _FILES:
        with contextlib.suppress(RemoteEntryNotFoundError):
            total += get_hf_file_metadata(hf_hub_url(repo_id, name, revision=revision), token=token).size or 0
    return total


def card_address(repo_id: str, revision: str | None = None) -> str:
    """Where a bundle's page on the Hub is."""
    return f"{HfApi().endpoint}/{repo_id}" + (f"/tree/{quote(revision, safe='/')}" if revision else "")


def find_bundles(source: str | Path) -> list[FoundBundle]:
    """The bundles in a folder (<task>/<architecture>/config.json) or in a namespace of the Hub (unet-* models).

    Sorted by task, then in the order of ARCHITECTURES. A namespace that cannot be reached is looked up in the cache of
    what was fetched before. Raises HubError for a source that is neither, and where nothing can be listed.
    """
    if Path(source).is_dir():
        found = [
            FoundBundle(config.parent.parent.name, config.parent.name, str(config.parent))
            for config in Path(source).glob(f"*/*/{CONFIG_FILE}")
        ]
    elif _is_name(str(source)):
        found = [bundle for repo_id in _model_names(str(source)) if (bundle := _parse_name(repo_id))]
    else:
        raise HubError(f"{str(source)!r} is neither a folder here nor a namespace on the Hub; give one of the two")
    order = list(ARCHITECTURES)
    return sorted(
        found,
        key=lambda b: (b.task, order.index(b.architecture) if b.architecture in order else len(order), b.architecture),
    )


def _model_names(namespace: str) -> list[str]:
    try:
        return [model.id for model in HfApi().list_models(author=namespace, search=_PREFIX)]
    except _NETWORK_ERRORS as error:
        try:
            cached = [repo.repo_id for repo in scan_cache_dir().repos if repo.repo_type == "model"]
        except CacheNotFound:
            cached = []
        names = [repo_id for repo_id in cached if repo_id.startswith(f"{namespace}/{_PREFIX}")]
        if not names:
            raise HubError(f"the models of {namespace} cannot be listed: {_reason(error)}") from error
        return names


def _parse_name(repo_id: str) -> FoundBundle | None:
    """user/unet-<architecture>-<task> taken apart; None for another name."""
    name = repo_id.rpartition("/")[2]
    for architecture in ARCHITECTURES:
        start = f"{_PREFIX}{architecture}-"
        if name.startswith(start) and len(name) > len(start):
            return FoundBundle(name[len(start) :], architecture, repo_id)
    return None


# The card


def write_card(folder: str | Path) -> Path:
    """Write README.md of the bundle in ``folder``, keeping what a person wrote into it; returns its path.

    Raises BundleError for a bundle that cannot be loaded.
    """
    folder = Path(folder)
    path = folder / CARD_FILE
    text = model_card(Bundle.load(folder), folder=folder, existing=_read_card(path))
    partial = folder / (CARD_FILE + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path


def model_card(
    bundle: Bundle, *, repo_id: str | None = None, folder: str | Path | None = None, existing: str = ""
) -> str:
    """The bundle's card: metadata for the Hub, then the text of cards.describe between two markers.

    repo_id: where it is loaded from. folder: where its pictures lie. existing: the card there is; text outside the
    markers and metadata that is not ours are kept. Raises HubError where that card cannot be understood.
    """
    existing = existing.replace("\r\n", "\n").lstrip("\ufeff")
    if not existing.lstrip().startswith("---\n"):
        existing = "---\n{}\n---\n" + existing
    try:
        card = ModelCard(existing, ignore_metadata_errors=True)
    except Exception as error:  # a YAML error, or whatever else a stranger's metadata does to the parser
        where = f"{repo_id or folder}/{CARD_FILE}"
        raise HubError(f"the front matter of {where} is not valid ({_one_line(error)}); repair it") from error
    theirs, ours = card.data.to_dict(), _metadata(bundle).to_dict()
    tags = theirs.get("tags") or []
    ours["tags"] = list(dict.fromkeys([*([tags] if isinstance(tags, str) else tags), *ours["tags"]]))
    metadata = {**theirs, **ours}
    if "license" in ours:  # a licence's name and link belong to it: another licence's must not stay behind
        for key in {"license_name", "license_link"} - set(ours):
            metadata.pop(key, None)
    body = describe(bundle, repo_id=repo_id, folder=folder).replace(BEGIN, "").replace(END, "")
    text = _between_markers(card.text, f"{BEGIN}\n{body}\n{END}", f"{repo_id or folder}/{CARD_FILE}")
    return f"---\n{yaml_dump(metadata, sort_keys=False)}---\n{text}"


def _read_card(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise HubError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def _metadata(bundle: Bundle) -> ModelCardData:
    data = bundle.data
    licence = data.get("license")
    name = link = None
    if licence == "other":  # the Hub wants a short name and a link beside it
        name = re.sub(r"[^a-z0-9.-]+", "-", str(data.get("license_name") or "other").lower()).strip("-") or "other"
        link = data.get("url") if str(data.get("url")).startswith("http") else None
    results = _results(bundle)
    return ModelCardData(
        library_name="unet",
        pipeline_tag="image-segmentation",
        license=licence,
        license_name=name,
        license_link=link,
        datasets=[data["hub_dataset"]] if data.get("hub_dataset") else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        tags=["image-segmentation", "semantic-segmentation", "u-net", "pytorch", bundle.architecture, bundle.task],
        model_name=f"{_PREFIX}{bundle.architecture}-{bundle.task}" if results else None,
        eval_results=results or None,
    )


def _results(bundle: Bundle) -> list[EvalResult]:
    dataset = str(bundle.data.get("name") or bundle.task)
    results = []
    for split, scores in bundle.plain_scores().items():
        for key, kind, title in (
            ("miou", "mean_iou", "mean IoU"),
            ("mean_dice", "f1", "mean Dice"),
            ("pixel_accuracy", "accuracy", "pixel accuracy"),
        ):
            value = scores.get(key)
            if isinstance(value, int | float) and value == value:  # NaN is no score
                results.append(
                    EvalResult(
                        task_type="image-segmentation",
                        dataset_type=str(bundle.data.get("hub_dataset") or _slug(dataset) or "custom"),
                        dataset_name=dataset,
                        dataset_split=split,
                        metric_type=kind,
                        metric_name=title,
                        metric_value=round(float(value), 4),
                    )
                )
    return results


def _between_markers(text: str, block: str, where: str) -> str:
    begin, end = text.find(BEGIN), text.find(END)
    if begin == end == -1:
        return f"{text.strip()}\n\n{block}\n".lstrip()
    if not 0 <= begin < end or text.count(BEGIN) > 1 or text.count(END) > 1:
        raise HubError(f"{where} must have {BEGIN} once and {END} once after it; put them around the generated text")
    return text[:begin] + block + text[end + len(END) :]


# Pushing


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
    except _NETWORK_ERRORS as error:
        raise HubError(
            f"nothing was pushed, because the Hub could not be asked what it has: {_reason(error)}"
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
            except (*_NETWORK_ERRORS, ValueError) as error:
                left = [other.repo_id for other in pushes if other.repo_id not in done]
                raise HubError(
                    f"the push broke off at {push.repo_id}: {_reason(error)}. Done: {', '.join(done) or 'none'}. "
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
    task, architecture = _slug(bundle.task), _slug(bundle.architecture)
    name = f"{_PREFIX}{architecture}-{task}"
    if not task or not architecture or len(name) > 96:
        raise HubError(
            f"the task {bundle.task!r} with {bundle.architecture!r} makes no name of a repository; call the task by "
            "1 to 60 letters, digits and hyphens"
        )
    return name


def _check_tag(tag: str | None) -> None:
    if tag is not None and (not _is_name(tag) or tag in ("main", "HEAD") or tag.endswith(".lock")):
        raise HubError(f"{tag!r} cannot name a version; use letters, digits, dots and hyphens, as in v1")


def _check_account(api: HfApi, namespace: str | None, names: list[str]) -> str:
    """The namespace to push to, once the token is known to be allowed to."""
    try:
        account = api.whoami()
    except LocalTokenNotFoundError as error:
        raise HubError(f"nobody is logged in to the Hub; {_LOG_IN}, or set HF_TOKEN") from error
    except _NETWORK_ERRORS as error:
        raise HubError(f"the Hub could not be asked who you are: {_reason(error)}") from error
    user, organisations = account["name"], {org["name"]: org for org in account.get("orgs", [])}
    namespace = namespace or user
    if namespace != user and namespace not in organisations:
        allowed = ", ".join([user, *organisations])
        raise HubError(f"you are {user} on the Hub and cannot push to {namespace!r}; yours are: {allowed}")
    if organisations.get(namespace, {}).get("roleInOrg") == "read":
        raise HubError(f"{user} may only read in {namespace}; ask one of its admins for the write or contributor role")
    token = account.get("auth", {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise HubError(f"the token {token.get('displayName', '')!r} may only read; {_LOG_IN}")
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
                f"'Write access to contents of all repos' for {namespace} in its settings, or {_LOG_IN}"
            )
    return namespace


def _plan(api: HfApi, repo_id: str, folder: Path, bundle: Bundle, *, private: bool, tag: str | None) -> _Push:
    """What a push of this bundle will change; nothing is sent yet."""
    remote = _look(api, repo_id, "model", private=private)
    card = folder / CARD_FILE
    if CARD_FILE in remote.files:
        card = Path(hf_hub_download(repo_id, CARD_FILE, revision=remote.revision))
    text = model_card(bundle, repo_id=repo_id, folder=folder, existing=_read_card(card))
    if not remote.files.get(CARD_FILE) or not _equals(remote.files[CARD_FILE], text.encode()):
        try:
            ModelCard(text).validate()
        except ValueError as error:
            raise HubError(f"the Hub does not accept the metadata of {repo_id}'s card: {error}") from error
    files: dict[str, Path | bytes] = {name: folder / name for name in (CONFIG_FILE, WEIGHTS_FILE)}
    files[CARD_FILE] = text.encode()
    files |= {name: folder / name for name in PICTURES if (folder / name).is_file()}
    operations = remote.changes(files, stale=[name for name in PICTURES if name not in files])
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
    if not _is_name(name) or (owner and not _is_name(owner)):
        raise HubError(
            f"{repo_id!r} is no name for a Space; give 'name' or 'owner/name' in letters, digits and hyphens"
        )
    repo_id = f"{_check_account(api, owner or None, [name])}/{name}"
    try:
        remote = _look(api, repo_id, "space", private=private)
        variables = api.get_space_variables(repo_id) if remote.revision else {}
    except _NETWORK_ERRORS as error:
        raise HubError(
            f"nothing was pushed, because the Hub could not be asked what it has: {_reason(error)}"
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
    except (*_NETWORK_ERRORS, ValueError) as error:
        raise HubError(
            f"the push broke off at {repo_id}: {_reason(error)}. The Space has its old files or its new ones, never "
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
        raise HubError(f"the front matter of README.md is not valid YAML: {_one_line(error)}") from error
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


# Words


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


def _reason(error: BaseException) -> str:
    """What went wrong, in one line, and what to do about it."""
    while error.__cause__ is not None and isinstance(error, LocalEntryNotFoundError | RuntimeError):
        error = error.__cause__  # the client's wrapping; what it wraps says why
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        said = error.server_message or f"error {status}"
        if status == 401:
            return f"the Hub does not accept the token (HF_TOKEN goes before the stored one); {_LOG_IN}"
        if status == 403:
            return f"the token is not allowed to do this ({said}); {_LOG_IN}"
        if status in (409, 412):
            return f"somebody else changed the repository meanwhile ({said}); look at it, then try again"
        if status == 429:
            return "the Hub has had too many requests from here; wait some minutes"
        return f"the Hub answered: {said}" + ("; try again later" if status >= 500 else "")
    if isinstance(error, OfflineModeIsEnabled):
        return "the variable HF_HUB_OFFLINE forbids it; unset it"
    if isinstance(error, HTTPError):
        return f"the Hub cannot be reached ({_one_line(error)}); check the network"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _slug(text: str) -> str:
    """Lower-case letters, digits and hyphens, as the Hub wants a repository's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _is_name(text: str) -> bool:
    return re.fullmatch(r"\w(?:[\w.-]{0,94}\w)?", text, re.ASCII) is not None and not re.search(r"--|\.\.", text)
