import math

import pytest
import torch

from hf_gradalign.alignment import ConflictCounts, RunningMeans, conflict_statistics, conflicts, gradient_statistics

VIEWS = ["clean", "augmented"]


def test_statistics_of_two_views():
    gramian = torch.tensor([[4.0, -3.0], [-3.0, 9.0]])
    statistics = conflict_statistics(gramian, torch.tensor([0.6, 0.7]), VIEWS)
    assert {value.shape for value in statistics.values()} == {()}
    values = {name: pytest.approx(float(value)) for name, value in statistics.items()}
    assert values == {
        "conflict_rate": 1.0,
        "cosine_clean_augmented": -0.5,
        "norm_ratio_augmented_clean": 1.5,
        "grad_norm_clean": 2.0,
        "grad_norm_augmented": 3.0,
        "weight_clean": 0.6,
        "weight_augmented": 0.7,
    }


def test_no_conflict_at_a_right_angle():
    assert conflict_statistics(torch.eye(2), torch.ones(2), VIEWS)["conflict_rate"] == 0


def test_one_view_has_no_conflicts():
    statistics = conflict_statistics(torch.tensor([[4.0]]), torch.ones(1), ["only"])
    assert statistics == {"grad_norm_only": 2, "weight_only": 1}
    groups = torch.tensor([[[4.0]], [[5.0]]])
    assert set(conflict_statistics(groups, torch.ones(2, 1), ["only"])) == {"grad_norm_only", "weight_only"}


def test_every_pair_of_three_views():
    statistics = conflict_statistics(torch.eye(3), torch.ones(3), ["a", "b", "c"])
    assert [name for name in statistics if name.startswith("cosine")] == ["cosine_a_b", "cosine_a_c", "cosine_b_c"]


def test_a_zero_gradient_has_cosine_zero():
    statistics = conflict_statistics(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.ones(2), VIEWS)
    assert statistics["cosine_clean_augmented"] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_gradients_have_no_cosine(value):
    gramian = torch.tensor([[value, value], [value, 1.0]])
    statistics = conflict_statistics(gramian, torch.ones(2), VIEWS)
    assert math.isnan(statistics["cosine_clean_augmented"])
    assert math.isnan(statistics["conflict_rate"])


def test_many_gramians_at_once():
    gramians = torch.tensor([[[4.0, -3.0], [-3.0, 9.0]], [[1.0, 0.5], [0.5, 1.0]]]).expand(3, 2, 2, 2)
    statistics = gradient_statistics(gramians, VIEWS)
    torch.testing.assert_close(statistics["cosine_clean_augmented"], torch.tensor([-0.5, 0.5]).expand(3, 2))
    torch.testing.assert_close(statistics["grad_norm_augmented"], torch.tensor([3.0, 1.0]).expand(3, 2))
    assert conflicts(gramians).tolist() == [[1, 0]] * 3


def test_running_means_skip_non_finite_values():
    means = RunningMeans()
    for value in (1.0, math.nan, 3.0, math.inf):
        means.update({"cosine": torch.tensor(value), "always": torch.tensor(2.0)})
    assert len(means) == 4
    assert means.means() == {"cosine": 2.0, "always": 2.0}
    means.reset()
    assert means.means() == {}
    means.update({"cosine": torch.tensor(math.nan)})
    assert means.means() == {}


def test_running_means_continue_from_their_state():
    first, second = RunningMeans(), RunningMeans()
    first.update({"x": torch.tensor(0.1)})
    second.load_state_dict(first.state_dict())
    for means in (first, second):
        means.update({"x": torch.tensor(0.7)})
    assert first.means() == second.means()
    assert len(second) == 2


def test_conflict_counts_by_epoch_and_after_resuming():
    counts = ConflictCounts()
    assert counts.rate() is None
    for epoch, conflict in ((0, 1.0), (0, 0.0), (0, math.nan), (1, 1.0)):
        counts.update(epoch, torch.tensor(conflict))
    resumed = ConflictCounts()
    resumed.load_state_dict(counts.state_dict())
    for conflict in (0.0, 0.0, math.nan):
        resumed.update(1, torch.tensor(conflict))
    resumed.update(2, torch.tensor(math.nan))
    assert counts.rate() == pytest.approx(2 / 3)
    assert resumed.rates() == {0: 0.5, 1: pytest.approx(1 / 3)}  # epoch 2 has no finite update
    assert resumed.rate() == pytest.approx(2 / 5)
    assert resumed.nonfinite() == 3
