"""Tables that would take hours or all memory to read raise an error with a reason."""

import json
import struct

import pytest

from hf_gradalign.data import CorpusError, load_corpus
from hf_gradalign.score_files import ScoreFileError, read_keys, read_scores
from hf_gradalign.utils.file_faults import json_fault, weights_fault

DIGITS = "9" * 20_000
DEEP_LIST = "[" * 100_000
DEEP_OBJECT = '{"a":' * 100_000 + "1" + "}" * 100_000
WIDE = 60_000
LONG = 3_000_000

TABLES = {
    "digits.txt": (f"a {DIGITS}\nb 1\n", "1 of 2 scores are NaN or infinite"),
    "digits.jsonl": (f'{{"utterance_id": "a", "score": {DIGITS}}}\n', "1 of 1 scores are NaN or infinite"),
    "wide.txt": ("a " * 12_000 + "\n", "has 12,000 columns; at most 10,000 are supported"),
    "wide.csv": (",".join(f"c{n}" for n in range(WIDE // 2)) + "\n", "has 30,000 columns"),
    "wide.jsonl": (json.dumps({f"c{n}": 1 for n in range(WIDE // 4)}) + "\n", "has 15,000 columns|10,001 columns"),
    "long.txt": ("a" * LONG, "is not a table: at its start there is no line end for 1,048,576 bytes"),
    "long_row.csv": ("id,score\na," + "1," * LONG, "is not a table: after 1,048,576 bytes there is no line end"),
    "long.jsonl": ("[" + " " * LONG, "is not a table: at its start"),
    "deep.json": (DEEP_LIST, "nested too deeply"),
    "deep.jsonl": (DEEP_OBJECT + "\n", "nested too deeply"),
}


@pytest.mark.parametrize("name", TABLES)
def test_score_and_key_files(tmp_path, name):
    text, reason = TABLES[name]
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ScoreFileError, match=reason):
        read_scores(path)
    with pytest.raises(ScoreFileError):
        read_keys(path)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("metadata.csv", "x," * LONG + "\n", "is not a table"),
        ("metadata.csv", ",".join(f"c{n}" for n in range(WIDE // 2)) + "\n1\n", "has 30,000 columns"),
        ("metadata.jsonl", f'{{"file_name": "a.wav", "label": {DIGITS}}}\n', "Cannot read .*metadata.jsonl: Exceeds"),
        ("metadata.jsonl", f'{{"file_name": "a.wav", "label": {DEEP_LIST}\n', "metadata.jsonl: .* nested too deeply"),
        ("metadata.jsonl", json.dumps({f"c{n}": 1 for n in range(WIDE // 4)}) + "\n", "15,000 columns"),
    ],
)
def test_metadata(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match=reason):
        load_corpus(str(tmp_path), splits=("train",))


def test_lines_of_a_megabyte_are_read(tmp_path):
    path = tmp_path / "scores.jsonl"
    rows = [{"utterance_id": f"u{n}", "score": n / 7, "notes": "x" * 800_000} for n in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_scores(path)) == 3


def test_headers_and_settings(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 10 << 30) + b'{"a"')
        file.truncate(11 << 30)  # sparse: takes no space
    assert "has a header of 10,737,418,240 bytes, but safetensors allows at most 100,000,000" in weights_fault(path)
    header = DEEP_OBJECT.encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert "has a damaged header" in weights_fault(path)
    config = tmp_path / "config.json"
    with config.open("wb") as file:
        file.truncate(12 << 30)
    assert "12,884,901,888 bytes, which is too large for a settings file" in json_fault(config)
