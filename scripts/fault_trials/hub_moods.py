"""A Hub that answers wrongly, late or not at all while a command loads from it or pushes to it."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

from fault_trials.bench import Bench, judge_end
from fault_trials.hub_program import HubProgram
from fault_trials.outcomes import LOST, REFUSED, SAME, SILENT
from fault_trials.processes import all_ended
from fault_trials.world import Command

MOODS = ("500", "429", "drop", "hang", "slow", "html", "401")
_MODEL, _CORPUS = "tester/model", "tester/corpus"


def hub_trials(hub: HubProgram, mood: str) -> list[Callable[[Bench, Random, str], tuple[str, str]]]:
    """List the trials of one fault of the Hub."""

    def load(command_name: str, what: str) -> Callable[[Bench, Random, str], tuple[str, str]]:
        return lambda bench, draw, name: _load(hub, mood, command_name, what, bench, name)

    def push(moment: str) -> Callable[[Bench, Random, str], tuple[str, str]]:
        return lambda bench, draw, name: _push(hub, mood, moment, bench, name)

    loads = [load(command_name, what) for command_name in ("train", "score") for what in ("all new", "all cached")]
    return [*loads, push("start"), push("end"), load("train", "the model cached"), load("score", "the model cached")]


def _load(hub: HubProgram, mood: str, command_name: str, what: str, bench: Bench, name: str) -> tuple[str, str]:
    """Load a model by name, and a corpus by name or from the disk."""
    names = {
        "all new": (f"{_MODEL}-{name}", f"{_CORPUS}-{name}"),
        "all cached": (_MODEL, _CORPUS),
        "the model cached": (_MODEL, str(bench.world.corpus)),
    }[what]
    # Before the fault starts, so that the cache has what is loaded here.
    known = names if what != "all new" else (_MODEL, _CORPUS)
    whole = bench.whole(_by_name(hub, bench, command_name, *known))
    command, folder = _by_name(hub, bench, command_name, *names), bench.fresh(name)
    hub.ask(mood=mood)
    try:
        process = bench.start(command, folder)
        with all_ended(process):
            status = process.wait()
    finally:
        hub.ask(mood=None)
    printed, what = process.output(), f"{command_name}, {what}, exit {status}"
    if status not in (0, None) and "Traceback" not in printed:
        return (REFUSED if "error: " in printed and "Hub" in printed else LOST), f"{what}: {printed.strip()[-300:]}"
    outcome, detail = judge_end(lambda: command.results(folder / "out"), [whole], status, [printed])
    return outcome, f"{what}. {detail}"


def _by_name(hub: HubProgram, bench: Bench, command_name: str, model: str, corpus: str) -> Command:
    """Return a command whose model and corpus are on the Hub."""
    if hub.ask(show=model) is None:
        hub.ask(add=str(bench.world.models[0]), to=model, kind="models")
    if hub.ask(show=f"datasets/{corpus}") is None and corpus != str(bench.world.corpus):
        hub.ask(add=str(bench.world.parquet), to=corpus, kind="datasets")
    local = _short(bench, command_name)
    names = {str(bench.world.models[0]): model, str(bench.world.corpus): corpus}

    def words(out: Path, variant: int) -> list[str]:
        return [names.get(word, word) for word in local.words(out, variant)]

    return replace(local, name=f"{command_name} {model} {corpus}".replace("/", "_"), words=words)


def _short(bench: Bench, command_name: str) -> Command:
    """Shorten a training to two updates; other commands stay the same."""
    command = bench.commands[command_name]
    if command_name != "train":
        return command
    return replace(command, name="train_short", words=lambda out, variant: bench.world.training_words(out, variant, 2))


def _push(hub: HubProgram, mood: str, moment: str, bench: Bench, name: str) -> tuple[str, str]:
    """Train and push, with a fault of the Hub from the start or from the moment when results are written."""
    command = _short(bench, "train")
    whole, folder = bench.whole(command), bench.fresh(name)
    repository = f"tester/{name.replace('_', '-')}"
    trained = folder / "out" / "all_results.json"

    def watch() -> None:
        if moment == "start" or trained.exists():
            hub.ask(mood=mood)

    watch()
    try:
        process = bench.start(command, folder, 0, "--push_to_hub", "--hub_model_id", repository)
        with all_ended(process):
            status = process.wait(meanwhile=watch)
    finally:
        hub.ask(mood=None)
    printed, what = process.output(), f"push, mood from the {moment}, exit {status}"
    pushed = hub.ask(show=repository) or {}
    ours = hashlib.sha256((folder / "out" / "model.safetensors").read_bytes()).hexdigest()
    if "Published at" in printed and (status != 0 or pushed.get("model.safetensors") != ours):
        return SILENT, f"{what}: it says that it is published, and it is not"
    if status == 0:
        outcome, detail = judge_end(lambda: command.results(folder / "out"), [whole], status, [printed])
        return outcome, f"{what}. {detail}"
    if status != 1 or "Traceback" in printed or "Hub" not in printed or "The trained model is safe in" not in printed:
        return LOST, f"{what}: {printed.strip()[-300:]}"
    outcome, detail = judge_end(lambda: command.results(folder / "out"), [whole], 0, [printed])
    return (REFUSED if outcome in (SAME, REFUSED) else outcome), f"{what}. {detail}"
