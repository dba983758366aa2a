from itertools import product

import numpy as np
import pytest
from scipy import stats

from hf_gradalign.metrics import compare_systems, equal_error_rate
from hf_gradalign.study import StudyError
from hf_gradalign.study.comparison import Condition, Difference, EvaluationClips, Group, PairedBootstrap, signed_rank_p

CONDITION = Condition("rawboost", "small", "linear", 16)


def clips(n=200, seed=0):
    generator = np.random.default_rng(seed)
    return EvaluationClips(
        [
            {"label": int(label), "speaker": str(number % 20)}
            for number, label in enumerate(generator.permutation(np.arange(n) % 2))
        ]
    )


def make_group(method, own, shift, seeds, noise=0.0):
    group = Group(CONDITION, method, 6)
    for seed in seeds:
        generator = np.random.default_rng(seed)
        scores = generator.normal(size=len(own.labels)) + (1.0 + shift) * own.labels
        scores += noise * np.random.default_rng([seed, len(method)]).normal(size=len(scores))
        row = {"eer": equal_error_rate(scores, own.labels)["eer"], "scores": scores.tolist(), "n_forward_passes": 9}
        group.results[seed], group.trials[seed] = {"test": row}, f"{method}-{seed}"
    return group


def test_equal_systems_differ_by_nothing():
    own = clips()
    first, second = make_group("a", own, 0.0, range(4)), make_group("b", own, 0.0, range(4))
    difference = PairedBootstrap(own, n_draws=50).compare(first, second, "test")
    assert difference == Difference(0.0, 0.0, 0.0, 1.0, 4)
    assert difference.verdict == "noise"


def test_a_better_system_is_seen():
    own = clips(400)
    difference = PairedBootstrap(own, n_draws=200).compare(
        make_group("better", own, 1.5, range(5)), make_group("worse", own, 0.0, range(5)), "test"
    )
    assert difference.verdict == "lower"
    assert difference.low < difference.mean < difference.high < 0
    assert difference.p_value == pytest.approx(2 / 2**5)


def test_one_seed_is_the_paired_bootstrap_of_two_systems():
    own = clips()
    first, second = make_group("a", own, 0.3, [0], noise=0.3), make_group("bb", own, 0.0, [0], noise=0.3)
    difference = PairedBootstrap(own, n_draws=500).compare(first, second, "test")
    scores = [group.results[0]["test"]["scores"] for group in (first, second)]
    expected = compare_systems(*scores, own.labels, "eer", n_draws=500)["eer"]
    assert difference.mean == pytest.approx(expected.difference)
    assert difference.p_value is None
    assert difference.verdict == "one seed"  # however clear the difference of these two models is
    assert difference.low == pytest.approx(expected.low, abs=0.02)  # other draws
    assert difference.high == pytest.approx(expected.high, abs=0.02)


def test_only_seeds_that_both_have_are_compared():
    own = clips()
    difference = PairedBootstrap(own, n_draws=10).compare(
        make_group("a", own, 0.3, [0, 1, 2]), make_group("b", own, 0.0, [2, 3]), "test"
    )
    assert difference.n_seeds == 1
    assert PairedBootstrap(own).compare(make_group("a", own, 0.3, [0]), make_group("b", own, 0.0, [1]), "test") is None


def test_values_of_runs_are_in_any_of_their_evaluation_sets():
    own = clips()
    group = make_group("a", own, 0.3, [0, 1, 2])
    for seed in group.seeds:
        group.results[seed]["test"]["conflict_rate"] = seed / 10 if seed < 2 else None
    group.results[1] = {"dev": group.results[1]["test"]}  # not yet scored on the set of the others
    assert group.run_values("conflict_rate") == {0: 0.0, 1: 0.1}
    assert group.values("test", "conflict_rate") == {0: 0.0}


def test_seeds_that_disagree_widen_the_interval():
    own = clips(1000)
    base = make_group("base", own, 0.0, range(6))
    steady = PairedBootstrap(own, n_draws=80).compare(make_group("a", own, 0.3, range(6)), base, "test")
    mixed = make_group("a", own, 0.3, range(6))
    for seed in (0, 1, 2):
        mixed.results[seed] = make_group("a", own, -0.3, [seed]).results[seed]
    unsteady = PairedBootstrap(own, n_draws=80).compare(mixed, base, "test")
    assert unsteady.high - unsteady.low > 2 * (steady.high - steady.low)


def test_clusters_and_bad_clips():
    own = clips()
    first, second = make_group("a", own, 1.5, [0, 1]), make_group("b", own, 0.0, [0, 1])
    first.results[0]["test"]["scores"][3] = None
    difference = PairedBootstrap(own, n_draws=50, over="speaker").compare(first, second, "test")
    assert difference.low < difference.mean < difference.high
    with pytest.raises(StudyError, match=r"no column 'nothing'\. Available columns: label, speaker"):
        PairedBootstrap(own, over="nothing")
    with pytest.raises(ValueError, match="at least two draws"):
        PairedBootstrap(own, n_draws=1)


@pytest.mark.parametrize("values", [[0.1, -0.2, 0.3, 0.4], [1.0, 1.0, -1.0, 2.0, 2.0], [0.5, 0.7, 0.2]])
def test_signed_rank_test_is_exact(values):
    ranks = stats.rankdata(np.abs(values))
    observed = (ranks * np.sign(values)).sum()
    sums = [(ranks * signs).sum() for signs in product((-1, 1), repeat=len(values))]
    share = np.mean(np.abs(sums) >= abs(observed) - 1e-9)
    assert signed_rank_p(np.array(values)) == pytest.approx(min(share, 1.0))


def test_signed_rank_test_of_few_or_equal_values():
    assert signed_rank_p(np.array([0.1])) is None
    assert signed_rank_p(np.array([0.0, 1e-17, 0.0])) == 1.0
