"""A Hub that fails in different ways: commands end with a reason, and cached files are used."""

import re

import pytest
from huggingface_hub.errors import HfHubHTTPError

from hf_gradalign.utils.hub_waits import httpx, hub_fault

CLIENT = """
import time
from hf_gradalign.utils import hub_waits
from hf_gradalign.utils.hub_waits import limit_hub_waits
hub_waits._AUXILIARY_S = 0.5
from hf_gradalign.models import load_config
time.sleep = lambda seconds: None if seconds <= 60 else exit(f"waits {seconds} s")
limit_hub_waits()
def said(action):
    try:
        return str(action())
    except (OSError, ValueError, RuntimeError) as error:
        return str(error)
"""
QUICK = {"HF_HUB_ETAG_TIMEOUT": "2", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
QUICKER = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}  # for a Hub that never answers
NOT_REACHED = r"cannot load the model me/model \(there is no folder .*/me/model\): the Hub at http://\S+ "
REASONS = {
    "hang": NOT_REACHED
    + r"does not answer \(ReadTimeout: timed out\)\. The cache, which HF_HUB_OFFLINE=1 uses alone, does not",
    "drop": NOT_REACHED + r"does not answer \(RemoteProtocolError: ",
    "500": NOT_REACHED + r"answers 500 Internal Server Error",
    "503": NOT_REACHED + r"answers 503 Service Unavailable\.",
    "429": NOT_REACHED + r"answers 429 Too Many Requests\.",
    "html": r"the server at http://\S+ is not the Hub \(a login page of the network",
    "401": r"the Hub at http://\S+ refuses the token \(401\): run `hf auth login`",
}


def status_error(status):
    response = httpx.Response(status, request=httpx.Request("GET", "http://hub"))
    return HfHubHTTPError("no", response=response)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (httpx.RemoteProtocolError("Server left"), r"does not answer \(RemoteProtocolError: Server left"),
        (httpx.ReadTimeout("timed out"), r"does not answer \(ReadTimeout: timed out"),
        (status_error(503), "answers 503"),
        (status_error(404), None),
        (ValueError("other"), None),
    ],
)
def test_why_the_hub_was_not_reached(error, fault):
    """Single errors: after the first failed connection, the Hub is still tried again."""
    outer = OSError("cannot load")
    outer.__cause__ = error
    said = hub_fault(outer)
    assert said is None if fault is None else re.search(fault, said)


@pytest.mark.parametrize(
    "mood",
    [
        "drop",
        pytest.param("hang", marks=pytest.mark.slow),
        *(
            pytest.param(mood, marks=[pytest.mark.slow, pytest.mark.long])
            for mood in ("401", "429", "500", "503", "html")
        ),
    ],
)
def test_a_hub_in_a_mood_is_given_up_with_its_reason(hub, run_client, tmp_path, mood):
    hub.mood = mood
    (tmp_path / "folder").mkdir()
    program = (
        CLIENT + "from hf_gradalign.hub import publish\n"
        "report([said(lambda: load_config('me/model', {})), said(lambda: publish(args[0], 'tester/new'))])"
    )
    loading, publishing = run_client(program, tmp_path / "folder", **(QUICKER if mood == "hang" else QUICK))
    assert re.search(REASONS[mood], loading), loading
    assert re.match(r"Cannot publish to 'tester/new': (the Hub|the server at) .*", publishing), publishing
    assert "hf upload tester/new" in publishing
    assert len(hub.calls) <= 8
    hub.unknown_calls.clear()


@pytest.mark.slow
def test_a_long_pause_is_refused_and_a_slow_answer_given_up(hub, run_client):
    hub.mood, hub.retry_after = "429", 3600
    loading = run_client(CLIENT + "report(said(lambda: load_config('me/model', {})))", **QUICK)
    assert "answers 429 Too Many Requests and asks to wait 3600 s. The cache" in loading
    hub.mood = "slow"
    hub.repos["me/model"] = hub_server_model({"config.json": b'{"model_type": "wav2vec2"}' + b" " * 10_000})
    loading = run_client(CLIENT + "report(said(lambda: load_config('me/model', {})))", **QUICK)
    assert re.search(NOT_REACHED + r"is too slow: \d+ bytes in \d+ s", loading), loading


@pytest.mark.slow
def test_a_cached_model_loads_without_the_hub(hub, run_client):
    hub.repos["me/model"] = hub_server_model({"config.json": b'{"model_type": "wav2vec2", "hidden_size": 24}'})
    load = "report(load_config('me/model', {}).hidden_size)"
    assert run_client(CLIENT + load, **QUICK) == 24
    hub.mood = "drop"  # as a firewall does
    assert run_client(CLIENT + load, **QUICK) == 24
    hub.mood = "hang"
    n_calls = len(hub.calls)
    assert run_client(CLIENT + load, **QUICKER) == 24
    assert len(hub.calls) - n_calls == 2  # then nothing waits anymore


def hub_server_model(files):
    from hub_server import Repository, StoredFile

    repository = Repository("me/model")
    repository.add("main", "model", {name: StoredFile(data) for name, data in files.items()})
    return repository
