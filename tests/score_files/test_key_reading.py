"""Key files: protocols and keys of the challenges, tables, the Arena's parquet files, and corpora."""

import decimal
import json

import corpus_trees
import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_gradalign.score_files import ScoreFileError, read_keys, read_keys_of_corpus


@pytest.fixture
def write(tmp_path):
    def write(text, name="keys.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def columns_of(clips):
    return {name: column.to_pylist() for name, column in clips.columns.items()}


@pytest.mark.parametrize(
    ("given", "ids"), [("UttID", ["a", "b"]), ("utt_id", ["c", "d"]), ("utt id", ["c", "d"]), (None, ["c", "d"])]
)
def test_a_column_may_be_named_in_another_spelling(tmp_path, given, ids):
    table = {"utt_id": ["c", "d"], "UttID": ["a", "b"], "label": ["spoof", "bonafide"]}
    pq.write_table(pa.table(table), tmp_path / "keys.parquet")
    assert read_keys(tmp_path / "keys.parquet", id_column=given).utterance_ids.to_pylist() == ids


def test_asvspoof2019(write):
    clips = read_keys(write("LA_0069 LA_D_1047731 - - bonafide\nLA_0069 LA_D_1105538 - A01 spoof\n"))
    assert clips.utterance_ids.to_pylist() == ["LA_D_1047731", "LA_D_1105538"]
    assert clips.labels.tolist() == [1, 0]
    columns = columns_of(clips)
    assert columns["speaker"] == ["LA_0069", "LA_0069"]
    assert columns["system"] == ["-", "A01"]


LA2021 = """LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval
LA_0020 LA_E_6866159 alaw ita_tx bonafide bonafide notrim eval
LA_0009 LA_E_5464494 alaw ita_tx A07 spoof notrim progress
LA_0010 LA_E_5932896 ulaw loc_tx bonafide bonafide trim hidden
"""


def test_asvspoof2021_la(write):
    path = write(LA2021, "trial_metadata.txt")
    clips = read_keys(path)
    assert clips.utterance_ids.to_pylist() == ["LA_E_9332881", "LA_E_6866159"]
    assert clips.labels.tolist() == [0, 1]
    assert clips.notes == (f"Subset eval of {path}: 2 of 4 clips.",)
    columns = columns_of(clips)
    assert columns["system"] == ["A07", "-"]
    assert columns["codec"] == ["alaw", "alaw"]
    assert columns["condition"] == ["ita_tx", "ita_tx"]
    assert clips.other_ids.to_pylist() == ["LA_E_5464494", "LA_E_5932896"]
    for subset, n_clips in (("progress", 1), ("hidden", 1), ("hidden_track", 1), ("all", 4)):
        assert len(read_keys(path, subset=subset)) == n_clips
    with pytest.raises(ScoreFileError, match=r"has no subset 'dev'\. Its subsets are eval, hidden, progress"):
        read_keys(path, subset="dev")
    assert len(read_keys(path.parent)) == 2  # its folder


def test_the_first_keys_of_2021_call_the_hidden_subset_otherwise(write):
    path = write(LA2021.replace("hidden", "hidden_track"))
    assert read_keys(path, subset="hidden").utterance_ids.to_pylist() == ["LA_E_5932896"]


def test_asvspoof2021_df(write):
    text = (
        "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -\n"
        "TEF2 DF_E_2000013 low_m4a vcc2020 Task1-team20 spoof notrim eval neural_vocoder_autoregressive Task1 team20 "
        "FF E\n"
        "TGF1 DF_E_2000024 mp3m4a vcc2020 - bonafide notrim eval bonafide - - - -\n"
    )
    clips = read_keys(write(text))
    assert clips.utterance_ids.to_pylist() == ["DF_E_2000013", "DF_E_2000024"]
    columns = columns_of(clips)
    assert columns["vocoder"] == ["neural_vocoder_autoregressive", "bonafide"]
    assert columns["language"] == ["E", "-"]
    assert columns["codec"] == ["low_m4a", "mp3m4a"]


PA2021 = """PA_0010 PA_E_1000001 R3 M3 d4 r1 m1 s4 c4 spoof notrim eval
PA_0011 PA_E_1000002 R3 M1 D4 - - - - bonafide notrim eval
PA_0012 PA_E_1000004 R6 M2 d1 r4 m2 s3 c3 spoof trim hidden
"""
PA_COLUMNS = {
    "speaker": ["PA_0010", "PA_0011"],
    "asv_room": ["R3", "R3"],
    "asv_mic": ["M3", "M1"],
    "distance_to_asv": ["d4", "D4"],
    "attacker_room": ["r1", "-"],
    "attacker_mic": ["m1", "-"],
    "replay_device": ["s4", "-"],
    "distance_to_talker": ["c4", "-"],
}


def test_physical_access_of_2021(write):
    clips = read_keys(write(PA2021, "trial_metadata.txt"))
    assert clips.utterance_ids.to_pylist() == ["PA_E_1000001", "PA_E_1000002"]
    assert clips.labels.tolist() == [0, 1]
    assert columns_of(clips) == {**PA_COLUMNS, "subset": ["eval", "eval"], "trim": ["notrim", "notrim"]}


def test_physical_access_with_fewer_or_named_columns(write):
    # A distance is never a system, in any column.
    shorter = write("\n".join(" ".join(line.split()[:10]) for line in PA2021.splitlines()[:2]))
    assert columns_of(read_keys(shorter)) == PA_COLUMNS
    header = "spk trial asv_room asv_mic dis_to_asv att_room att_mic att_d att_to_spk label trim subset\n"
    named = read_keys(write(header + PA2021))
    assert {name: columns_of(named)[name] for name in PA_COLUMNS} == PA_COLUMNS
    first_release = read_keys(
        write("PA_0010 PA_E_1 x1 y1 spoof notrim eval\nPA_0011 PA_E_2 x2 - bonafide notrim eval\n")
    )
    assert set(first_release.columns) == {"speaker", "column_3", "column_4", "trim", "subset"}


def test_physical_access_of_2019(write):
    clips = read_keys(write("PA_0079 PA_T_1 aaa - bonafide\nPA_0079 PA_T_2 cbb BC spoof\n"))
    assert clips.utterance_ids.to_pylist() == ["PA_T_1", "PA_T_2"]
    assert columns_of(clips) == {"speaker": ["PA_0079"] * 2, "system": ["-", "BC"], "environment": ["aaa", "cbb"]}


def test_the_numbered_hidden_subsets_of_the_first_release(write):
    path = write(
        PA2021.replace("notrim eval", "notrim hidden_track_1").replace("trim hidden\n", "trim hidden_track_2\n")
    )
    for subset, n_clips in (("hidden", 3), ("hidden_track_1", 2), ("hidden_track_2", 1), ("all", 3)):
        assert len(read_keys(path, subset=subset)) == n_clips


def test_asvspoof5(write):
    text = (
        "E_1607 E_0009538969 M - - - - bonafide bonafide -\nE_1607 E_0000001226 F C05 1 E_0000000001 AC3 A17 spoof -\n"
    )
    clips = read_keys(write(text, "ASVspoof5.eval.track_1.tsv"))
    assert clips.utterance_ids.to_pylist() == ["E_0009538969", "E_0000001226"]
    assert clips.labels.tolist() == [1, 0]
    columns = columns_of(clips)
    assert columns["system"] == ["-", "A17"]
    assert columns["codec"] == ["-", "C05"]
    assert columns["gender"] == ["M", "F"]


def test_keys_of_the_asvspoof5_package(write):
    clips = read_keys(write("filename\tcm-label\nE_1\tbonafide\nE_2\tspoof\n"))
    assert clips.labels.tolist() == [1, 0]
    lines = [
        "spk filename cm-label asv-label codec attack_anon",
        "E_1 U_1 bonafide target - bonafide",
        "E_2 U_1 bonafide nontarget C1 bonafide",
        "E_1 U_2 spoof spoof - A1",
    ]
    path = write("\n".join(lines))
    clips = read_keys(path)
    assert clips.labels.tolist() == [1, 1, 0]
    assert clips.trial_types is None
    assert columns_of(clips)["system"] == ["-", "-", "A1"]
    trials = read_keys(path, of_trials=True)
    assert trials.trial_types.tolist() == ["target", "nontarget", "spoof"]
    assert trials.utterance_ids.to_pylist() == ["E_1 U_1", "E_2 U_1", "E_1 U_2"]


def test_in_the_wild(write):
    path = write('file,speaker,label\n0.wav,Alec Guinness,spoof\n1.wav,"Guinness, Alec",bona-fide\n', "itw/meta.csv")
    clips = read_keys(path)
    assert clips.utterance_ids.to_pylist() == ["0.wav", "1.wav"]
    assert clips.labels.tolist() == [0, 1]
    assert columns_of(clips) == {"speaker": ["Alec Guinness", "Guinness, Alec"]}
    assert len(read_keys(path.parent)) == 2


def test_other_tables(write):
    clips = read_keys(write("utt;Key;language\na;Real;en\nb;Fake;de\n", "x.csv"))
    assert clips.labels.tolist() == [1, 0]
    assert columns_of(clips) == {"language": ["en", "de"]}
    path = write("name,class\na,0\nb,1\n", "y.csv")
    with pytest.raises(ScoreFileError, match="labels must be bonafide or spoof; found '0', '1'"):
        read_keys(path)
    assert read_keys(path, label_map={"0": "bonafide", "1": "spoof"}).labels.tolist() == [1, 0]


def test_the_arenas_folder(tmp_path):
    (tmp_path / "data").mkdir()
    notes = [{"utterance_id": f"u{k}", "speaker_id": "s", "attack": "A1", "codec": "opus"} for k in range(4)]
    rows = {
        "path": [f"flac/u{k}.flac" for k in range(4)],
        "audio": [{"bytes": b"never read", "path": None}] * 4,
        "label": pa.array([0, 1, 1, 0], pa.int64()),
        "notes": list(map(json.dumps, notes)),
    }
    for shard in (0, 1):
        part = {name: column[2 * shard : 2 * shard + 2] for name, column in rows.items()}
        pq.write_table(pa.table(part), tmp_path / f"data/test-0000{shard}-of-00002.parquet")
    clips = read_keys(tmp_path)
    assert clips.utterance_ids.to_pylist() == ["u0", "u1", "u2", "u3"]
    assert clips.labels.tolist() == [1, 0, 0, 1]  # the Arena's 0 is bona fide
    columns = columns_of(clips)
    assert columns["system"] == ["-", "A1", "A1", "-"]
    assert columns["codec"] == ["opus"] * 4
    (tmp_path / "only_labels").mkdir()
    table = pa.table({"utterance_id": ["a", "b"], "label": pa.array([1, 1], pa.int8())})
    pq.write_table(table, tmp_path / "only_labels/labels.parquet")
    with pytest.raises(ScoreFileError, match="found '1'"):
        read_keys(tmp_path / "only_labels")
    (tmp_path / "only_labels/eval.yaml").touch()
    assert read_keys(tmp_path / "only_labels").labels.tolist() == [0, 0]


@pytest.mark.parametrize(
    "notes", [["noisy", ""], ['{"utterance_id": "u0"}', "noisy"], ["{}", "{}"], [1, 2], ["[]", "1"]]
)
def test_other_notes_do_not_make_numbers_labels(tmp_path, notes):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/test-00000-of-00001.parquet"
    pq.write_table(pa.table({"path": ["a", "b"], "label": [0, 1], "notes": notes}), path)
    for keys in (path, tmp_path):
        with pytest.raises(ScoreFileError, match="found '0', '1'"):
            read_keys(keys)
    clips = read_keys(tmp_path, label_map={"0": "spoof", "1": "bonafide"})
    assert clips.labels.tolist() == [0, 1]
    assert columns_of(clips) == {"notes": list(map(str, notes))}
    (tmp_path / "eval.yaml").touch()
    assert read_keys(tmp_path).labels.tolist() == [1, 0]


def test_parquet_whose_schema_names_the_labels(tmp_path):
    features = datasets.Features(
        {"id": datasets.Value("string"), "label": datasets.ClassLabel(names=["spoof", "bonafide"])}
    )
    dataset = datasets.Dataset.from_dict({"id": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    path = tmp_path / "keys.parquet"
    dataset.to_parquet(path)
    assert read_keys(path).labels.tolist() == [1, 0, 1]
    dataset.add_item({"id": "d", "label": -1}).to_parquet(path)
    with pytest.raises(ScoreFileError, match="found an empty value"):
        read_keys(path)
    pq.write_table(pa.table({"id": ["a"], "label": [1]}), path)
    with pytest.raises(ScoreFileError, match="found '1'"):
        read_keys(path)
    with pytest.raises(ScoreFileError, match="There is no file"):
        read_keys(tmp_path / "nothing.parquet")


def test_files_that_number_the_classes_differently(tmp_path):
    (tmp_path / "data").mkdir()
    for number, names in enumerate([["real", "fake"], ["fake", "real"]]):
        features = datasets.Features({"id": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
        dataset = datasets.Dataset.from_dict({"id": [str(number)], "label": [0]}, features=features)
        dataset.to_parquet(tmp_path / "data" / f"test-{number}.parquet")
    with pytest.raises(ScoreFileError, match=r"test-0.parquet and .*test-1.parquet number the classes"):
        read_keys(tmp_path)
    assert read_keys(tmp_path / "data" / "test-1.parquet").labels.tolist() == [0]
    dataset.cast_column("label", datasets.ClassLabel(names=["Genuine", "spoof"])).to_parquet(
        tmp_path / "data" / "test-1.parquet"
    )
    assert read_keys(tmp_path).labels.tolist() == [1, 1]


def test_clips_of_a_corpus_without_a_label_are_skipped(tmp_path):
    lines = ["file_name,key,id"]
    for index, label in enumerate(["1", "?", "0", "-1"]):
        corpus_trees.write_clip(tmp_path / f"{index}.wav", index)
        lines.append(f"{index}.wav,{label},{index + 10}")
    corpus_trees.write_lines(tmp_path / "clips.csv", lines)
    options = {"label_column": "key", "id_column": "id"}
    clips = read_keys_of_corpus(str(tmp_path / "clips.csv"), label_map={"0": "spoof", "1": "bonafide"}, **options)
    assert clips.utterance_ids.to_pylist() == ["10", "12"]
    assert clips.labels.tolist() == [1, 0]
    assert "2 of 4 clips of" in clips.notes[0]
    assert clips.other_ids.to_pylist() == ["11", "13"]
    with pytest.raises(ScoreFileError, match=r"None of the 4 clips of .*clips.csv, split test, has a label"):
        read_keys_of_corpus(str(tmp_path / "clips.csv"))


def test_a_named_column_is_in_the_header(write):
    table = '"Datei";"Klasse"\n"a.wav";"Bona-Fide"\n"b.wav";"FAKE"\n'
    clips = read_keys(write(table, "my table.csv"), id_column="Datei", label_column="Klasse")
    assert clips.utterance_ids.to_pylist() == ["a.wav", "b.wav"]
    assert clips.labels.tolist() == [1, 0]
    numbered = read_keys(write("3 a real\n4 b fake\n", "keys.txt"), id_column="2", label_column="3")
    assert numbered.utterance_ids.to_pylist() == ["a", "b"]


def test_labels_need_no_audio(tmp_path, caplog):
    wild = corpus_trees.in_the_wild(tmp_path)
    (tmp_path / "own").mkdir()
    corpus_trees.write_lines(tmp_path / "own" / "clips.csv", ["file_name,label", "a.wav,real", "b.wav,fake"])
    for file in wild.glob("*.wav"):
        file.unlink()
    assert read_keys_of_corpus(f"in_the_wild:{wild}").labels.tolist() == [0, 0, 1]
    assert read_keys_of_corpus(str(tmp_path / "own" / "clips.csv")).labels.tolist() == [1, 0]
    assert caplog.text == ""


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([1000, 1001], pa.int32()),
        pa.array([1000.0, 1001.0]),
        pa.array(["1000", "1001"]).dictionary_encode(),
        pa.array([" 1000", "1001\u00a0"], pa.large_string()),
        pa.array([decimal.Decimal(1000), decimal.Decimal(1001)]),
    ],
    ids=lambda ids: str(ids.type),
)
@pytest.mark.parametrize("labels", [["bonafide", "spoof"], pa.array(["real ", " Fake"]).dictionary_encode()])
def test_ids_and_labels_of_any_type(tmp_path, ids, labels):
    path = tmp_path / "keys.parquet"
    pq.write_table(pa.table({"Utterance ID": ids, "Label": labels, "snr": [1.5, 2.5]}), path)
    clips = read_keys(path)
    assert clips.utterance_ids.to_pylist() == ["1000", "1001"]
    assert clips.labels.tolist() == [1, 0]
    assert columns_of(clips) == {"snr": ["1.5", "2.5"]}


def test_labels_that_pandas_made_floats(tmp_path, write):
    pq.write_table(pa.table({"id": ["a", "b"], "label": [1.0, 0.0]}), tmp_path / "keys.parquet")
    for path in (tmp_path / "keys.parquet", write("id,label\na,1.0\nb,0.0\n", "keys.csv")):
        assert read_keys(path, label_map={"1": "bonafide", "0": "spoof"}).labels.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["keys.json", "keys.jsonl"])
def test_json(write, name):
    rows = [{"utterance_id": 1000, "label": "bona fide ", "speaker": None}, {"utterance_id": 1001, "label": "Spoof"}]
    clips = read_keys(write(json.dumps(rows) if name.endswith("json") else "\n".join(map(json.dumps, rows)), name))
    assert clips.utterance_ids.to_pylist() == ["1000", "1001"]
    assert clips.labels.tolist() == [1, 0]
    assert read_keys(write('{"a": "real", "b": "fake"}', "by_id.json")).labels.tolist() == [1, 0]


def test_lines_without_an_id(write, tmp_path):
    path = write("utt,label\na,bonafide\n ,spoof\n,spoof\n")
    with pytest.raises(ScoreFileError, match=r"2 of 3 lines have no utterance id; the first is number 2\. Name"):
        read_keys(path)
    pq.write_table(pa.table({"id": [1.0, None], "label": ["real", "fake"]}), tmp_path / "keys.parquet")
    with pytest.raises(ScoreFileError, match="1 of 2 lines have no utterance id"):
        read_keys(tmp_path / "keys.parquet")


def test_repeated_lines_that_differ_in_another_column_make_a_note(write):
    clips = read_keys(write("utt,label,attack,language\na,spoof,A1,en\nb,bonafide,-,en\na,spoof,A2,en\n"))
    assert columns_of(clips)["system"] == ["A1", "-"]
    assert "1 of 3 lines of" in clips.notes[0]
    assert "repeat an utterance id, with another system, and are skipped" in clips.notes[0]


def test_a_corpus_instead_of_keys():
    clips = read_keys_of_corpus("demo")
    assert set(clips.labels.tolist()) == {0, 1}
    assert len(set(clips.utterance_ids.to_pylist())) == len(clips) > 10


def test_a_corpus_whose_attacks_have_no_names(tmp_path):
    corpus_trees.asvspoof2021_pa(tmp_path)
    clips = read_keys_of_corpus(f"asvspoof2021_pa:{tmp_path}")
    assert columns_of(clips)["replay_device"] == ["s4", "-"]
    assert "system" not in clips.columns


def test_without_labels_or_ids(write, tmp_path):
    with pytest.raises(ScoreFileError, match=r"has no column with labels among column_1, column_2\. .*--label_column"):
        read_keys(write("a 1.0\nb 2.0\n"))
    with pytest.raises(ScoreFileError, match=r"has no column with utterance ids .*--id_column"):
        read_keys(write("label,speaker\nspoof,a\nspoof,a\n"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScoreFileError, match=r"is a folder without trial_metadata.txt"):
        read_keys(tmp_path / "empty")


def test_an_utterance_has_one_label(write):
    with pytest.raises(ScoreFileError, match=r"'a' has two values of the label: bonafide and spoof"):
        read_keys(write("utt,label\na,bonafide\nb,spoof\na,spoof\n"))
    clips = read_keys(write("utt,label\na,bonafide\nb,spoof\na,bonafide\n"))
    assert len(clips) == 2
