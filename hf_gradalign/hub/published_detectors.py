"""What is published of the three DPDA-GA checkpoints: sources, results and peculiarities."""

from typing import Any

_ORGANISATION = "SpeechAntiSpoofingBenchmarks"
_PAPER = "Truong et al., arXiv 2509.20682 (with RawBoost and PCGrad)"
_ARENA = "Speech Anti-Spoofing Arena (interpolated EER)"
_AUTHORS = "Duc-Tuan Truong and co-authors' (arXiv 2509.20682)"
_TRAINING = (
    "ASVspoof 2019 LA, training partition alone; each utterance clean and with RawBoost (algorithm 4), the two "
    "gradients aligned by PCGrad. The wav2vec 2.0 is XLS-R 300M, fine-tuned as a whole."
)
_BIBTEX = """@inproceedings{truong2026addressing,
  title         = {Addressing Gradient Misalignment in Data-Augmented Training for Robust Speech Deepfake Detection},
  author        = {Truong, Duc-Tuan and Liu, Tianchi and Li, Junjie and Tao, Ruijie and Lee, Kong Aik and Chng, Eng Siong},
  booktitle     = {IEEE International Conference on Acoustics, Speech and Signal Processing (ICASSP)},
  year          = {2026},
  eprint        = {2509.20682},
  archivePrefix = {arXiv}
}"""  # noqa: E501


def _average(formula: str, why: str) -> str:
    return (
        f"The weights are an average as the published code takes it, {formula}, because it adds the checkpoints up in "
        f"place{why}. They are kept as they are: the published results are theirs."
    )


_FIVE = _average("(2 best_1 + best_2 + best_3 + best_4) / 5 of the five best checkpoints", "")


def _facts(
    name: str, head: str, filename: str, millions: float, paper: tuple[float, ...], arena: tuple[float, ...], mean: str
) -> dict[str, Any]:
    results = list(zip(("ASVspoof 2021 DF", "In-the-Wild", "FoR"), paper, [_PAPER] * 3, strict=True))
    results += list(zip(("DFADD", "DECRO", "HABLA"), arena, [_ARENA] * 3, strict=True))
    return {
        "title": f"{name} for transformers",
        "head": head,
        "source": f"{_ORGANISATION}/{name}:{filename}",
        "n_parameters": round(millions * 1e6),
        "authors": _AUTHORS,
        "training_data": _TRAINING,
        "results": results,
        "peculiarities": [mean],
        "bibtex": _BIBTEX,
    }


# Facts of `ConversionCardFacts`, by the source that the checkpoint comes from.
PUBLISHED_DETECTORS: dict[str, dict[str, Any]] = {
    facts["source"]: facts
    for facts in (
        _facts(
            "DPDA-GA-AASIST",
            "aasist",
            "dpda_ga_aasist_avg5.pth",
            317.8378,
            (2.13, 5.42, 3.04),
            (20.13, 12.78, 2.67),
            _FIVE,
        ),
        _facts(
            "DPDA-GA-TCM",
            "conformer_tcm",
            "dpda_ga_tcm_avg4.pth",
            321.2132,
            (1.81, 6.48, 4.47),
            (9.54, 10.50, 2.48),
            _average("(2 best_1 + best_2 + best_3) / 4", ", and because the fifth file is truncated where it lies"),
        ),
        _facts(
            "DPDA-GA-Mamba",
            "mamba",
            "dpda_ga_mamba_avg5.pth",
            319.3275,
            (1.74, 6.43, 4.86),
            (9.54, 10.95, 2.91),
            _FIVE,
        ),
    )
}
