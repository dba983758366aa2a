"""Train a speech deepfake detector on clean and augmented views with aligned gradients.

python scripts/run_audio_spoof.py --align_gradients
python scripts/run_audio_spoof.py --align_gradients --model_name_or_path facebook/wav2vec2-xls-r-300m --dataset_name a/b
python scripts/run_audio_spoof.py --align_gradients --corpus asvspoof2019_la:/data/LA --test_corpus in_the_wild:/data
python scripts/run_audio_spoof.py --align_gradients --views clean,rawboost,codec --view_weights '{"codec": 0.5}'
python scripts/run_audio_spoof.py config.yaml --seed 1
python scripts/run_audio_spoof.py scripts/recipes/tcm_pcgrad.yaml --corpus asvspoof2019_la:/data/LA --dry_run
"""

from __future__ import annotations

import contextlib
import sys

from hf_gradalign import data, experiment, hub, training
from hf_gradalign.cli.commands import set_up_libraries
from hf_gradalign.utils.messages import error_line, is_outside_fault, join_command
from hf_gradalign.utils.plain_text import plain_text

AFTER_INTERRUPT = "--resume_from_checkpoint RUN_FOLDER resumes from the last checkpoint, if there is one"


def main(argv: list[str]) -> int:
    """Train from the command line and return the exit status."""
    with contextlib.ExitStack() as held:
        return _main(argv, held)


def _main(argv: list[str], held: contextlib.ExitStack) -> int:
    run = experiment.parse_arguments(argv)
    args = run.training
    set_up_libraries(no_progress=bool(args.disable_tqdm))
    try:
        where = (args.output_dir, args.resume_from_checkpoint, args.align_gradients)
        args.output_dir, waited = held.enter_context(
            experiment.hold_output_folder(*where, overwrite=args.overwrite, dry_run=args.dry_run)
        )
        if waited:
            folder = args.output_dir
            run = experiment.parse_arguments(argv)  # the other run has already saved its arguments
            args = run.training
            if experiment.is_finished_run(folder, run.options) and not args.push_to_hub:
                if args.should_save:
                    print(f"The run in {folder} is complete: the process that held it finished it.")
                return 0
            args.output_dir = folder
        if args.dry_run:
            return _dry_run(run)
    except (ValueError, OSError) as error:
        return _refuse(error, args.output_dir)

    push = args.push_to_hub
    try:
        finished = experiment.run_experiment(run, notify=print)
    except experiment.RunNotStarted as error:
        return _refuse(error, args.output_dir)
    except experiment.Interrupted as interruption:
        if args.should_save:
            again = join_command(experiment.resume_words(run.options, interruption.checkpoint))
            print(f"\n{interruption}\nTo resume with the same options:\n  {again}")
        return 130
    except data.AudioDecodingError as error:
        print(f"error: {plain_text(error)}\nTo skip bad clips, use --check_audio --on_bad_audio skip", file=sys.stderr)
        return 1
    except (FloatingPointError, FileNotFoundError) as error:
        print(error_line(error), file=sys.stderr)
        return 1
    except Exception as error:
        if isinstance(error, BrokenPipeError) or not is_outside_fault(error):
            raise
        resume = join_command(experiment.resume_words(run.options, args.output_dir))
        print(error_line(error, args.output_dir, f"resume from the last checkpoint:\n  {resume}"), file=sys.stderr)
        return 1
    if not args.should_save:
        return 0

    experiment.write_run_card(finished.results, finished.preparation, run)
    experiment.remove_replaced(args.output_dir)
    print(f"\n{experiment.summary_table(finished.results, args.align_gradients)}\n")
    print(f"Model, model card, scores and all_results.json are in {args.output_dir}")
    if len(run.data.view_recipes) > 1:
        other = {**run.options, "align_gradients": "pcgrad" if args.align_gradients == "none" else "none"}
        other.pop("alignment_options", None)  # the other method has other options
        print(f"To compare, the same with another alignment:\n  {join_command(experiment.command_words(other))}")
    if push:
        try:
            print(f"Published at {experiment.publish_run(args)}")
        except hub.PublishingError as error:
            print(error_line(error), file=sys.stderr)
            return 1
    return 0


def _dry_run(run: experiment.RunArguments) -> int:
    report = experiment.dry_run_experiment(run, notify=print)
    if run.training.process_index == 0:
        print(report.text())
    if not report.disk.is_enough:
        raise ValueError(report.disk.shortage())
    return 0


def _refuse(error: Exception, folder: str | None) -> int:
    cause = error.__cause__ if isinstance(error, experiment.RunNotStarted) else error
    print(error_line(cause or error, folder), file=sys.stderr)
    return 2


def at_end() -> None:
    """Leave the process group of a distributed run."""
    training.leave_process_group()
