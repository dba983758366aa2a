"""`hf-gradalign demo`: its command line, without a browser."""

import pytest

from hf_gradalign import demo
from hf_gradalign.cli.demo import main
from hf_gradalign.hub import PublishingError


@pytest.fixture
def calls(monkeypatch):
    made = []
    for name in ("serve", "push_space"):
        monkeypatch.setattr(demo, name, lambda *args, name=name, **options: made.append((name, args, options)))
    return made


def test_the_page_is_for_this_machine_unless_asked(calls):
    assert main(["runs/a", "b/c", "--max_mb", "7", "--p_spoof", "0.5", "--device", "cpu"]) == 0
    ((name, models, options),) = calls
    assert (name, models) == ("serve", (["runs/a", "b/c"],))
    assert (options["host"], options["port"], options["share"]) == (None, None, False)
    assert (options["max_mb"], options["p_spoof"], options["device"]) == (7.0, 0.5, "cpu")


def test_a_space_gets_the_options_of_the_page_and_no_secret(calls, capsys):
    assert main(["b/c", "--push", "you/page", "--private", "--token", "secret", "--trust_remote_code"]) == 0
    ((name, arguments, options),) = calls
    assert (name, arguments) == ("push_space", (["b/c"], "you/page"))
    assert (options["token"], options["private"], options["trust_remote_code"]) == ("secret", True, True)
    assert "device" not in options
    assert "The Space is at" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m", "--push", "you/page", "--port", "80", "--share"], "--port, --share: for a page on this machine only"),
        (["m", "--push", "you/page", "--port", "0"], "--port: for a page on this machine only"),
        (["m", "--private"], "--private is for a Space: pass --push too"),
        ([], "MODEL"),
    ],
)
def test_options_that_do_not_fit(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [ImportError("needs Gradio"), OSError("no such model"), ValueError("x"), PublishingError("no token")]
)
def test_errors_are_one_line(monkeypatch, capsys, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(demo, "push_space", fail)
    assert main(["m", "--push", "you/page"]) == 2
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": []}, "at least one model"),
        ({"models": ["a", "a"]}, "a is given twice"),
        ({"models": ["a"], "max_mb": 0}, "max_mb must be above 0 and finite, not 0"),
        ({"models": ["a"], "max_mb": float("inf")}, "max_mb must be above 0 and finite, not inf"),
        ({"models": ["a"], "max_minutes": float("nan")}, "max_minutes must be above 0 and finite, not nan"),
        ({"models": ["a"], "p_spoof": 5}, "p_spoof must be a probability"),
        ({"models": ["a"], "undecided_band": -1}, "undecided_band must be 0 or more"),
    ],
)
def test_pages_that_cannot_be(options, message):
    pytest.importorskip("gradio")
    with pytest.raises(ValueError, match=message):
        demo.make_demo(**options)
