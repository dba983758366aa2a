"""Stray quotation marks swallow no lines, and quoted values that span lines stay whole."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_gradalign.data.corpora.delimited_rows import split_rows

HEADER = ["utterance_id", "score", "key", "text"]
KEYS = ("spoof", "bonafide")


def rows_with(texts, column=3):
    rows = [[f"u{index}", f"{index / 7:.4f}", KEYS[index % 2], text] for index, text in enumerate(texts)]
    return rows if column == 3 else [[row[3], *row[:3]] for row in rows]


def joined(rows, delimiter):
    return [delimiter.join(row) for row in rows]


def values_of(lines, delimiter):
    return [row.values for row in split_rows(lines, delimiter)]


@settings(max_examples=60)
@given(st.lists(st.text('a "', max_size=4), min_size=2, max_size=30), st.sampled_from(",;|\t"), st.sampled_from([0, 3]))
def test_no_quotation_mark_swallows_a_row(texts, delimiter, column):
    rows = rows_with(texts, column)
    header = HEADER if column == 3 else [HEADER[3], *HEADER[:3]]
    split = list(split_rows([delimiter.join(header), *joined(rows, delimiter)], delimiter))
    assert [row.n_lines for row in split] == [1] * (len(rows) + 1)
    others = slice(0, 3) if column == 3 else slice(1, 4)
    assert [row.values[others] for row in split[1:]] == [row[others] for row in rows]


@settings(max_examples=60)
@given(st.lists(st.text('a"\n,\t', max_size=8), max_size=4), st.sampled_from(",\t"))
def test_values_that_are_quoted_as_a_whole_may_hold_anything(texts, delimiter):
    # A line of a text may have as many delimiters as a row, but has no number where rows have one.
    rows = [HEADER, *rows_with([*"xxxx", *texts])]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    assert values_of(text.getvalue().split("\n"), delimiter) == rows


STRAY = {
    "at the start of a value": ['x"Hello', '"Hello, he said', "x"],
    "twice, many rows apart": ['"Hello', *"x" * 40, '"Bye', "x"],
    "opened and closed in other rows": ['"Hello', *"x" * 40, 'Bye"', "x"],
    "opened and closed in the next row": ["x", '"Hello', 'Bye"', "x"],
    "alone": ["x", '"', "x", "x", '"', "x"],
    "in inches": ['12"', '5"', "x"],
    "in the last row": ["x", "x", '"Hello'],
}


@pytest.mark.parametrize("kind", STRAY)
@pytest.mark.parametrize("column", [0, 3])
def test_stray_quotation_marks_are_ordinary_characters(kind, column):
    rows = rows_with(STRAY[kind], column)
    header = HEADER if column == 3 else [HEADER[3], *HEADER[:3]]
    assert values_of(joined([header, *rows], "\t"), "\t") == [header, *rows]


def test_stray_marks_that_enclose_a_delimiter():
    assert values_of(["utt\tfirst\tsecond", 'a\t"x\ty"'], "\t")[1] == ["a", '"x', 'y"']
    assert values_of(["utt\ttext", 'a\t"x\ty"'], "\t")[1] == ["a", "x\ty"]


def test_two_rows_are_enough_to_detect_a_stray_mark():
    lines = ["file,text", 'a,"x', 'b,y"']  # nothing says what rows look like, but their number of values
    assert values_of(lines, ",") == [["file", "text"], ["a", '"x'], ["b", 'y"']]


def test_line_numbers_match_an_editor():
    lines = ["a,b", "", '1,"x', 'y"', "2,z", '3,"x"y,z']
    assert [tuple(row) for row in split_rows(lines, ",")] == [
        (1, ["a", "b"], 1),
        (3, ["1", "x\ny"], 2),
        (5, ["2", "z"], 1),
        (6, ["3", '"x"y', "z"], 1),  # neither reading has two values, which the caller must refuse
    ]
    assert next(split_rows(['"a,b",c'], ",")).values == ["a,b", "c"]
