#!/usr/bin/env python
"""Write the model cards of the paper's detectors after conversion, without downloading their checkpoints.

python scripts/write_model_cards.py [FOLDER]

`scripts/convert_checkpoint.py` writes the same cards with the hash of the file and a report of the conversion.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hf_gradalign import conversion
from hf_gradalign.cli.commands import run_command

_FAMILY = "DPDA-GA"  # of the paper


def main(argv: Sequence[str]) -> int:
    """Write the cards and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[1] / "model_cards")
    folder = parser.parse_args(argv).folder
    for detector in conversion.published_detectors():
        if detector.family != _FAMILY:
            continue
        known = conversion.card_facts(detector)
        name = detector.name.lower()
        command = f"python scripts/convert_checkpoint.py {known['source']} --output_dir {name}"
        facts = conversion.ConversionCardFacts(**known, load_from=name, report=f"```\n{command}\n```")
        print(conversion.write_conversion_card(folder / f"{name}.md", facts))
    return 0


if __name__ == "__main__":
    run_command(main)
