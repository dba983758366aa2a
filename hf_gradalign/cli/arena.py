r"""Write results for the Speech Anti-Spoofing Arena from a score file: record, badge, model card, submission.

python scripts/score_audio_spoof.py runs/my-run --corpus SpeechAntiSpoofingBenchmarks/InTheWild --output_file itw.txt
python scripts/write_arena_results.py runs/my-run --dataset InTheWild --scores itw.txt
python scripts/write_arena_results.py runs/my-run --push_to_hub --hub_model_id you/my-run
python scripts/write_arena_results.py runs/my-run --dataset InTheWild --scores itw.txt --paper_arxiv 2509.20682 \
    --push_to_hub --hub_model_id you/my-run --submission itw.yaml --hf_username you --contact you@example.com

Writes .eval_results/<organization>/<name>/{scores.txt,result.yaml} to the model's folder and adds the result to the
model card. At first, result.yaml is the record of a run. Pushing turns it into the badge, which links to the pushed
scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from hf_gradalign import hub
from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.cli.commands import set_up_libraries
from hf_gradalign.cli.score_file_options import warnings_in_lines
from hf_gradalign.hub import arena
from hf_gradalign.utils.file_locks import hold_outputs
from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.messages import error_line


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser("arena", __doc__, "MODEL_DIR")
    parser.add_argument("model_dir", metavar="MODEL_DIR", type=Path, help="folder of the model")
    parser.add_argument(
        "--scores", type=Path, help="score file: one `utterance_id score` per line, higher for bona fide"
    )
    data = parser.add_argument_group("dataset")
    data.add_argument("--dataset", metavar="ID", help="its id on the Hub; a name alone is a dataset of the Arena")
    data.add_argument("--dataset_folder", type=Path, help="the dataset on disk, in the Arena's format")
    data.add_argument("--labels", type=Path, help="file or folder with the labels, instead of those of the dataset")
    data.add_argument("--revision", help="the commit that was scored (default: the newest on the Hub)")
    data.add_argument("--split", help="split (default: the dataset's own, or test)")
    data.add_argument(
        "--calibration_threshold",
        type=float,
        help="for spoof-only datasets: the threshold at the equal error rate on another dataset",
    )
    data.add_argument(
        "--calibration_dataset",
        metavar="ID",
        default="SpeechAntiSpoofingBenchmarks/DeepVoice",
        help="the dataset that this threshold comes from (%(default)s)",
    )
    system = parser.add_argument_group("system")
    system.add_argument("--system_name", help="name to display (default: the repository's or folder's)")
    system.add_argument("--slug", help="its identity in the Arena: a-z, 0-9 and hyphens (default: from the name)")
    system.add_argument("--description", help="one sentence (default: encoder, head and size)")
    system.add_argument("--code", help="URL of its code (default: the model's page)")
    system.add_argument("--checkpoint", help="URL of its weights (default: the model's page)")
    system.add_argument("--paper_arxiv", help="arXiv number of its paper; without one it is listed but not ranked")
    system.add_argument("--paper_bibtex", type=Path, help="file with its BibTeX entry (default: from the model card)")
    pushing = parser.add_argument_group("Hub")
    pushing.add_argument("--push_to_hub", action="store_true", help="push the model with all its results")
    pushing.add_argument("--hub_model_id", metavar="ID", help="repository: namespace/name")
    pushing.add_argument(
        "--private", action="store_true", default=None, help="push to a private repository, which others cannot see"
    )
    pushing.add_argument("--token", help="access token (default: the one from `hf auth login`)")
    proposal = parser.add_argument_group("submission")
    proposal.add_argument(
        "--submission", type=Path, metavar="FILE", help="write the YAML for the pull request to this file"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that this command did not write")
    proposal.add_argument("--hf_username", help="Hub user who submits")
    proposal.add_argument("--contact", help="how to reach this user")
    proposal.add_argument("--notes", help="remarks about the result")
    parser.add_argument("--no_progress", action="store_true", help="hide progress bars")
    arguments = parser.parse_args(argv)
    if (arguments.scores is None) != (arguments.dataset is None):
        parser.error("--scores and --dataset go together")
    if arguments.scores is None and not arguments.push_to_hub:
        parser.error("pass --scores and --dataset, or --push_to_hub for existing results")
    if (arguments.push_to_hub or arguments.submission) and not arguments.hub_model_id:
        parser.error("--push_to_hub and --submission need --hub_model_id namespace/name")
    if arguments.hub_model_id and arguments.hub_model_id.count("/") != 1:
        parser.error("--hub_model_id must be namespace/name")
    if arguments.submission and not (arguments.scores and arguments.hf_username and arguments.contact):
        parser.error("--submission needs --scores, --dataset, --hf_username and --contact")
    return arguments


def main(argv: Sequence[str]) -> int:
    """Write and push from the command line and return the exit status."""
    arguments = parse(argv)
    set_up_libraries(no_progress=arguments.no_progress)
    try:
        outputs = [arguments.model_dir / "README.md", *([arguments.submission] if arguments.submission else [])]
        with warnings_in_lines(), hold_outputs(outputs):
            run(arguments)
    except (ValueError, OSError) as error:
        print(error_line(error, arguments.model_dir), file=sys.stderr)
        return 2
    except hub.PublishingError as error:
        print(error_line(error), file=sys.stderr)
        return 1
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Write, push and propose the results, as the arguments say."""
    written, addresses = None, {}
    if arguments.submission and not arguments.overwrite:
        arena.require_form(arguments.submission)
    if arguments.scores:
        system = describe(arguments)
        written = write(arguments, system)
    if arguments.push_to_hub:
        addresses = arena.push_arena_results(
            arguments.model_dir, arguments.hub_model_id, token=arguments.token, private=arguments.private
        )
        for name, address in addresses.items():
            print(f"{name}: {address}")
    if arguments.submission and written:
        propose(arguments, system, written, addresses)


def describe(arguments: argparse.Namespace) -> arena.ArenaSystem:
    """Describe the model for the Arena."""
    return arena.describe_system(
        arguments.model_dir,
        repo_id=arguments.hub_model_id,
        name=arguments.system_name,
        slug=arguments.slug,
        description=arguments.description,
        code=arguments.code,
        checkpoint=arguments.checkpoint,
        paper_arxiv=arguments.paper_arxiv,
        paper_bibtex=arguments.paper_bibtex and arguments.paper_bibtex.read_text(encoding="utf-8").strip(),
    )


def write(arguments: argparse.Namespace, system: arena.ArenaSystem) -> arena.ArenaResult:
    """Write the results to the model's folder."""
    dataset = arena.load_arena_dataset(
        arguments.dataset,
        folder=arguments.dataset_folder,
        labels=arguments.labels and arena.read_labels(arguments.labels),
        revision=arguments.revision,
        split=arguments.split,
        token=arguments.token,
    )
    written = arena.write_arena_results(
        arguments.model_dir,
        arguments.scores,
        dataset,
        system,
        calibration=calibration(arguments),
        overwrite=arguments.overwrite,
    )
    judged = written.scores
    for metric, value in judged.metrics.items():
        print(f"{dataset.id} at {dataset.revision[:12]}: {metric} {value:.4f}")
    print(f"{judged.n_trials - judged.n_skipped} of {judged.n_trials} clips have a score")
    if judged.threshold is not None:
        print(f"threshold at the equal error rate: {judged.threshold!r}")
    print(f"written to {written.folder}, and into the model card")
    return written


def calibration(arguments: argparse.Namespace) -> arena.Calibration | None:
    """Return the threshold for spoof-only datasets; None if it was not passed."""
    threshold = arguments.calibration_threshold
    return None if threshold is None else arena.Calibration(arguments.calibration_dataset, threshold)


def propose(
    arguments: argparse.Namespace, system: arena.ArenaSystem, written: arena.ArenaResult, addresses: Mapping[str, str]
) -> None:
    """Write the submission and print how to make the pull request."""
    dataset_id = written.record["dataset"]["id"]
    address = addresses.get(dataset_id) or arena.find_scores(
        arguments.model_dir, arguments.hub_model_id, dataset_id, token=arguments.token
    )
    content = arena.submission(
        written.record,
        system,
        address,
        hf_username=arguments.hf_username,
        contact=arguments.contact,
        submitted_at=date.today(),
        calibration=calibration(arguments) if written.scores.threshold is None else None,
        notes=arguments.notes,
    )
    write_text_atomically(arguments.submission, arena.as_yaml(content))
    print(
        f"the submission is in {arguments.submission}; to propose it:\n    hf upload {dataset_id} "
        f"{arguments.submission} submissions/{system.slug}.yaml --repo-type dataset --create-pr"
    )
