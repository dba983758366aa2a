"""A resumable scorer: runs that are killed (SIGKILL to all processes) produce byte-identical output."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import forked_group
import killed_scoring
import pytest

CLIPS = 500


@pytest.fixture(scope="module")
def start(detector_folder, make_corpus, tmp_path_factory):
    """Start a scoring in a process with all imports done, so that a kill hits the scoring."""
    corpus = tmp_path_factory.mktemp("corpus") / "saved"
    make_corpus(CLIPS, bad=(7, 300)).save_to_disk(str(corpus))

    def start(score_file, num_workers=0, processes=1):
        arguments = (str(detector_folder), str(corpus), str(score_file), num_workers)
        return forked_group.start(killed_scoring.score, *arguments, log=f"{score_file}.log", processes=processes)

    return start


def written(score_file):
    """Bytes of progress so far."""
    folder = Path(f"{score_file}.partial")
    total = 0
    with contextlib.suppress(FileNotFoundError):
        total = sum(path.stat().st_size for path in folder.glob("process-*.jsonl"))
    return total


def finish_through_kills(start, score_file, kills, draw, **options):
    """Score to the end, with this many kills at any point: at the start, during the work or a write."""
    for _ in range(kills):
        process = start(score_file, **options)
        goal = written(score_file) + draw.choice([0, 1, 300, 900])
        deadline = time.monotonic() + 120
        while written(score_file) < goal and process.exitcode is None:
            assert time.monotonic() < deadline
            time.sleep(0.0002)
        time.sleep(draw.uniform(0, 0.003))
        assert process.exitcode is None, Path(f"{score_file}.log").read_text()[-3000:]
        with contextlib.suppress(ProcessLookupError):  # before it has its group
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
    process = start(score_file, **options)
    process.join()
    assert process.exitcode == 0, Path(f"{score_file}.log").read_text()[-3000:]


def assert_same_files(whole, killed):
    for name in ("{}.txt", "{}_bad_audio.tsv"):
        expected, found = (path.with_name(name.format(path.stem)).read_bytes() for path in (whole, killed))
        assert found == expected
    assert len(whole.read_text().splitlines()) == 1 + CLIPS - 2
    assert not Path(f"{killed}.partial").exists()


@pytest.mark.parametrize(
    ("kills", "options"),
    [
        (4, {"num_workers": 1}),
        pytest.param(20, {}, marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param(20, {"num_workers": 2}, marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param(6, {"processes": 2}, marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_killed_again_and_again(start, tmp_path, kills, options):
    finish_through_kills(start, tmp_path / "whole.txt", 0, None)
    finish_through_kills(start, tmp_path / "killed.txt", kills, random.Random(kills), **options)
    assert_same_files(tmp_path / "whole.txt", tmp_path / "killed.txt")


@pytest.mark.slow
def test_resumes_with_another_number_of_processes(start, tmp_path):
    finish_through_kills(start, tmp_path / "whole.txt", 0, None)
    finish_through_kills(start, tmp_path / "first.txt", 0, None, processes=2)
    assert_same_files(tmp_path / "whole.txt", tmp_path / "first.txt")
    process = start(tmp_path / "killed.txt", processes=3)
    while written(tmp_path / "killed.txt") < 4000 and process.exitcode is None:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    finish_through_kills(start, tmp_path / "killed.txt", 1, random.Random(0))
    assert_same_files(tmp_path / "whole.txt", tmp_path / "killed.txt")
