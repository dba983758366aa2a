#!/usr/bin/env python
"""Measure the throughput of the scorer from audio files to score file, compared with its model on tensors in memory.

python scripts/benchmark_scoring.py
python scripts/benchmark_scoring.py --size large --clips 16 --batch_size 4 --dtype bfloat16 --json figures.json

The clips are FLAC files with speech from the demo corpus, repeated to different lengths. The bare model runs on the
same batches that the scorer makes. All alternate in one process, and ratios are taken within each round. The scorer
writes and flushes its files as usual. Its start-up, until the first scores, is shown separately, and each part of its
work is timed separately: the slowest part limits the scorer.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import soundfile
import torch
from benchmark_step import print_table, spread
from datasets import Audio, Dataset
from step_cost.measuring import interleaved_times
from step_cost.models import SIZES, make_model
from step_cost.variants import synchronize

from hf_gradalign.cli.commands import fork_workers
from hf_gradalign.data import decode_audio, load_corpus, repeat_pad
from hf_gradalign.models import ID2LABEL, small_feature_extractor
from hf_gradalign.scoring import SpoofScorer, score_corpus
from hf_gradalign.scoring.chunks import ChunkDataset
from hf_gradalign.scoring.progress import ProgressStore, ScoredChunk, finite_or_none

BARE = "bare model"
RATE = 16_000
_CHUNKS_HELD = 32
_DIFFERENT_CLIPS = 512


def main(words: Sequence[str] | None = None) -> int:
    """Print the table and return the exit status."""
    options = parse(words)
    torch.set_num_threads(options.threads)
    model = make_model(options.size).eval()
    model.config.id2label = dict(ID2LABEL)
    with TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder), options.clips)
        scorer = SpoofScorer(model, small_feature_extractor(), batch_size=options.batch_size, dtype=options.dtype)
        chunks = scorer.chunks(corpus["audio"])
        # Some stand for all: 8,192 windows are 2 GiB.
        batches = [
            batch for number in range(min(len(chunks), _CHUNKS_HELD)) for batch in next(chunks.pieces(number)).batches
        ]

        def run_bare() -> None:
            for number in range(len(chunks)):
                scorer._forward(batches[number % len(batches)]).cpu()
            synchronize()

        startups: dict[int, list[float]] = {}

        def run_scorer(workers: int) -> None:
            scorer.num_workers = workers
            with first_scores(scorer, startups.setdefault(workers, [])):
                score_corpus(scorer, corpus, Path(folder, "scores.txt"), overwrite=True, progress=False)

        runs = {f"scorer, {n} loader worker{'s' * (n != 1)}": n for n in options.workers}
        steps = {BARE: run_bare} | {name: (lambda n=n: run_scorer(n)) for name, n in runs.items()}
        times = interleaved_times(steps, options.rounds, warm_up=1)
        parts = time_parts(scorer, chunks, Path(folder), max(options.workers))
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
    print_table(["", "clips per second", "relative to the bare model, round by round"], rows)
    print_table(
        ["", "start-up (s)", "clips per second after it"],
        [
            [
                name,
                spread(own),
                spread([options.clips / (t - s) for t, s in zip(times[name], own, strict=True)], digits=2),
            ]
            for name, n in runs.items()
            if (own := startups[n][-options.rounds :])
        ],
    )
    print_table(["part, by itself", "clips per second"], [[name, f"{rate:.0f}"] for name, rate in parts.items()])
    if options.json:
        figures: dict[str, Any] = {"options": {k: v for k, v in vars(options).items() if k != "json"}, "seconds": times}
        figures |= {"startup_seconds": startups, "parts_clips_per_second": parts}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


@contextmanager
def first_scores(scorer: SpoofScorer, seconds: list[float]) -> Generator[None]:
    """Within this context, record how long a scoring takes until its first scores."""
    start = time.perf_counter()
    original = scorer.score_chunks

    def noting(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for number, scored in enumerate(original(*args, **kwargs)):
            if number == 0:
                seconds.append(time.perf_counter() - start)
            yield scored

    with mock.patch.object(scorer, "score_chunks", noting):
        yield


def time_parts(scorer: SpoofScorer, chunks: ChunkDataset, folder: Path, workers: int) -> dict[str, float]:
    """Return the clips per second of each part of a scoring by itself."""
    some = range(min(len(chunks), _CHUNKS_HELD))
    rates = {}

    def note(name: str, work: Callable[[], Any]) -> Any:
        synchronize()
        start = time.perf_counter()
        result = work()
        synchronize()
        rates[name] = sum(stop - first for first, stop in map(chunks.bounds, some)) / (time.perf_counter() - start)
        return result

    made = note("decode and batch, one process", lambda: [next(chunks.pieces(number)) for number in some])
    scorer.num_workers = workers
    loader = iter(scorer._loader(chunks, [*some, *some]))
    for _ in some:  # the start of the workers is not measured
        next(loader)
    note(f"hand over, from {workers} workers", lambda: [next(loader) for _ in some])
    if scorer.device.type not in ("cpu", "mps"):
        pinned = [chunk.pin_memory() for chunk in made]
        note(
            "copy",
            lambda: [t.to(scorer.device, non_blocking=True) for c in pinned for b in c.batches for t in b.values()],
        )
    logits = note("model", lambda: [[scorer._forward(batch) for batch in chunk.batches] for chunk in made])
    scores = note("scores from logits", lambda: [scorer._clip_scores(*pair) for pair in zip(made, logits, strict=True)])
    store = ProgressStore(folder / "parts")
    store.open({})
    scored = [ScoredChunk(c.number, finite_or_none(s), c.bad) for c, s in zip(made, scores, strict=True)]
    note("write", lambda: [store.append(0, chunk, {}) for chunk in scored])
    return rates


def write_corpus(folder: Path, n_clips: int) -> Dataset:
    """Write FLAC files with 2 to 8 s of speech, and return their dataset."""
    source = load_corpus()["test"]
    paths = []
    for index in range(n_clips):
        paths.append(str(folder / f"clip_{index}.flac"))
        if index >= _DIFFERENT_CLIPS:  # still a separate file, but without the time to write it
            os.link(paths[index % _DIFFERENT_CLIPS], paths[-1])
            continue
        samples = decode_audio(source[index % len(source)]["audio"], RATE)
        soundfile.write(paths[-1], repeat_pad(samples, (2 + index % 7) * RATE), RATE)
    names = [Path(path).stem for path in paths]
    return Dataset.from_dict({"audio": paths, "utterance_id": names}).cast_column("audio", Audio(decode=False))


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base", help="size of the model (base: 94.6M parameters)")
    parser.add_argument("--clips", type=int, default=48, help="clips per round (48)")
    parser.add_argument("--batch_size", type=int, default=8, help="windows per forward pass (8)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="loader workers to try (0 1 2)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16", "auto"])
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch (all)")
    parser.add_argument("--json", type=Path, help="also write all times to this file")
    options = parser.parse_args(words)
    if options.rounds < 2:
        parser.error("--rounds must be at least 2")
    return options


if __name__ == "__main__":
    fork_workers()
    sys.exit(main())
