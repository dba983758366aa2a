"""The section of a model card about the calibration of the scores."""

from collections.abc import Mapping
from typing import Any

from hf_gradalign.utils.plain_text import markdown_text

_START, _END = "<!-- begin of hf-gradalign calibrate -->", "<!-- end of hf-gradalign calibrate -->"
# Without metadata, the Hub shows no task, and may refuse the card.
_METADATA = "---\nlibrary_name: transformers\npipeline_tag: audio-classification\n---\n"
_BEFORE = "\n## Intended use"
_UNCALIBRATED = "Scores are not calibrated: they rank clips and are not probabilities."
_CALIBRATED = "Scores are calibrated, but only for recordings like those of the calibration."


def with_calibration_section(
    card: str, calibration: Mapping[str, Any], table: str | None = None, *, is_folded: bool = False
) -> str:
    """Add a section about the calibration to a model card, in place of an earlier one.

    Args:
        card: The card; empty for a new one, which gets metadata too.
        calibration: From the configuration.
        table: What the calibration gains, as a Markdown table.
        is_folded: Whether the calibration is part of the model's weights.

    Returns:
        The card.
    """
    section = f"{_START}\n{_section(calibration, table, is_folded)}\n\n{_END}"
    card = card.replace(_UNCALIBRATED, _CALIBRATED) if card.strip() else _METADATA
    start, end = card.find(_START), card.find(_END)
    if 0 <= start < end:
        return card[:start] + section + card[end + len(_END) :]
    place = card.find(_BEFORE)
    if place < 0:
        return f"{card.rstrip()}\n\n{section}\n".lstrip("\n")
    return f"{card[:place].rstrip()}\n\n{section}\n{card[place:]}"


def _section(calibration: Mapping[str, Any], table: str | None, is_folded: bool) -> str:
    fitted_on = calibration.get("fitted_on") or {}
    listed = ", ".join(markdown_text(fitted_on[name]) for name in ("scores", "keys") if fitted_on.get(name))
    if calibration["method"] == "affine":
        how = f"slope {calibration['slope']:.6g}, offset {calibration['offset']:.6g}, by logistic regression"
    else:
        how = f"{len(calibration['knots'])} knots, by pooling adjacent violators"
    text = (
        "## Calibration\n\n"
        "The scores of this model are log-likelihood ratios (natural logarithm): how many times more probable a score "
        "is for bona fide than for spoofed speech. A ratio says nothing about how common spoofs are.\n\n"
        f"- Calibration: {how}, with a prior of {calibration['prior']:g} for bona fide\n"
        f"- Fitted on: {calibration['n_bonafide']} bona fide and {calibration['n_spoof']} spoofed clips"
        f"{f' ({listed})' if listed else ''}, {markdown_text(calibration['date'])}\n"
        "- Scores and thresholds elsewhere in this card are from before the calibration. `SpoofScorer(..., "
        "raw_scores=True)` gives such scores"
        f"{', computed back from the weights of the last layer, which contain the calibration' if is_folded else ''}."
    )
    if table:
        text += f"\n\nClips that the calibration was not fitted on, before and after:\n\n{table}"
    return text
