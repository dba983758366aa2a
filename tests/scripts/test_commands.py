"""How commands end: with a line and a status, and no traceback."""

import errno
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from hf_gradalign.cli import commands as cli_commands

SCRIPTS = Path(__file__).parents[2] / "scripts"
COMMANDS = (
    *("run_audio_spoof", "score_audio_spoof", "evaluate_scores", "run_study", "report_study", "plot_conflicts"),
    *("convert_checkpoint", "export_onnx", "write_arena_results", "list_detectors"),
)


@pytest.fixture
def commands():
    before = signal.getsignal(signal.SIGINT)
    yield importlib.import_module("hf_gradalign.cli.commands")
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command starts again from the beginning"),
        (MemoryError(), 2, "error: there is not enough memory: use smaller batches"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), 2, "error: /a/b: Permission denied; change its"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            2,
            "error: a data loader worker was killed, most likely because memory or shared memory (/dev/shm) ran out",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
            2,
            "error: a data loader worker was killed, most likely because memory or shared memory (/dev/shm) ran out",
        ),
        (RuntimeError("x: No space left on device (os error 28)"), 2, "error: No space left on device; free some"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), 2, "error: /a/b: No space left on device"),
    ],
)
def test_what_ends_a_command_has_a_line(commands, capsys, error, status, line):
    def main(words):
        raise error

    with pytest.raises(SystemExit) as ended:
        commands.run_command(main)
    assert ended.value.code == status
    assert capsys.readouterr().err.strip().startswith(line)


def test_ctrl_c_while_a_command_ends_prints_no_traceback(commands):
    ends = []
    with pytest.raises(SystemExit) as ended:
        commands.run_command(lambda words: 0, at_end=lambda: ends.append(True))
    assert ended.value.code == 0
    assert ends == [True]
    assert signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, signal.SIG_DFL)


def test_ctrl_c_within_an_import_ends_at_once(tmp_path):
    """A library that is cut off while it is imported takes the exception for its own, or ends in a crash."""
    library = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    raise AttributeError("partially initialized module")
"""
    (tmp_path / "library.py").write_text(library)
    program = (
        "from hf_gradalign.cli.commands import run_command\nrun_command(lambda words: __import__('library') and 0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(SCRIPTS.parent)])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 130
    assert done.stderr == "\ninterrupted; the same command starts again from the beginning\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_begins_and_ends_the_same_way(load_script, monkeypatch, name):
    ran = []
    monkeypatch.setattr(cli_commands, "run_command", lambda main, words, **options: ran.append(main))
    before = signal.getsignal(signal.SIGINT)
    runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    signal.signal(signal.SIGINT, before)
    assert ran == [load_script(name).main]


def test_a_mistake_of_the_code_keeps_its_traceback(commands):
    def main(words):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        commands.run_command(main)


IMPORTING = {  # words with which a command goes past its parser, and ends soon after
    **{name: ["no.yaml"] for name in COMMANDS},
    "run_audio_spoof": ["--dry_run", "--model_name_or_path", "no/such"],
    "convert_checkpoint": ["no.pth", "--output_dir", "no"],
    "export_onnx": ["no/such", "--output", "no.onnx"],
    "list_detectors": [],
    "write_arena_results": ["no", "--dataset", "no/such", "--scores", "no.txt"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("run_audio_spoof", "score_audio_spoof") else pytest.mark.long)
        for name in COMMANDS
    ],
)
def test_ctrl_c_while_libraries_are_imported(name, tmp_path):
    process = subprocess.Popen(
        [sys.executable, SCRIPTS / f"{name}.py", *IMPORTING[name]],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    error_text = process.communicate(timeout=120)[1]
    # 2: it was past the imports; 0, -2: it had ended, and Python was shutting down
    assert process.returncode in (130, 2, 0, -2)
    assert "Traceback" not in error_text
    if process.returncode == 130:
        assert error_text.strip().startswith("interrupted; ")


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    (folder / "audio").mkdir(parents=True)
    rows = ["file_name,label,speaker"]
    for number in range(6):
        soundfile.write(folder / "audio" / f"c{number}.wav", np.full(160, 0.1), 16_000)
        rows.append(f"audio/c{number}.wav,{('bonafide', 'spoof')[number % 2]},s{number % 3}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    scores = "".join(f"c{number} {-(number % 2) + number / 10}\n" for number in range(6))
    (tmp_path / "scores.txt").write_text(scores)
    return folder


def test_a_folder_with_metadata_as_keys(load_script, clips, tmp_path, capsys):
    main = load_script("evaluate_scores").main
    words = [str(tmp_path / "scores.txt"), str(clips), "--bootstrap", "0"]
    assert main([*words, "--by", "speaker"]) == 0
    printed = capsys.readouterr().out
    assert "3 bona fide and 3 spoofed clips" in printed
    assert "By speaker" in printed
    assert main([*words, "--label_column", "nothing"]) == 2
    told = capsys.readouterr().err
    assert "Name the right one with --label_column" in told
    assert "label_column_name" not in told
    rows = [json.dumps({"file_name": f"audio/c{n}.wav", "label": (n % 2 == 0 and "real") or "fake"}) for n in range(6)]
    (clips / "metadata.csv").unlink()
    (clips / "metadata.jsonl").write_text("\n".join(rows))
    assert main(words) == 0
    assert "3 bona fide and 3 spoofed clips" in capsys.readouterr().out


def test_a_folder_without_audio_is_no_keys(load_script, clips, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert load_script("evaluate_scores").main([str(tmp_path / "scores.txt"), str(tmp_path / "model")]) == 2
    assert "is a folder without trial_metadata.txt" in capsys.readouterr().err


def test_outputs_that_cannot_be_written_are_told_before_the_work(load_script, clips, tmp_path, capsys):
    evaluate, convert = load_script("evaluate_scores").main, load_script("convert_checkpoint").main
    words = [str(tmp_path / "scores.txt"), str(clips), "--bootstrap", "0"]
    assert evaluate([*words, "--output_json", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    reason = f"{os.strerror(errno.EISDIR)}; a folder is where a file should be"
    assert captured.err.startswith(f"error: {tmp_path}: {reason}")
    file = tmp_path / "scores.txt"
    assert evaluate([*words, "--output_dir", str(file)]) == 2
    assert "move the existing file away" in capsys.readouterr().err
    checkpoint = SCRIPTS.parent / "tests" / "fixtures" / "aasist.pth"
    words = [str(checkpoint), "--num_attention_heads", "4", "--output_dir", str(file)]
    assert convert(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {file} already exists")
    assert convert([*words, "--overwrite"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {file}: {os.strerror(errno.ENOTDIR)}")


@pytest.mark.parametrize("column", ["binary", "notes"])
def test_foreign_parquet(load_script, tmp_path, capsys, column):
    table = pa.table({"path": ["a", "b"], "label": [b"\xff", b"b"] if column == "binary" else ["spoof", "bonafide"]})
    if column == "notes":
        table = table.replace_schema_metadata({"huggingface": '{"info": {"features": 3}}'})
    pq.write_table(table, tmp_path / "keys.parquet")
    (tmp_path / "scores.txt").write_text("a 1\nb 2\n")
    status = load_script("evaluate_scores").main([str(tmp_path / "scores.txt"), str(tmp_path / "keys.parquet")])
    assert status == 2
    assert f"error: Cannot read {tmp_path / 'keys.parquet'}: " in capsys.readouterr().err


def test_a_reversed_checkpoint_is_whole_or_not_there(load_script, tmp_path, capsys, monkeypatch):
    convert = load_script("convert_checkpoint")
    checkpoint = SCRIPTS.parent / "tests" / "fixtures" / "aasist.pth"
    model = str(tmp_path / "model")
    assert convert.main([str(checkpoint), "--num_attention_heads", "4", "--output_dir", model]) == 0
    reverse = [model, "--reverse", "--output_file"]
    assert convert.main([*reverse, str(tmp_path)]) == 2
    assert "a folder is where a file should be" in capsys.readouterr().err
    assert convert.main([*reverse, str(tmp_path / "new" / "file.pth")]) == 0
    old = (tmp_path / "new" / "file.pth").read_bytes()

    def interrupted(state, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert.main([*reverse, str(tmp_path / "new" / "file.pth"), "--overwrite"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.pth"]
    assert (tmp_path / "new" / "file.pth").read_bytes() == old


def test_a_conflict_record_that_is_nested_too_deeply(load_script, tmp_path, capsys):
    (tmp_path / "conflicts.jsonl").write_text("[" * 100_000 + "\n")
    assert load_script("plot_conflicts").main([str(tmp_path)]) == 2
    assert "is not a conflict record: line 1 is not JSON" in capsys.readouterr().err
