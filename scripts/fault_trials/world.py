"""The inputs (a tiny model and corpus) and the commands under trial, each in two variants with different results."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml
from datasets import ClassLabel, Dataset, Features, Value
from pyarrow import parquet

from fault_trials.outcomes import Files, read_results
from hf_gradalign.models import SpoofDetectorConfig, SpoofDetectorForAudioClassification

_BACKBONE = {
    "model_type": "wav2vec2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [16, 16, 16],
    "conv_stride": [5, 4, 4],
    "conv_kernel": [10, 8, 4],
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "mask_time_prob": 0.0,
}
_HEAD = {"projection_size": 24, "channels": [4, 8], "attention_size": 8, "graph_sizes": [8, 4]}
_SECONDS = 0.2
_CLIPS = {"train": 16, "validation": 8, "test": 100}  # per class
STEPS = 8
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Command:
    """A command under trial.

    Attributes:
        name: Name in the table.
        script: Its script in `scripts/`.
        words: Its command line, given the folder that it writes to and the variant, 0 or 1.
        results: Reads the results that count from the folder.
        replaces: Whether it replaces its own earlier results without `--overwrite`.
        prepare: Prepares the folder.
    """

    name: str
    script: str
    words: Callable[[Path, int], list[str]]
    results: Callable[[Path], Files] = read_results
    replaces: bool = False
    prepare: Callable[[Path], None] = lambda folder: None


class World:
    """The inputs, in a folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus = folder / "corpus"
        self.parquet = folder / "parquet"  # the same clips in the format of datasets on the Hub
        self.models = [folder / "model_0", folder / "model_1"]
        self.published = [folder / "published_0.pth", folder / "published_1.pth"]
        self.scores = [folder / "scores_0.txt", folder / "scores_1.txt"]
        self.runs = [folder / "run_0", folder / "run_1"]

    def make(self) -> None:
        """Make the inputs that need no command, in a separate process, because torch computes."""
        draw = np.random.default_rng(0)
        times = np.arange(4000)
        for split, count in _CLIPS.items():
            for label, period in (("bonafide", 7), ("spoof", 20)):
                (self.corpus / split / label).mkdir(parents=True, exist_ok=True)
                for number in range(count):
                    sound = 0.1 * draw.standard_normal(4000) * (1 + np.sin(times / period))
                    soundfile.write(self.corpus / split / label / f"{split}_{label}_{number}.wav", sound, 16_000)
            self._make_parquet(split)
        for number, folder in enumerate(self.models):
            torch.manual_seed(number)
            config = SpoofDetectorConfig(_BACKBONE, "aasist", _HEAD, n_samples=3200)
            model = SpoofDetectorForAudioClassification(config)
            model.save_pretrained(folder)
            model.make_feature_extractor().save_pretrained(folder)
        labels = {f"clip_{number}": number % 2 for number in range(400)}
        for number, path in enumerate(self.scores):
            draw = np.random.default_rng(number)
            path.write_text("".join(f"{name} {label + draw.normal():.6f}\n" for name, label in labels.items()))
        keys = [f"{name}\t{'spoof' if label == 0 else 'bonafide'}" for name, label in labels.items()]
        (self.folder / "keys.tsv").write_text("\n".join(["utterance_id\tlabel", *keys]) + "\n")
        for number in range(2):
            study = {
                "name": "faults",
                "options": {
                    "corpus": [str(self.corpus)],
                    "window_seconds": 0.2,
                    "eval_window_seconds": 0.2,
                    "max_steps": 4,
                },
                "evaluate": {"test": {"corpus": str(self.corpus), "split": "test"}},
                "cells": [
                    {
                        "method": ["dual_path"],
                        "model": str(self.models[0]),
                        "epochs": 1,
                        "batch_size": 4,
                        "seed": number,
                    }
                ],
            }
            (self.folder / f"study_{number}.yaml").write_text(yaml.safe_dump(study))

    def _make_parquet(self, split: str) -> None:
        rows = []
        for path in sorted((self.corpus / split).rglob("*.wav")):
            audio = {"bytes": path.read_bytes(), "path": path.name}
            rows.append({"audio": audio, "label": int(path.parent.name == "bonafide"), "utterance_id": path.stem})
        audio = {"bytes": Value("binary"), "path": Value("string")}
        label = ClassLabel(names=["spoof", "bonafide"])
        features = Features({"audio": audio, "label": label, "utterance_id": Value("string")})
        self.parquet.mkdir(exist_ok=True)
        Dataset.from_list(rows, features=features).to_parquet(self.parquet / f"{split}-00000-of-00001.parquet")

    def training_words(self, folder: Path, seed: int = 0, steps: int = STEPS) -> list[str]:
        """Return the command line of a run that writes a checkpoint at each update."""
        options = {
            "align_gradients": "gradvac",
            "corpus": self.corpus,
            "model_name_or_path": self.models[0],
            "output_dir": folder,
            "seed": seed,
            "max_steps": steps,
            "per_device_train_batch_size": 4,
            "max_eval_samples": 24,
            "window_seconds": _SECONDS,
            "eval_window_seconds": _SECONDS,
            "save_strategy": "steps",
            "save_steps": 1,
            "save_total_limit": 3,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "logging_steps": 3,
            "average_best_checkpoints": 2,
            "metric_for_best_model": "loss",
            "load_best_model_at_end": False,
            "report_to": "none",
            "disable_tqdm": True,
        }
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]

    def commands(self) -> dict[str, Command]:
        """Return all commands by name."""
        commands = [
            Command(
                "train", "run_audio_spoof", lambda out, variant: self.training_words(out, variant), training_results
            ),
            Command(
                "score",
                "score_audio_spoof",
                lambda out, variant: [
                    *(
                        str(self.models[variant]),
                        "--corpus",
                        str(self.corpus),
                        "--output_file",
                        str(out / "scores.txt"),
                    ),
                    *("--columns", "label", "--batch_size", "4", "--num_workers", "0", "--no_progress"),
                ],
            ),
            Command(
                "study",
                "run_study",
                lambda out, variant: [
                    str(self.folder / f"study_{variant}.yaml"),
                    "--output_dir",
                    str(out),
                    "--no_progress",
                ],
                study_results,
            ),
            Command(
                "convert",
                "convert_checkpoint",
                lambda out, variant: [
                    *(str(self.published[variant]), "--output_dir", str(out / "converted")),
                    *("--num_attention_heads", "2", "--conv_stride", "5", "4", "4", "--n_samples", "3200"),
                ],
            ),
            Command(
                "evaluate",
                "evaluate_scores",
                lambda out, variant: [
                    *(
                        str(self.scores[variant]),
                        str(self.folder / "keys.tsv"),
                        "--output_dir",
                        str(out / "evaluation"),
                    ),
                    *("--bootstrap", "100"),
                ],
                replaces=True,
            ),
            Command(
                "export",
                "export_onnx",
                lambda out, variant: [str(self.models[variant]), "--output", str(out / "detector.onnx")],
            ),
            Command(
                "arena",
                "write_arena_results",
                lambda out, variant: [
                    *(str(out), "--scores", str(self.scores[variant]), "--dataset", "o/set", "--revision", COMMIT),
                    *("--labels", str(self.folder / "keys.tsv")),
                ],
                lambda out: {
                    name: content for name, content in read_results(out).items() if ".eval" in name or "README" in name
                },
                replaces=True,
                prepare=self._model_folder,
            ),
            Command(
                "plot",
                "plot_conflicts",
                lambda out, variant: [str(self.runs[variant]), "--output_dir", str(out / "figures")],
                replaces=True,
            ),
            Command(
                "report",
                "report_study",
                lambda out, variant: [
                    *(str(self.folder / f"study_folder_{variant}"), "--output_dir", str(out / "report")),
                    *("--baseline", "dual_path", "--bootstrap", "100"),
                ],
                replaces=True,
            ),
        ]
        return {command.name: command for command in commands}

    def _model_folder(self, folder: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_bytes((self.models[0] / name).read_bytes())


def training_results(folder: Path) -> Files:
    """Return weights, scores, conflict record, log and figures of a run, but not the card, which contains times."""
    return read_results(folder, left_out=["README.md"])


def study_results(folder: Path) -> Files:
    """Return weights and scores of the trials of a study, and the rows of its table."""
    wanted = re.compile(r"cells/.*(model\.safetensors|scores/test\.txt)$")
    files = {name: content for name, content in read_results(folder).items() if wanted.match(name)}
    table = folder / "results.parquet"
    for row in parquet.read_table(table).to_pylist() if table.is_file() else []:
        kept = {name: row[name] for name in ("cell", "method", "seed", "evaluation_set", "n_clips", "eer", "scores")}
        files[f"row of {row['cell']}"] = json.dumps(kept).encode()
    return files


def variants_of(wholes: Sequence[Files]) -> Files:
    """Return the results of two studies in one folder."""
    return {name: content for whole in wholes for name, content in whole.items()}
