"""The metrics as modules of the `evaluate` library, driven by one table.

`evaluate.load` takes a folder with a Python file of the same name. So each metric has a folder here, and its file
contains only a class that names a row of `MODULES`. The row says what the module computes and how it describes itself.

`hf_gradalign.metrics` does not import this file, so that the plain functions do not load `evaluate`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate

from hf_gradalign import metrics

_SCORES = (
    "prediction_scores (`list` of `float`): one score per clip, higher for bona fide speech. Any finite numbers work: "
    "probabilities, logits (bona fide minus spoof), log-likelihood ratios."
)
_RATIOS = (
    "prediction_scores (`list` of `float`): one score per clip, the natural logarithm of the likelihood ratio of bona "
    "fide over spoofed speech."
)
_LABELS = "references (`list` of `int`): one label per clip, 1 for bona fide and 0 for spoof."
_TYPES = 'references (`list` of `str`): "target", "nontarget" or "spoof" for each trial.'
_COSTS = (
    "p_spoof (`float`): prior probability of a spoof (0.05).",
    "c_miss (`float`): cost of rejecting a bona fide clip (1).",
    "c_fa (`float`): cost of accepting a spoofed clip (10).",
)
_THRESHOLD = "threshold (`float`): the lowest score of a clip that counts as bona fide."
_REJECTED_UP_TO = "threshold (`float`): the score up to and including which a clip is rejected."
_EXAMPLE = "prediction_scores=[-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], references=[0, 0, 0, 1, 1, 1]"

_ASVSPOOF2019 = """
@article{wang2020asvspoof,
  title   = {{ASVspoof} 2019: A large-scale public database of synthesized, converted and replayed speech},
  author  = {Wang, Xin and Yamagishi, Junichi and Todisco, Massimiliano and others},
  journal = {Computer Speech \\& Language},
  volume  = {64},
  pages   = {101114},
  year    = {2020}
}
"""
_ASVSPOOF5 = """
@inproceedings{wang2024asvspoof5,
  title     = {{ASVspoof} 5: Crowdsourced speech data, deepfakes, and adversarial attacks at scale},
  author    = {Wang, Xin and Delgado, H\\'ector and Tak, Hemlata and others},
  booktitle = {The Automatic Speaker Verification Spoofing Countermeasures Workshop (ASVspoof)},
  year      = {2024}
}
"""
_ARENA = """
@misc{speech_spoof_bench,
  title  = {{speech_spoof_bench}: the tool of the Speech Anti-Spoofing Arena},
  author = {lab260ru},
  url    = {https://github.com/lab260ru/speech_spoof_bench}
}
"""
_CLLR = """
@article{brummer2006application,
  title   = {Application-independent evaluation of speaker detection},
  author  = {Br{\\"u}mmer, Niko and du Preez, Johan},
  journal = {Computer Speech \\& Language},
  volume  = {20},
  number  = {2-3},
  pages   = {230--275},
  year    = {2006}
}
"""
_ROC = """
@article{hanley1982meaning,
  title   = {The meaning and use of the area under a receiver operating characteristic ({ROC}) curve},
  author  = {Hanley, James A. and McNeil, Barbara J.},
  journal = {Radiology},
  volume  = {143},
  number  = {1},
  pages   = {29--36},
  year    = {1982}
}
"""
_TANDEM = """
@article{kinnunen2020tandem,
  title   = {Tandem assessment of spoofing countermeasures and automatic speaker verification: Fundamentals},
  author  = {Kinnunen, Tomi and Delgado, H{\\'e}ctor and Evans, Nicholas and others},
  journal = {IEEE/ACM Transactions on Audio, Speech, and Language Processing},
  volume  = {28},
  pages   = {2195--2210},
  year    = {2020}
}
"""
_A_DCF = """
@inproceedings{shim2024adcf,
  title     = {{a-DCF}: an architecture agnostic metric with application to spoofing-robust speaker verification},
  author    = {Shim, Hye-jin and Jung, Jee-weon and Kinnunen, Tomi and others},
  booktitle = {Proc. Odyssey: The Speaker and Language Recognition Workshop},
  year      = {2024}
}
"""


@dataclass(frozen=True)
class Module:
    """A row of the table.

    Attributes:
        compute: A function of scores, labels and options that returns the results by name.
        description: What the metric is.
        takes: The arguments of `compute`.
        returns: The results.
        example: A call in two lines or more, with its result as the last line.
        citation: BibTeX of its source.
        labels: The data type of the references.
    """

    compute: Callable[..., dict[str, float]]
    description: str
    takes: Sequence[str]
    returns: Sequence[str]
    example: str
    citation: str = ""
    labels: str = "int64"

    def usage(self) -> str:
        """Return the description of arguments and results, which `evaluate` adds to its methods' docstrings."""
        takes, returns = ("\n".join(f"    {item}" for item in items) for items in (self.takes, self.returns))
        return f"\nArgs:\n{takes}\n\nReturns:\n{returns}\n\nExamples:\n{self.example}\n"


def _example(name: str, call: str, result: str) -> str:
    lines = f'>>> {name} = evaluate.load("hf_gradalign/metrics/{name}")', f">>> {name}.compute({call})", result
    return "\n".join(f"    {line}" for line in lines)


def _min_tdcf(
    scores: Sequence[float],
    labels: Sequence[int],
    *,
    asv_miss: float,
    asv_false_alarm: float,
    asv_spoof_false_alarm: float,
    **options: Any,
) -> dict[str, float]:
    asv = metrics.AsvErrorRates(asv_miss, asv_false_alarm, asv_spoof_false_alarm)
    return metrics.min_tandem_detection_cost(scores, labels, asv, **options)


def _min_a_dcf(scores: Sequence[float], trial_types: Sequence[str], **costs: float) -> dict[str, float]:
    return metrics.min_agnostic_detection_cost(scores, trial_types, costs=metrics.AgnosticCosts(**costs))


MODULES = {
    "eer": Module(
        metrics.equal_error_rate,
        """
The equal error rate (EER) of a detector of spoofed speech is the error at the threshold where equal shares of bona
fide clips are rejected and of spoofed clips are accepted. 0 is perfect, 0.5 is chance. It is taken at the point of the
detection error curve where the two rates are closest, without interpolation, as in the official scoring packages of
the ASVspoof challenges.
""",
        (_SCORES, _LABELS),
        ("eer (`float`): the equal error rate, a fraction in [0, 1].", _REJECTED_UP_TO),
        _example("eer", _EXAMPLE, "{'eer': 0.3333333333333333, 'threshold': 0.0}"),
        _ASVSPOOF2019,
    ),
    "eer_interpolated": Module(
        metrics.interpolated_equal_error_rate,
        """
The equal error rate by linear interpolation between the points of the detection error curve, as the Speech
Anti-Spoofing Arena computes it. It differs from the official one of the ASVspoof packages by at most half a step of
the curve, and if scores are tied.
""",
        (_SCORES, _LABELS),
        (
            "eer (`float`): the equal error rate, a fraction in [0, 1].",
            "threshold (`float`): the threshold, also interpolated.",
        ),
        _example("eer_interpolated", _EXAMPLE, "{'eer': 0.3333333333333333, 'threshold': 0.5}"),
        _ARENA,
    ),
    "min_dcf": Module(
        metrics.min_detection_cost,
        """
The detection cost of ASVspoof 5, track 1 (minDCF), at the best threshold for the clips themselves. 0 is perfect, and 1
is the cost of always making the cheaper decision.
""",
        (_SCORES, _LABELS, *_COSTS),
        ("min_dcf (`float`): the normalized cost.", _REJECTED_UP_TO),
        _example("min_dcf", _EXAMPLE, "{'min_dcf': 0.3333333333333333, 'threshold': -1.0}"),
        _ASVSPOOF5,
    ),
    "act_dcf": Module(
        metrics.actual_detection_cost,
        """
The detection cost of ASVspoof 5, track 1 (actDCF), at the Bayes threshold of log-likelihood ratios. 0 is perfect, and 1
is the cost of always making the cheaper decision. Badly calibrated scores may cost more.
""",
        (_RATIOS, _LABELS, *_COSTS),
        (
            "act_dcf (`float`): the normalized cost.",
            "threshold (`float`): the lowest score of a clip that is accepted.",
        ),
        _example("act_dcf", _EXAMPLE, "{'act_dcf': 0.3333333333333333, 'threshold': -0.6418538861723947}"),
        _ASVSPOOF5,
    ),
    "cllr": Module(
        metrics.log_likelihood_ratio_cost,
        """
The cost of log-likelihood ratios (Cllr) in bits, over all thresholds: 0 is perfect, scores of 0 give 1, and above 1 the
scores do harm.
""",
        (_RATIOS, _LABELS),
        ("cllr (`float`): the cost in bits, 0 or more.",),
        _example("cllr", _EXAMPLE, "{'cllr': 0.6125691708083343}"),
        _CLLR,
    ),
    "auc": Module(
        metrics.roc_auc,
        """
The area under the receiver operating characteristic curve: the probability that a bona fide clip scores higher than a
spoofed one. Equal scores count half. 1 is perfect, 0.5 is chance.
""",
        (_SCORES, _LABELS),
        ("roc_auc (`float`): the area, in [0, 1].",),
        _example("auc", _EXAMPLE, "{'roc_auc': 0.8888888888888888}"),
        _ROC,
    ),
    "accuracy_f1": Module(
        metrics.accuracy_at_threshold,
        """
Accuracy, F1 and both error rates when clips with a score of the threshold or more count as bona fide. Choose the
threshold beforehand, on development data.
""",
        (_SCORES, _LABELS, _THRESHOLD),
        (
            "accuracy, balanced_accuracy (`float`): fractions in [0, 1].",
            "f1, f1_spoof, f1_macro (`float`): F1 with bona fide as the positive class, with spoof, and their mean.",
            "false_rejection_rate (`float`): share of bona fide clips that are rejected.",
            "false_acceptance_rate (`float`): share of spoofed clips that are accepted.",
        ),
        """    >>> accuracy = evaluate.load("hf_gradalign/metrics/accuracy_f1")
    >>> scores, labels = [-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], [0, 0, 0, 1, 1, 1]
    >>> accuracy.compute(prediction_scores=scores, references=labels, threshold=0.25)["f1"]
    0.6666666666666666""",
    ),
    "spoof_acceptance": Module(
        metrics.spoof_acceptance_rate,
        """
The share of spoofed clips that count as bona fide at a threshold that was chosen on other data, for sets without bona
fide clips, which have no equal error rate. It is 1 - SRR of the Speech Anti-Spoofing Arena.
""",
        (_SCORES, _LABELS, _THRESHOLD),
        ("spoof_acceptance_rate (`float`): a fraction in [0, 1].",),
        _example(
            "spoof_acceptance",
            "prediction_scores=[-2.0, -1.0, 0.5], references=[0, 0, 0], threshold=0.25",
            "{'spoof_acceptance_rate': 0.33333333333333337}",
        ),
        _ARENA,
    ),
    "min_tdcf": Module(
        _min_tdcf,
        """
The normalized cost (min t-DCF) of a countermeasure in front of a speaker verifier, at the best countermeasure
threshold, in the form of ASVspoof 2021 and 5 or the legacy form of ASVspoof 2019.
""",
        (
            _SCORES,
            _LABELS,
            "asv_miss (`float`): share of target trials that the verifier rejects.",
            "asv_false_alarm (`float`): share of non-target trials that it accepts.",
            "asv_spoof_false_alarm (`float`): share of spoofed trials that it accepts.",
            'form (`str`): "2021" (the default) or "2019".',
        ),
        ("min_tdcf (`float`): the normalized cost, in [0, 1].", _REJECTED_UP_TO),
        """    >>> min_tdcf = evaluate.load("hf_gradalign/metrics/min_tdcf")
    >>> min_tdcf.compute(prediction_scores=[-2.0, -1.0, 0.5, 0.0, 1.0, 2.0],
    ...     references=[0, 0, 0, 1, 1, 1],
    ...     asv_miss=0.02, asv_false_alarm=0.02, asv_spoof_false_alarm=0.4)
    {'min_tdcf': 0.39588902481385824, 'threshold': -1.0}""",
        _TANDEM,
    ),
    "a_dcf": Module(
        _min_a_dcf,
        """
The normalized cost (min a-DCF), at the best threshold, of a speaker verifier that must reject both other speakers and
spoofs with one score. The default costs are a-DCF1 of the paper; track 2 of ASVspoof 5 has p_target=0.9405,
p_nontarget=0.0095, p_spoof=0.05, c_fa_spoof=10.
""",
        (
            _SCORES,
            _TYPES,
            "p_target, p_nontarget, p_spoof (`float`): prior probabilities of the three (0.9, 0.05, 0.05).",
            "c_miss, c_fa_nontarget, c_fa_spoof (`float`): costs of the three errors (1, 10, 20).",
        ),
        (
            "a_dcf (`float`): the normalized cost, in [0, 1].",
            "threshold (`float`): the score up to and including which a trial is rejected.",
        ),
        """    >>> a_dcf = evaluate.load("hf_gradalign/metrics/a_dcf")
    >>> a_dcf.compute(prediction_scores=[-2.0, -1.0, 0.5, 0.0, 1.0, 2.0],
    ...     references=["spoof", "nontarget", "spoof", "target", "target", "target"])
    {'a_dcf': 0.3333333333333333, 'threshold': 0.5}""",
        _A_DCF,
        labels="string",
    ),
}
"""The modules, by the name of their folder."""


class ScoreMetric(evaluate.Metric):
    """A metric of scores and labels. A subclass names its row: `class EqualErrorRate(ScoreMetric, key="eer")`.

    `evaluate` uses the first metric class that it finds in a module. So import this module there, not this class.
    """

    row: Module

    def __init_subclass__(cls, *, key: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.row = MODULES[key]
        cls.__doc__ = f"{cls.row.description}{cls.row.usage()}\n\n{cls.__doc__}"

    def _info(self) -> evaluate.MetricInfo:
        features = {"prediction_scores": datasets.Value("float64"), "references": datasets.Value(self.row.labels)}
        return evaluate.MetricInfo(
            description=self.row.description,
            citation=self.row.citation,
            inputs_description=self.row.usage(),
            features=datasets.Features(features),
            reference_urls=["https://www.asvspoof.org"],
        )

    def _compute(self, *, prediction_scores: Any = None, references: Any = None, **options: Any) -> dict[str, float]:
        return self.row.compute(prediction_scores, references, **options)
