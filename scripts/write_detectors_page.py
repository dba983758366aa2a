#!/usr/bin/env python
"""Write the page of published detectors, docs/published.md, from their table.

python scripts/write_detectors_page.py [FILE]

The table is `hf_gradalign/conversion/published.yaml`, which `hf-gradalign detectors` prints.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from hf_gradalign.cli.commands import run_command
from hf_gradalign.conversion.published import PublishedDetector, published_detectors
from hf_gradalign.utils.plain_text import markdown_cell

_TOP = """<!-- By scripts/write_detectors_page.py from hf_gradalign/conversion/published.yaml: edit that file. -->

# Published detectors

These detectors load by name in every command and function that takes a model. The checkpoint is converted on first use
([how](detectors.md#published-checkpoints)):

```bash
python scripts/list_detectors.py antideepfake    # what this page says, in the terminal
python scripts/score_audio_spoof.py nii-yamagishilab/xls-r-1b-anti-deepfake --audio recordings/
```

If the weights are not on the Hub, download the file from its source and pass its path, such as `AASIST.pth`. Every
other checkpoint with the same layout loads as well, such as your own from the authors' training code.

**What could be checked.** The conversions were compared with the authors' code on small checkpoints with random weights
and the published layout. The published weights themselves were not available here, except as their authors' figures:
all error rates on this page are as published, in percent, and none was measured here. Compare them only within a
source, because test sets, subsets and EER code differ.

**Scores.** Our scores are the bona fide logit minus the spoof logit. Most of these detectors were published with the
error rates of the bona fide logit alone (a single output, SLS and AntiDeepfake rank clips as we do). The two rank some
clips differently, so error rates can differ a little. For the published score, take `logits[:, 1]` of the model.

**Licenses.** A license of the weights binds converted and fine-tuned copies too. "None stated" means that the authors
give none: ask them before you use the weights or pass them on.
"""


def main(argv: Sequence[str]) -> int:
    """Write the page and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[1] / "docs" / "published.md"
    parser.add_argument("file", nargs="?", type=Path, default=default)
    file = parser.parse_args(argv).file
    file.write_text(page(), encoding="utf-8")
    print(file)
    return 0


def page() -> str:
    """Return the page as Markdown."""
    sections = (section(list(group)) for _, group in groupby(published_detectors(), lambda detector: detector.family))
    return "\n".join([_TOP, *sections])


def section(detectors: Sequence[PublishedDetector]) -> str:
    """Return the section of a family: a table, and a list of what its detectors have in common or apart."""
    rows = [
        ["detector", "what it is", "load", "parameters (M)", "published EER (%)"],
        ["---"] * 5,
        *(row(detector) for detector in detectors),
    ]
    lines = [f"## {detectors[0].family}", "", *(f"| {' | '.join(cells)} |" for cells in rows), ""]
    for title, values in facts(detectors):
        lines += [f"- **{title}.** {text}" for text in values]
    return "\n".join([*lines, ""])


def row(detector: PublishedDetector) -> list[str]:
    """Return a detector's row."""
    rates = "; ".join(f"{test_set} {eer:.2f}" for test_set, eer, _ in detector.results) or "none published"
    load = f"`{detector.loaded_as}`"
    if detector.repo:
        load = f"[{load}](https://huggingface.co/{detector.repo})"
    return [markdown_cell(detector.name), markdown_cell(detector.what), load, f"{detector.millions:.4g}", rates]


def facts(detectors: Sequence[PublishedDetector]) -> Iterator[tuple[str, list[str]]]:
    """Yield titles and texts; a text that does not hold for all detectors names those it holds for."""
    attributes = {
        "Weights": lambda detector: [detector.source] if detector.source else [],
        "License": lambda detector: [sentence(detector.shown_license)],
        "Input": lambda detector: [sentence(detector.input)],
        "Training data": lambda detector: [detector.training_data],
        "Figures": lambda detector: origins(detector),
        "Checked": lambda detector: [detector.checked],
        "Note": lambda detector: list(detector.peculiarities),
    }
    for title, texts_of in attributes.items():
        holders: dict[str, list[str]] = {}
        for detector in detectors:
            for text in texts_of(detector):
                holders.setdefault(text, []).append(detector.name)
        yield (
            title,
            [
                text if len(names) == len(detectors) else f"{', '.join(names)}: {text}"
                for text, names in holders.items()
            ],
        )


def origins(detector: PublishedDetector) -> list[str]:
    """Return where the figures of a detector come from, in one text."""
    by_origin: dict[str, list[str]] = {}
    for test_set, _, origin in detector.results:
        by_origin.setdefault(origin, []).append(test_set)
    return (
        [sentence("; ".join(f"{', '.join(sets)}: {origin}" for origin, sets in by_origin.items()))] if by_origin else []
    )


def sentence(text: str) -> str:
    """Return a phrase as a sentence."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


if __name__ == "__main__":
    run_command(main)
