"""Corpora in miniature, in the folders and files of the official archives, with real speech."""

import functools
import json
from pathlib import Path

import soundfile
from datasets import ClassLabel, Dataset, Features, Value

from hf_gradalign.data import decode_audio, load_corpus

RATE = 16_000


@functools.cache
def speech(index, n_samples=4000):
    """A piece of a clip of the demo corpus, shape (time,)."""
    clips = load_corpus(splits=("validation",))["validation"]
    return decode_audio(clips[index % len(clips)]["audio"], RATE)[:n_samples]


def write_clip(path, index=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, speech(index), RATE)


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _asvspoof2019(root, track, ids, splits):
    """Four clips a split; `ids` are a protocol's words between utterance and key."""
    letters = {"train": "T", "dev": "D", "eval": "E"}
    endings = {"train": "trn", "dev": "trl", "eval": "trl"}
    for split in splits:
        lines = []
        for index, words in enumerate(ids):
            name = f"{track}_{letters[split]}_{1000137 + index}"
            write_clip(root / f"ASVspoof2019_{track}_{split}" / "flac" / f"{name}.flac", index)
            lines.append(f"{track}_00{70 + index} {name} {words} {'bonafide' if index < 2 else 'spoof'}")
        protocol = f"ASVspoof2019.{track}.cm.{split}.{endings[split]}.txt"
        write_lines(root / f"ASVspoof2019_{track}_cm_protocols" / protocol, lines)
        asv_protocol = f"ASVspoof2019.{track}.asv.{split}.gi.trl.txt"
        write_lines(root / f"ASVspoof2019_{track}_asv_protocols" / asv_protocol, ["no protocol"])
    write_lines(root / f"README.{track}.txt", ["ASVspoof 2019"])
    return root


def asvspoof2019_la(root, splits=("train", "dev", "eval"), folder="LA"):
    """As LA.zip unpacks."""
    return _asvspoof2019(root / folder, "LA", ["- -", "- -", "- A02", "- A03"], splits)


def asvspoof2019_pa(root, splits=("train", "dev", "eval"), folder="PA"):
    """As PA.zip unpacks, with recordings that enroll speakers and are in no protocol of countermeasures."""
    root = _asvspoof2019(root / folder, "PA", ["aaa -", "bca -", "aaa AA", "cbb BC"], splits)
    if "dev" in splits:
        write_clip(root / "ASVspoof2019_PA_dev" / "flac" / "PA_D_0000001.flac")
    return root


LA_KEYS = [
    "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval",
    "LA_0020 LA_E_6866159 alaw ita_tx bonafide bonafide notrim eval",
    "LA_0007 LA_E_5464494 opus sin_tx A08 spoof notrim progress",
    "LA_0007 LA_E_5464495 none loc_tx bonafide bonafide notrim hidden_track",
]
DF_KEYS = [
    "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -",
    "TEF2 DF_E_2000013 low_m4a vcc2020 Task1-team20 spoof notrim eval neural_vocoder Task1 team20 FF E",
    "TGF1 DF_E_2000024 mp3m4a vcc2020 Task2-team12 spoof notrim eval traditional_vocoder Task2 team12 FF G",
    "LA_0043 DF_E_2000026 mp3m4a asvspoof - bonafide notrim eval bonafide - - - -",
]


PA_KEYS = [
    "PA_0010 PA_E_1000001 R3 M3 d4 r1 m1 s4 c4 spoof notrim eval",
    "PA_0011 PA_E_1000002 R3 M1 D4 - - - - bonafide notrim eval",
    "PA_0012 PA_E_1000003 R6 M1 d1 r4 m2 s2 c2 spoof notrim progress",
    "PA_0012 PA_E_1000004 R6 M2 d1 r4 m2 s3 c3 spoof trim hidden",
    "PA_0013 PA_E_1000005 R7 M2 d5 r4 m2 s3 c3 spoof notrim hidden",
]


def asvspoof2021_la(root, keys=LA_KEYS, keys_folder="keys/LA"):
    for index, line in enumerate(keys):
        write_clip(root / "ASVspoof2021_LA_eval" / "flac" / f"{line.split()[1]}.flac", index)
    write_lines(root / "ASVspoof2021_LA_eval" / "ASVspoof2021.LA.cm.eval.trl.txt", [line.split()[1] for line in keys])
    write_lines(root / keys_folder / "CM" / "trial_metadata.txt", keys)
    write_lines(root / keys_folder / "CM" / "LFCC-GMM" / "score.txt", [f"{line.split()[1]} 0.5" for line in keys])
    # The keys of speaker verification have the same name, and come first in the alphabet.
    write_lines(
        root / keys_folder / "ASV" / "trial_metadata.txt",
        ["LA_0007-alaw-ita_tx LA_E_9332881 alaw ita_tx bonafide nontarget notrim eval"],
    )
    return root


def asvspoof2021_df(root, keys=DF_KEYS, n_parts=1, keys_folder="keys/DF"):
    for index, line in enumerate(keys):
        part = f"ASVspoof2021_DF_eval_part{index % n_parts:02d}/" if n_parts > 1 else ""
        write_clip(root / f"{part}ASVspoof2021_DF_eval" / "flac" / f"{line.split()[1]}.flac", index)
    write_lines(root / keys_folder / "CM" / "trial_metadata.txt", keys)
    return root


def asvspoof2021_pa(root, keys=PA_KEYS, n_parts=1, keys_folder="keys/PA"):
    for index, line in enumerate(keys):
        part = f"ASVspoof2021_PA_eval_part{index % n_parts:02d}/" if n_parts > 1 else ""
        write_clip(root / f"{part}ASVspoof2021_PA_eval" / "flac" / f"{line.split()[1]}.flac", index)
    write_lines(root / keys_folder / "CM" / "trial_metadata.txt", keys)
    trial = "PA_0010-R3 PA_E_1000001 R3 M3 d4 r1 m1 s4 c4 spoof notrim eval"
    write_lines(root / keys_folder / "ASV" / "trial_metadata.txt", [trial])
    return root


ASVSPOOF5 = {
    "train": ["T_4850 T_0000000000 F - - - AC3 A05 spoof -", "T_0023 T_0000000001 M - - - - bonafide bonafide -"],
    "dev.track_1": ["D_0062 D_0000000001 F - - - AC1 A11 spoof -", "D_0755 D_0000000022 F - - - - bonafide bonafide -"],
    "eval.track_1": [
        "E_1607 E_0009538969 M C05 2 E_0009486171 AC1 A26 spoof -",
        "E_3614 E_0009249158 F - - - - bonafide bonafide -",
    ],
}


def asvspoof5(root, protocols=ASVSPOOF5):
    folders = {"train": "flac_T", "dev.track_1": "flac_D", "eval.track_1": "flac_E_eval"}
    for split, lines in protocols.items():
        for index, line in enumerate(lines):
            write_clip(root / folders[split] / f"{line.split()[1]}.flac", index)
        write_lines(root / "ASVspoof5_protocols" / f"ASVspoof5.{split}.tsv", lines)
    write_lines(root / "ASVspoof5_protocols" / "ASVspoof5.dev.track_2.enroll.tsv", ["D_4205 D_A0000000562"])
    return root


def in_the_wild(root):
    rows = [("0.wav", "Alec Guinness", "spoof"), ("1.wav", "Alec Guinness", "spoof"), ("2.wav", "Al Gore", "bona-fide")]
    folder = root / "release_in_the_wild"
    for index, (name, _, _) in enumerate(rows):
        write_clip(folder / name, index)
    write_lines(folder / "meta.csv", ["file,speaker,label", *(",".join(row) for row in rows)])
    write_lines(folder / "attribution.txt", ["YouTube"])
    return folder


def fake_or_real(root, version="for-norm"):
    for split in ("training", "validation", "testing"):
        for index, label in enumerate(("real", "fake")):
            for number in range(2):
                name = f"file{number}.wav_16k.wav_norm.wav_mono.wav_silence.wav"
                write_clip(root / version / split / label / name, 2 * index + number)
    return root / version


MLAAD_HEADER = (
    "path|original_file|language|is_original_language|duration|training_data|model_name|architecture|transcript"
)


def mlaad(root, is_relative_to_root=True):
    models = {("de", "Edge-TTS"): "edge", ("en", "OpenAI TTS-1 HD"): "openai/tts-1-hd", ("en", "griffin_lim"): "gl"}
    number = 0
    for (language, folder), model in models.items():
        rows = []
        for name in ("one_01", "two_02"):
            path = f"fake/{language}/{folder}/{name}.wav"
            write_clip(root / "MLAAD" / path, number)
            shown = f"./{path}" if is_relative_to_root else f"{name}.wav"
            rows.append(f'{shown}|de_DE/{name}.wav|{language}|True|1.2|x|{model}|arch|"Oh, he said {number}')
            number += 1
        write_lines(root / "MLAAD" / "fake" / language / folder / "meta.csv", [MLAAD_HEADER, *rows])
    return root / "MLAAD"


def arena(root, names=("bonafide", "spoof"), notes=None):
    """A data set in the Arena's form; `names` None leaves the labels numbers."""
    folder = root / "Mini"
    label = ClassLabel(names=list(names)) if names else Value("int64")
    rows = []
    for index in range(4):
        write_clip(root / "source" / f"U_{index}.flac", index)
        known = {
            "utterance_id": f"U_{index}",
            "speaker_id": f"S_{index}",
            "attack_id": "bonafide" if index < 2 else "A07",
        }
        known |= {"codec": "alaw", "transmission": "ita_tx", "phase": "eval" if index % 2 else "progress"}
        data = (root / "source" / f"U_{index}.flac").read_bytes()
        rows.append(
            {
                "path": f"U_{index}.flac",
                "audio": {"bytes": data, "path": f"U_{index}.flac"},
                "label": int(index >= 2),
                "notes": json.dumps(known) if notes is None else notes,
            }
        )
    features = Features(
        {
            "path": Value("string"),
            "audio": {"bytes": Value("binary"), "path": Value("string")},
            "label": label,
            "notes": Value("string"),
        }
    )
    dataset = Dataset.from_list(rows, features=features)
    for shard in range(2):
        file = folder / "data" / f"test-{shard:05d}-of-00002.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        dataset.shard(2, shard, contiguous=True).to_parquet(file)
    write_lines(folder / "eval.yaml", ["name: Mini", "tasks:", "  - split: test", "    metrics: [eer_percent]"])
    return folder


def edit(path: Path, change):
    """Rewrite a file's bytes."""
    path.write_bytes(change(path.read_bytes()))
