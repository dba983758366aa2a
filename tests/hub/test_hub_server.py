"""The Hub of the tests with the real client."""

import hashlib

import pytest
from hub_server import READ_ONLY_TOKEN, REFUSED_TOKEN

WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    (path / "sub folder").mkdir(parents=True)
    (path / "config.json").write_text('{"a": 1}')
    (path / "sub folder" / "notes ü.txt").write_text("notes")
    (path / "model.safetensors").write_bytes(WEIGHTS)
    return path


UPLOAD = """
from huggingface_hub import HfApi
api = HfApi()
repo = api.create_repo("model", exist_ok=True)
info = api.upload_folder(repo_id=repo.repo_id, folder_path=args[0], commit_message="first")
"""


def test_upload_and_download(hub, run_client, folder):
    reported = run_client(
        UPLOAD
        + "from huggingface_hub import snapshot_download\n"
        + "report([repo.repo_id, repo.url, api.whoami()['name'], info.oid, snapshot_download(repo.repo_id)])",
        folder,
    )
    repo_id, url, name, oid, snapshot = reported
    assert (repo_id, url, name) == ("tester/model", f"{hub.url}/tester/model", "tester")
    expected = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path: file.data for path, file in hub.repos[repo_id].files.items()} == expected
    assert hub.repos[repo_id].commit("main").title == "first"
    assert hub.lfs == {hashlib.sha256(WEIGHTS).hexdigest(): WEIGHTS}
    assert hub.repos[repo_id].files["model.safetensors"].is_lfs
    assert snapshot.endswith(oid)
    for path, data in expected.items():
        with open(f"{snapshot}/{path}", "rb") as file:
            assert file.read() == data
    downloads = [call for call in hub.calls if call.path.startswith("/lfs/") and call.method == "GET"]
    assert [call.token for call in downloads] == [None]  # the token is only sent to its own host


@pytest.mark.slow
def test_commits_and_branches(hub, run_client, folder):
    program = UPLOAD + (
        "from pathlib import Path\n"
        "from huggingface_hub import CommitOperationDelete, hf_hub_download, snapshot_download\n"
        "config = Path(args[0], 'config.json')\n"
        "api.create_branch(repo.repo_id, branch='exp/one')\n"
        "config.write_text('{\"a\": 2}')\n"
        "second = api.upload_folder(repo_id=repo.repo_id, folder_path=args[0], commit_message='second')\n"
        "third = api.upload_folder(repo_id=repo.repo_id, folder_path=args[0], commit_message='unchanged')\n"
        "delete = [CommitOperationDelete('sub folder/')]\n"
        "api.create_commit(repo.repo_id, delete, commit_message='tidy')\n"
        "config.write_text('{\"a\": 3}')\n"
        "api.upload_folder(repo_id=repo.repo_id, folder_path=args[0], revision='exp/one')\n"
        "of_branch = Path(hf_hub_download(repo.repo_id, 'config.json', revision='exp/one')).read_text()\n"
        "read = lambda revision: Path(snapshot_download(repo.repo_id, revision=revision), 'config.json').read_text()\n"
        "report([info.oid, second.oid, third.oid, read(info.oid), read(second.oid), read('main'), of_branch])"
    )
    first, second, third, *contents = run_client(program, folder)
    assert first != second
    assert third == second  # nothing had changed
    assert contents == ['{"a": 1}', '{"a": 2}', '{"a": 2}', '{"a": 3}']
    assert [commit.title for commit in hub.repos["tester/model"].branches["main"]] == [
        "initial commit",
        "first",
        "second",
        "tidy",
    ]
    assert set(hub.repos["tester/model"].files) == {"config.json", "model.safetensors"}
    assert hub.repos["tester/model"].files["config.json"].data == b'{"a": 2}'
    puts = [call for call in hub.calls if call.method == "PUT"]
    assert len(puts) == 1  # unchanged weights are not sent again


FAILURES = """
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
api = HfApi()
api.create_repo("public")
api.create_repo("secret", private=True)
def outcome(action):
    try:
        action()
    except HfHubHTTPError as error:
        return [type(error).__name__, error.response.status_code, str(error)]
refused, read_only = args
report({
    "missing file": outcome(lambda: hf_hub_download("tester/public", "nothing.txt")),
    "missing repository": outcome(lambda: api.model_info("tester/nothing")),
    "missing revision": outcome(lambda: api.model_info("tester/public", revision="v2")),
    "existing repository": outcome(lambda: api.create_repo("public")),
    "refused token": outcome(lambda: HfApi(token=refused).create_repo("other")),
    "refused whoami": outcome(lambda: HfApi(token=refused).whoami()),
    "no token": outcome(lambda: HfApi(token=False).create_repo("other")),
    "read-only token": outcome(lambda: HfApi(token=read_only).create_repo("other")),
    "read-only write check": outcome(lambda: api.auth_check("tester/public", token=read_only, write=True)),
    "read-only read check": outcome(lambda: api.auth_check("tester/public", token=read_only)),
    "private, no token": outcome(lambda: HfApi(token=False).model_info("tester/secret")),
    "private, token": outcome(lambda: api.model_info("tester/secret")),
})
"""


@pytest.mark.slow
def test_refusals_become_the_clients_own_exceptions(hub, run_client):
    outcomes = run_client(FAILURES, REFUSED_TOKEN, READ_ONLY_TOKEN)
    kinds = {name: outcome and tuple(outcome[:2]) for name, outcome in outcomes.items()}
    assert kinds == {
        "missing file": ("RemoteEntryNotFoundError", 404),
        "missing repository": ("RepositoryNotFoundError", 404),
        "missing revision": ("RevisionNotFoundError", 404),
        "existing repository": ("HfHubHTTPError", 409),
        "refused token": ("HfHubHTTPError", 401),
        "refused whoami": ("HfHubHTTPError", 401),
        "no token": ("HfHubHTTPError", 401),
        "read-only token": ("HfHubHTTPError", 403),
        "read-only write check": ("HfHubHTTPError", 403),
        "read-only read check": None,
        "private, no token": ("RepositoryNotFoundError", 401),
        "private, token": None,
    }
    assert "Invalid credentials in Authorization header" in outcomes["refused token"][2]
    assert set(hub.repos) == {"tester/public", "tester/secret"}
    assert {call.token for call in hub.calls} >= {None, REFUSED_TOKEN, READ_ONLY_TOKEN}
