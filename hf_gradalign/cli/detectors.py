"""List published detectors that load by name: sources, licenses and published error rates.

python scripts/list_detectors.py
python scripts/list_detectors.py antideepfake xls-r
python scripts/list_detectors.py aasist --json

Pass the text after `load` as the model to any command, such as `hf-gradalign score`. This command downloads nothing.
"""

import json
import sys
from collections.abc import Sequence

from hf_gradalign.cli.command_parser import CommandParser
from hf_gradalign.conversion.published import PublishedDetector, as_mapping, matching


def main(argv: Sequence[str]) -> int:
    """Print the detectors and return the exit status."""
    parser = CommandParser("detectors", __doc__, "[WORD ...]")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only detectors with all of these words")
    parser.add_argument("--json", action="store_true", help="print everything that is known, as JSON")
    arguments = parser.parse_args(argv)
    detectors = matching(arguments.words)
    if arguments.json:
        print(json.dumps([as_mapping(detector) for detector in detectors], indent=2))
    elif detectors:
        print("\n\n".join(map(describe, detectors)))
    if not detectors:
        print(f"error: no published detector matches {' and '.join(arguments.words)}", file=sys.stderr)
        return 1
    return 0


def describe(detector: PublishedDetector) -> str:
    """Return what is known about a detector, a line per fact."""
    rates: dict[str, list[str]] = {}
    for test_set, eer, origin in detector.results:
        rates.setdefault(origin, []).append(f"{test_set} {eer:.2f}")
    lines = [
        f"{detector.name}: {detector.what} ({detector.millions:.4g} M parameters)",
        f"  load       {detector.loaded_as}",
        *([] if detector.repo else [f"  weights    {detector.source}"]),
        f"  license    {detector.shown_license}",
        f"  input      {detector.input}",
        *(f"  EER (%)    {', '.join(shown)} ({origin})" for origin, shown in rates.items()),
        f"  checked    {detector.checked}",
        *(f"  note       {text}" for text in detector.peculiarities),
    ]
    return "\n".join(lines)
