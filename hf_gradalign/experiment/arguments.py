"""The arguments of a run: model, data and training."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from hf_gradalign import data
from hf_gradalign.experiment.model_arguments import ModelArguments
from hf_gradalign.experiment.training_arguments import AudioSpoofTrainingArguments
from hf_gradalign.experiment.views import CLEAN, parse_views

CHECKED_BY_DEFAULT = 20_000
"""Training splits of at most this many clips are decoded before training. 50,000 clips of 4 s take about a minute."""


class AppendReplacingDefault(argparse.Action):
    """An option that takes a list and can be repeated: `--corpus A B` and `--corpus A --corpus B` mean the same.

    The first use replaces the default, such as the value from a file or a resumed run. argparse's own `extend` would
    append to it.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Set the value, or append to what this command line has set."""
        given = getattr(namespace, self.dest, None)
        kept = [] if given is None or given is self.default else list(given)
        setattr(namespace, self.dest, [*kept, *(values or ())])


def of_corpora(default: str | None, about: str) -> dict[str, Any]:
    """Return the metadata of an option that takes a value for all corpora, or `CORPUS:VALUE` for one of them."""
    return {"nargs": "+", "default": default, "help": f"{about} For one of several corpora: CORPUS:VALUE."}


@dataclass
class DataArguments:
    """The clips that a model is trained and evaluated on, and how they are cut and augmented."""

    corpus: list[str] | None = field(
        default=None,
        metadata={
            "action": AppendReplacingDefault,
            "help": "One or more corpora to train on, each NAME:PATH of a named corpus (asvspoof2019_la, asvspoof5, "
            "for, mlaad, ...), arena:NAME, a Hub id, parquet files, a CSV file, a folder with metadata.csv or with "
            "class folders such as real/ and fake/, tar or zip archives, or a folder written by save_to_disk. By "
            "default, the demo corpus that comes with the package.",
        },
    )
    dataset_name: str | None = field(
        default=None,
        metadata={"aliases": ["--dataset_name_or_path"], "help": "The same as --corpus, for a single corpus."},
    )
    corpus_weights: list[float] | None = field(
        default=None,
        metadata={
            "help": "How often each corpus is drawn in training, such as 0.7 0.3. By default, each clip is used once."
        },
    )
    balance_classes: bool = field(
        default=False, metadata={"help": "Train on both classes equally often by repeating clips of the rarer one."}
    )
    eval_corpus: str | None = field(
        default=None,
        metadata={"help": "Corpus with the validation split. By default, the first of --corpus that has one."},
    )
    test_corpus: str | None = field(
        default=None,
        metadata={"help": "Corpus with the test split. By default, the first of --corpus that has one."},
    )
    subset: str | None = field(
        default=None,
        metadata={"help": "Subset of ASVspoof 2021: eval (the default), progress, hidden or all."},
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Stream the training data from the Hub or from parquet files, without a copy on disk. Needs "
            "--max_steps."
        },
    )
    shuffle_buffer_size: int = field(
        default=1000,
        metadata={"help": "With --streaming: number of clips from which each loader worker draws the next one."},
    )
    dataset_config_name: list[str] | str | None = field(
        default=None, metadata=of_corpora(None, "Configuration of the dataset.")
    )
    dataset_revision: list[str] | str | None = field(
        default=None, metadata=of_corpora(None, "Branch, tag or commit of the dataset.")
    )
    train_split_name: list[str] | str = field(default="train", metadata=of_corpora("train", "Split to train on."))
    eval_split_name: list[str] | str = field(
        default="validation",
        metadata=of_corpora("validation", "Split that checkpoints are selected on; it is never augmented."),
    )
    test_split_name: list[str] | str = field(
        default="test",
        metadata=of_corpora(
            "test", "Split that is evaluated once, at the end, if the dataset has it; none for no test."
        ),
    )
    validation_fraction: float | None = field(
        default=None,
        metadata={
            "help": "Without a validation split: split off this fraction of the training split, stratified by class."
        },
    )
    audio_column_name: list[str] | str = field(default="audio", metadata=of_corpora("audio", "Column with the audio."))
    label_column_name: list[str] | str = field(default="label", metadata=of_corpora("label", "Column with the label."))
    id_column_name: list[str] | str | None = field(
        default=None,
        metadata=of_corpora(
            None,
            "Column with the utterance ids. By default utterance_id, if it exists; none names clips after their files.",
        ),
    )
    system_column_name: list[str] | str = field(
        default="system", metadata=of_corpora("system", "Column with the spoofing system, for error rates per system.")
    )
    label_map: list[str] | None = field(
        default=None,
        metadata={
            "help": "Meaning of other labels, such as --label_map 0=spoof 1=bonafide; for one of several corpora "
            "--label_map CORPUS:0=spoof, for all of them --label_map all:0=spoof."
        },
    )
    on_missing_audio: str = field(
        default="stop",
        metadata={"choices": ["stop", "skip"], "help": "What to do if audio files are missing on disk."},
    )
    check_audio: bool | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": True,
            "help": "Decode every clip once before training. By default, validation and test clips are decoded, and "
            f"training clips if there are at most {CHECKED_BY_DEFAULT}.",
        },
    )
    on_bad_audio: str = field(
        default="stop", metadata={"choices": ["stop", "skip"], "help": "What to do if clips cannot be decoded."}
    )
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "Number of processes that check the audio before training."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on at most this many clips."})
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on at most this many clips per split."}
    )
    views: str | None = field(
        default=None,
        metadata={
            "help": "The views of each clip, separated by commas, such as clean,rawboost,codec: clean (the unchanged "
            "clip), a recipe as for --augmentation, or name=recipe. By default clean and augmented, where "
            "--augmentation defines augmented."
        },
    )
    augmentation: str | None = field(
        default=None,
        metadata={
            "help": "How the augmented view is made: rawboost (algorithm 4, the default), rawboost1 to "
            "rawboost8, codec "
            "(MP3, Opus, Vorbis, GSM or G.711; codec:g722:aac chooses), musan_rir (noise, music, babble or a room: "
            "simulated, or from musan_rir:/data/musan:/data/RIRS_NOISES), telephone, time_frequency_mask, or a YAML "
            "or JSON file with a list of audiomentations transforms. + chains them: musan_rir+rawboost."
        },
    )
    augment_on_device: bool = field(
        default=False,
        metadata={
            "help": "Apply RawBoost to whole batches on the accelerator; loader workers only draw its parameters and "
            "noise. The results are the same up to float precision."
        },
    )
    augmentation_scope: str = field(
        default="utterance",
        metadata={
            "choices": ["utterance", "window"],
            "help": "Augment the whole utterance and then cut the window (as in the paper), or augment only the window "
            "(cheaper for long recordings: only the window is decoded).",
        },
    )
    rms_level: float | None = field(
        default=None,
        metadata={
            "help": "Scale every clip to this root mean square before augmentation, because RawBoost's distortion "
            "depends on the level. By default 0.1 for the small model; with --model_name_or_path, levels are kept."
        },
    )
    crop: str = field(
        default="random",
        metadata={
            "choices": ["random", "leading"],
            "help": "Position of the training window, which is the same in every view.",
        },
    )
    window_seconds: float | None = field(
        default=None,
        metadata={
            "help": "Length of the training window in seconds; shorter clips are repeated. By default 2 for the small "
            "model, 4.0375 for aasist and aasist_l (64,600 samples, as published) and otherwise 4.175 (66,800 samples, "
            "as in the paper)."
        },
    )
    eval_window_seconds: float | None = field(
        default=None,
        metadata={"help": "Length in seconds of the leading window that is scored. By default as in training."},
    )

    def __post_init__(self) -> None:
        """Check lengths and view names, and fill in the augmentation."""
        for name in ("window_seconds", "eval_window_seconds", "rms_level", "max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{name} must be a positive number, got {value}")
        if self.validation_fraction is not None and not 0 < self.validation_fraction < 1:
            raise ValueError(f"--validation_fraction must be between 0 and 1, got {self.validation_fraction}")
        for name in OF_CORPORA:
            value = getattr(self, name)
            if isinstance(value, list) and len(value) == 1:
                setattr(self, name, value[0])
        self._check_corpora()
        if self.views is None:
            self.augmentation = self.augmentation or "rawboost"
            return
        parse_views(self.views)
        if self.augmentation is not None:
            raise ValueError(
                "--augmentation defines the view 'augmented', but --views already names every view: use one of them, "
                f"as in --views {self.views},augmented={self.augmentation}"
            )

    def _check_corpora(self) -> None:
        if self.corpus is not None and self.dataset_name is not None:
            raise ValueError("--dataset_name is another name for --corpus: use only one of them")
        data.check_weights(self.corpus_weights, len(self.corpora))
        if self.shuffle_buffer_size < 0:
            raise ValueError(f"--shuffle_buffer_size must be at least 0, got {self.shuffle_buffer_size}")
        if self.streaming:
            for name, needed in (
                ("max_train_samples", "the whole training data, which is not available in a stream"),
                ("validation_fraction", "training data that can be divided; set a corpus with --eval_corpus"),
            ):
                if getattr(self, name) is not None:
                    raise ValueError(f"--{name} needs {needed}: remove it or --streaming")

    @property
    def corpora(self) -> list[str | None]:
        """The corpora to train on; None is the demo corpus."""
        return list(self.corpus) if self.corpus else [self.dataset_name]

    @property
    def view_recipes(self) -> dict[str, str]:
        """The recipe of each view by its name; `clean` is the unchanged clip.

        Raises:
            ValueError: If `views` is not a list of views (`parse_views`).
        """
        if self.views is None:
            return {CLEAN: CLEAN, "augmented": self.augmentation or "rawboost"}
        return parse_views(self.views)


OF_CORPORA: dict[str, Any] = {
    option.name: option.default for option in fields(DataArguments) if option.metadata.get("nargs") == "+"
}
"""Options that can have one value per corpus, and their defaults."""
NONE_IS_A_VALUE = ("label_column_name", "id_column_name", "test_split_name")
"""Options for which `none` means that there is no such column or split, rather than that the option is unset."""


@dataclass
class RunArguments:
    """All arguments of a run. `parse_arguments` makes one from a command line or a mapping.

    Attributes:
        model: The model to train.
        data: The clips that it is trained and evaluated on, and how each view changes them.
        training: How the model is trained, and where the run is written.
        options: The options that differ from the defaults, by name. The run's folder keeps them so that the run can be
            resumed.
    """

    model: ModelArguments
    data: DataArguments
    training: AudioSpoofTrainingArguments
    options: dict[str, Any] = field(default_factory=dict)

    def settle_defaults(self) -> None:
        """Fill in the defaults that depend on the model.

        Raises:
            ValueError: If an option does not apply to a model that is trained from scratch.
        """
        from hf_gradalign import models  # imported here, because --help must not wait for it

        name = self.model.model_name_or_path
        if name is None:
            learning_rate, window_seconds = 1e-3, 2.0
        elif models.is_architecture(name):
            learning_rate, window_seconds = 1e-4, models.RAW_WINDOW_SAMPLES / 16_000
            of_checkpoints = ("bonafide_label", "model_revision", "conversion_options", "attention_implementation")
            for option in ("head", *of_checkpoints):
                if getattr(self.model, option) is not None:
                    raise ValueError(f"--{option} does not apply to {name}, which is trained from scratch: remove it")
        else:
            learning_rate, window_seconds = 1e-5, models.WINDOW_SECONDS
        if self.training.learning_rate is None:
            self.training.learning_rate = learning_rate
        if self.data.window_seconds is None:
            self.data.window_seconds = window_seconds
        if self.data.eval_window_seconds is None:
            self.data.eval_window_seconds = self.data.window_seconds
        if name is None:
            self.data.rms_level = self.data.rms_level or 0.1
        if name is None or name in models.ARCHITECTURES:
            self.model.model_license = self.model.model_license or "apache-2.0"
