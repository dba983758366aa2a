import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets

from hf_gradalign.data.arrow import AudioColumn, arrow_column

N = 7
TABLE = {
    "audio": [{"bytes": bytes([n]), "path": f"{n}.wav"} for n in range(N)],
    "name": [None if n == 3 else f"clip {n}" for n in range(N)],
}
DATASETS = {
    "whole": lambda whole: whole,
    "formatted": lambda whole: whole.with_format("numpy", columns=["name"]),
    "selected": lambda whole: whole.select([5, 1, 3, 3]),
    "contiguous": lambda whole: whole.select(range(2, 6)),
    "shuffled": lambda whole: whole.shuffle(seed=1),
    "empty": lambda whole: whole.select([]),
    "several tables": lambda whole: concatenate_datasets([whole, whole.select([6, 0])]),
    "again": lambda whole: whole.select([6, 5, 4, 3]).select([3, 0]),
}


@pytest.mark.parametrize("kind", DATASETS)
@pytest.mark.parametrize("name", TABLE)
def test_a_column_has_the_rows_of_the_data_set_in_their_order(kind, name):
    dataset = DATASETS[kind](Dataset.from_dict(TABLE))
    column = arrow_column(dataset, name)
    assert isinstance(column, pa.ChunkedArray)
    assert column.to_pylist() == dataset.with_format(None)[name][:]


def test_a_column_of_a_whole_table_is_not_copied():
    dataset = Dataset.from_dict(TABLE)
    addresses = [
        [buffer.address for chunk in column.chunks for buffer in chunk.buffers() if buffer]
        for column in (dataset.data.column("name"), arrow_column(dataset, "name"))
    ]
    assert addresses[0] == addresses[1]


@pytest.mark.parametrize("kind", DATASETS)
def test_audio_is_read_on_access(kind):
    dataset = DATASETS[kind](Dataset.from_dict(TABLE)).with_format(None).select_columns(["audio"])
    column = AudioColumn(dataset)
    assert len(column) == len(dataset)
    assert [column[index] for index in range(len(dataset))] == column[:] == dataset["audio"][:]
    if len(dataset):
        assert column[np.array([len(dataset) - 1, 0])] == [column[len(dataset) - 1], column[0]]
