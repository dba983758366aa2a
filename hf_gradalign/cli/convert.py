"""Convert the checkpoint of a published detector into a transformers model, or back.

python scripts/convert_checkpoint.py SpeechAntiSpoofingBenchmarks/DPDA-GA-AASIST:dpda_ga_aasist_avg5.pth --output_dir detector
python scripts/convert_checkpoint.py best.pth --head auto --output_dir detector --check reference.pth
python scripts/convert_checkpoint.py --average best_0.pth best_1.pth best_2.pth --output_dir detector
python scripts/convert_checkpoint.py detector --reverse --output_file detector.pth

Supports the layouts of DPDA-GA (AASIST, Conformer-TCM, Mamba), SSL_Anti-spoofing, TCM, XLSR-Mamba, SLS, Nes2Net (XLS-R,
WavLM), AntiDeepfake (wav2vec 2.0, HuBERT) and AASIST on raw waveforms. This does not need fairseq, s3prl, mamba_ssm or
the encoder's own file, and runs no code in a checkpoint.
"""  # noqa: E501

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gradalign import conversion, hub, training
from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.cli.commands import set_up_libraries
from hf_gradalign.utils.file_locks import hold_output
from hf_gradalign.utils.files import apply_default_mode, replace_atomically, require_free
from hf_gradalign.utils.messages import error_line, require_space

if TYPE_CHECKING:
    import torch

_CONVERSION_OPTIONS = (
    *("head", "prefix", "num_attention_heads", "conv_stride", "do_stable_layer_norm", "max_bucket_distance"),
    *("num_sinc_filters", "sinc_kernel_size", "pool_ratios", "temperatures", "dilation", "activation", "class_weights"),
)
"""Options of `convert_state_dict` and of heads. By default, from the table of published detectors."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser("convert", __doc__, "[CHECKPOINT]")
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        nargs="?",
        help=".pth or .safetensors file, or org/repo or org/repo:filename on the Hub",
    )
    parser.add_argument("--average", nargs="+", metavar="CHECKPOINT", help="convert the mean of several checkpoints")
    parser.add_argument("--head", default="auto", help="the layout's head (default: detected from the keys)")
    parser.add_argument("--prefix", help="prefix of the keys, if the checkpoint has several detectors")
    parser.add_argument("--output_dir", type=Path, help="folder for the model")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files that an earlier conversion did not write"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a checkpoint on the Hub")
    parser.add_argument("--token", help="access token for the Hub (default: the one from `hf auth login`)")
    parser.add_argument(
        "--num_attention_heads",
        type=int,
        help="of the encoder (12 for a width of 768, otherwise 16); only WavLM checkpoints store it",
    )
    parser.add_argument(
        "--conv_stride",
        type=int,
        nargs="+",
        help="of the feature extractor (5 2 2 2 2 2 2); checkpoints do not store it",
    )
    parser.add_argument(
        "--do_stable_layer_norm",
        action="store_true",
        default=None,
        help="layer norm before attention (default: if the feature extractor has layer norm, as in XLS-R)",
    )
    parser.add_argument(
        "--no_stable_layer_norm",
        action="store_false",
        dest="do_stable_layer_norm",
        default=None,
        help="layer norm after attention, as in the base models",
    )
    parser.add_argument(
        "--max_bucket_distance", type=int, help="of WavLM's relative positions (800); checkpoints do not store it"
    )
    parser.add_argument(
        "--pool_ratios",
        type=float,
        nargs="+",
        help="of AASIST (0.5 0.5 0.5; on raw waveforms 0.5 0.7 0.5, or 0.4 0.5 0.7 for AASIST-L); checkpoints do not "
        "store them",
    )
    parser.add_argument(
        "--temperatures",
        type=float,
        nargs="+",
        help="of AASIST on raw waveforms (2 2 100); checkpoints do not store them",
    )
    parser.add_argument(
        "--num_sinc_filters", type=int, help="of AASIST on raw waveforms (70); checkpoints do not store it"
    )
    parser.add_argument(
        "--sinc_kernel_size", type=int, help="taps of these filters (129); an even number is raised by one"
    )
    parser.add_argument(
        "--dilation", type=int, help="of Nes2Net (2 with XLS-R, 1 with WavLM); checkpoints do not store it"
    )
    parser.add_argument(
        "--activation", help="of Nes2Net: relu (the default) or selu (X-SeLU); checkpoints do not store it"
    )
    parser.add_argument("--n_samples", type=int, help="length of the scored window in samples (as published)")
    parser.add_argument("--class_weights", type=float, nargs=2, help="of spoof and bona fide, for further training")
    parser.add_argument("--check", help="file with input_values (B, time) and the published code's logits")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference that passes --check (1e-4)")
    parser.add_argument("--license", help="license of the weights, for the model card")
    parser.add_argument("--push_to_hub", metavar="ID", help="publish the model as namespace/name")
    parser.add_argument("--private", action="store_true", default=None, help="publish in a private repository")
    parser.add_argument(
        "--reverse", action="store_true", help="convert an hf_gradalign model folder to a published state dict"
    )
    parser.add_argument("--output_file", type=Path, help="file for --reverse: .pth or .safetensors")
    parser.add_argument("--bonafide_label", help="for --reverse: the bona fide label, if the label names do not say")
    parser.add_argument("--no_progress", action="store_true", help="hide progress bars")
    arguments = parser.parse_args(argv)
    if (arguments.checkpoint is None) == (arguments.average is None):
        parser.error("pass one checkpoint, or several with --average")
    for name in ("pool_ratios", "temperatures"):
        values = getattr(arguments, name)
        if values is not None and len(values) not in (3, 4):
            parser.error(
                f"--{name} takes three numbers, for the spectral graph, the temporal graph and the branches; a fourth, "
                "as in published configurations, is not used"
            )
        setattr(arguments, name, values and values[:3])
    if arguments.reverse and (arguments.output_file is None or arguments.checkpoint is None):
        parser.error("--reverse takes a model folder and --output_file")
    if not arguments.reverse and arguments.output_dir is None:
        parser.error("give --output_dir")
    return arguments


def main(argv: Sequence[str]) -> int:
    """Convert from the command line and return the exit status."""
    arguments = parse(argv)
    set_up_libraries(no_progress=arguments.no_progress)
    try:
        with hold_output(arguments.output_file if arguments.reverse else arguments.output_dir):
            return reverse(arguments) if arguments.reverse else convert(arguments)
    except (ValueError, OSError) as error:
        print(error_line(error, arguments.output_dir or arguments.output_file), file=sys.stderr)
        return 2
    except hub.PublishingError as error:
        print(error_line(error), file=sys.stderr)
        return 1


def convert(arguments: argparse.Namespace) -> int:
    """Convert a published checkpoint and return the exit status."""
    require_free(arguments.output_dir, arguments.overwrite or is_conversion(arguments.output_dir))
    sources = arguments.average or [arguments.checkpoint]
    checkpoints = [
        conversion.locate_checkpoint(source, revision=arguments.revision, token=arguments.token) for source in sources
    ]
    paths = [checkpoint.path for checkpoint in checkpoints]
    require_space(arguments.output_dir, paths[0].stat().st_size)
    digests = {checkpoint.source: conversion.sha256_of(checkpoint.path) for checkpoint in checkpoints}
    for name, digest in digests.items():
        print(f"sha256 {digest}  {name}")
    reference = None if arguments.check is None else read_reference(arguments.check)
    states = map(conversion.read_state_dict, paths)
    state = next(states) if len(paths) == 1 else training.average_state_dicts([*map(in_float32, states)], sources)
    detector, is_the_published = None, False
    if len(checkpoints) == 1:
        detector, is_the_published = conversion.identify(checkpoints[0], digests[checkpoints[0].source])
    options = dict(detector.options) if detector else {}
    given = {name: getattr(arguments, name) for name in _CONVERSION_OPTIONS}
    options |= {name: value for name, value in given.items() if value is not None}
    model, report = conversion.convert_state_dict(state, **conversion.conversion_arguments(options))
    del state
    print(report)

    difference = None
    if reference is not None:
        difference = conversion.largest_difference(model, report, reference["input_values"], reference["logits"])
        print(f"largest difference   {difference:.3g} from the reference logits of {len(reference['logits'])} clips")
        if not difference <= arguments.tolerance:
            print(
                f"error: that is more than {arguments.tolerance:g}; nothing was written. Check "
                "--num_attention_heads and the other settings that checkpoints do not store.",
                file=sys.stderr,
            )
            return 1

    if arguments.n_samples is not None:
        model.config.n_samples = arguments.n_samples
    facts = conversion.conversion_facts(
        report,
        conversion.card_facts(detector) if detector and is_the_published else {},
        title=f"{arguments.output_dir.resolve().name}: a converted {report.head} detector",
        source=", ".join(digests),
        load_from=arguments.push_to_hub or str(arguments.output_dir),
        n_samples=model.config.n_samples,
        revision=checkpoints[0].commit,
        sha256=digests,
        averaged=len(sources) if len(sources) > 1 else None,
        largest_difference=difference,
    )
    if arguments.license:
        facts.license, facts.license_origin = arguments.license, conversion.GIVEN_LICENSE
    with replace_atomically(arguments.output_dir) as draft:
        conversion.save_converted(model, draft, facts)
    print(f"\nModel, feature extractor, code and model card are in {arguments.output_dir}")
    if arguments.push_to_hub:
        address = hub.publish(
            arguments.output_dir,
            arguments.push_to_hub,
            token=arguments.token,
            private=arguments.private,
            commit_message="Upload model converted with hf_gradalign",
        )
        print(f"Published at {address}")
    return 0


def is_conversion(folder: Path) -> bool:
    """Return whether a folder contains an earlier conversion, and no training run."""
    card = folder / "README.md"
    if not card.is_file() or (folder / "run_arguments.json").exists():
        return False
    return conversion.CONVERTED_BY in card.read_text(encoding="utf-8", errors="replace")


def in_float32(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return values in float32, so that averages do not lose precision."""
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def read_reference(path: str) -> dict[str, torch.Tensor]:
    """Read the inputs and logits of the published code.

    Raises:
        ConversionError: If the file does not have them.
    """
    reference = conversion.read_state_dict(conversion.locate_checkpoint(path).path)
    if not {"input_values", "logits"} <= set(reference):
        raise conversion.ConversionError(f"--check {path} has {', '.join(reference)}; it needs input_values and logits")
    return reference


def reverse(arguments: argparse.Namespace) -> int:
    """Convert an hf_gradalign detector to a published state dict and return the exit status."""
    import torch
    from safetensors.torch import save_file

    from hf_gradalign import models
    from hf_gradalign.scoring.model_loading import load_detector

    path = arguments.output_file
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    require_free(path, arguments.overwrite)
    model, feature_extractor = load_detector(arguments.checkpoint)
    if not isinstance(model, models.SpoofDetectorForAudioClassification):
        raise conversion.ConversionError(
            f"{arguments.checkpoint} is a {type(model).__name__}, not an hf_gradalign detector"
        )
    config: Any = model.config
    labels = models.output_labels(config.id2label, config.label2id, arguments.bonafide_label)
    if labels != ("bonafide",):  # a published detector with a single output keeps it
        models.put_in_order(model, feature_extractor, labels)  # in the published code the second logit is bona fide
    if config.calibration is not None:
        print("note: a published layout has no place for the model's calibration: its scores are raw", file=sys.stderr)
    state = conversion.published_state_dict(model)
    require_space(path.parent, sum(value.nbytes for value in state.values()))
    with replace_atomically(path) as draft:
        if draft.suffix == ".safetensors":
            save_file(state, draft)
            apply_default_mode(draft)
        else:
            torch.save(state, draft)
    print(f"{len(state)} entries of the {model.config.head} layout are in {arguments.output_file}")
    return 0
