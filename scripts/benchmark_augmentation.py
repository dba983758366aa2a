#!/usr/bin/env python
"""Compare RawBoost with a direct SciPy implementation: the largest difference and the ratio of times.

python scripts/benchmark_augmentation.py
python scripts/benchmark_augmentation.py --samples 160000 --rounds 100 --json figures.json

It uses speech from the demo corpus, repeated to the requested length and scaled to peak 1, on one thread. For the
difference, both use the same parameters and the same bulk noise. For the time, each draws bulk noise in its own way.
RawBoost also draws the parameters, which the direct implementation is passed. They alternate, and ratios are taken
within each round. It also shows where the time of algorithm 4 goes, and the milliseconds per clip of every recipe and
of RawBoost on batches (on the accelerator, if there is one).
"""

import argparse
import json
import platform
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from augmentation_cost.direct_rawboost import OwnBulk, SameBulk, direct_rawboost
from augmentation_cost.parts import PARTS, RawBoostParts
from augmentation_cost.speech import SAMPLE_RATE, demo_clips
from benchmark_step import print_table, spread
from step_cost.measuring import interleaved_times
from step_cost.variants import synchronize

from hf_gradalign.augmentation import RawBoost, get_augmentation
from hf_gradalign.augmentation.rawboost import ALGORITHMS
from hf_gradalign.models import WINDOW_SAMPLES

RECIPES = ("rawboost", "musan_rir", "musan_rir+rawboost", "telephone", "time_frequency_mask", "codec")
LARGEST_DIFFERENCE = 1e-5


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables and return 1 if the outputs differ by more than 1e-5, else 0."""
    options = parse(words)
    torch.set_num_threads(1)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    clips = demo_clips(options.samples)
    print(
        f"{options.samples} samples at {SAMPLE_RATE} Hz, one thread, {options.rounds} rounds of {options.calls} clips. "
        "Medians (and quartiles)."
    )
    comparison = {algorithm: compare(RawBoost(algorithm), clips, options) for algorithm in options.algorithms}
    results: dict[str, Any] = {"comparison": comparison}
    results["parts_ms"] = {part: milliseconds(t) for part, t in time_parts(clips, options).items()}
    results["recipes_ms"] = {recipe: time_recipe(recipe, clips, options) for recipe in options.recipes}
    results["batched_ms"] = time_batches(clips, options)
    print_comparison(comparison)
    print_parts(results["parts_ms"])
    print_recipes(results["recipes_ms"])
    print_batches(results["batched_ms"], options)
    if options.json:
        results["options"] = {name: value for name, value in vars(options).items() if name != "json"}
        results["machine"] = {"platform": platform.platform(), "torch": torch.__version__, "numpy": np.__version__}
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return int(any(figures["largest_difference"] > LARGEST_DIFFERENCE for figures in comparison.values()))


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=WINDOW_SAMPLES, help="length of a clip, at 16 kHz")
    parser.add_argument("--rounds", type=int, default=60, help="number of timed rounds, 2 or more")
    parser.add_argument("--calls", type=int, default=5, help="clips per round")
    parser.add_argument("--algorithms", type=int, nargs="+", choices=list(ALGORITHMS), default=list(ALGORITHMS))
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), help="recipes, as for --augmentation")
    parser.add_argument("--batch", type=int, default=16, help="clips per batch of the batched RawBoost")
    parser.add_argument("--json", help="also write all measurements to this file")
    options = parser.parse_args(words)
    if options.rounds < 2:
        parser.error("--rounds must be 2 or more, or there is no spread to give")
    return options


def compare(transform: RawBoost, clips: Sequence[np.ndarray], options: argparse.Namespace) -> dict[str, Any]:
    """Time both implementations in turn, and find the largest difference over all clips and rounds."""
    difference = 0.0
    for round_number in range(options.rounds):
        clip = clips[round_number % len(clips)]
        augmented = transform(clip, SAMPLE_RATE)
        expected = direct_rawboost(transform, clip, SAMPLE_RATE, SameBulk())
        difference = max(difference, float(np.abs(augmented - expected).max()))
    drawn = []
    for _ in range(options.calls):
        transform.randomize_parameters(clips[0], SAMPLE_RATE)
        drawn.append(transform.parameters)
    given = RawBoost(transform.algorithm)
    some = [clips[number % len(clips)] for number in range(options.calls)]

    def ours() -> None:
        for clip in some:
            transform(clip, SAMPLE_RATE)

    def direct() -> None:
        for clip, given.parameters in zip(some, drawn, strict=True):
            direct_rawboost(given, clip, SAMPLE_RATE, OwnBulk())

    times = interleaved_times({"ours": ours, "direct": direct}, options.rounds, warm_up=2)
    own, plain = milliseconds(times["ours"], options.calls), milliseconds(times["direct"], options.calls)
    ratios = [theirs / mine for mine, theirs in zip(own, plain, strict=True)]
    return {"largest_difference": difference, "ours_ms": own, "direct_ms": plain, "ratio": ratios}


def time_parts(clips: Sequence[np.ndarray], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of each part of algorithm 4 by itself."""
    parts = RawBoostParts(clips[0])
    return interleaved_times({part: getattr(parts, part) for part in PARTS}, max(options.rounds, 2) * 2, warm_up=3)


def time_recipe(recipe: str, clips: Sequence[np.ndarray], options: argparse.Namespace) -> list[float]:
    """Return the milliseconds of each clip, because the time of a recipe depends on its draws."""
    transform = get_augmentation(recipe)
    clips = [clips[number % len(clips)] for number in range(options.rounds * options.calls + 3)]
    numbers = iter(clips)
    times = interleaved_times({"": lambda: transform(next(numbers), SAMPLE_RATE)}, len(clips) - 3, warm_up=3)
    return milliseconds(times[""])


def time_batches(clips: Sequence[np.ndarray], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the milliseconds per clip of worker and device, for algorithm 4 on batches."""
    # A CUDA build of torch names its accelerator even where there is no GPU.
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    transform, batched = RawBoost(), RawBoost().batched()
    waveforms = torch.from_numpy(np.stack([clips[i % len(clips)] for i in range(options.batch)])).to(device)
    prepared: list[dict[str, Any]] = []

    def draw() -> None:
        drawn = []
        for _ in range(options.batch):
            transform.randomize_parameters(clips[0], SAMPLE_RATE)
            drawn.append(transform.parameters)
        prepared[:] = [batched.prepare(drawn, [options.samples] * options.batch, SAMPLE_RATE)]

    def move(draws: Any) -> Any:
        if isinstance(draws, dict):
            return {name: move(value) for name, value in draws.items()}
        return draws.to(device) if isinstance(draws, torch.Tensor) else draws

    def apply() -> None:
        batched.apply(waveforms, move(prepared[0]))
        synchronize()

    applied = "applied on the CPU" if device.type == "cpu" else f"moved to and applied on {device.type}"
    steps: dict[str, Callable[[], None]] = {"drawn in a loader worker": draw, applied: apply}
    draw()
    times = interleaved_times(steps, options.rounds, warm_up=2)
    return {name: milliseconds(seconds, options.batch) for name, seconds in times.items()}


def milliseconds(seconds: Sequence[float], clips: int = 1) -> list[float]:
    """Return the milliseconds per clip."""
    return [1000 * second / clips for second in seconds]


def print_comparison(comparison: dict[int, dict[str, Any]]) -> None:
    """Return one row per algorithm."""
    header = ["algorithm", "largest difference", "RawBoost (ms)", "direct SciPy (ms)", "speedup, round by round"]
    rows = [
        [
            f"{algorithm}: {', '.join(ALGORITHMS[algorithm])}",
            f"{figures['largest_difference']:.1e}",
            spread(figures["ours_ms"], digits=2),
            spread(figures["direct_ms"], digits=2),
            spread(figures["ratio"], digits=1),
        ]
        for algorithm, figures in comparison.items()
    ]
    print_table(header, rows)


def print_parts(parts: dict[str, list[float]]) -> None:
    """Return one row per part; the first is the whole."""
    whole = parts["whole"]
    rows = []
    for part, own in parts.items():
        shares = [100 * mine / all_of_it for mine, all_of_it in zip(own, whole, strict=True)]
        rows.append([PARTS[part], spread(own), f"{np.median(shares):.0f} %"])
    print_table(["part of algorithm 4, by itself", "ms", "of the whole"], rows)


def print_recipes(recipes: dict[str, list[float]]) -> None:
    """Return one row per recipe."""
    rows = [[name, f"{np.mean(own):.2f}", spread(own, digits=2)] for name, own in recipes.items()]
    print_table(["recipe", "ms a clip, mean", "median"], rows)


def print_batches(batches: dict[str, list[float]], options: argparse.Namespace) -> None:
    """Return one row per share."""
    rows = [[name, spread(own)] for name, own in batches.items()]
    print_table([f"algorithm 4, batches of {options.batch}", "ms a clip"], rows)


if __name__ == "__main__":
    sys.exit(main())
