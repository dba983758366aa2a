"""Options of the Trainer that make no sense of a run, or would end it late, are refused before anything is loaded."""

from typing import Any


def refuse_options_without_use(args: Any) -> None:
    """Look at a run's training arguments as they were given.

    Raises:
        ValueError: On an option that the run could not do what it says, or that would do nothing.
    """
    if args.hub_strategy != "end":
        raise ValueError(f"--hub_strategy {args.hub_strategy}: the run is pushed once, complete, when it ends (end)")
    if args.hub_always_push:
        raise ValueError("--hub_always_push is about pushing checkpoints, and a run is pushed once, when it ends")
    if args.max_steps == 0 or (args.max_steps < 0 and not args.num_train_epochs > 0):
        raise ValueError(
            f"--num_train_epochs {args.num_train_epochs:g} and --max_steps {args.max_steps} would train nothing; "
            "scripts/score_audio_spoof.py scores with a model that is there"
        )
    if args.prediction_loss_only:
        raise ValueError(
            "--prediction_loss_only leaves an evaluation without scores, which are what a run reports; leave it out"
        )
    if args.train_sampling_strategy in ("group_by_length", "batch_rebalance"):
        raise ValueError(
            f"--train_sampling_strategy {args.train_sampling_strategy} sorts clips by length, and all are windows of "
            "the same length here (--window_seconds); leave it out"
        )
    if args.length_column_name != "length":
        raise ValueError(
            "--length_column_name is for sorting clips by length, and all are windows of the same length; leave it out"
        )
    if args.label_names not in (None, ["labels"]):
        raise ValueError(
            f"--label_names {' '.join(args.label_names)}: what the model is given as its label is always called "
            "labels; for a column of the corpus use --label_column_name"
        )
    if (args.do_eval or args.do_predict) and not args.do_train:
        raise ValueError(
            "--do_eval and --do_predict without --do_train: this script always trains, and evaluates as it does; "
            "scripts/score_audio_spoof.py scores with a model that is there"
        )


__all__ = ["refuse_options_without_use"]
