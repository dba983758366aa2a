"""The console command `hf-gradalign`. Its `--help` imports no large library."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from hf_gradalign import __version__
from hf_gradalign.cli.commands import start
from hf_gradalign.utils.messages import did_you_mean

COMMANDS = {
    "train": "train a detector on clean and augmented views with aligned gradients",
    "score": "score corpora or recordings with a trained detector",
    "evaluate": "evaluate score files: error rates, costs, intervals, breakdowns",
    "evaluate-timeline": "evaluate where in recordings spoofed speech is found",
    "calibrate": "calibrate scores, and store the calibration with the model",
    "fuse": "fuse the scores of several systems, and compare with the best one",
    "detectors": "list published detectors that load by name",
    "convert": "convert a published checkpoint, or convert back",
    "export": "export a detector as an ONNX file",
    "study": "run a study: a grid of training runs, scored on several sets",
    "report": "report a study: tables, comparisons and figures",
    "demo": "open a page in the browser that judges recordings, or push it as a Space",
    "plot-conflicts": "plot the gradient conflicts of a run",
    "arena": "write results for the Speech Anti-Spoofing Arena",
    "env": "print versions, devices and optional packages, for a bug report",
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run `hf-gradalign COMMAND ...` and end the process.

    Args:
        argv: The words after `hf-gradalign`. Defaults to this process's.
    """
    listed = "\n".join(f"  {name:<19}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="hf-gradalign",
        usage="hf-gradalign COMMAND ...",
        description="Dual-path training with gradient alignment for speech deepfake detectors.",
        epilog=f"commands:\n{listed}\n\n`hf-gradalign COMMAND --help` lists a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"hf_gradalign {__version__}")
    parser.add_argument("command", metavar="COMMAND", help="one of the commands below")
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    first = words[0] if words else "--help"
    known = ("-h", "--help", "--version", *COMMANDS)
    if first not in known:
        kind = "option" if first.startswith("-") else "command"
        parser.error(f"unknown {kind} {first}{did_you_mean(first.lower(), known)}")
    name = parser.parse_args([first]).command
    start(name, words[1:])


if __name__ == "__main__":
    main()
