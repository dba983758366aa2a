import shutil

import pytest
from pyarrow import parquet

from hf_gradalign.study import StudyTables
from hf_gradalign.study.cell_folder import CellFolder
from hf_gradalign.study.definition import EvaluationSet


def folders(study, place):
    return {cell.id: CellFolder(place / "cells" / cell.id) for cell in study.cells}


def test_a_row_a_cell_and_evaluation_set(finished_study, small_study):
    rows = parquet.read_table(finished_study / "results.parquet").to_pylist()
    assert len(rows) == 24
    first = rows[0]
    assert (first["method"], first["batch_size"], first["seed"], first["evaluation_set"]) == ("dual_path", 5, 0, "test")
    assert len(first["scores"]) == 60
    assert first["n_forward_passes"] == 200
    assert [row["cell"] for row in rows[::2]] == [cell.id for cell in small_study.cells]
    epochs = parquet.read_table(finished_study / "epochs.parquet").to_pylist()
    assert len(epochs) == 8 * 2 + 2 * 2 + 2 * 4
    assert epochs[1]["module_conflict_rate"] == [0.2, 0.4]
    assert parquet.read_table(finished_study / "clips.parquet").num_rows == 120


def test_finished_cells_are_known_without_their_folders(finished_study, small_study):
    before = (finished_study / "results.parquet").read_bytes()
    shutil.rmtree(finished_study / "cells")
    shutil.rmtree(finished_study / "evaluation_sets")
    tables = StudyTables(finished_study)
    assert all(tables.has(cell, small_study.evaluation_sets) for cell in small_study.cells)
    tables.update(small_study, folders(small_study, finished_study), finished_study / "evaluation_sets")
    assert (finished_study / "results.parquet").read_bytes() == before


def test_a_cell_is_unfinished_until_it_is_scored_on_every_set(tmp_path, small_study, write_cell, clips_folder):
    cell = small_study.cells[0]
    write_cell(small_study, cell, sets=small_study.evaluation_sets[:1])
    StudyTables(tmp_path).update(small_study, folders(small_study, tmp_path), clips_folder)
    tables = StudyTables(tmp_path)
    assert tables.has(cell, small_study.evaluation_sets[:1])
    assert not tables.has(cell, small_study.evaluation_sets)


@pytest.mark.parametrize("changed", [{"split": "train"}, {"corpus": "other"}, {"subset": "all"}])
def test_a_set_that_is_defined_anew_is_not_scored_yet(finished_study, small_study, changed):
    tables = StudyTables(finished_study)
    other = EvaluationSet(**{"name": "test", "corpus": "demo", **changed})
    assert not tables.has(small_study.cells[0], [other])
