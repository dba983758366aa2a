import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_gradalign.data import CorpusError
from hf_gradalign.data.corpora import protocol_file
from hf_gradalign.data.corpora.protocol_file import read_delimited, read_words

words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=5).filter(
    lambda word: "\ufeff" not in word
)
gaps = st.text(" \t", min_size=1, max_size=3)


@pytest.fixture(scope="module")
def protocol(tmp_path_factory):
    return tmp_path_factory.mktemp("protocols") / "p.txt"


@settings(max_examples=15)  # of up to eight lines each
@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=8), gaps, st.sampled_from(["\n", "\r\n"]))
def test_any_white_space(protocol, rows, gap, end):
    path = protocol
    text = end.join(f"{gap if index % 2 else ''}{gap.join(row)}{gap}" for index, row in enumerate(rows))
    path.write_bytes(text.encode())
    table = read_words(path, lambda path, first: {"last": 2, "first": 0})
    assert table.column_names == ["last", "first"]
    assert table["first"].to_pylist() == [row[0] for row in rows]
    assert table["last"].to_pylist() == [row[2] for row in rows]


def test_lines_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol_file, "_BLOCK_BYTES", 64)
    rows = [f"S{index}   U{index:04d} \t {'x' * (index % 40)}y" for index in range(500)]
    (tmp_path / "p.txt").write_text("\n".join(rows))
    table = read_words(tmp_path / "p.txt", lambda path, first: {"name": 1, "rest": 2})
    assert table["name"].to_pylist() == [f"U{index:04d}" for index in range(500)]
    assert table["rest"].to_pylist() == [f"{'x' * (index % 40)}y" for index in range(500)]


def test_line_numbers_match_an_editor(tmp_path):
    (tmp_path / "p.txt").write_text("a b\n\n\nc d\ne\nf g\nh\n")
    with pytest.raises(CorpusError, match=r"p.txt, line 5: not 2 words, as the first has, nor have 1 other lines: 'e'"):
        read_words(tmp_path / "p.txt", lambda path, first: {"a": 0})


def test_values_between_delimiters(tmp_path):
    (tmp_path / "p.csv").write_bytes(b'\xef\xbb\xbfa,b\r\n1,"x, ""y"""\r\n,\r\n')
    assert read_delimited(tmp_path / "p.csv", ",").to_pydict() == {"a": ["1", None], "b": ['x, "y"', None]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,"x, y\n2,z\n', r"p.csv, line 2: not 2 values: '1,\"x, y'\. Check its quotation marks"),
        ('a,b\n1,"x, y\n2,z\n3,"x"\n', r"line 2: not 2 values"),
        ("a,b\n1,x\n\n2,y,z\n", r"line 4: not 2 values: '2,y,z'\. Fix it"),
        ("a,a\n1,2\n", "the header names a column twice"),
        ("\n\n", "has no rows"),
    ],
)
def test_unreadable_files(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(CorpusError, match=message):
        read_delimited(tmp_path / "p.csv", ",")


def test_stray_quotation_marks_join_no_lines(tmp_path):
    (tmp_path / "p.csv").write_text('a,b\n1,"x\n2,y\n3,"z\n4,w"\n5,\n')
    assert read_delimited(tmp_path / "p.csv", ",").to_pydict() == {
        "a": ["1", "2", "3", "4", "5"],
        "b": ['"x', "y", '"z', 'w"', None],
    }


def test_a_quoted_value_may_span_lines(tmp_path):
    for end in (b"\n", b"\r\n", b"\r"):
        text = b'a,"b, c"\n1,"x\ry\r\n\nz"\n2,w'.replace(b"\n", end)
        (tmp_path / "p.csv").write_bytes(text)
        value = f"x\ry\r{end.decode() * 2}z"
        assert read_delimited(tmp_path / "p.csv", ",").to_pydict() == {"a": ["1", "2"], "b, c": [value, "w"]}


def test_without_quotes(tmp_path):
    (tmp_path / "p.csv").write_text('a|b\n1|"x\n2|y"\n')
    assert read_delimited(tmp_path / "p.csv", "|", quoted=False)["b"].to_pylist() == ['"x', 'y"']


def test_memory_does_not_grow_with_the_file(tmp_path):
    # Only the requested columns stay in memory, and not a word of 1,000 letters per line.
    path = tmp_path / "p.txt"
    with path.open("w") as file:
        for index in range(2000):
            file.write(f"{index} {'x' * 1000}\n")
    assert read_words(path, lambda path, first: {"index": 0}).nbytes < 50_000
    assert path.stat().st_size > 2_000_000
