"""What a study's Parquet files hold."""

import pyarrow as pa

RESULTS_NAME, EPOCHS_NAME, CLIPS_NAME = "results.parquet", "epochs.parquet", "clips.parquet"

SETTINGS = [
    ("cell", pa.string()),
    ("method", pa.string()),
    ("augmentation", pa.string()),
    ("model", pa.string()),
    ("head", pa.string()),
    ("batch_size", pa.int32()),
    ("epochs", pa.float64()),
    ("seed", pa.int64()),
    ("further_settings", pa.string()),
]
RESULTS_SCHEMA = pa.schema(
    [
        *SETTINGS,
        ("evaluation_set", pa.string()),
        ("corpus", pa.string()),
        ("split", pa.string()),
        ("subset", pa.string()),
        ("n_clips", pa.int64()),
        ("n_bad_clips", pa.int64()),
        ("eer", pa.float64()),
        ("min_dcf", pa.float64()),
        ("cllr", pa.float64()),
        ("roc_auc", pa.float64()),
        ("n_updates", pa.int64()),
        ("n_forward_passes", pa.int64()),
        ("train_loss", pa.float64()),
        ("validation_loss", pa.float64()),
        ("validation_eer", pa.float64()),
        ("conflict_rate", pa.float64()),
        ("n_nonfinite_updates", pa.int64()),
        ("seconds_per_update", pa.float64()),
        ("peak_memory_mib", pa.float64()),
        ("versions", pa.string()),
        ("scores", pa.list_(pa.float64())),
    ]
)
"""A row a cell and evaluation set; `scores` are in the order of the set's clips, null where the audio is bad."""

EPOCHS_SCHEMA = pa.schema(
    [
        *SETTINGS,
        ("epoch", pa.int32()),
        ("eval_loss", pa.float64()),
        ("eval_eer", pa.float64()),
        ("n_updates", pa.int64()),
        ("loss_first", pa.float64()),
        ("loss_second", pa.float64()),
        ("grad_norm_first", pa.float64()),
        ("grad_norm_second", pa.float64()),
        ("conflict_rate", pa.float64()),
        ("cosine_mean", pa.float64()),
        ("cosine_quantiles", pa.list_(pa.float64())),
        ("cosine_counts", pa.list_(pa.int64())),
        ("norm_ratio", pa.float64()),
        ("second_loss_larger", pa.float64()),
        ("second_norm_larger", pa.float64()),
        ("module", pa.list_(pa.string())),
        ("module_conflict_rate", pa.list_(pa.float64())),
        ("module_norm_share", pa.list_(pa.float64())),
    ]
)
"""A row a cell and epoch (see `epoch_rows`)."""

CLIP_COLUMNS = ("speaker", "system", "codec", "condition", "language")
CLIPS_SCHEMA = pa.schema(
    [("evaluation_set", pa.string()), ("utterance_id", pa.string()), ("label", pa.int8())]
    + [(name, pa.string()) for name in CLIP_COLUMNS]
)
"""A row a clip of an evaluation set."""

SCHEMAS = {CLIPS_NAME: CLIPS_SCHEMA, EPOCHS_NAME: EPOCHS_SCHEMA, RESULTS_NAME: RESULTS_SCHEMA}

__all__ = [
    "CLIPS_NAME",
    "CLIPS_SCHEMA",
    "CLIP_COLUMNS",
    "EPOCHS_NAME",
    "EPOCHS_SCHEMA",
    "RESULTS_NAME",
    "RESULTS_SCHEMA",
    "SCHEMAS",
    "SETTINGS",
]
