"""What the modules of `evaluate` in the folders beside this file have in common.

Not imported by `hf_gradalign.metrics`, so that the plain functions do not wait for `evaluate` to be imported.
"""

import datasets
import evaluate

SCORES = (
    "prediction_scores (`list` of `float`): a score a clip, higher for bona fide speech. Any finite numbers will do: "
    "probabilities, logits (bona fide minus spoof), log-likelihood ratios."
)
RATIOS = (
    "prediction_scores (`list` of `float`): a score a clip, the natural logarithm of the likelihood ratio of bona fide "
    "speech over spoofed."
)
LABELS = "references (`list` of `int`): a label a clip, 1 for bona fide and 0 for spoof."

ASVSPOOF2019 = """
@article{wang2020asvspoof,
  title   = {{ASVspoof} 2019: A large-scale public database of synthesized, converted and replayed speech},
  author  = {Wang, Xin and Yamagishi, Junichi and Todisco, Massimiliano and others},
  journal = {Computer Speech \\& Language},
  volume  = {64},
  pages   = {101114},
  year    = {2020}
}
"""
ASVSPOOF5 = """
@inproceedings{wang2024asvspoof5,
  title     = {{ASVspoof} 5: Crowdsourced speech data, deepfakes, and adversarial attacks at scale},
  author    = {Wang, Xin and Delgado, H\\'ector and Tak, Hemlata and others},
  booktitle = {The Automatic Speaker Verification Spoofing Countermeasures Workshop (ASVspoof)},
  year      = {2024}
}
"""


def usage(takes: list[str], gives: list[str], example: str) -> str:
    """The description of arguments and results that `evaluate` shows."""
    listed = "\n".join(f"    {item}" for item in takes), "\n".join(f"    {item}" for item in gives)
    return f"\nArgs:\n{listed[0]}\n\nReturns:\n{listed[1]}\n\nExamples:\n{example}\n"


def module_info(description: str, citation: str, usage: str, labels: str = "int64") -> evaluate.MetricInfo:
    """What `evaluate` wants to know of a metric of scores and labels.

    Args:
        description: What it is.
        citation: BibTeX of its source.
        usage: What it takes and gives.
        labels: The type of the references.
    """
    features = {"prediction_scores": datasets.Value("float64"), "references": datasets.Value(labels)}
    return evaluate.MetricInfo(
        description=description,
        citation=citation,
        inputs_description=usage,
        features=datasets.Features(features),
        reference_urls=["https://www.asvspoof.org"],
    )
