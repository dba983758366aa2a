import numpy as np
import pytest
from conflict_rows import make_rows, write_rows

from hf_gradalign.experiment import ConflictHistory

PAIR = ("clean", "augmented")


def test_arrays_of_a_record(tmp_path):
    write_rows(tmp_path, make_rows(8, modules=["a", "b"]))
    for source in (tmp_path, tmp_path / "conflicts.jsonl"):
        history = ConflictHistory.read(source)
        assert history.views == ["clean", "augmented"]
        assert history.steps.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
        assert history.epochs.tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
        assert history.cosines[PAIR].tolist() == [0.25, 0.25, 0.25, -0.5] * 2
        assert history.norm_ratios[PAIR].tolist() == [2.0] * 8
        assert history.module_cosines[PAIR].tolist() == [[0.0, 0.1]] * 8


def test_conflict_rate_by_epoch_of_what_is_finite():
    rows = make_rows(12)
    rows[0]["cosine_clean_augmented"] = None
    for row in rows[4:8]:
        row["cosine_clean_augmented"] = None
    epochs, rates = ConflictHistory(rows).conflict_rates(PAIR)
    assert epochs.tolist() == [1, 3]
    assert rates.tolist() == [pytest.approx(1 / 3), 0.25]


def test_every_pair_of_three_views():
    history = ConflictHistory(make_rows(4, views=["a", "b", "c"]))
    assert history.pairs == [("a", "b"), ("a", "c"), ("b", "c")]
    assert history.norm_ratios["b", "c"].tolist() == [2.0] * 4


def test_modules_that_come_later_keep_their_place():
    # Layers are dropped at random, and a resumed run may start to record modules.
    rows = [
        make_rows(1)[0],
        *make_rows(1, modules=["in", "layers.1", "layers.10", "out"]),
        *make_rows(1, modules=["in", "layers.0", "layers.2", "out"]),
        *make_rows(1, modules=["layers.3", "layers.10"]),
    ]
    rows[2]["module_cosine_clean_augmented"] = [0.5, None, 0.7, 0.8]
    history = ConflictHistory(rows)
    assert history.modules == ["in", "layers.0", "layers.1", "layers.2", "layers.3", "layers.10", "out"]
    column = {name: history.module_cosines[PAIR][:, i] for i, name in enumerate(history.modules)}
    np.testing.assert_array_equal(column["in"], [np.nan, 0.0, 0.5, np.nan])
    np.testing.assert_array_equal(column["layers.0"], [np.nan, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(column["layers.10"], [np.nan, 0.2, np.nan, 0.1])
    np.testing.assert_array_equal(column["out"], [np.nan, 0.3, 0.8, np.nan])


def test_helpful_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        ConflictHistory.read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"contains no conflict record .*--conflict_record jsonl to write one"):
        ConflictHistory.read(tmp_path)
    write_rows(tmp_path, [])
    with pytest.raises(ValueError, match=r"conflicts\.jsonl has no updates yet"):
        ConflictHistory.read(tmp_path)
    (tmp_path / "scores.txt").write_text("clip_1 0.2\nclip_2 0.3\n")
    with pytest.raises(ValueError, match=r"scores\.txt is not a conflict record"):
        ConflictHistory.read(tmp_path / "scores.txt")
