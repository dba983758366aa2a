import json
import math

import pytest
import torch

from hf_gradalign.alignment import CRMOGM, NoAlignment, PCGrad, available_methods, get_method


def random_gramians(updates, groups, views, seed=0):
    rows = torch.randn(updates, groups, views, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows @ rows.mT


@pytest.mark.parametrize("name", ["none", "pcgrad", "gradvac", "cagrad", "mgda", "imtlg", "pcd"])
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.3, *(pytest.param(alpha, marks=pytest.mark.slow) for alpha in (0.9, 1.0))])
def test_moving_average(name, views, alpha):
    if name not in available_methods():
        pytest.skip(f"{name} needs TorchJD")
    smoothed, plain = get_method(f"crmogm({name})", **{"crmogm.alpha": alpha}), get_method(name)
    average = None
    for gramians in random_gramians(6, 2, views):
        latest = plain(gramians)
        average = latest if average is None else alpha * average + (1 - alpha) * latest
        torch.testing.assert_close(smoothed(gramians), average, rtol=1e-14, atol=1e-14)


def test_default_keeps_nine_tenths_of_the_past():
    assert get_method("crmogm(pcgrad)").alpha == 0.9


def test_matches_torchjd():
    torchjd = pytest.importorskip("torchjd.aggregation")
    ours, theirs = get_method("crmogm(mgda)", alpha=0.7), torchjd.CRMOGMWeighting(torchjd.MGDAWeighting(), alpha=0.7)
    start = [0.2, 0.3, 0.5]
    ours_started = get_method("crmogm(mgda)", alpha=0.7, initial_weights=start)
    theirs_started = torchjd.CRMOGMWeighting(torchjd.MGDAWeighting(), 0.7, torch.tensor(start))
    for (gramian,) in random_gramians(20, 1, 3):
        torch.testing.assert_close(ours(gramian), theirs(gramian))
        torch.testing.assert_close(ours_started(gramian), theirs_started(gramian))


def test_works_around_our_own_methods():
    method = get_method("CR-MOGM(PCGrad)")
    assert isinstance(method, CRMOGM)
    assert isinstance(method.method, PCGrad)


def test_non_finite_values_leave_a_group_unchanged():
    gramians = random_gramians(4, 2, 2)
    broken = gramians.clone()
    broken[0, 0] = torch.nan  # the first weights of the first group are those of the second update
    broken[2, 1] = math.inf
    method = get_method("crmogm(pcgrad)", alpha=0.5)
    given = torch.stack([method(update) for update in broken])
    assert given[0, 0].tolist() == given[2, 1].tolist() == [0.5, 0.5]
    for group, dropped in ((0, 0), (1, 2)):
        single = get_method("crmogm(pcgrad)", alpha=0.5)
        for update in range(4):
            if update != dropped:
                assert torch.equal(given[update, group], single(gramians[update, group]))


def test_non_finite_weights_count_as_the_mean():
    class Broken(NoAlignment):
        def _weights(self, gramian, valid, precision):
            return torch.full_like(gramian[..., 0], torch.nan)

    assert CRMOGM(Broken())(torch.eye(2)).tolist() == [0.5, 0.5]


def test_state_of_groups_without_weights_is_plain_json():
    method = get_method("crmogm(none)")
    method(torch.full((2, 3, 3), torch.nan))
    assert method.state_dict() == {"average": [None, None], "method": {}}
    method(torch.stack([torch.eye(3), torch.full((3, 3), torch.nan)]))
    state = json.loads(json.dumps(method.state_dict(), allow_nan=False))
    assert state["average"][1] is None
    again = get_method("crmogm(none)")
    again.load_state_dict(state)
    assert again.state_dict() == state
    again.load_state_dict({"average": [None, None], "method": {}})
    assert again(torch.eye(2)).tolist() == [0.5, 0.5]


def test_averages_must_have_one_shape():
    method = get_method("crmogm(pcgrad)")
    method(torch.eye(2))
    with pytest.raises(ValueError, match=r"CR-MOGM has averages for .* = \(1, 2\) and was given .*\(1, 3\)"):
        method(torch.eye(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.1}, r"alpha of crmogm must be in \[0, 1\], got 1.1"),
        ({"alpha": "much"}, r"alpha of crmogm must be in \[0, 1\], got 'much'"),
        ({"initial_weights": 0.5}, "initial_weights of crmogm must be a list of numbers, one per view, got 0.5"),
        ({"initial_weights": ["a"]}, "initial_weights of crmogm must be a list of numbers"),
        ({"initial_weights": [math.nan, 1]}, "initial_weights of crmogm must be a list of numbers"),
        ({"initial_weights": []}, "initial_weights of crmogm must be a list of numbers"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        get_method("crmogm(none)", **options)


def test_wrong_number_of_initial_weights():
    with pytest.raises(ValueError, match="crmogm has 3 initial_weights for 2 views"):
        get_method("crmogm(none)", initial_weights=[1, 1, 1])(torch.eye(2))
