#!/usr/bin/env python
"""Measure time and memory of loading a large corpus: synthetic protocols in official layouts, and a CSV.

python scripts/benchmark_protocol.py
python scripts/benchmark_protocol.py --lines 100000 --corpora asvspoof5 --rounds 1 --json protocol.json

Every audio file in a protocol exists, but is empty, because no audio is opened. Each load runs in a separate process.
The time is of `load_corpus`. The peak memory is of the whole process, including libraries. Their memory without a
corpus is shown for comparison.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

# The targets of the corpora's issue: seconds, and bytes of peak memory, for 600,000 lines.
TARGET_LINES, TARGET_SECONDS, TARGET_BYTES = 600_000, 10.0, 1.5e9


def main(words: Sequence[str] | None = None) -> int:
    """Print the table and return the exit status."""
    options = parse(words)
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        baseline = in_a_process(None, None)[1]
        print(f"{options.lines:,} lines; libraries alone {baseline / 1e9:.2f} GB")
        print(f"{'corpus':<18}{'seconds':>10}{'peak GB':>10}{'clips a s':>12}")
        for name in options.corpora:
            root = Path(folder, name)
            WRITERS[name](root, options.lines)
            runs = [in_a_process(name, root) for _ in range(options.rounds)]
            results[name] = {"seconds": [run[0] for run in runs], "peak_bytes": [run[1] for run in runs]}
            seconds = statistics.median(results[name]["seconds"])
            peak = max(results[name]["peak_bytes"])
            print(f"{name:<18}{seconds:>10.2f}{peak / 1e9:>10.2f}{options.lines / seconds:>12,.0f}", flush=True)
            if options.lines >= TARGET_LINES and (seconds > TARGET_SECONDS or peak > TARGET_BYTES):
                print(f"  over the target of {TARGET_SECONDS:g} s and {TARGET_BYTES / 1e9:g} GB", file=sys.stderr)
    if options.json:
        content = {"lines": options.lines, "libraries_bytes": baseline, "corpora": results}
        Path(options.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=TARGET_LINES, help="clips per protocol")
    parser.add_argument("--corpora", nargs="+", choices=WRITERS, default=list(WRITERS), help="layouts to write")
    parser.add_argument("--rounds", type=int, default=3, help="loads of each; the median is shown")
    parser.add_argument(
        "--folder", help="folder for a temporary folder with the protocols (default: that of the system)"
    )
    parser.add_argument("--json", help="also write all measurements to this file")
    options = parser.parse_args(words)
    if options.lines < 2 or options.rounds < 1:
        parser.error("--lines must be at least 2 and --rounds at least 1")
    return options


def write_asvspoof5(root: Path, n_lines: int) -> None:
    """The evaluation set of ASVspoof 5."""
    make_files(root / "flac_E_eval", (f"E_{index:010d}" for index in range(n_lines)))
    with (root / "ASVspoof5.eval.track_1.tsv").open("w") as file:
        for index in range(n_lines):
            key = "A26 spoof" if index % 5 else "bonafide bonafide"
            file.write(f"E_{index % 737:04d} E_{index:010d} M C05 2 E_{index:010d} AC1 {key} -\n")


def write_asvspoof2021_df(root: Path, n_lines: int) -> None:
    """The deepfake track of ASVspoof 2021, in four folders."""
    keys = root / "keys" / "DF" / "CM" / "trial_metadata.txt"
    keys.parent.mkdir(parents=True)
    for part in range(4):
        names = (f"DF_E_{index:07d}" for index in range(part, n_lines, 4))
        make_files(root / f"ASVspoof2021_DF_eval_part{part:02d}" / "ASVspoof2021_DF_eval" / "flac", names)
    with keys.open("w") as file:
        for index in range(n_lines):
            attack = "A14 spoof" if index % 20 else "- bonafide"
            rest = "notrim eval traditional_vocoder - - - -"
            file.write(f"LA_{index % 48:04d} DF_E_{index:07d} nocodec asvspoof {attack} {rest}\n")


def write_csv(root: Path, n_lines: int) -> None:
    """A user's folder with a metadata.csv."""
    make_files(root / "wavs", (f"clip_{index:07d}" for index in range(n_lines)), ".wav")
    with (root / "metadata.csv").open("w") as file:
        file.write("file_name,label,speaker,system,split\n")
        for index in range(n_lines):
            label = "spoof,speaker_1,A01" if index % 2 else "bonafide,speaker_2,"
            file.write(f"wavs/clip_{index:07d}.wav,{label},test\n")


WRITERS = {"asvspoof5": write_asvspoof5, "asvspoof2021_df": write_asvspoof2021_df, "csv": write_csv}


def make_files(folder: Path, names: Iterator[str], ending: str = ".flac") -> None:
    """Create empty files."""
    folder.mkdir(parents=True)
    for name in names:
        os.close(os.open(f"{folder}/{name}{ending}", os.O_CREAT | os.O_WRONLY))


def in_a_process(name: str | None, root: Path | None) -> tuple[float, float]:
    """Load a corpus in a new process, and return its seconds and the peak memory of the process in bytes."""
    spec = "" if root is None else str(root) if name == "csv" else f"{name}:{root}"
    done = subprocess.run([sys.executable, "-c", PROGRAM, spec], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"loading {spec} failed:\n{done.stderr}")
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


PROGRAM = """
import json, os, resource, sys, time
from hf_gradalign.data import load_corpus
start = time.perf_counter()
if sys.argv[1]:
    split = load_corpus(sys.argv[1], splits=("test",))["test"]
    if not os.path.isfile(split[len(split) - 1]["audio"]["path"]):
        sys.exit("the last clip has no file")
seconds = time.perf_counter() - start
scale = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale]))
"""


if __name__ == "__main__":
    sys.exit(main())
