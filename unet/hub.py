"""Find and fetch bundles on the Hugging Face Hub."""

import contextlib
import re
from collections.abc import Callable
from json import JSONDecodeError
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from huggingface_hub import (
    HfApi,
    constants,
    errors,
    get_hf_file_metadata,
    hf_hub_url,
    scan_cache_dir,
    try_to_load_from_cache,
)

from .bundle import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, BundleError
from .model import ARCHITECTURES

#: The environment variable that tells the page where its bundles are: a folder or a namespace on the Hub.
WEIGHTS_VARIABLE = "UNET_WEIGHTS"

#: Repositories of bundles are called unet-<architecture>-<task>.
PREFIX = "unet-"
_FILES = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]
LOG_IN = "run `hf auth login` with a token of the write role from https://huggingface.co/settings/tokens"
# What the client raises when the network or the server fails; an answer that is no JSON comes from no Hub.
NETWORK_ERRORS = (errors.HTTPError, OSError, RuntimeError, JSONDecodeError)


class HubError(BundleError):
    """What the Hub or the network refused, and what to do."""


class FoundBundle(NamedTuple):
    """A task's network; ``location`` is what Segmenter.load takes."""

    task: str
    architecture: str
    location: str


def fetch_bundle(
    repo_id: str,
    *,
    revision: str | None = None,
    anonymous: bool = False,
    max_bytes: int | None = None,
    cache: Path | None = None,
    notify: Callable[[str], object] = lambda _: None,
) -> Path:
    """Download a bundle from the Hub -> its folder.

    repo_id: "user/name". revision: a branch, tag or commit. anonymous: ask without a token, for what everybody may see.
    max_bytes: what the files may have together, known before they are fetched. cache: a folder of its own for what is
    fetched, see `forget_bundles`. notify: is told before a download begins. Without a network the copy fetched last is
    used. Raises HubError.
    """
    what = f"{repo_id} at revision {revision}" if revision else repo_id
    token = False if anonymous else None
    log_in = "only public ones can be used here" if anonymous else "run `hf auth login` if it is private"
    try:
        size = _bytes_to_fetch(repo_id, revision, token) if anonymous or max_bytes is not None else 0
        if max_bytes is not None and size > max_bytes:
            raise HubError(f"{what} has {size / 1e6:,.1f} MB, and {max_bytes / 1e6:,.1f} MB are the most here")
        if not isinstance(try_to_load_from_cache(repo_id, WEIGHTS_FILE, cache, revision), str):
            notify(f"Fetching {what} from the Hub …")
        files = {"revision": revision, "allow_patterns": _FILES, "cache_dir": cache}
        folder = Path(HfApi().snapshot_download(repo_id, token=token, **files))
    except (errors.HFValidationError, *NETWORK_ERRORS) as error:
        ask = "ask for access on its page on the Hub, then run `hf auth login` with that account"
        unknown = f"there is no folder {repo_id} here and no such model on the Hub that you may see"
        whys = {
            errors.HFValidationError: f"{repo_id!r} is neither a folder here nor a name on the Hub (user/name)",
            errors.GatedRepoError: f"{what} is gated: {log_in if anonymous else ask}",
            errors.RepositoryNotFoundError: f"{unknown}; check the name, and {log_in}",
            errors.RevisionNotFoundError: f"{repo_id} has no revision {revision or 'main'}; its page on the Hub lists "
            "its branches and tags",
        }
        why = next((why for kind, why in whys.items() if isinstance(error, kind)), None)
        raise HubError(why or f"{what} could not be fetched from the Hub: {explain(error)}") from error
    if missing := [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]:
        why = f"it has no {' and no '.join(missing)}. Only safetensors are read."
        raise HubError(f"{what} is not a bundle of this project: {why}")
    return folder


def visitors_cache() -> Path:
    """Where bundles that visitors name are kept."""
    return Path(constants.HF_HUB_CACHE).with_name("add-or-concat-visitors")


def forget_bundles(cache: Path, *, max_bytes: int) -> None:
    """Delete the revisions whose folders are oldest, beyond ``max_bytes``."""
    try:
        found = scan_cache_dir(cache)
        revisions = [revision for repo in found.repos for revision in repo.revisions]
        revisions.sort(key=lambda revision: revision.snapshot_path.stat().st_mtime, reverse=True)
    except (errors.CacheNotFound, FileNotFoundError):  # nothing was fetched yet, or another page is deleting
        return
    total, forgotten = 0, []
    for revision in revisions:
        total += revision.size_on_disk
        if total > max_bytes:
            forgotten.append(revision.commit_hash)
    if forgotten:
        found.delete_revisions(*forgotten).execute()


def _bytes_to_fetch(repo_id: str, revision: str | None, token: bool | None) -> int:
    total = 0
    for name in _FILES:
        with contextlib.suppress(errors.RemoteEntryNotFoundError):
            total += get_hf_file_metadata(hf_hub_url(repo_id, name, revision=revision), token=token).size or 0
    return total


def card_address(repo_id: str, revision: str | None = None) -> str:
    """Where a bundle's page on the Hub is."""
    return f"{HfApi().endpoint}/{repo_id}" + (f"/tree/{quote(revision, safe='/')}" if revision else "")


def find_bundles(source: str | Path) -> list[FoundBundle]:
    """List the bundles of a folder or a namespace.

    A folder has <task>/<architecture>/config.json, a namespace models called unet-<architecture>-<task>. Sorted by
    task, then as ARCHITECTURES. A namespace that cannot be reached is looked up in the cache. Raises HubError for a
    source that is neither, and where nothing can be listed.
    """
    if Path(source).is_dir():
        found = [
            FoundBundle(config.parent.parent.name, config.parent.name, str(config.parent))
            for config in Path(source).glob(f"*/*/{CONFIG_FILE}")
        ]
    elif is_name(str(source)):
        pattern = rf".*/{PREFIX}({'|'.join(ARCHITECTURES)})-(.+)"
        names = (re.fullmatch(pattern, repo_id) for repo_id in _model_names(str(source)))
        found = [FoundBundle(name[2], name[1], name[0]) for name in names if name]
    else:
        raise HubError(f"{str(source)!r} is neither a folder here nor a namespace on the Hub; give one of the two")
    order = {name: number for number, name in enumerate(ARCHITECTURES)}
    return sorted(found, key=lambda b: (b.task, order.get(b.architecture, len(order)), b.architecture))


def _model_names(namespace: str) -> list[str]:
    try:
        return [model.id for model in HfApi().list_models(author=namespace, search=PREFIX)]
    except NETWORK_ERRORS as error:
        with contextlib.suppress(errors.CacheNotFound):
            cached = [repo.repo_id for repo in scan_cache_dir().repos if repo.repo_type == "model"]
            if names := [repo_id for repo_id in cached if repo_id.startswith(f"{namespace}/{PREFIX}")]:
                return names
        raise HubError(f"the models of {namespace} cannot be listed: {explain(error)}") from error


def explain(error: BaseException) -> str:
    """What went wrong, and what to do, in one line."""
    while error.__cause__ is not None and isinstance(error, errors.LocalEntryNotFoundError | RuntimeError):
        error = error.__cause__  # the client's wrapping; what it wraps says why
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        said = error.server_message or f"error {status}"
        changed = f"somebody else changed the repository meanwhile ({said}); look at it, then try again"
        advice = {
            401: f"the Hub does not accept the token (HF_TOKEN goes before the stored one); {LOG_IN}",
            403: f"the token is not allowed to do this ({said}); {LOG_IN}",
            409: changed,
            412: changed,
            429: "the Hub has had too many requests from here; wait some minutes",
        }
        return advice.get(status, f"the Hub answered: {said}" + ("; try again later" if status >= 500 else ""))
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "the variable HF_HUB_OFFLINE forbids it; unset it"
    if isinstance(error, errors.HTTPError):
        return f"the Hub cannot be reached ({one_line(error)}); check the network"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
    return one_line(error)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def is_name(text: str) -> bool:
    return re.fullmatch(r"\w(?:[\w.-]{0,94}\w)?", text, re.ASCII) is not None and not re.search(r"--|\.\.", text)
