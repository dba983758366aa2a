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
import shlex
import sys
from pathlib import Path

from hf_gradalign import data, experiment, hub, training
from hf_gradalign.cli.commands import set_up_libraries
from hf_gradalign.utils.messages import error_line, is_outside_fault
from hf_gradalign.utils.plain_text import plain_text

AFTER_INTERRUPT = "--resume_from_checkpoint RUN_FOLDER continues from the last checkpoint, if one was saved"


def main(argv: list[str]) -> int:
    """Run from the command line; returns the exit status."""
    with contextlib.ExitStack() as held:
        return _main(argv, held)


def _main(argv: list[str], held: contextlib.ExitStack) -> int:
    given = experiment.read_arguments(argv)
    model_args, data_args, args = experiment.make_arguments(given)
    set_up_libraries(no_progress=args.disable_tqdm)
    try:
        where = (args.output_dir, args.resume_from_checkpoint, args.align_gradients)
        folder, waited = held.enter_context(
            experiment.hold_output_folder(*where, overwrite=args.overwrite, dry_run=args.dry_run)
        )
        if waited:
            given = experiment.read_arguments(argv)  # the other run has kept its own meanwhile
            model_args, data_args, args = experiment.make_arguments(given)
            if experiment.is_finished_run(folder, given) and not args.push_to_hub:
                if args.should_save:
                    print(f"The run in {folder} is complete: the process that held it finished it.")
                return 0
        args.output_dir, checkpoint = experiment.resolve_output_folder(
            folder, args.resume_from_checkpoint, args.align_gradients, overwrite=args.overwrite
        )
        is_resumed = args.resume_from_checkpoint is not None and args.should_save
        if is_resumed and (
            taken := experiment.describe_resumed(given, Path(checkpoint).parent if checkpoint else folder)
        ):
            print(taken)
        experiment.require_publishable(args)
        if args.dry_run:
            report = experiment.dry_run.dry_run(model_args, data_args, args)
            if args.process_index == 0:
                print(report.text())
            if not report.disk.is_enough:
                raise ValueError(report.disk.shortage())
            return 0
        preparation = experiment.prepare(model_args, data_args, args)
        fingerprint = experiment.check_resumed(preparation, model_args, data_args, args, checkpoint)
        experiment.require_disk_space(preparation, args)
        experiment.rehearse(preparation, model_args, data_args, args, experiment.command_words(given))
    except (ValueError, OSError, FloatingPointError) as error:
        print(error_line(error, args.output_dir), file=sys.stderr)
        return 2
    push = experiment.announce_hub(args)
    if args.should_save:
        if args.overwrite and checkpoint is None:
            experiment.set_aside(args.output_dir)
        experiment.keep_arguments(given, args.output_dir)
        if fingerprint is not None:
            experiment.keep_fingerprint(fingerprint, args.output_dir)

    try:
        results = experiment.run(preparation, model_args, data_args, args, checkpoint)
    except experiment.Interrupted as interruption:
        if args.should_save:
            again = shlex.join(experiment.resume_words(given, interruption.checkpoint))
            print(f"\n{interruption}\nTo continue with the same options:\n  {again}")
        return 130
    except data.AudioDecodingError as error:
        print(f"error: {plain_text(error)}\nTo leave bad clips out: --check_audio --on_bad_audio skip", file=sys.stderr)
        return 1
    except (FloatingPointError, FileNotFoundError) as error:
        print(error_line(error), file=sys.stderr)
        return 1
    except Exception as error:
        if isinstance(error, BrokenPipeError) or not is_outside_fault(error):
            raise
        again = f"continue from the last checkpoint:\n  {shlex.join(experiment.resume_words(given, args.output_dir))}"
        print(error_line(error, args.output_dir, again), file=sys.stderr)
        return 1
    if not args.should_save:
        return 0

    experiment.write_run_card(results, preparation, model_args, data_args, args, experiment.command_words(given))
    experiment.remove_replaced(args.output_dir)
    print(f"\n{experiment.summary_table(results, args.align_gradients)}\n")
    print(f"Model, model card, scores and all_results.json are in {args.output_dir}")
    if len(data_args.view_recipes) > 1:
        other = {**given, "align_gradients": "pcgrad" if args.align_gradients == "none" else "none"}
        other.pop("alignment_options", None)  # the other method does not take them
        print(f"To compare, the same with another alignment:\n  {shlex.join(experiment.command_words(other))}")
    if push:
        try:
            print(f"Published at {experiment.publish_run(args)}")
        except hub.PublishingError as error:
            print(error_line(error), file=sys.stderr)
            return 1
    return 0


def at_end() -> None:
    """Leave the process group of a distributed run."""
    training.leave_process_group()
