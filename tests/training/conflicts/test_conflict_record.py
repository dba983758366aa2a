import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from conflict_rows import make_rows, write_rows
from pyarrow import parquet

from hf_gradalign.training.conflicts.record import (
    ConflictHistory,
    ConflictRecord,
    find_conflict_record,
    read_conflict_rows,
)

PAIR = ("clean", "augmented")


def row(step, **columns):
    return {"step": step, "epoch": step / 4, "conflict": False, "grad_norm_clean": 0.5 * step, **columns}


def steps(path):
    return [row["step"] for row in read_conflict_rows(path)]


def write(folder, last, file_format="jsonl"):
    record = ConflictRecord(folder, file_format)
    record.begin(0)
    record.append(row(step) for step in range(1, last + 1))
    record.finish()
    return find_conflict_record(folder)


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_finished_in_the_format_asked_for(tmp_path, file_format):
    path = write(tmp_path, 5, file_format)
    assert [path.name for path in tmp_path.iterdir()] == [path.name] == [f"conflicts.{file_format}"]
    assert list(read_conflict_rows(path)) == [row(step) for step in range(1, 6)]


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
@pytest.mark.parametrize("before", ["jsonl", "parquet"])
def test_goes_on_after_the_checkpoints_step(tmp_path, before, file_format):
    write(tmp_path, 7, before)
    record = ConflictRecord(tmp_path, file_format)
    assert record.begin(4) == 4
    assert steps(find_conflict_record(tmp_path)) == [1, 2, 3, 4]
    record.append([row(5)])
    record.finish()
    assert [path.name for path in tmp_path.iterdir()] == [f"conflicts.{file_format}"]
    assert list(read_conflict_rows(tmp_path / f"conflicts.{file_format}")) == [row(step) for step in range(1, 6)]


def test_a_half_written_line_is_dropped(tmp_path):
    path = write(tmp_path, 3)
    whole = path.read_bytes()
    for cut in (1, 20, len(json.dumps(row(3)))):
        path.write_bytes(whole[:-cut])
        # The last line only lacks its end: it can be read, but nothing can be appended.
        assert steps(path) == ([1, 2, 3] if cut == 1 else [1, 2])
        record = ConflictRecord(tmp_path)
        assert record.begin(3) == 2
        record.append([row(3)])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["{}", "3", '{"step": "2"}', '{"step": null}', "[1]"])
def test_a_line_that_is_no_row_is_dropped_with_those_behind_it(tmp_path, line):
    path = write(tmp_path, 3)
    first, _, third = path.read_text().splitlines()
    path.write_text("\n".join([first, line, third]) + "\n")
    assert ConflictRecord(tmp_path).begin(3) == 1
    assert steps(path) == [1]


def test_what_a_crash_left_behind(tmp_path):
    # Killed while the Parquet record was written, or before the other was removed: the other is complete.
    path = write(tmp_path, 3)
    (tmp_path / "conflicts.parquet").write_bytes(b"PAR1 half")
    assert find_conflict_record(tmp_path) == path
    assert ConflictRecord(tmp_path).begin(2) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["conflicts.jsonl"]


def test_a_new_run_begins_a_new_record(tmp_path):
    write(tmp_path, 3)
    assert ConflictRecord(tmp_path).begin(0) == 0
    assert find_conflict_record(tmp_path) is None


def test_another_runs_record_is_gone_on_with(tmp_path):
    earlier = write(tmp_path / "earlier", 6)
    assert ConflictRecord(tmp_path / "later").begin(4, tmp_path / "earlier") == 4
    assert steps(tmp_path / "later" / "conflicts.jsonl") == [1, 2, 3, 4]
    assert steps(earlier) == [1, 2, 3, 4, 5, 6]
    # Its own record has priority.
    assert ConflictRecord(tmp_path / "later").begin(3, tmp_path / "earlier") == 3


def test_parquet_takes_columns_that_come_late_and_values_that_are_missing(tmp_path):
    record = ConflictRecord(tmp_path, "parquet")
    record.begin(0)
    modules = {"module": ["a", "b"], "module_cosine_clean_augmented": [0.5, None]}
    record.append([row(1) | {"conflict": None, "grad_norm_clean": None}, row(2, **modules)])
    record.finish()
    table = parquet.read_table(tmp_path / "conflicts.parquet")
    assert table.schema.field("conflict").type == pa.bool_()
    assert table.schema.field("grad_norm_clean").type == pa.float64()
    assert table["grad_norm_clean"].to_pylist() == [None, 1.0]
    assert table["module"].to_pylist() == [None, ["a", "b"]]
    assert table["module_cosine_clean_augmented"].to_pylist() == [None, [0.5, None]]


def test_a_run_without_an_update_has_no_record(tmp_path):
    record = ConflictRecord(tmp_path, "parquet")
    record.begin(0)
    record.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scores.txt", b"clip_1 0.25\nclip_2 0.5\n", "line 1 is not JSON"),
        ("one.txt", b"clip_1 0.25", "line 1 is not JSON"),
        ("results.jsonl", b'{"step": 1, "loss": 2}\n', "a row without `step` or `grad_norm_<view>`"),
        ("list.jsonl", b"[1, 2]\n", "a row without `step`"),
        ("model.bin", b"\x80\x02\x95\n\xff\xfe\n", "line 1 is not JSON"),
        ("broken.parquet", b"no parquet at all", "is not a conflict record"),
    ],
)
def test_other_files_are_told_from_records(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not a conflict record|{message}") as raised:
        list(read_conflict_rows(tmp_path / name))
    assert name in str(raised.value)
    assert message in str(raised.value)


def test_a_record_broken_in_the_middle_is_reported(tmp_path):
    path = write(tmp_path, 3)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "{half\n" + lines[2])
    with pytest.raises(ValueError, match=r"conflicts\.jsonl is not a conflict record: line 2 is not JSON"):
        list(read_conflict_rows(path))


def test_no_such_file(tmp_path):
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(FileNotFoundError, match=name):
            list(read_conflict_rows(tmp_path / name))


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
    rows[1]["cosine_clean_augmented"], rows[2]["cosine_clean_augmented"] = 0.0, 1e-9  # neither is a conflict
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


def test_modules_of_other_views_are_null_in_parquet(tmp_path):
    record = ConflictRecord(tmp_path, "parquet")
    record.begin(0)
    record.append(make_rows(1, modules=["in", "out"]) + make_rows(1, views=["a", "b"], modules=["in", "out"]))
    record.finish()
    history = ConflictHistory.read(tmp_path)
    np.testing.assert_array_equal(history.module_cosines[PAIR], [[0.0, 0.1], [np.nan, np.nan]])


def test_memory_of_a_long_record():
    # A run of days has a million updates.
    count, modules = 2000, [f"layers.{i}" for i in range(10)]
    tracemalloc.start()
    history = ConflictHistory(row for _ in range(count) for row in make_rows(1, modules=modules))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(history.steps) == count
    assert peak / count < 500  # 346; 884 with one Python object per number


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
