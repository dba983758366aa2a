#!/usr/bin/env python
"""Throughput of the scorer, audio files in and score file out, beside that of its bare model on tensors in memory.

python scripts/benchmark_scoring.py
python scripts/benchmark_scoring.py --size large --clips 16 --batch_size 4 --dtype bfloat16 --json figures.json

The clips are FLAC files of the demo corpus' speech, repeated to different lengths; the bare model runs over the very
batches that the scorer makes of them. All take turns in one process, and ratios are taken within each round. The
scorer writes, and flushes, its files as always.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import soundfile
import torch
from benchmark_step import print_table, spread
from datasets import Audio, Dataset
from step_cost.measuring import interleaved_times
from step_cost.models import SIZES, make_model
from step_cost.variants import synchronise

from hf_gradalign.data import decode_audio, load_corpus, repeat_pad
from hf_gradalign.models import ID2LABEL, small_feature_extractor
from hf_gradalign.scoring import SpoofScorer, score_corpus

BARE = "bare model"
RATE = 16_000


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    options = parse(words)
    torch.set_num_threads(options.threads)
    model = make_model(options.size).eval()
    model.config.id2label = dict(ID2LABEL)
    with TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder), options.clips)
        scorer = SpoofScorer(model, small_feature_extractor(), batch_size=options.batch_size, dtype=options.dtype)
        chunks = scorer.chunks(corpus["audio"])
        batches = [batch for number in range(len(chunks)) for batch in chunks[number].batches]

        def run_bare() -> None:
            for batch in batches:
                scorer._forward(batch).cpu()
            synchronise()

        def run_scorer(workers: int) -> None:
            scorer.num_workers = workers
            score_corpus(scorer, corpus, Path(folder, "scores.txt"), overwrite=True, progress=False)

        runs = {f"scorer, {n} loader worker{'s' * (n != 1)}": n for n in options.workers}
        steps = {BARE: run_bare} | {name: (lambda n=n: run_scorer(n)) for name, n in runs.items()}
        times = interleaved_times(steps, options.rounds, warm_up=1)
    size = model.num_parameters() / 1e6
    print(
        f"{size:.1f}M parameters, {options.clips} clips, batches of {options.batch_size} windows of 4.175 s, "
        f"{scorer.dtype}, {scorer.device}, {torch.get_num_threads()} threads, {options.rounds} rounds. Medians (and "
        "quartiles)."
    )
    rows = []
    for name, seconds in times.items():
        ratios = [bare / own for bare, own in zip(times[BARE], seconds, strict=True)]
        rate = [options.clips / own for own in seconds]
        rows.append([name, spread(rate, digits=2), spread(ratios)])
    print_table(["", "clips a second", "of the bare model's, round by round"], rows)
    if options.json:
        figures = {"options": {k: v for k, v in vars(options).items() if k != "json"}, "seconds": times}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def write_corpus(folder: Path, n_clips: int) -> Dataset:
    """FLAC files of 2 to 8 s of speech, and the data set that names them."""
    source = load_corpus()["test"]
    paths = []
    for index in range(n_clips):
        samples = decode_audio(source[index % len(source)]["audio"], RATE)
        paths.append(str(folder / f"clip_{index}.flac"))
        soundfile.write(paths[-1], repeat_pad(samples, (2 + index % 7) * RATE), RATE)
    names = [Path(path).stem for path in paths]
    return Dataset.from_dict({"audio": paths, "utterance_id": names}).cast_column("audio", Audio(decode=False))


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base", help="of the model (base: 94.6M parameters)")
    parser.add_argument("--clips", type=int, default=48, help="clips a round (48)")
    parser.add_argument("--batch_size", type=int, default=8, help="windows a forward pass (8)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="loader workers to try (0 1 2)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16", "auto"])
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="what torch may use (all)")
    parser.add_argument("--json", type=Path, help="write all times to this file too")
    options = parser.parse_args(words)
    if options.rounds < 2:
        parser.error("--rounds must be at least 2")
    return options


if __name__ == "__main__":
    sys.exit(main())
