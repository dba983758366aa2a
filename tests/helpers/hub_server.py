"""A small Hub for tests: keeps model repositories in memory and speaks as much of the Hub's HTTP as its client needs.

Covers what huggingface_hub 2.4 and transformers use to create, fill, list and download model repositories: whoami,
repository creation, branches, preupload, LFS, commits, file trees, repository information and file download. The client
must be told where the server is before `huggingface_hub` is imported, so clients run in processes of their own:

    with HubServer() as hub:
        subprocess.run([...], env=hub.environment(home=tmp_path))
        assert "config.json" in hub.repos["tester/model"].files
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

USER = "tester"
VALID_TOKEN = "hf_token_of_the_tester"
REFUSED_TOKEN = "hf_token_that_is_revoked"
READ_ONLY_TOKEN = "hf_token_that_may_only_read"
DATE = "2026-01-01T00:00:00.000Z"
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz", ".onnx")


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit; large ones live in LFS storage and are known by another hash."""

    data: bytes
    is_lfs: bool = False

    @property
    def blob_id(self) -> str:
        """Git's hash of the content."""
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def oid(self) -> str:
        """The hash by which the client tells whether its copy has changed."""
        return hashlib.sha256(self.data).hexdigest() if self.is_lfs else self.blob_id


@dataclass(frozen=True)
class Commit:
    """All files at one point of a repository's history, by path."""

    oid: str
    title: str
    files: dict[str, StoredFile]


@dataclass
class Repository:
    """A model repository: a list of commits a branch, the oldest first. Nobody may read the files of a gated one."""

    repo_id: str
    private: bool = False
    gated: bool = False
    branches: dict[str, list[Commit]] = field(
        default_factory=lambda: {"main": [Commit("0" * 40, "initial commit", {})]}
    )

    @property
    def files(self) -> dict[str, StoredFile]:
        """Files of the newest commit of `main`, by path."""
        return self.commit("main").files

    def commit(self, revision: str) -> Commit:
        """The commit that a branch points to or that has this hash; `Refusal` (404) where there is none."""
        if revision in self.branches:
            return self.branches[revision][-1]
        for commits in self.branches.values():
            for commit in commits:
                if commit.oid == revision:
                    return commit
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def add(self, branch: str, title: str, files: dict[str, StoredFile]) -> Commit:
        """Append a commit that holds exactly these files."""
        parent = self.commit(branch)
        content = json.dumps([parent.oid, title, {path: file.oid for path, file in files.items()}])
        commit = Commit(hashlib.sha1(content.encode()).hexdigest(), title, files)
        self.branches[branch].append(commit)
        return commit


@dataclass(frozen=True)
class Call:
    """A request that the server received."""

    method: str
    path: str
    token: str | None
    body: bytes


class Refusal(Exception):
    """An answer that the client turns into one of its exceptions, which it tells apart by status and code."""

    def __init__(self, status: int, message: str, code: str | None = None, **content: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self.content = {"error": message, **content}


class HubServer:
    """A Hub on a free local port, from `with` to the end of its block.

    Args:
        refused_tokens: Tokens that are answered as the Hub answers an unknown or revoked one (401).
        read_only_tokens: Tokens that may read but not write (403).

    Attributes:
        mood: None, or what is wrong with every answer from now on: "hang" (none comes), "drop" (the connection is
            closed), "slow" (a byte a tenth of a second), "html" (a page of some other server), or a status such as
            "500", "401" and "429" (with `retry_after`).
        retry_after: Seconds that the mood "429" asks the client to wait.
        url: Where it listens, for `HF_ENDPOINT`.
        repos: Repositories by id.
        lfs: Contents of LFS storage by SHA-256.
        calls: Every request so far, in order.
        unknown_calls: Those requests that no route took: a client wants something that is not covered here.
    """

    def __init__(
        self, *, refused_tokens: Iterable[str] = (REFUSED_TOKEN,), read_only_tokens: Iterable[str] = (READ_ONLY_TOKEN,)
    ) -> None:
        self.refused_tokens = frozenset(refused_tokens)
        self.read_only_tokens = frozenset(read_only_tokens)
        self.repos: dict[str, Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.calls: list[Call] = []
        self.unknown_calls: list[Call] = []
        self.mood: str | None = None
        self.retry_after = 1
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubRequestHandler,), {"hub": self}))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        # Downloads of large files are redirected to another host, as on the Hub, where a token must not follow.
        self.storage_url = f"http://localhost:{self._http.server_port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def environment(self, home: Path, token: str | None = VALID_TOKEN, **more: str) -> dict[str, str]:
        """Environment for a client process: this server, an empty cache in `home`, this token (None: none)."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}  # Xet storage is not covered
        if token is not None:
            own["HF_TOKEN"] = token
        return {**kept, "NO_PROXY": "localhost,127.0.0.1", **own, **more}

    def repository(self, repo_id: str, token: str | None = None) -> Repository:
        """A repository that this token may read; `Refusal` (404, or 401 for a private one) otherwise."""
        if repo_id not in self.repos:
            raise Refusal(404, "Repository not found", "RepoNotFound")
        repository = self.repos[repo_id]
        if repository.private and token is None:
            raise Refusal(401, "Invalid username or password.", "RepoNotFound")
        return repository


Route = tuple[str, re.Pattern[str], Callable[..., None]]
_ROUTES: list[Route] = []
_REPO = r"(?P<repo_id>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"


def route(method: str, pattern: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a handler's method for requests whose whole path matches; named groups become its arguments."""

    def register(handler: Callable[..., None]) -> Callable[..., None]:
        _ROUTES.append((method, re.compile(pattern), handler))
        return handler

    return register


class HubRequestHandler(BaseHTTPRequestHandler):
    """Answers one connection: reads a request, checks its token, finds its route, turns a refusal into an answer."""

    hub: HubServer
    protocol_version = "HTTP/1.1"  # the client keeps its connections

    def handle_request(self) -> None:
        """Answer the request that has just been parsed."""
        self.body = self._read_body()
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        address = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        call = Call(self.command, self.path, self.token, self.body)
        if self.hub.mood not in (None, "slow"):
            self.hub.calls.append(call)
            return self._answer_in_mood(self.hub.mood)
        with self.hub.lock:
            self.hub.calls.append(call)
            try:
                self._refuse_bad_token()
                self._find_route(address.path, call)
            except Refusal as refusal:
                self.send(refusal.status, refusal.content, refusal.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def _answer_in_mood(self, mood: str) -> None:
        if mood == "hang":
            self.hub.ended.wait()
        if mood in ("hang", "drop"):
            self.close_connection = True
        elif mood == "html":
            self.send(200, b"<!DOCTYPE html><html><body>Please log in to this network</body></html>")
        else:
            asked = {"Retry-After": str(self.hub.retry_after)} if mood == "429" else {}
            self.send(int(mood), {"error": "in a mood"}, asked)

    def _find_route(self, path: str, call: Call) -> None:
        for method, pattern, handler in _ROUTES:
            match = pattern.fullmatch(path)
            if match and (method == self.command or (method == "GET" and self.command == "HEAD")):
                return handler(self, **{k: unquote(v) for k, v in match.groupdict().items() if v is not None})
        self.hub.unknown_calls.append(call)
        raise Refusal(404, f"This test server has no route for {self.command} {path}")

    def _refuse_bad_token(self) -> None:
        if self.token in self.hub.refused_tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")

    def require_write(self) -> None:
        """Refuse requests without a token (401) and those whose token may only read (403)."""
        if self.token is None:
            raise Refusal(401, "Invalid username or password.")
        if self.token in self.hub.read_only_tokens:
            raise Refusal(403, "You must use a write token to upload to a repository.")

    def send(self, status: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        """Send an answer: bytes as they are, anything else as JSON."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/octet-stream" if raw is content else "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.mood != "slow":
            self.wfile.write(raw)
            return
        with contextlib.suppress(OSError):  # the client may have given up
            for byte in raw:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.hub.ended.wait(0.1):
                    return

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: the calls are recorded."""

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    @route("GET", "/api/whoami-v2")
    def whoami(self) -> None:
        """Tell whose token it is and what it may do."""
        if self.token is None:
            raise Refusal(401, "Invalid username or password.")
        role = "read" if self.token in self.hub.read_only_tokens else "write"
        access = {"type": "access_token", "accessToken": {"role": role, "displayName": "test"}}
        self.send(200, {"type": "user", "name": USER, "orgs": [], "auth": access})

    @route("GET", "/api/agent-harnesses")
    def agent_harnesses(self) -> None:
        """List the programs that the client should recognise as its caller: none."""
        self.send(200, {"standardEnvVars": [], "harnesses": {}})

    @route("POST", "/api/repos/create")
    def create_repository(self) -> None:
        """Create a repository, in the token's namespace where none is given."""
        self.require_write()
        wanted = json.loads(self.body)
        repo_id = f"{wanted.get('organization') or USER}/{wanted['name']}"
        key = f"spaces/{repo_id}" if wanted.get("type") == "space" else repo_id
        url = f"{self.hub.url}/{key}"
        if key in self.hub.repos:
            raise Refusal(409, "You already created this repo", url=url)
        self.hub.repos[key] = Repository(repo_id, private=wanted.get("visibility") == "private")
        self.send(200, {"url": url, "name": repo_id, "id": repo_id})

    @route("POST", "/api/validate-yaml")
    def validate_model_card(self) -> None:
        """Accept a model card that opens with a metadata block."""
        opens_with_block = json.loads(self.body)["content"].startswith("---\n")
        errors = [] if opens_with_block else [{"message": "no metadata block"}]
        self.send(200 if opens_with_block else 400, {"errors": errors, "warnings": []})

    @route("GET", f"/api/models/{_REPO}/auth-check(?P<write>/write)?")
    def check_access(self, repo_id: str, write: str = "") -> None:
        """Tell whether the token may read, or write to, a repository."""
        self.hub.repository(repo_id, self.token)
        if write:
            self.require_write()
        self.send(200, {})

    @route("POST", f"/api/models/{_REPO}/branch/{_REVISION}")
    def create_branch(self, repo_id: str, revision: str) -> None:
        """Start a branch at another revision."""
        self.require_write()
        repository = self.hub.repository(repo_id, self.token)
        if revision in repository.branches:
            raise Refusal(409, f"Reference already exists: {revision}")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.branches[revision] = [repository.commit(start)]
        self.send(200, {})

    @route("POST", f"/api/models/{_REPO}/preupload/{_REVISION}")
    def preupload(self, repo_id: str, revision: str) -> None:
        """Tell for each file whether it goes to LFS storage, and what its present content is."""
        self.require_write()
        present = self.hub.repository(repo_id, self.token).commit(revision)
        answers = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
            oid = present.files[file["path"]].oid if file["path"] in present.files else None
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send(200, {"files": answers, "commitOid": present.oid})

    @route("POST", rf"/{_REPO}\.git/info/lfs/objects/batch")
    def lfs_batch(self, repo_id: str) -> None:
        """Tell where to upload the objects that LFS storage does not hold yet."""
        self.require_write()
        self.hub.repository(repo_id, self.token)
        answers = []
        for wanted in json.loads(self.body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"], "authenticated": True}
            if wanted["oid"] not in self.hub.lfs:
                answer["actions"] = {
                    "upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"},
                    "verify": {"href": f"{self.hub.url}/lfs-verify"},
                }
            answers.append(answer)
        self.send(200, {"transfer": "basic", "objects": answers})

    @route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
    def lfs_upload(self, oid: str) -> None:
        """Store an object under the hash of its content."""
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "The content does not have this hash")
        self.hub.lfs[oid] = self.body
        self.send(200, {})

    @route("POST", "/lfs-verify")
    def lfs_verify(self) -> None:
        """Confirm that an object has arrived whole."""
        wanted = json.loads(self.body)
        if len(self.hub.lfs.get(wanted["oid"], b"")) != wanted["size"]:
            raise Refusal(404, "Object not found")
        self.send(200, {})

    @route("GET", "/lfs/(?P<oid>[0-9a-f]{64})")
    def lfs_download(self, oid: str) -> None:
        """Hand out an object."""
        self.send(200, self.hub.lfs[oid])

    @route("POST", f"/api/models/{_REPO}/commit/{_REVISION}")
    def commit(self, repo_id: str, revision: str) -> None:
        """Apply a list of changes, one JSON object a line, to the newest commit of a branch."""
        self.require_write()
        repository = self.hub.repository(repo_id, self.token)
        if revision not in repository.branches:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        files = dict(repository.commit(revision).files)
        title = ""
        for line in self.body.splitlines():
            change = json.loads(line)
            kind, value = change["key"], change["value"]
            if kind == "header":
                title = value["summary"]
            elif kind == "file":
                files[value["path"]] = StoredFile(base64.b64decode(value["content"]))
            elif kind == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise Refusal(400, f"LFS object of {value['path']} was not uploaded")
                files[value["path"]] = StoredFile(self.hub.lfs[value["oid"]], is_lfs=True)
            elif kind == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            elif kind == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                files = {path: file for path, file in files.items() if not path.startswith(folder)}
            else:
                raise Refusal(400, f"Unknown change: {kind}")
        commit = repository.add(revision, title, files)
        url = f"{self.hub.url}/{repo_id}/commit/{commit.oid}"
        self.send(200, {"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})

    @route("GET", f"/api/models/{_REPO}/tree/{_REVISION}(?:/(?P<folder>.+))?")
    def tree(self, repo_id: str, revision: str, folder: str = "") -> None:
        """List the files of a revision, or of one of its folders, with those of all folders below."""
        files = self.hub.repository(repo_id, self.token).commit(revision).files
        prefix = f"{folder.rstrip('/')}/" if folder else ""
        entries = []
        for path, file in files.items():
            if path.startswith(prefix):
                entry = {"type": "file", "path": path, "size": len(file.data), "oid": file.blob_id}
                if file.is_lfs:
                    entry["lfs"] = {"oid": file.oid, "size": len(file.data), "pointerSize": 134}
                entries.append(entry)
        if prefix and not entries:
            raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        self.send(200, entries)

    @route("GET", f"/api/models/{_REPO}(?:/revision/{_REVISION})?")
    def information(self, repo_id: str, revision: str = "main") -> None:
        """Describe a repository at a revision."""
        repository = self.hub.repository(repo_id, self.token)
        commit = repository.commit(revision)
        about = {"_id": "0", "id": repo_id, "modelId": repo_id, "author": repo_id.split("/")[0], "sha": commit.oid}
        state = {"private": repository.private, "disabled": False, "gated": False, "downloads": 0, "likes": 0}
        dates = {"lastModified": DATE, "createdAt": DATE}
        siblings = [{"rfilename": path} for path in commit.files]
        self.send(200, {**about, **state, **dates, "tags": [], "siblings": siblings})

    @route("GET", f"/{_REPO}/resolve/{_REVISION}/(?P<path>.+)")
    def download(self, repo_id: str, revision: str, path: str) -> None:
        """Hand out a file, or say where LFS storage has it."""
        repository = self.hub.repository(repo_id, self.token)
        if repository.gated:
            raise Refusal(403, f"Access to model {repo_id} is restricted", "GatedRepo")
        commit = repository.commit(revision)
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            refusal = Refusal(404, "Entry not found", "EntryNotFound")
            refusal.headers.update(headers)  # by which the client remembers that this commit lacks the file
            raise refusal
        file = commit.files[path]
        if not file.is_lfs:
            return self.send(200, file.data, {**headers, "ETag": f'"{file.oid}"'})
        headers.update({"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(len(file.data))})
        self.send(302, b"", {**headers, "Location": f"{self.hub.storage_url}/lfs/{file.oid}"})
