"""Flipped bits and zeroed spans in the files of checkpoints."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from random import Random

from fault_trials.bench import NOT_AVERAGED, Bench, judge_end
from fault_trials.outcomes import REFUSED, SAME, SILENT
from fault_trials.processes import CommandProcess, all_ended
from hf_gradalign.training.callbacks import BEST_CHECKPOINTS_DIR
from hf_gradalign.training.run_checkpoints import RunCheckpoints


def damage_resumed(bench: Bench, draw: Random, name: str) -> tuple[str, str]:
    """Damage a file of a run that was interrupted before its last steps, and resume it."""
    command = bench.commands["train"]
    whole, folder = bench.whole(command), bench.fresh(name)
    _interrupted_run(bench, folder / "out")
    paths = [*RunCheckpoints(folder / "out").all()[-1].iterdir(), *(folder / "out" / BEST_CHECKPOINTS_DIR).iterdir()]
    what = _damage(draw.choice(_to_damage(paths)), draw)
    again = bench.start(command, folder, 0, "--resume_from_checkpoint")
    with all_ended(again):
        status = again.wait()
    printed = again.output()
    if status not in (0, None) and "error: " in printed and "Traceback" not in printed:
        return REFUSED, f"{what}: {printed.strip()[-200:]}"
    if status == 0 and NOT_AVERAGED in printed:
        return REFUSED, f"{what}: the model is the mean of the others, which was reported"
    outcome, detail = judge_end(lambda: command.results(folder / "out"), [whole], status, [printed])
    return outcome, f"{what}. {detail}"


def damage_scored(bench: Bench, draw: Random, name: str) -> tuple[str, str]:
    """Damage a file of a checkpoint, and score with it."""
    folder = bench.fresh(name)
    source = RunCheckpoints(bench.world.runs[0]).all()[-1]
    outputs = []
    for place in ("sound", "damaged"):
        model = folder / place / source.name
        shutil.copytree(source, model)
        if place == "damaged":
            what = _damage(draw.choice(_to_damage(model.iterdir())), draw)
        words = [str(model), "--corpus", str(bench.world.corpus), "--split", "validation", "--num_workers", "0"]
        words += ["--no_progress", "--output_file", str(folder / "out" / f"{place}.txt")]
        process = CommandProcess("score_audio_spoof", words, folder / "log.txt")
        with all_ended(process):
            status, printed = process.wait(), process.output()
        outputs.append(folder / "out" / f"{place}.txt")
    if status != 0:
        is_heard = "error: " in printed and "Traceback" not in printed
        return (REFUSED if is_heard else SILENT), f"{what}: {printed.strip()[-200:]}"
    if outputs[0].read_bytes() == outputs[1].read_bytes():
        return SAME, f"{what}; it is not used"
    return SILENT, f"{what}: other scores, exit 0: {printed.strip()[-200:]}"


def _interrupted_run(bench: Bench, out: Path) -> None:
    """Return a run that was killed some steps before its end."""
    shutil.copytree(bench.world.runs[0], out, dirs_exist_ok=True)
    checkpoints = RunCheckpoints(out)
    for path in checkpoints.all()[-1:]:
        checkpoints.remove(path)
    for name in ("all_results.json", "model.safetensors", "trainer_state.json", "scores_test.txt"):
        (out / name).unlink()


def _to_damage(paths: Iterable[Path]) -> list[Path]:
    """Choose a file of weights, states or settings; a checkpoint has more files of code than of these."""
    return sorted(path for path in paths if path.suffix != ".py")


def _damage(path: Path, draw: Random) -> str:
    """Flip a bit or zero a span of a file."""
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    if draw.random() < 0.5:
        content[place] ^= 1 << draw.randrange(8)
        what = "a flipped bit"
    else:
        size = draw.choice([1, 16, 4096, 1 << 20])
        content[place : place + size] = bytes(len(content[place : place + size]))
        what = f"{size} zeroed bytes"
    path.unlink()  # it may be a hard link to a file that must stay intact
    path.write_bytes(content)
    return f"{what} at {place} of {path.parent.name}/{path.name}"
