import pytest

from hf_gradalign.data import CorpusError
from hf_gradalign.study import cell_process
from hf_gradalign.study.cell_folder import CellFolder
from hf_gradalign.study.definition import EvaluationSet


def test_an_evaluation_set_that_is_not_there_is_missed_before_training(tmp_path, monkeypatch):
    def train(folder, tokens):
        raise AssertionError("it trains")

    monkeypatch.setattr(cell_process, "_train", train)
    sets = [EvaluationSet("demo", None, "validation"), EvaluationSet("wild", f"in_the_wild:{tmp_path / 'gone'}")]
    with pytest.raises((CorpusError, OSError), match="gone"):
        cell_process.run_cell(CellFolder(tmp_path / "cell"), tmp_path / "clips", sets)
