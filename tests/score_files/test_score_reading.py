"""Score files in all formats: ours, those of the challenges, and others."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_gradalign.score_files import ScoreFileError, read_scores
from hf_gradalign.score_files.writing import write_score_file

IDS = ["LA_E_1000147", "LA_E_1000273", "LA_E_1000791"]
SCORES = [1.25, -0.5, 3.0]


@pytest.fixture
def write(tmp_path):
    def write(text, name="scores.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def lines(separator, *columns, header=None):
    rows = [separator.join(map(str, row)) for row in zip(*columns, strict=True)]
    return "\n".join([*([header] if header else []), *rows]) + "\n"


def check(clips, labels=None):
    assert clips.utterance_ids.to_pylist() == IDS
    assert clips.scores.tolist() == SCORES
    assert (None if clips.labels is None else clips.labels.tolist()) == labels


@pytest.mark.parametrize(
    ("header", "score"),
    [
        ("UtteranceID,Score,cm", 1),  # in any spelling
        ("utt_id,score,cm_score", 2),  # the likelier name
        ("utterance_id,CM score,cm_score", 1),  # the first of two spellings
    ],
)
def test_names_of_columns(write, header, score):
    clips = read_scores(write(f"number,{header}\n7,a,1,2\n8,b,1,2\n"))
    assert clips.utterance_ids.to_pylist() == ["a", "b"]
    assert clips.scores.tolist() == [score] * 2


@pytest.mark.parametrize("separator", [" ", "\t", ",", ";", "|", "   ", ", ", " \t"])
@pytest.mark.parametrize("header", [False, True])
def test_two_columns(write, separator, header):
    check(read_scores(write(lines(separator, IDS, SCORES, header=f"filename{separator}score" if header else None))))


def test_line_ends_byte_order_marks_and_blanks_do_not_matter(write):
    text = "\r\n ".join(f"{name}  {score} " for name, score in zip(IDS, SCORES, strict=True))
    check(read_scores(write(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n")))


COMMAS = [str(score).replace(".", ",") for score in SCORES]
OTHER_FORMS = {
    "a header in another case": lines(",", IDS, SCORES, header="FileName,CM_Score"),
    "names in one word": lines(";", IDS, SCORES, header="UtteranceID;cmScore"),
    "a spreadsheet's semicolons and decimal commas": "\ufeff" + lines(";", IDS, COMMAS, header="Datei;Wert"),
    "the same without a header": lines(";", IDS, COMMAS),
    "decimal commas behind blanks": lines(" ", IDS, COMMAS),
    "decimal commas behind tabs": lines("\t", IDS, COMMAS, header="utt\tscore"),
    "decimal commas in quotes": lines(",", IDS, [f'"{score}"' for score in COMMAS], header="utt,score"),
    "quotes behind blanks": lines(" ", [f'"{name}"' for name in IDS], SCORES),
    "quotes around all": "\ufeff"
    + lines(",", [f'"{n}"' for n in IDS], [f'" {s}"' for s in SCORES], header='"utt","score"'),
    "a delimiter at the end": lines(",", IDS, SCORES, [""] * 3),
    "a delimiter at the end of the header too": lines(",", IDS, SCORES, [""] * 3, header="utt,score,"),
    "what Excel puts first": "sep=;\r\n" + lines(";", IDS, SCORES, header="utt;score"),
    "an index in front": lines(",", range(3), IDS, SCORES, header=",utt,score"),
    "hard blanks": lines(",", [f"\u00a0{name}\u200b" for name in IDS], SCORES),
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_other_forms(write, form):
    for line_end in ("\n", "\r\n"):
        clips = read_scores(write(OTHER_FORMS[form].replace("\r", "").replace("\n", line_end)))
        check(clips)
        assert not clips.columns or "index" in form


def test_commas_between_names_and_numbers_stay_delimiters(write):
    clips = read_scores(write("speaker 1,25\nspeaker 2,3\nspeaker 3,125\n"))
    assert clips.utterance_ids.to_pylist() == ["speaker 1", "speaker 2", "speaker 3"]
    assert clips.scores.tolist() == [25, 3, 125]
    clips = read_scores(write("clip 1,25\nclip 2,31\nclip 3,12\n"))
    assert clips.scores.tolist() == [25, 31, 12]


def test_commas_that_may_be_between_thousands(write):
    with pytest.raises(ScoreFileError, match="in scores such as 1,250 may be a decimal comma or separate thousands"):
        read_scores(write("a;1,250\nb;-2,500\n"))
    assert read_scores(write("a;1,250\nb;-0,500\n")).scores.tolist() == [1.25, -0.5]


def test_json_parquet_and_numbers_for_names(write, tmp_path):
    rows = [{"utterance_id": number, "score": score} for number, score in zip((7, 8, 9), SCORES, strict=True)]
    forms = {
        "a.json": json.dumps(rows),
        "a.jsonl": "\n".join(map(json.dumps, rows)),
        "b.json": json.dumps({str(row["utterance_id"]): row["score"] for row in rows}),
        "c.json": json.dumps({"utterance_id": dict(enumerate((7, 8, 9))), "score": dict(enumerate(SCORES))}),
        "d.json": json.dumps({"utterance_id": [7, 8, 9], "score": SCORES}),
    }
    paths = [write(text, name) for name, text in forms.items()]
    for name, ids in (("a", [7, 8, 9]), ("b", [7.0, 8.0, 9.0]), ("c", pa.array(["7", "8", "9"]).dictionary_encode())):
        paths.append(tmp_path / f"{name}.parquet")
        pq.write_table(pa.table({"utterance_id": ids, "score": SCORES}), paths[-1])
    for path in paths:
        clips = read_scores(path)
        assert clips.utterance_ids.to_pylist() == ["7", "8", "9"], path
        assert clips.scores.tolist() == SCORES
    digits = write('{"a": -1.1324817933200393e-05, "b": -13.842713356018066}', "e.json")
    assert read_scores(digits).scores.tolist() == [-1.1324817933200393e-05, -13.842713356018066]


@pytest.mark.parametrize("suffix", ["tsv", "csv", "txt"])
def test_stray_quotation_marks_lose_no_lines(write, suffix):
    separator = {"tsv": "\t", "csv": ",", "txt": "|"}[suffix]
    texts = ['"Hello'] + ["x"] * 60 + ['"Bye', "x", 'end"']
    names = [f"u{k}" for k in range(len(texts))]
    path = write(lines(separator, names, range(len(texts)), texts, header=f"utt{separator}score{separator}text"))
    clips = read_scores(path)
    assert clips.utterance_ids.to_pylist() == names
    assert clips.columns["text"].to_pylist() == texts
    assert clips.notes == ()


def test_quoted_values_that_span_lines_are_counted(write):
    texts = [f'"a, {k}\n\nb"' for k in range(3)]
    clips = read_scores(write(lines(",", IDS, SCORES, texts, header="utt,score,text")))
    check(clips)
    assert clips.columns["text"].to_pylist() == [f"a, {k}\n\nb" for k in range(3)]
    assert "6 lines of" in clips.notes[0]


def test_our_own_files_with_any_characters(tmp_path):
    names = ["a\tb.wav", 'a\nb "c".wav', "a\rb\r\nc", "LA_E_1"]
    notes = ["x\ty", "x\ny", "x\ry", '"']
    scores = [*SCORES, 4.0]
    for columns in (None, {"note": notes}):
        write_score_file(tmp_path / "own.txt", names, scores, columns)
        clips = read_scores(tmp_path / "own.txt")
        assert clips.utterance_ids.to_pylist() == names
        assert clips.scores.tolist() == scores
    assert clips.columns["note"].to_pylist() == notes


def test_pipes_are_read_once(write):
    with write(lines(" ", IDS, SCORES)).open("rb") as content:
        reading, writing = os.pipe()
        os.write(writing, content.read())
    os.close(writing)
    path = f"/dev/fd/{reading}"
    try:
        clips = read_scores(path)
        check(clips)
        assert clips.source == path
        with pytest.raises(ScoreFileError, match=f"{path} is empty"):
            read_scores(path)
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"a": 1, "b": 2, "a": 3}', "Cannot read .* an object has two different values for 'a'"),
        ("a.jsonl", '{"utt": "a", "score": 1}\n\n{"utt": "b", "score": 1, "score": 2}', "line 3: an object has two"),
        ("a.jsonl", '{"utt": "a", "score": 1}\n["b", 2]', r'row 2 is \["b", "2"\], not an object with values'),
        ("a.json", '[{"utt": "a", "score": 1}, {"x": [1, 2]}]', "row 2 is .*, not an object with values"),
        ("a.json", '[[{"label": "a", "score": 1}, {"label": "a", "score": 2}]]', "two different values for 'a'"),
        ("a.json", '{"settings": {"model": {"a": 1}}, "report": {"n": 1}}', "has no rows"),
        ("a.json", "{}", "has no rows. It should be a list of objects"),
        ("a.json", '{"dtype": "float32", "n_clips": 3, "model": {"a": 1}}', "has no rows"),
        ("a.json", '{"a": 1}\n{"a": 2}', r"Cannot read .* as JSON: .*\. Files with JSON Lines must end in \.jsonl"),
        ("a.jsonl", "a 1.0", "Cannot read .* as JSON"),
        ("a.jsonl", '{"utt": "a", "score": null}', "score number 1 is '', which is not a number"),
        ("a.json", '{"a": NaN, "b": 1.0}', "1 of 2 scores are NaN or infinite"),
        ("a.parquet", "no parquet", "Cannot read"),
        ("a.csv", b"PK\x03\x04\xff\xff", "is an Excel workbook or another archive. Save the sheet as CSV UTF-8"),
        ("a.npz", b"PK\x03\x04\xff\xff", "arrays or pickled objects, which are not read. Write a text file"),
        ("a.scores", b"\x93NUMPY\x01", "arrays or pickled objects, which are not read. Write a text file"),
        ("a.csv", "utt,score\na,1.0\n,2.0\n", "1 of 2 lines have no utterance id; the first is number 2"),
    ],
)
def test_refusals_of_other_kinds_of_files(write, name, text, message):
    with pytest.raises(ScoreFileError, match=message):
        read_scores(write(text, name))


def test_asvspoof2019(write):
    text = lines(" ", IDS, ["-", "A07", "-"], ["bonafide", "spoof", "bonafide"], SCORES)
    clips = read_scores(write(text))
    check(clips, [1, 0, 1])
    assert clips.columns["system"].to_pylist() == ["-", "A07", "-"]


def test_speaker_first(write):
    speakers, keys = ["LA_0015", "LA_0007", "LA_0007"], ["bonafide", "spoof", "bonafide"]
    for text in (
        lines(" ", speakers, IDS, SCORES, keys),
        lines(" ", speakers, IDS, ["-", "A07", "-"], keys, SCORES),
    ):
        clips = read_scores(write(text))
        check(clips, [1, 0, 1])
        assert clips.columns["speaker"].to_pylist() == speakers


def test_asvspoof5(write):
    check(read_scores(write(lines("\t", IDS, SCORES, header="filename\tcm-score"))))
    text = lines(
        "\t",
        ["E_1", "E_1", "E_2"],
        IDS,
        SCORES,
        [9, 8, 7],
        [5, 6, 7],
        header="spk\tfilename\tcm-score\tasv-score\tsasv-score",
    )
    clips = read_scores(write(text))
    check(clips)
    assert clips.columns["speaker"].to_pylist() == ["E_1", "E_1", "E_2"]
    assert read_scores(write(text), of_trials=True).scores.tolist() == [5, 6, 7]


def test_what_this_project_writes(tmp_path):
    write_score_file(tmp_path / "plain.txt", IDS, SCORES)
    check(read_scores(tmp_path / "plain.txt"))
    columns = {"label": ["bonafide", "spoof", "bonafide"], "system": ["-", "A01", "-"], "speaker": ["a b", "c", None]}
    write_score_file(tmp_path / "more.txt", IDS, SCORES, columns)
    clips = read_scores(tmp_path / "more.txt")
    check(clips, [1, 0, 1])
    assert clips.columns["speaker"].to_pylist() == ["a b", "c", ""]
    write_score_file(tmp_path / "blanks.txt", [f"{name} x" for name in IDS], SCORES)
    assert read_scores(tmp_path / "blanks.txt").utterance_ids.to_pylist() == [f"{name} x" for name in IDS]


def test_names_that_are_numbers(write):
    clips = read_scores(write("0 -13.84\n1 -16.22\n10 -1.4e-05\n"))
    assert clips.utterance_ids.to_pylist() == ["0", "1", "10"]
    assert clips.scores.tolist() == [-13.84, -16.22, -1.4e-05]


def test_an_utterance_that_is_called_like_a_column(write):
    clips = read_scores(write("file 1.25\nb -0.5\n"))
    assert clips.utterance_ids.to_pylist() == ["file", "b"]
    clips = read_scores(write("file,0,1\na,0.2,0.8\nb,0.4,0.6\n"), score_column="1")
    assert clips.utterance_ids.to_pylist() == ["a", "b"]


def test_scores_keep_every_digit(write):
    clips = read_scores(write("a -1.1324817933200393e-05\nb -13.842713356018066\n"))
    assert clips.scores.tolist() == [-1.1324817933200393e-05, -13.842713356018066]


def test_two_columns_of_scores_must_be_distinguished(write):
    path = write(lines(" ", IDS, [-2.9, -0.2, -0.0], SCORES))
    with pytest.raises(ScoreFileError, match=r"column_2, column_3 could be the scores\. Say which"):
        read_scores(path)
    check(read_scores(path, score_column="3"))


def test_columns_can_be_named(write):
    path = write(lines(",", [9, 8, 7], SCORES, IDS, [1, 0, 1], header="number,Bona Fide LLR,clip,is real"))
    with pytest.raises(ScoreFileError, match="has the columns number, Bona Fide LLR, clip, is real"):
        read_scores(path)
    names = {"score_column": "bona fide llr", "id_column": "clip", "label_column": "4"}
    with pytest.raises(ScoreFileError, match=r"found '1', '0'\. .*--label_map 0=spoof 1=bonafide"):
        read_scores(path, **names)
    check(read_scores(path, **names, label_map={"0": "spoof", "1": "bonafide"}), [1, 0, 1])
    with pytest.raises(ScoreFileError, match=r"has no column 'llr' \(--score_column\)\. Its columns are number, Bona"):
        read_scores(path, score_column="llr")


def test_a_column_of_integers_is_not_a_label_by_itself(write):
    path = write(lines(" ", IDS, SCORES, [1, 0, 1]))
    with pytest.raises(ScoreFileError, match="column_2, column_3 could be the scores"):
        read_scores(path)
    check(read_scores(path, score_column="2", label_column="3", label_map={"1": "bonafide", "0": "spoof"}), [1, 0, 1])


def test_files_without_ids(write):
    clips = read_scores(
        write("asv_score,cm_score,sasv_label\n0.1,1.25,1.0\n0.2,-0.5,3.0\n0.3,3,2.0\n"),
        label_map={"1.0": "bonafide", "2.0": "bonafide", "3.0": "spoof"},
    )
    assert clips.scores.tolist() == SCORES
    assert clips.labels.tolist() == [1, 0, 1]
    assert "has no utterance ids. Its lines are numbered" in clips.notes[0]


def test_scores_that_are_high_for_spoofs(write):
    path = write(lines(" ", IDS, [-score for score in SCORES]))
    check(read_scores(path, higher_is="spoof"))


def test_trials_of_speaker_verification(write):
    text = "LA_0015 LA_E_1 6.9 target\nLA_0007 LA_E_1 6.1 nontarget\nLA_0007 LA_E_2 -2.3 spoof\n"
    clips = read_scores(write(text))
    assert clips.trial_types.tolist() == ["target", "nontarget", "spoof"]
    assert clips.labels.tolist() == [1, 1, 0]
    assert clips.utterance_ids.to_pylist() == ["LA_0015 LA_E_1", "LA_0007 LA_E_1", "LA_0007 LA_E_2"]


def test_lines_that_repeat_others(write):
    path = write("a 1.0\nb 2.0\na 1.0\n")
    clips = read_scores(path)
    assert clips.utterance_ids.to_pylist() == ["a", "b"]
    assert "1 of 3 lines of" in clips.notes[0]
    with pytest.raises(ScoreFileError, match=r"'a' has two values of the score: 1\.0 and 1\.5"):
        read_scores(write("a 1.0\nb 2.0\na 1.5\n"))
    with pytest.raises(ScoreFileError, match="'a' has two values of the label: bonafide and spoof"):
        read_scores(write("a 1.0 bonafide\nb 2.0 spoof\na 1.0 spoof\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("utt score\n", "has a header but no rows"),
        ("a 1.0\nb nan\nc inf\n", "2 of 3 scores are NaN or infinite; the first is number 2"),
        ("a 1.0\nb 2.0 3.0\n", r"line 2: not 2 words, as the first has: 'b 2\.0 3\.0'"),
        ("a,1.0\nb,2.0,3.0\n", r"scores.txt, line 2: not 2 values: 'b,2\.0,3\.0'"),
        ("sep=;\nutt;score;x\na;1.0;y\n\nb\n", "scores.txt, line 5: not 3 values: 'b'"),
        ("utt score\na 1.0\nb -\n", "score number 2 is '-', which is not a number"),
        ("a -\nb 2.0\n", r"column_2 could be the scores\. Value number 1 of column_2 is '-', which is not a number"),
        ("a bonafide\nb spoof\n", "none of them could be the scores"),
        ("utt score score\na 1 2\n", "the header has score more than once"),
        ("utt score\na 1\nb 1_000\n", "score number 2 is '1_000', which is not a number"),
        ("1.0\n2.0\n", "has only one column. Scores need the utterance ids"),
        (b"\xff\xfe\x00a", "not UTF-8 text .*. Unpack it if it is compressed"),
    ],
)
def test_refusals(write, text, message):
    with pytest.raises(ScoreFileError, match=message):
        read_scores(write(text))


def test_a_message_does_not_quote_a_whole_file(write):
    for text in ("a 1.0\rb 2.0\r" * 1000, "a,1.0\n" + "b," * 5000):
        with pytest.raises(ScoreFileError) as caught:
            read_scores(write(text))
        assert len(str(caught.value)) < 600


def test_a_file_must_be_there(tmp_path):
    with pytest.raises(ScoreFileError, match="There is no file"):
        read_scores(tmp_path / "nothing.txt")
    with pytest.raises(ScoreFileError, match="is a folder"):
        read_scores(tmp_path)


def test_scores_are_arrays_that_metrics_take(write):
    clips = read_scores(write(lines(" ", IDS, SCORES)))
    assert clips.scores.dtype == np.float64
    assert len(clips) == 3
