"""Runs all trials, one after another."""

import argparse
import shutil
import time
from collections.abc import Callable
from functools import partial
from random import Random

from fault_trials.bench import Bench
from fault_trials.damage import damage_resumed, damage_scored
from fault_trials.full_disks import fill_disk
from fault_trials.hub_moods import MOODS, hub_trials
from fault_trials.hub_program import HubProgram
from fault_trials.interruptions import double_start, kill_scoring, kill_training, resume_elsewhere
from fault_trials.outcomes import BAD, Outcome, Record
from fault_trials.processes import preload

Trial = Callable[[Bench, Random, str], tuple[str, str]]


def run_trials(arguments: argparse.Namespace, hub: HubProgram) -> int:
    """Run the requested trials that are not recorded yet, and print the table.

    Args:
        arguments: The parsed command line.
        hub: A Hub.

    Returns:
        The exit status.

    Raises:
        ValueError: If there is no such kind of trial.
    """
    bench = Bench(arguments.output_dir)
    kinds = plan(bench, arguments, hub)
    record = Record(arguments.output_dir / "trials.jsonl")
    preload()
    bench.make_world()
    for kind, trials in kinds.items():
        for number, trial in enumerate(trials):
            if (kind, number) not in record.outcomes:
                outcome = attempt(bench, arguments, kind, number, trial)
                record.add(outcome)
                print(f"{kind} {number}: {outcome.outcome} ({outcome.seconds:.1f} s). {outcome.detail}", flush=True)
    print(f"\n{record.table(list(kinds))}")
    return int(any(each.outcome in BAD for each in record.outcomes.values() if each.kind in kinds))


def plan(bench: Bench, arguments: argparse.Namespace, hub: HubProgram) -> dict[str, list[Trial]]:
    """Return the trials by kind.

    Raises:
        ValueError: If there is no such kind.
    """
    kinds: dict[str, list[Trial]] = {
        "kill_training": [kill_training] * arguments.kills,
        "kill_scoring": [kill_scoring] * arguments.kills,
        "resume_elsewhere": [resume_elsewhere] * arguments.double_starts,
    }
    for name in bench.commands:
        kinds[f"double_{name}"] = [partial(double_start, command_name=name)] * arguments.double_starts
    kinds["full_disk"] = [fill_disk] * arguments.full_disks
    kinds["damage_resumed"] = [damage_resumed] * (arguments.damaged - arguments.damaged // 3)
    kinds["damage_scored"] = [damage_scored] * (arguments.damaged // 3)
    for mood in MOODS:
        kinds[f"hub_{mood}"] = hub_trials(hub, mood) * arguments.hub_rounds
    if arguments.only is None:
        return kinds
    if unknown := [word for word in arguments.only if not any(kind.startswith(word) for kind in kinds)]:
        raise ValueError(f"--only {' '.join(unknown)}: the kinds are {', '.join(kinds)}")
    return {kind: trials for kind, trials in kinds.items() if kind.startswith(tuple(arguments.only))}


def attempt(bench: Bench, arguments: argparse.Namespace, kind: str, number: int, trial: Trial) -> Outcome:
    """Run one trial."""
    name, began = f"{kind}_{number}", time.monotonic()
    outcome, detail = trial(bench, Random(f"{arguments.seed} {name}"), name)
    if outcome not in BAD and not arguments.keep:
        shutil.rmtree(bench.folder / name, ignore_errors=True)
    return Outcome(kind, number, outcome, detail, round(time.monotonic() - began, 2))
