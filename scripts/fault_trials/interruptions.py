"""SIGKILL at a random moment, and two starts of a command at almost the same moment."""

import logging
import os
import signal
from random import Random

from fault_trials.bench import Bench, judge_end
from fault_trials.outcomes import LOST, REFUSED, SAME, SILENT, judge
from fault_trials.processes import CommandProcess, all_ended
from fault_trials.world import variants_of
from hf_gradalign.training.run_checkpoints import RunCheckpoints


def kill_training(bench: Bench, draw: Random, name: str) -> tuple[str, str]:
    """Kill a run, start it again with the same command line, and compare it with an uninterrupted one."""
    command = bench.commands["train"]
    whole, folder = bench.whole(command, 0, "--resume_from_checkpoint"), bench.fresh(name)
    moment = draw.uniform(0, bench.seconds(command))
    process = bench.start(command, folder, 0, "--resume_from_checkpoint")
    with all_ended(process):
        process.wait(moment, kill=False)
        process.kill()
    checkpoints = RunCheckpoints(folder / "out")
    if broken := checkpoints.incomplete():
        return LOST, f"killed after {moment:.2f} s; half a checkpoint: {broken}"
    before = [path.name for path in checkpoints.all()]
    again = bench.start(command, folder, 0, "--resume_from_checkpoint")
    with all_ended(again):
        status = again.wait()
    outcome, detail = judge_end(lambda: command.results(folder / "out"), [whole], status, [again.output()])
    return outcome, f"killed after {moment:.2f} s with {', '.join(before) or 'no checkpoint'}. {detail}"


def kill_scoring(bench: Bench, draw: Random, name: str) -> tuple[str, str]:
    """Kill a scoring and start it again. Every other one replaces older scores, which must stay until it is "
    "complete.
    """
    command, replaced = bench.commands["score"], draw.random() < 0.5
    whole, folder = bench.whole(command), bench.fresh(name)
    wholes = [whole]
    if replaced:
        wholes.append(bench.whole(command, 1))
        older = bench.start(command, folder, 1)
        with all_ended(older):
            older.wait()
    moment = draw.uniform(0, bench.seconds(command))
    process = bench.start(command, folder, 0, *["--overwrite"] * replaced)
    with all_ended(process):
        process.wait(moment, kill=False)
        process.kill()
    scores = folder / "out" / "scores.txt"
    if scores.exists() and scores.read_bytes() not in [each["scores.txt"] for each in wholes]:
        return LOST, f"killed after {moment:.2f} s: the score file is neither the old nor the new one"
    if replaced and not scores.exists():
        return LOST, f"killed after {moment:.2f} s: the older scores are gone"
    # As the interrupted command says. If that is refused because nothing was started, with the same command line.
    for more in ([], ["--overwrite"]):
        again = bench.start(command, folder, 0, *more)
        with all_ended(again):
            status = again.wait()
        if not (replaced and status == 2 and scores.read_bytes() == wholes[1]["scores.txt"]):
            break
    outcome, detail = judge_end(lambda: command.results(folder / "out"), [whole], status, [again.output()])
    return outcome, f"killed after {moment:.2f} s{' over older scores' * replaced}. {detail}"


def double_start(bench: Bench, draw: Random, name: str, command_name: str) -> tuple[str, str]:
    """Start a command twice: the same command, or one with other inputs that writes to the same folder."""
    command = bench.commands[command_name]
    second = draw.randrange(2)
    wholes = [bench.whole(command, 0), bench.whole(command, second)]
    folder = bench.fresh(name, command)
    gap = draw.choice([0.0, 0.0, draw.uniform(0, bench.seconds(command))])
    first = bench.start(command, folder, 0)
    with all_ended(first):
        first.wait(gap, kill=False)
        other = bench.start(command, folder, second, log="log_second.txt")
        with all_ended(other):
            statuses = [first.wait(), other.wait()]
    printed = [first.output(), other.output()]
    what = f"variant {second} {gap:.2f} s after the first, exit {statuses}"
    winners = [number for number, status in enumerate(statuses) if status == 0]
    unheard = [text for text, status in zip(printed, statuses, strict=True) if status != 0 and "error: " not in text]
    if not winners or unheard or any("Traceback" in text for text in printed):
        return LOST, f"{what}: {' | '.join(text.strip()[-300:] for text in printed)}"
    right = [wholes[number] for number in winners]
    if len(winners) == 2 and command_name == "study":
        right = [variants_of(wholes)]
    elif len(winners) == 2 and second != 0 and not command.replaces:
        return SILENT, f"{what}: one of the two results was replaced, and both commands ended well"
    found = command.results(folder / "out")
    if fault := judge(found, right):
        fault = judge(found, wholes) or (SILENT, "the results are those of the command that failed")
        return fault[0], f"{what}: {fault[1]}"
    return (SAME if len(winners) == 2 else REFUSED), what


def resume_elsewhere(bench: Bench, draw: Random, name: str) -> tuple[str, str]:
    """Start another run from the last checkpoint of a running one, which must not be affected.

    The other run starts at a random moment. A process that repeats the first steps of such a run in a loop also meets
    the moments at which a checkpoint is moved into place.
    """
    command = bench.commands["train"]
    whole, folder = bench.whole(command, 0), bench.fresh(name)
    moment = draw.uniform(0, bench.seconds(command))
    run = bench.start(command, folder, 0)
    looker = os.fork()
    if looker == 0:
        logging.disable()
        while True:
            RunCheckpoints(folder / "out").last_complete()
    with all_ended(run):
        run.wait(moment, kill=False)
        words = [*bench.world.training_words(folder / "other"), "--resume_from_checkpoint", str(folder / "out")]
        other = CommandProcess(command.script, words, folder / "log_other.txt")
        with all_ended(other):
            status = run.wait(), other.wait()
    os.kill(looker, signal.SIGKILL)
    os.waitpid(looker, 0)
    outcome, detail = judge_end(lambda: command.results(folder / "out"), [whole], status[0], [run.output()])
    if outcome == SAME and status[1] != 0:
        outcome, detail = (REFUSED if "error: " in other.output() else LOST), other.output().strip()[-300:]
    return outcome, f"the other after {moment:.2f} s, exit {status}. {detail}"
