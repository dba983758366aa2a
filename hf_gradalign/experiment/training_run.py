"""One run: train, select, average, evaluate, save."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from hf_gradalign.experiment.arguments import RunArguments
from hf_gradalign.experiment.corpora import system_column
from hf_gradalign.experiment.evaluation import class_indices, countermeasure_scores, error_rates_by_system, remarks_on
from hf_gradalign.experiment.preparation import Preparation
from hf_gradalign.experiment.results import (
    RunResults,
    describe_settings,
    read_train_metrics,
    steps_of,
    without_timing,
)
from hf_gradalign.experiment.run_trainer import make_trainer
from hf_gradalign.scoring import write_score_file
from hf_gradalign.training import (
    BestCheckpoints,
    GradientAlignmentTrainer,
    SaveOnInterrupt,
    average_checkpoints,
    load_whole_state,
)

logger = logging.get_logger(__name__)

# The Trainer's names for the splits that are evaluated.
_PREFIXES = {"validation": "eval", "test": "test"}


class Interrupted(Exception):
    """The run was stopped by a signal.

    Attributes:
        checkpoint: The checkpoint to resume from.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__(f"interrupted; the checkpoint to go on from is {checkpoint}")
        self.checkpoint = checkpoint


def train_and_evaluate(
    preparation: Preparation,
    run: RunArguments,
    resume_from: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> RunResults:
    """Train and evaluate, and leave everything in the output folder.

    Selection (early stopping, the best checkpoint or the average of the best) sees the validation split alone; the
    test split is scored once, at the end.

    Args:
        preparation: Data and model, from `prepare`.
        run: The arguments given to `prepare`, with their `output_dir` settled.
        resume_from: Checkpoint to go on from.
        callbacks: Further callbacks of the Trainer.

    Returns:
        The results, as written to `all_results.json`.

    Raises:
        Interrupted: On Ctrl-C or SIGTERM, after a checkpoint was saved.
        FloatingPointError: If a loss or gradient is not finite (see `on_nonfinite`).
    """
    args = run.training
    interrupt = SaveOnInterrupt()
    trainer = make_trainer(preparation, args, [interrupt, *callbacks])
    averaged = 0
    steps_before = steps_of(resume_from) if resume_from else -1  # asked now: training may delete the checkpoint
    try:
        train_metrics = trainer.train(resume_from_checkpoint=resume_from).metrics
    finally:
        interrupt.restore_handlers()
    if interrupt.interrupted:
        raise Interrupted(str(Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}")))
    if args.average_best_checkpoints > 1:
        averaged = _load_average(trainer)
    trainer.save_model(_internal_call=True)
    trainer.save_state()

    metrics: dict[str, float] = dict(train_metrics)
    if trainer.state.global_step <= steps_before:
        # A finished run that is resumed trains nothing, and what it once found of its training still holds.
        metrics = without_timing(train_metrics) | read_train_metrics(args.output_dir)
    return conclude(trainer, preparation, run, metrics, averaged)


def conclude(
    trainer: GradientAlignmentTrainer,
    preparation: Preparation,
    run: RunArguments,
    train_metrics: Mapping[str, float],
    averaged: int = 0,
) -> RunResults:
    """Score each split, and leave scores and results in the trainer's output folder.

    Args:
        trainer: With the weights that are scored.
        preparation: Data and model.
        run: The run's arguments.
        train_metrics: What training found.
        averaged: How many checkpoints the weights are the mean of.

    Returns:
        The results.
    """
    metrics = dict(train_metrics)
    by_system: dict[str, dict[str, float]] = {}
    remarks: list[str] = []
    for split in preparation.eval_datasets:
        prefix = _PREFIXES[split]
        systems = system_column(run.data, preparation.eval_sources.get(split, run.data.corpora[0]))
        split_metrics, by_system[prefix], odd = _evaluate(trainer, preparation, split, systems)
        metrics.update(split_metrics)
        remarks += [f"{split.capitalize()} split: {remark}" for remark in odd]
    counts = trainer.conflict_counts
    has_pairs = len(run.data.view_recipes) > 1  # else there is nothing that could conflict
    results = RunResults(
        metrics=metrics,
        eer_by_system=by_system,
        conflict_rate=counts.rate() if has_pairs else None,
        conflict_rate_by_epoch=counts.rates() if has_pairs else {},
        averaged_checkpoints=averaged,
        nonfinite_updates=counts.nonfinite(),
        skipped_updates=trainer.nonfinite.skipped,
        remarks=remarks,
        settings=describe_settings(run),
    )
    if trainer.is_world_process_zero():
        results.write(trainer.args.output_dir)
    return results


def _load_average(trainer: GradientAlignmentTrainer) -> int:
    paths = BestCheckpoints.paths(trainer.args)
    if not paths:
        logger.warning("There is no evaluated checkpoint to average; the weights are those at the end of training.")
        return 0
    model = trainer.accelerator.unwrap_model(trainer.model)
    # Tied weights are saved once, and only they may be missing.
    missing, unexpected = load_whole_state(model, average_checkpoints(paths))
    missing = set(missing) - set(getattr(model, "all_tied_weights_keys", None) or ())
    if missing or unexpected:
        raise RuntimeError(f"the averaged checkpoints do not fit the model: {sorted(missing)} {unexpected}")
    logger.info(f"Averaged {len(paths)} checkpoints: {', '.join(path.stem for path in paths)}")
    return len(paths)


def _evaluate(
    trainer: GradientAlignmentTrainer, preparation: Preparation, split: str, system_column: str
) -> tuple[dict[str, float], dict[str, float], list[str]]:
    clips = preparation.corpus[split]
    prefix = _PREFIXES[split]
    output = trainer.predict(preparation.eval_datasets[split], metric_key_prefix=prefix)
    scores = countermeasure_scores(output.predictions)
    if not np.array_equal(class_indices(output.label_ids), np.asarray(clips["label"])):
        raise RuntimeError(f"the scores of the {split} split did not come back in the order of its clips")
    if trainer.is_world_process_zero():
        write_score_file(Path(trainer.args.output_dir, f"scores_{split}.txt"), clips["utterance_id"], scores)
    systems = clips[system_column] if system_column in clips.column_names else None
    labels = clips["label"][:]
    return output.metrics, error_rates_by_system(scores, labels, systems), remarks_on(scores, labels)
