import json

import numpy as np
import pytest

from hf_gradalign.study.epoch_rows import COSINE_EDGES, epoch_rows

HISTORY = [
    {"epoch": 0.5, "loss": 1.0},
    {"epoch": 1.0, "eval_loss": 0.7, "eval_eer": 0.3},
    {"epoch": 2.0, "eval_loss": 0.5, "eval_eer": 0.2},
]


def record(folder, rows):
    (folder / "conflicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def update(step, epoch, cosine, ratio=2.0, loss=0.6, **further):
    return {
        "step": step,
        "epoch": epoch,
        "conflict": None if cosine is None else cosine < 0,
        "cosine_clean_augmented": cosine,
        "grad_norm_clean": 1.0,
        "grad_norm_augmented": ratio,
        "loss_clean": 0.5,
        "loss_augmented": loss,
        **further,
    }


def test_updates_are_summed_up_by_epoch(tmp_path):
    rows = [update(1, 0.5, -0.5), update(2, 1.0, 0.5, ratio=0.5), update(3, 1.5, 0.25, loss=0.4), update(4, 2.0, None)]
    record(tmp_path, rows)
    first, second = epoch_rows(HISTORY, tmp_path)
    assert (first["epoch"], first["eval_loss"], first["eval_eer"], first["n_updates"]) == (1, 0.7, 0.3, 2)
    assert first["conflict_rate"] == 0.5
    assert first["cosine_mean"] == 0.0
    assert first["cosine_quantiles"] == pytest.approx(np.quantile([-0.5, 0.5], [0.05, 0.25, 0.5, 0.75, 0.95]))
    counts = dict(zip(COSINE_EDGES[:-1].round(2), first["cosine_counts"], strict=True))
    assert {edge: n for edge, n in counts.items() if n} == {-0.5: 1, 0.5: 1}
    assert first["norm_ratio"] == 1.25
    assert first["second_norm_larger"] == 0.5
    assert first["second_loss_larger"] == 1.0
    # An update with a non-finite value is counted, but has no statistics.
    assert (second["n_updates"], second["conflict_rate"], second["second_loss_larger"]) == (2, 0.0, 0.5)


def test_modules(tmp_path):
    def modules(cosines):
        return {
            "module": ["encoder", "head"],
            "module_cosine_clean_augmented": cosines,
            "module_grad_norm_clean": [3.0, 1.0],
            "module_grad_norm_augmented": [1.0, 1.0],
        }

    record(tmp_path, [update(1, 0.5, 0.1, **modules([-0.1, 0.5])), update(2, 1.0, 0.1, **modules([0.1, None]))])
    row = epoch_rows(HISTORY[:2], tmp_path)[0]
    assert row["module"] == ["encoder", "head"]
    assert row["module_conflict_rate"] == [0.5, 0.0]
    assert row["module_norm_share"] == pytest.approx([0.9, 0.1])


def test_one_view_cannot_conflict(tmp_path):
    record(tmp_path, [{"step": 1, "epoch": 1.0, "conflict": False, "grad_norm_clean": 1.0, "loss_clean": 0.5}])
    row = epoch_rows(HISTORY[:2], tmp_path)[0]
    assert row["loss_first"] == 0.5
    assert "conflict_rate" not in row


def test_a_run_without_a_record(tmp_path):
    assert [(row["epoch"], row["n_updates"]) for row in epoch_rows(HISTORY, tmp_path)] == [(1, 0), (2, 0)]
