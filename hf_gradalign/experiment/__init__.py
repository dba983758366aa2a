"""A whole run, from arguments to results: what `scripts/run_audio_spoof.py` does, as a library."""

from hf_gradalign.experiment.arguments import AudioSpoofTrainingArguments, DataArguments, ModelArguments
from hf_gradalign.experiment.card import write_run_card
from hf_gradalign.experiment.command_line import parse_arguments
from hf_gradalign.experiment.output_folder import resolve_output_folder
from hf_gradalign.experiment.preparation import Preparation, prepare
from hf_gradalign.experiment.publication import announce_hub, publish_run
from hf_gradalign.experiment.results import RunResults
from hf_gradalign.experiment.run import Interrupted, run
from hf_gradalign.experiment.summary import summary_table

__all__ = [
    "AudioSpoofTrainingArguments",
    "DataArguments",
    "Interrupted",
    "ModelArguments",
    "Preparation",
    "RunResults",
    "announce_hub",
    "parse_arguments",
    "prepare",
    "publish_run",
    "resolve_output_folder",
    "run",
    "summary_table",
    "write_run_card",
]
