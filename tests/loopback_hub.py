"""A Hugging Face Hub in memory, spoken to over real HTTP by the real client.

It has the endpoints that fetching, pushing and listing need, answers wrong requests as the Hub does (401, 403, 404,
409, 412 with X-Error-Code), applies a commit whole or not at all, and breaks on demand: see :class:`Fault`.

    with LoopbackHub() as hub:
        run the client with HF_ENDPOINT=hub.url, HF_HUB_DISABLE_XET=1, HF_HOME in a temporary folder and HF_TOKEN
"""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import io
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

#: Tokens and what whoami says about them.
ACCOUNTS = {
    "hf_write": {"role": "write"},
    "hf_read": {"role": "read"},
    "hf_fine": {
        "role": "fineGrained",
        "fineGrained": {"scoped": [{"entity": {"type": "user", "name": "ann"}, "permissions": ["repo.write"]}]},
    },
    "hf_fine_read": {
        "role": "fineGrained",
        "fineGrained": {"scoped": [{"entity": {"type": "user", "name": "ann"}, "permissions": ["repo.content.read"]}]},
    },
}
ORGANISATIONS = {"lab": "write", "museum": "read"}
USER = "ann"


@dataclass
class Repo:
    id: str
    kind: str
    private: bool
    commits: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=dict)  # path -> content, is it LFS
    messages: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    @property
    def files(self) -> dict[str, bytes]:
        """What the main branch holds."""
        return {path: content for path, (content, _) in self.commits[self.refs["main"]].items()}

    def commit(self, files: dict[str, tuple[bytes, bool]], message: str) -> str:
        listing = json.dumps([[p, hashlib.sha256(c).hexdigest()] for p, (c, _) in sorted(files.items())])
        parent = self.refs.get("main", "")
        sha = hashlib.sha1(f"{parent}{listing}{message}{len(self.messages)}".encode()).hexdigest()
        self.commits[sha] = files
        self.messages.append(message)
        self.refs["main"] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        revision = self.refs.get(revision) or self.tags.get(revision) or revision
        return revision if revision in self.commits else None


@dataclass
class Fault:
    """What goes wrong from request ``at`` on (0 is the next one), ``times`` times.

    kind: "error" answers 500, "disconnect" hangs up before the request is done, "lost" after it (done, but not
    answered), "truncate" in the middle of the answer's body.
    """

    at: int
    kind: str = "error"
    times: int = 10**9
    path: str = ""

    def strikes(self, path: str) -> bool:
        if self.path not in path:
            return False
        self.at -= 1
        if self.at >= 0 or self.times <= 0:
            return False
        self.times -= 1
        return True


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code


class LoopbackHub:
    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.lfs_suffixes: tuple[str, ...] = (".safetensors", ".png")
        self.requests: list[str] = []
        self.fault: Fault | None = None
        self.before: Callable[[str], None] | None = None  # called with each request's path, before it is handled
        self.lock = threading.RLock()
        self._connections: set[socket.socket] = set()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False  # so that server_close waits for every handler
        self._server.handle_error = lambda request, address: None  # a client that hung up is part of the tests
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        with self.lock:
            for connection in self._connections:
                _hang_up(connection)
        self._server.server_close()

    def model(self, repo_id: str) -> Repo:
        return self.repos["model", repo_id]

    def space(self, repo_id: str) -> Repo:
        return self.repos["space", repo_id]

    def saved(self) -> tuple:
        return copy.deepcopy((self.repos, self.lfs))

    def restore(self, saved: tuple) -> None:
        self.repos, self.lfs = copy.deepcopy(saved)
        self.fault = None


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the client was first
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def setup(self) -> None:
        super().setup()
        with self.hub.lock:
            self.hub._connections.add(self.connection)

    def finish(self) -> None:
        with self.hub.lock:
            self.hub._connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_request()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - names that http.server looks for

    def handle_request(self) -> None:
        body = self.read_body()
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {self.path}")
            if self.hub.before:
                self.hub.before(self.path)
            fault = self.hub.fault if self.hub.fault and self.hub.fault.strikes(self.path) else None
            if fault and fault.kind == "disconnect":
                return self.hang_up()
            if fault and fault.kind == "error":
                return self.answer(500, {"error": "Internal Server Error"})
            wire, self.wfile = self.wfile, io.BytesIO()
            try:
                self.route(body)
            except Refused as refused:
                headers = {"X-Error-Message": refused.message} | (
                    {"X-Error-Code": refused.code} if refused.code else {}
                )
                self.answer(refused.status, {"error": refused.message}, headers)
            answer, self.wfile = self.wfile.getvalue(), wire
        if fault and fault.kind == "lost":
            return self.hang_up()
        if fault and fault.kind == "truncate":
            head, _, content = answer.partition(b"\r\n\r\n")
            self.wfile.write(head + b"\r\n\r\n" + content[: len(content) // 2])
            return self.hang_up()
        self.wfile.write(answer)

    def hang_up(self) -> None:
        self.close_connection = True
        _hang_up(self.connection)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, content: object = None, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def route(self, body: bytes) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in ACCOUNTS:
            raise Refused(401, "Invalid credentials in Authorization header")
        self.token = ACCOUNTS.get(token)
        for method, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, url.path)
            if match and self.command in method.split("|"):
                return handler(self, body, *(unquote(group) if group else group for group in match.groups()))
        raise Refused(404, f"no such endpoint: {self.command} {url.path}")

    # Who may do what

    def check_write(self, namespace: str, repo: str = "") -> None:
        if self.token is None:
            raise Refused(401, "Invalid username or password.")
        scopes = self.token.get("fineGrained", {}).get("scoped", [])
        fine = any("repo.write" in s["permissions"] and s["entity"]["name"] == namespace for s in scopes)
        member = namespace == USER or ORGANISATIONS.get(namespace) == "write"
        if not member or not (self.token["role"] == "write" or fine):
            raise Refused(403, "You don't have the rights to create or change a repository under this namespace")

    def repo(self, kind: str, repo_id: str, *, write: bool = False) -> Repo:
        repo = self.hub.repos.get((kind, repo_id))
        member = self.token is not None and repo_id.split("/")[0] in (USER, *ORGANISATIONS)
        if repo is None or (repo.private and not member):
            raise Refused(404 if self.token else 401, "Repository not found", "RepoNotFound")
        if write:
            self.check_write(*repo_id.split("/"))
        return repo

    def at(self, repo: Repo, revision: str | None) -> str:
        sha = repo.resolve(revision or "main")
        if sha is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    # Endpoints

    def whoami(self, body: bytes) -> None:
        if self.token is None:
            raise Refused(401, "Invalid username or password.")
        organisations = [{"name": name, "roleInOrg": role} for name, role in ORGANISATIONS.items()]
        auth = {"type": "access_token", "accessToken": {"displayName": "laptop", **self.token}}
        self.answer(200, {"type": "user", "name": USER, "orgs": organisations, "auth": auth})

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        kind, namespace = wanted.get("type", "model"), wanted.get("organization") or USER
        self.check_write(namespace)
        repo_id = f"{namespace}/{wanted['name']}"
        prefix = "spaces/" if kind == "space" else ""
        if (kind, repo_id) in self.hub.repos:
            return self.answer(
                409, {"error": "You already created this repo", "url": f"{self.hub.url}/{prefix}{repo_id}"}
            )
        repo = self.hub.repos[kind, repo_id] = Repo(repo_id, kind, wanted.get("visibility") == "private")
        repo.commit({".gitattributes": (b"*.safetensors filter=lfs\n", False)}, "initial commit")
        self.answer(200, {"url": f"{self.hub.url}/{prefix}{repo_id}", "id": repo_id})

    def validate_yaml(self, body: bytes) -> None:
        wanted = json.loads(body)
        match = re.match(r"---\n(.*?)\n---\n", wanted["content"], re.DOTALL)
        errors = []
        try:
            front = yaml.safe_load(match[1]) if match else {}
        except yaml.YAMLError as error:
            front, errors = {}, [{"message": str(error)}]
        if not isinstance(front.get("tags", []), list):
            errors.append({"message": '"tags" must be an array'})
        if not re.fullmatch(r"[a-z0-9.-]*", str(front.get("license_name", ""))):
            errors.append({"message": '"license_name" fails to match the required pattern'})
        if not re.fullmatch(r"(https?://.*|LICENSE.*|)", str(front.get("license_link", ""))):
            errors.append({"message": '"license_link" must be a valid uri'})
        for model in front.get("model-index", []):
            for result in model["results"]:
                if not {"type", "name"} <= set(result["dataset"]) or not all("value" in m for m in result["metrics"]):
                    errors.append({"message": '"model-index" is not valid'})
        said: object = {"errors": errors, "warnings": []}
        if self.headers.get("Accept") == "text/plain":
            said = "; ".join(error["message"] for error in errors).encode()
        self.answer(400 if errors else 200, said)

    def models(self, body: bytes) -> None:
        author, search = self.query.get("author", [""])[0], self.query.get("search", [""])[0]
        seen = [
            repo for (kind, _), repo in self.hub.repos.items() if kind == "model" and (self.token or not repo.private)
        ]
        self.answer(200, [{"id": r.id} for r in seen if r.id.startswith(f"{author}/") and search in r.id])

    def info(self, body: bytes, kind: str, repo_id: str, revision: str | None) -> None:
        repo = self.repo(kind, repo_id)
        sha = self.at(repo, revision)
        siblings = [{"rfilename": path} for path in repo.commits[sha]]
        gated = "manual" if repo.gated else False
        self.answer(200, {"id": repo.id, "sha": sha, "private": repo.private, "gated": gated, "siblings": siblings})

    def entries(self, kind: str, repo_id: str, revision: str) -> list[dict]:
        repo = self.repo(kind, repo_id)
        entries = []
        for path, (content, is_lfs) in repo.commits[self.at(repo, revision)].items():
            sha256 = hashlib.sha256(content).hexdigest()
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
            entry = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": _git_oid(pointer if is_lfs else content),
            }
            if is_lfs:
                entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
            entries.append(entry)
        return entries

    def tree(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        self.answer(200, self.entries(kind, repo_id, revision))

    def paths_info(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        wanted = parse_qs(body.decode())["paths"] if body[:1] != b"{" else json.loads(body)["paths"]
        self.answer(200, [entry for entry in self.entries(kind, repo_id, revision) if entry["path"] in wanted])

    def refs(self, body: bytes, kind: str, repo_id: str) -> None:
        repo = self.repo(kind, repo_id)
        listed = {
            "branches": [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": sha} for n, sha in repo.refs.items()],
            "tags": [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": sha} for n, sha in repo.tags.items()],
            "converts": [],
        }
        self.answer(200, listed)

    def tag(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        repo = self.repo(kind, repo_id, write=True)
        name = json.loads(body)["tag"]
        if name in repo.tags:
            raise Refused(409, f"Tag {name} already exists")
        repo.tags[name] = self.at(repo, revision)
        self.answer(200, {})

    def preupload(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        repo = self.repo(kind, repo_id, write=True)
        present = repo.commits[self.at(repo, revision)]
        files = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if file["path"].endswith(self.hub.lfs_suffixes) else "regular"
            found = present.get(file["path"])
            oid = found and (hashlib.sha256(found[0]).hexdigest() if found[1] else _git_oid(found[0]))
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.answer(200, {"files": files})

    def lfs_batch(self, body: bytes, prefix: str | None, repo_id: str) -> None:
        self.repo("space" if prefix else "model", repo_id, write=True)
        objects = json.loads(body)["objects"]
        for item in objects:
            if item["oid"] not in self.hub.lfs:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
        self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "the content has another hash")
        self.hub.lfs[oid] = body
        self.answer(200)

    def lfs_get(self, body: bytes, oid: str) -> None:
        self.answer(200, self.hub.lfs[oid])

    def commit(self, body: bytes, kind: str, repo_id: str, revision: str) -> None:
        repo = self.repo(kind, repo_id, write=True)
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repo.refs["main"]):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[repo.refs["main"]])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"]), False
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise Refused(400, f"{value['path']} was never uploaded")
                files[value["path"]] = self.hub.lfs[value["oid"]], True
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise Refused(400, f"unknown operation {line['key']}")
        sha = repo.commit(files, header["summary"])
        self.answer(200, {"commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}", "commitOid": sha, "success": True})

    def variables(self, body: bytes, repo_id: str) -> None:
        repo = self.repo("space", repo_id, write=self.command != "GET")
        if self.command == "POST":
            variable = json.loads(body)
            repo.variables[variable["key"]] = variable["value"]
        elif self.command == "DELETE":
            repo.variables.pop(json.loads(body)["key"], None)
        self.answer(200, {key: {"value": value} for key, value in repo.variables.items()})

    def resolve(self, body: bytes, prefix: str | None, repo_id: str, revision: str, path: str) -> None:
        repo = self.repo("space" if prefix else "model", repo_id)
        if repo.gated:
            raise Refused(403 if self.token else 401, f"Access to model {repo_id} is restricted", "GatedRepo")
        sha = self.at(repo, revision)
        if path not in repo.commits[sha]:
            raise Refused(404, "Entry not found", "EntryNotFound")
        content, is_lfs = repo.commits[sha][path]
        if not is_lfs:
            return self.answer(200, content, {"ETag": f'"{_git_oid(content)}"', "X-Repo-Commit": sha})
        oid = hashlib.sha256(content).hexdigest()
        # Large files come from another host, as on the Hub: "localhost" is one to the client.
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": sha}
        self.answer(302, None, {**linked, "Location": f"http://localhost:{self.hub.url.rpartition(':')[2]}/lfs/{oid}"})


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_REPO = r"/api/(model|space)s/([^/]+/[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("GET", r"/api/models", _Handler.models),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("GET|POST|DELETE", r"/api/spaces/([^/]+/[^/]+)/variables", _Handler.variables),
    ("GET", _REPO + r"(?:/revision/([^/]+))?", _Handler.info),
    ("GET", _REPO + r"/tree/([^/]+)", _Handler.tree),
    ("POST", _REPO + r"/paths-info/([^/]+)", _Handler.paths_info),
    ("GET", _REPO + r"/refs", _Handler.refs),
    ("POST", _REPO + r"/tag/([^/]+)", _Handler.tag),
    ("POST", _REPO + r"/preupload/([^/]+)", _Handler.preupload),
    ("POST", _REPO + r"/commit/([^/]+)", _Handler.commit),
    ("POST", r"/(spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", _Handler.lfs_put),
    ("GET|HEAD", r"/lfs/([0-9a-f]{64})", _Handler.lfs_get),
    ("GET|HEAD", r"/(spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
]
