"""Whether more of a metric is better."""

# Every metric of `hf_gradalign.metrics`, and the most common ones of other tasks.
_LOWER_IS_BETTER = (
    *(
        "loss",
        "eer",
        "eer_interpolated",
        "min_dcf",
        "act_dcf",
        "a_dcf",
        "min_tdcf",
        "min_tdcf_2019",
        "cllr",
        "min_cllr",
    ),
    *("false_rejection_rate", "false_acceptance_rate", "spoof_acceptance_rate", "error_rate", "error"),
    *("perplexity", "wer", "cer", "mse", "rmse", "mae"),
)
_HIGHER_IS_BETTER = (
    *("roc_auc", "accuracy", "balanced_accuracy", "f1", "f1_spoof", "f1_macro"),
    *("auc", "precision", "recall", "bleu", "map"),
)
_NO_METRICS = ("threshold", "runtime", "time", "samples_per_second", "steps_per_second")


def greater_is_better(metric: str, given: bool | None = None) -> bool:
    """Return whether more of a metric is better.

    Args:
        metric: Name of the metric, with or without the name of an evaluation set: "eer", "eval_eer", "la_eer",
            "eval_la_eer".
        given: The user's choice, which takes precedence; None if there is none.

    Raises:
        ValueError: If the direction is unknown, or the metric does not measure how good a model is (a threshold, a
            time).
    """
    if _ends_with(metric, _NO_METRICS):
        raise ValueError(
            f"--metric_for_best_model {metric} does not measure how good a model is; use a metric, such as loss or eer"
        )
    if given is not None:
        return given
    if _ends_with(metric, _LOWER_IS_BETTER):
        return False
    if _ends_with(metric, _HIGHER_IS_BETTER):
        return True
    raise ValueError(
        f"--metric_for_best_model {metric}: it is not known whether more of it is better; also pass "
        "--greater_is_better true or false (in Python greater_is_better=True or False)"
    )


def _ends_with(metric: str, names: tuple[str, ...]) -> bool:
    return any(metric == name or metric.endswith(f"_{name}") for name in names)
