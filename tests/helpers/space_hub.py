"""Spaces on the tests' Hub: what creating, filling and downloading one asks for, as models do it."""

from hub_server import HubRequestHandler, route

_REPO = r"(?P<repo_id>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"


def _as_for_models(method, pattern, action):
    @route(method, pattern)
    def handle(handler, repo_id, **arguments):
        action(handler, f"spaces/{repo_id}", **arguments)


_as_for_models("POST", f"/api/spaces/{_REPO}/preupload/{_REVISION}", HubRequestHandler.preupload)
_as_for_models("POST", rf"/spaces/{_REPO}\.git/info/lfs/objects/batch", HubRequestHandler.lfs_batch)
_as_for_models("POST", f"/api/spaces/{_REPO}/commit/{_REVISION}", HubRequestHandler.commit)
_as_for_models("GET", f"/api/spaces/{_REPO}/tree/{_REVISION}(?:/(?P<folder>.+))?", HubRequestHandler.tree)
_as_for_models("GET", f"/api/spaces/{_REPO}(?:/revision/{_REVISION})?", HubRequestHandler.information)
_as_for_models("GET", f"/spaces/{_REPO}/resolve/{_REVISION}/(?P<path>.+)", HubRequestHandler.download)
