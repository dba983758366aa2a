"""The options of a run for the Hub, and what happens if the Hub is slow."""

import threading

import pytest

from hf_gradalign.experiment import announce_hub, parse_arguments, publication, publish_run
from hf_gradalign.hub import PublishingError

WORDS = [
    "--push_to_hub",
    "--hub_model_id",
    "me/mine",
    "--hub_token",
    "hf_x",
    "--hub_private_repo",
    "--hub_revision",
    "b",
]


def test_options_of_the_hub(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(publication, "check_access", lambda *args, **options: calls.append((args, options)))
    monkeypatch.setattr(publication, "publish", lambda *args, **options: calls.append((args, options)) or "address")
    args = parse_arguments([*WORDS, "--output_dir", str(tmp_path)]).training
    announce_hub(args)
    _join_the_check()
    assert not args.push_to_hub  # or the Trainer would push by itself
    assert publish_run(args) == "address"
    assert calls == [
        (("me/mine", "hf_x"), {"private": True}),
        ((str(tmp_path), "me/mine"), {"token": "hf_x", "private": True, "revision": "b"}),
    ]


def _join_the_check():
    for thread in threading.enumerate():
        if thread.name == "hub-access":
            thread.join()


def test_training_begins_while_the_hub_is_asked(monkeypatch, tmp_path):
    begun = threading.Event()
    answers = []

    def wait(*args, **options):
        answers.append(begun.wait(60))

    monkeypatch.setattr(publication, "check_access", wait)
    args = parse_arguments([*WORDS, "--output_dir", str(tmp_path)]).training
    announce_hub(args)  # the Hub has not answered yet
    assert answers == []
    begun.set()
    _join_the_check()
    assert answers == [True]


def test_unreachable_hub_does_not_prevent_training(monkeypatch, tmp_path):
    def fail(*args, **options):
        raise PublishingError("no connection")

    monkeypatch.setattr(publication, "check_access", fail)
    args = parse_arguments(["--push_to_hub", "--output_dir", str(tmp_path / "run-7")]).training
    announce_hub(args)
    assert args.hub_model_id == "run-7"
    _join_the_check()
    monkeypatch.setattr(publication, "publish", fail)
    with pytest.raises(PublishingError, match="no connection"):
        publish_run(args)
