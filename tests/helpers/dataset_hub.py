"""Data sets on the tests' Hub: what `load_dataset`, streaming or not, asks for beyond what models do."""

import hashlib
import json
import re
import sys
from pathlib import Path

import hub_server
from hub_server import Refusal, Repository, StoredFile, route

_REPO = r"(?P<repo_id>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"


def add_dataset(hub, repo_id, files):
    """Put files, bytes by path, into a data set's repository."""
    repository = hub.repos.setdefault(f"datasets/{repo_id}", Repository(repo_id))
    repository.add("main", "data", {path: StoredFile(data) for path, data in files.items()})


def files_read(hub):
    """The data files that clients have read so far, in order."""
    reads = [re.search(r"/resolve/[^/]+/(.+\.parquet)$", call.path) for call in hub.calls if call.method == "GET"]
    return [match.group(1) for match in reads if match]


@route("GET", f"/api/datasets/{_REPO}(?:/revision/{_REVISION})?")
def information(handler, repo_id, revision="main"):
    handler.information(f"datasets/{repo_id}", revision)


@route("GET", f"/api/datasets/{_REPO}/tree/{_REVISION}(?:/(?P<folder>.+))?")
def tree(handler, repo_id, revision, folder=""):
    files = handler.hub.repository(f"datasets/{repo_id}", handler.token).commit(revision).files
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    recursive = handler.query.get("recursive", "False").lower() in ("true", "1")
    below = [path for path in files if path.startswith(prefix)]
    if prefix and not below:
        raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    here = {path: path.removeprefix(prefix).split("/") for path in below}
    folders = {prefix + parts[0] for parts in here.values() if len(parts) > 1}
    entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
    handler.send(200, entries + [_entry(path, files[path]) for path in below if recursive or len(here[path]) == 1])


@route("POST", f"/api/datasets/{_REPO}/paths-info/{_REVISION}")
def paths_info(handler, repo_id, revision):
    files = handler.hub.repository(f"datasets/{repo_id}", handler.token).commit(revision).files
    body = handler.body.decode()
    wanted = json.loads(body)["paths"] if body.startswith("{") else hub_server.parse_qs(body)["paths"]
    entries = [_entry(path, files[path]) for path in wanted if path in files]
    folders = [path for path in wanted if path not in files and any(name.startswith(f"{path}/") for name in files)]
    handler.send(200, entries + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders])


@route("GET", f"/datasets/{_REPO}/resolve/{_REVISION}/(?P<path>.+)")
def download(handler, repo_id, revision, path):
    commit = handler.hub.repository(f"datasets/{repo_id}", handler.token).commit(revision)
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "")
    if asked is None or path not in commit.files:
        return handler.download(f"datasets/{repo_id}", revision, path)
    data = commit.files[path].data
    start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
    headers = {"X-Repo-Commit": commit.oid, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
    return handler.send(206, data[start:stop], headers)


def _entry(path, file):
    return {"type": "file", "path": path, "size": len(file.data), "oid": file.blob_id}


def main():
    """Serve as a program: prints where, then takes a request a line, and answers each with a line, both JSON.

    `{"mood": ...}` sets the mood; `{"add": folder, "to": repo_id, "kind": "models" or "datasets"}` fills a repository
    with a folder's files; `{"show": repo_id}` gives the digests of a repository's files by path, or null.
    """
    with hub_server.HubServer() as hub:
        _say({"url": hub.url, "token": hub_server.VALID_TOKEN})
        for line in sys.stdin:
            request, answer = json.loads(line), None
            if "mood" in request:
                hub.mood = request["mood"]
            if "add" in request:
                name = request["to"] if request["kind"] == "models" else f"datasets/{request['to']}"
                paths = [path for path in Path(request["add"]).rglob("*") if path.is_file()]
                content = {path.relative_to(request["add"]).as_posix(): path.read_bytes() for path in paths}
                files = {path: StoredFile(data, path.endswith(".safetensors")) for path, data in content.items()}
                hub.lfs.update({file.oid: file.data for file in files.values() if file.is_lfs})
                hub.repos.setdefault(name, Repository(request["to"])).add("main", "files", files)
            if "show" in request and request["show"] in hub.repos:
                files = hub.repos[request["show"]].files
                answer = {path: hashlib.sha256(file.data).hexdigest() for path, file in files.items()}
            _say(answer)


def _say(content):
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
