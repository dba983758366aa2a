import corpus_trees
import pytest

from hf_gradalign.data import CorpusError, check_audio, load_corpus


@pytest.mark.parametrize("keys_folder", ["keys/LA", "keys", "LA-keys-full/keys/LA", "ASVspoof2021_LA_eval/keys/LA"])
def test_logical_access(tmp_path, keys_folder):
    corpus_trees.asvspoof2021_la(tmp_path, keys_folder=keys_folder)
    [split] = load_corpus(f"asvspoof2021_la:{tmp_path}").values()
    assert split["utterance_id"][:] == ["LA_E_9332881", "LA_E_6866159"]
    assert split["label"][:] == [0, 1]
    assert split["system"][:] == ["A07", "-"]
    assert split["codec"][:] == ["alaw", "alaw"]
    assert split["condition"][:] == ["ita_tx", "ita_tx"]
    assert split["subset"][:] == ["eval", "eval"]
    assert len(check_audio(split, 16_000)) == 2


@pytest.mark.parametrize("n_parts", [1, 4])
def test_deepfake_in_one_folder_or_four(tmp_path, n_parts):
    corpus_trees.asvspoof2021_df(tmp_path, n_parts=n_parts, keys_folder="DF-keys-stage-1/keys")
    split = load_corpus("ASVspoof2021-DF", path=tmp_path, splits=("eval",))["eval"]
    assert split["utterance_id"][:] == ["DF_E_2000013", "DF_E_2000024", "DF_E_2000026"]
    assert split["system"][:] == ["Task1-team20", "Task2-team12", "-"]
    assert split["codec"][:] == ["low_m4a", "mp3m4a", "mp3m4a"]
    assert split["condition"][:] == ["vcc2020", "vcc2020", "asvspoof"]
    assert len(check_audio(split, 16_000)) == 3


@pytest.mark.parametrize(("subset", "count"), [(None, 3), ("eval", 3), ("progress", 1), ("all", 4)])
def test_subsets(tmp_path, subset, count):
    corpus_trees.asvspoof2021_df(tmp_path)
    assert len(load_corpus(f"asvspoof2021_df:{tmp_path}", subset=subset)["test"]) == count


def test_a_missing_subset(tmp_path):
    corpus_trees.asvspoof2021_df(tmp_path)
    with pytest.raises(CorpusError, match=r"trial_metadata.txt has no subset 'hidden', only progress, eval"):
        load_corpus(f"asvspoof2021_df:{tmp_path}", subset="hidden")
    with pytest.raises(CorpusError, match=r"no subset 'dev': its subsets are eval, progress, hidden, all"):
        load_corpus(f"asvspoof2021_df:{tmp_path}", subset="dev")


def test_all_tracks_side_by_side(tmp_path):
    # All keys are called trial_metadata.txt.
    corpus_trees.asvspoof2021_la(tmp_path)
    corpus_trees.asvspoof2021_df(tmp_path)
    corpus_trees.asvspoof2021_pa(tmp_path)
    assert load_corpus(f"asvspoof2021_pa:{tmp_path}")["test"]["utterance_id"][0].startswith("PA_E_")
    assert load_corpus(f"asvspoof2021_la:{tmp_path}")["test"]["utterance_id"][0].startswith("LA_E_")
    assert load_corpus(f"asvspoof2021_df:{tmp_path}")["test"]["utterance_id"][0].startswith("DF_E_")


@pytest.mark.parametrize("n_parts", [1, 7])
def test_physical_access(tmp_path, n_parts):
    corpus_trees.asvspoof2021_pa(tmp_path, n_parts=n_parts, keys_folder="PA-keys-full/keys/PA")
    [split] = load_corpus(f"asvspoof2021_pa:{tmp_path}").values()
    assert split["utterance_id"][:] == ["PA_E_1000001", "PA_E_1000002"]
    assert split["label"][:] == [0, 1]
    assert split["system"][:] == [None, "-"]  # attacks have no names here, and no distance
    assert split[0] | {"audio": None} == {
        **dict.fromkeys(split.column_names),
        "label": 0,
        "utterance_id": "PA_E_1000001",
        "speaker": "PA_0010",
        "subset": "eval",
        "asv_room": "R3",
        "asv_mic": "M3",
        "distance_to_asv": "d4",
        "attacker_room": "r1",
        "attacker_mic": "m1",
        "replay_device": "s4",
        "distance_to_talker": "c4",
        "trim": "notrim",
    }
    assert len(check_audio(split, 16_000)) == 2
    hidden = load_corpus(f"asvspoof2021_pa:{tmp_path}", subset="hidden")["test"]
    assert hidden["trim"][:] == ["trim", "notrim"]  # replayed, and simulated


def test_keys_of_physical_access_without_its_columns(tmp_path):
    corpus_trees.asvspoof2021_pa(tmp_path, keys=["PA_0010 PA_E_1000001 x y spoof notrim eval"])
    with pytest.raises(CorpusError, match=r"the keys of ASVspoof 2021 PA have twelve words, .* \(PA-keys-full;"):
        load_corpus(f"asvspoof2021_pa:{tmp_path}")


def test_the_hidden_subset_of_the_first_release(tmp_path):
    corpus_trees.asvspoof2021_la(tmp_path)
    assert load_corpus(f"asvspoof2021_la:{tmp_path}", subset="hidden")["test"]["utterance_id"][:] == ["LA_E_5464495"]


def test_it_is_for_evaluation(tmp_path):
    corpus_trees.asvspoof2021_la(tmp_path)
    with pytest.raises(CorpusError, match=r"ASVspoof 2021 LA has no split 'train'; its splits are test \(eval\)"):
        load_corpus(f"asvspoof2021_la:{tmp_path}", splits=("train",))


def test_short_keys(tmp_path):
    corpus_trees.asvspoof2021_la(tmp_path, keys=["LA_0009 LA_E_9332881 - A07 spoof"])
    with pytest.raises(CorpusError, match="have at least eight words"):
        load_corpus(f"asvspoof2021_la:{tmp_path}")


def test_the_list_without_keys_is_not_a_protocol(tmp_path):
    corpus_trees.asvspoof2021_la(tmp_path)
    for path in tmp_path.glob("keys/LA/CM/*.txt"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"(?s)does not contain ASVspoof 2021 LA.*keys/LA/CM/trial_metadata.txt"):
        load_corpus(f"asvspoof2021_la:{tmp_path}")
