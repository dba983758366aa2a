"""The console command: every script is a command too, and messages name the one that the user has."""

import errno
import multiprocessing
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from mac_poll import MacPoll

from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.cli.commands import _reader_is_gone, run_command
from hf_gradalign.cli.env import NEEDED, describe
from hf_gradalign.cli.main import COMMANDS, main
from hf_gradalign.experiment import command_words, parse_arguments, resume_words
from hf_gradalign.study import Study
from hf_gradalign.utils import messages
from hf_gradalign.utils.messages import SCRIPTS, command, error_line, program, use_command_names

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/hf-gradalign", "train"])


@pytest.fixture(autouse=True)
def ctrl_c():
    """Commands change what Ctrl-C does."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def test_every_command_is_a_module_and_every_script_a_command():
    assert [name for name in COMMANDS if name in SCRIPTS] == list(SCRIPTS)
    for name in COMMANDS:
        assert callable(import_module(f"hf_gradalign.cli.{name.replace('-', '_')}").main)
    for name, script in SCRIPTS.items():
        assert f'start("{name}")' in (ROOT / "scripts" / script).read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
@pytest.mark.parametrize("chosen", [None, "spawn"])
def test_workers_are_forked_unless_another_way_was_chosen(monkeypatch, chosen):
    """By default, each worker imports torch again on Python 3.14."""
    context = multiprocessing.context.DefaultContext(multiprocessing.get_context("forkserver"))
    if chosen:
        context.set_start_method(chosen)
    monkeypatch.setattr(multiprocessing, "get_start_method", context.get_start_method)
    monkeypatch.setattr(multiprocessing, "set_start_method", context.set_start_method)
    with pytest.raises(SystemExit):
        run_command(lambda words: 0, [])
    assert context.get_start_method() == (chosen or "fork")


@pytest.mark.parametrize("words", [["--help"], []])
def test_help_lists_the_commands(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for name, text in COMMANDS.items():
        assert f"  {name:<19}{text}\n" in printed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "unknown command trian; did you mean train?"),
        (["Score"], "unknown command Score; did you mean score?"),
        (["--versio"], "unknown option --versio; did you mean --version?"),
        (["zzz"], "unknown command zzz; see --help"),
    ],
)
def test_an_unknown_command(words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"usage: hf-gradalign COMMAND ...\nhf-gradalign: error: {told}\n"


def test_help_of_a_command_by_its_name(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["help", "env"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: hf-gradalign env")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "train"])
def test_a_typo_in_an_option_is_told_first_and_briefly(name, capsys):
    module = import_module(f"hf_gradalign.cli.{name.replace('-', '_')}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--hlep"])
    assert ended.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith(f"usage: {program(name)} ")
    assert error.startswith(f"{program(name)}: error: unknown option --hlep; did you mean --help")


def test_options_with_hyphens():
    parser = CommandParser("score", None)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--output_dir")
    assert parser.parse_args(["--output-dir", "my-run"]).output_dir == "my-run"
    assert parser.parse_args(["--output-dir=a-b=c"]).output_dir == "a-b=c"
    assert parser.parse_args(["--", "--output-dir"]).words == ["--output-dir"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--output", "x"])  # no abbreviations


def test_messages_name_what_the_user_has(installed):
    assert command("score") == program("score") == "hf-gradalign score"
    assert use_command_names("see python scripts/score_audio_spoof.py or scripts/evaluate_scores.py --help") == (
        "see hf-gradalign score or hf-gradalign evaluate --help"
    )
    assert use_command_names("python scripts/run_audio_spoof.py scripts/recipes/tcm_pcgrad.yaml") == (
        "hf-gradalign train recipe:tcm_pcgrad"
    )
    assert use_command_names("score_audio_spoof.py: --split") == "hf-gradalign score: --split"
    assert error_line(ValueError("run scripts/convert_checkpoint.py first")) == "error: run hf-gradalign convert first"
    assert command_words({"seed": 1}) == ["hf-gradalign", "train", "--seed", "1"]
    assert resume_words({}, "x") == ["hf-gradalign", "train", "--resume_from_checkpoint", "x"]


def test_a_clone_has_its_scripts():
    assert command("score") == "python scripts/score_audio_spoof.py"
    assert command_words({}) == ["python", "scripts/run_audio_spoof.py"]
    assert use_command_names("scripts/evaluate_scores.py") == "scripts/evaluate_scores.py"


def test_without_scripts_there_is_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(
        messages, "__file__", str(tmp_path / "site-packages" / "hf_gradalign" / "utils" / "messages.py")
    )
    assert command("arena") == "hf-gradalign arena"


def test_recipes_and_studies_by_name(capsys):
    path = ROOT / "scripts" / "recipes" / "tcm_pcgrad.yaml"
    assert parse_arguments(["recipe:tcm_pcgrad"]).options == parse_arguments([str(path)]).options
    assert Study.read("study:quick") == Study.read(ROOT / "scripts" / "studies" / "quick.yaml")
    with pytest.raises(SystemExit):
        parse_arguments(["recipe:tcm"])
    assert "there is no recipe 'tcm'; available: aasist_augmented, " in capsys.readouterr().err
    available = "conflict, conflict_pilot, conflict_pilot_2, quick, small_scale"
    with pytest.raises(FileNotFoundError, match=f"there is no study 'big'; available: {available}"):
        Study.read("study:big")


@pytest.mark.slow
def test_a_list_whose_reader_has_enough_ends_quietly(tmp_path):
    words = [sys.executable, "-m", "hf_gradalign.cli", "study", "study:small_scale", "--list"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("poll", [select.poll, MacPoll], ids=["Linux", "macOS"])
def test_an_absent_reader_is_noticed(monkeypatch, poll):
    monkeypatch.setattr(select, "poll", poll)
    reader, writer = os.pipe()
    try:
        assert not _reader_is_gone(writer)
        os.close(reader)
        assert _reader_is_gone(writer)
    finally:
        os.close(writer)


def test_no_command_takes_an_absent_reader_for_an_error():
    with pytest.raises(BrokenPipeError):
        error_line(BrokenPipeError(errno.EPIPE, "Broken pipe"))


_COMMAND_WITH_A_BAR = """
import sys, time, types
from hf_gradalign.cli.commands import start

def main(words):
    from tqdm.auto import tqdm
    for _ in tqdm(range(5)):
        time.sleep(0.11)
    return 0

sys.modules["hf_gradalign.cli.bar"] = types.SimpleNamespace(main=main)
start("bar", [])
"""


def test_a_log_has_few_states_of_a_progress_bar():
    command = [sys.executable, "-c", _COMMAND_WITH_A_BAR]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert re.findall(r"\d/5", log) == ["0/5", "5/5"]


def test_without_a_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit, match="0"):
        run_command(lambda words: 0, [])


def test_another_broken_pipe_is_told(capfd):
    def main(words):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(SystemExit, match="1"):
        run_command(main, [])
    assert "Broken pipe" in capfd.readouterr().err


def test_env_names_every_dependency():
    listed = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("\n]")[0]
    assert {name.lower() for name in re.findall(r'^    "([\w-]+)', listed, re.MULTILINE)} == set(NEEDED)


def test_env_has_what_a_bug_report_needs(capsys):
    import_module("hf_gradalign.cli.env").main([])
    printed = capsys.readouterr().out
    assert {"Python", "devices", *NEEDED} <= set(describe())
    assert all(f"{name:<20}{value}" in printed for name, value in describe().items())


@pytest.fixture
def source(tmp_path):
    """A copy of what wheels are built from. A build leaves things in the folder."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "hf_gradalign", source / "hf_gradalign", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source


@pytest.mark.slow
def test_a_wheel_holds_all_files_and_the_command(source, tmp_path):
    pytest.importorskip("setuptools")
    program = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=source, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        [commands] = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        assert "hf-gradalign = hf_gradalign.cli.main:main" in content.read(commands).decode()
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hf_gradalign").rglob("*") if path.is_file()}
    files -= {"hf_gradalign/experiment/recipes/README.md"}  # for readers of the repository
    assert {name for name in files if "__pycache__" not in name} == {n for n in names if ".dist-info/" not in n}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)  # it builds, installs, trains and scores in fresh processes
def test_a_wheel_in_an_empty_folder(source, tmp_path):
    """Built, installed and used outside the clone, with the dependencies of this environment."""
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path / "wheels"), str(source)]
    subprocess.run(build, check=True, timeout=600, env=bare)
    [wheel] = (tmp_path / "wheels").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    [packages] = (tmp_path / "venv").glob("lib/python*/site-packages")
    python, program = tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "bin" / "hf-gradalign"
    install = ["-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install], check=True, timeout=600, env=bare)
    (packages / "dependencies.pth").write_text(str(Path(import_module("torch").__file__).parents[1]) + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*words):
        options = {"capture_output": True, "text": True, "timeout": 600, "check": True, "cwd": empty}
        return subprocess.run([*words], env={"HF_HUB_OFFLINE": "1"}, **options).stdout

    small = ["--max_steps", "2", "--max_train_samples", "16", "--max_eval_samples", "12", "--window_seconds", "0.5"]
    printed = run(program, "train", "--align_gradients", *small, "--eval_window_seconds", "0.5", "--output_dir", "run")
    assert "hf-gradalign train " in printed
    assert "scripts/" not in printed
    run(program, "score", "run", "--output_file", "scores.txt", "--window_seconds", "0.5")
    assert len((empty / "scores.txt").read_text().splitlines()) > 100
    assert run(program, "env").startswith("hf_gradalign")
    assert str(packages) in run(python, "-c", "import hf_gradalign; print(hf_gradalign.__file__)")
