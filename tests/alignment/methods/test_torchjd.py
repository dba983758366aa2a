import importlib
import inspect
import json
import logging
import sys

import forked_python
import pytest
import torch
from gramians import gradient_batches
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_gradalign.alignment import TorchJDWeighting, available_methods, get_method
from hf_gradalign.alignment.methods import torchjd as torchjd_weighting
from hf_gradalign.alignment.methods.base import METHODS
from hf_gradalign.alignment.methods.torchjd import TORCHJD_SPECS

aggregation = pytest.importorskip("torchjd.aggregation")
NAMES = [name for name in available_methods() if name in TORCHJD_SPECS]
# TorchJD's classes with the defaults of this package.
THEIRS = {"aligned_mtl": {"scale_mode": "rmse"}, "fairgrad": {"alpha": 2.0}, "krum": {"n_byzantine": 0}}
CONFLICT = torch.tensor([[1.0, -0.3, 0.2], [-0.3, 2.0, -0.9], [0.2, -0.9, 1.5]], dtype=torch.float64)


def their_class(name):
    return getattr(aggregation, TORCHJD_SPECS[name].class_name)


def fewest_views(name):
    return 3 if name == "krum" else 2


def test_every_gramian_weighting_of_torchjd_has_a_name():
    # The forward of a Gramian weighting takes a PSDMatrix.
    matrix, found = importlib.import_module("torchjd.linalg").PSDMatrix, set()
    for name, member in vars(aggregation).items():
        if inspect.isclass(member) and name.endswith("Weighting") and not inspect.isabstract(member):
            annotation = inspect.get_annotations(member.forward).get("gramian")
            if annotation in (matrix, "PSDMatrix"):
                found.add(name)
    ours = {"PCGradWeighting", "GradVacWeighting", "CAGradWeighting"}
    assert found - ours == {kind.class_name for kind in TORCHJD_SPECS.values()}
    assert ours <= found
    assert set(available_methods()) <= {*METHODS, *TORCHJD_SPECS}


@pytest.mark.parametrize("name", NAMES)
def test_weights_match_torchjd(name):
    @settings(max_examples=2 if name == "fairgrad" else 10, deadline=None)
    @given(gradient_batches(min_views=fewest_views(name), max_views=4, degenerate=False))
    def check(batch):
        their_weighting, our_method = their_class(name)(**THEIRS.get(name, {})), get_method(name)
        for rows in batch[:4]:
            gramian = rows @ rows.T
            gramian /= gramian.diagonal().amax()
            theirs, ours = their_weighting(gramian), our_method(gramian)
            if name == "fairgrad":
                theirs = theirs / theirs.sum()
            if name != "imtlg" or theirs @ gramian @ theirs < 100:
                torch.testing.assert_close(ours, theirs)

    check()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1e-6, 1.0, 1e5])
def test_scale_matches_the_mean(name, length):
    """Orthogonal gradients of equal length, and the same gradient in all views."""
    views = fewest_views(name)
    orthogonal = length**2 * torch.eye(views, dtype=torch.float64)
    weights = get_method(name)(orthogonal)
    if name == "krum":
        assert sorted(weights.tolist()) == [0, 0, 1]
    elif name == "pcd":
        # As long as the first view's gradient, with 2 % of the second; its eps is absolute.
        assert float(weights @ orthogonal @ weights) == pytest.approx(length**2)
    else:
        assert weights.tolist() == pytest.approx([1 / views] * views)
    same = length**2 * torch.ones(views, views, dtype=torch.float64)
    weights = get_method(name)(same)
    assert float(weights @ same @ weights) == pytest.approx(length**2)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "pcd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_scale_does_not_matter(name, dtype):
    gramian = CONFLICT.to(dtype)
    for factor in (2.0**-40, 2.0**32):
        assert torch.equal(get_method(name)(gramian), get_method(name)(factor * gramian))


def test_similar_views_do_not_cancel_the_update():
    gramian = torch.tensor([[1.0, 0.99], [0.99, 1.0]])
    for name in set(NAMES) - {"krum"}:
        weights = get_method(name)(gramian)
        length = float(weights @ gramian @ weights / 0.995) ** 0.5
        assert length == pytest.approx(0.71 if name == "aligned_mtl" else 1.0, abs=0.01), name
    assert get_method("aligned_mtl", scale_mode="min")(gramian).sum() < 0.1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "krum"])
def test_no_view_is_harmed(name):
    rows = torch.tensor([[1.0, 0.0, 0.2], [-2.0, 1.0, 0.0], [0.5, 0.5, 1.0]], dtype=torch.float64)
    gramian = rows @ rows.T
    assert (gramian.sum(0) / 3).min() < -0.05  # because the mean harms the first
    gains = gramian @ get_method(name)(gramian)
    assert gains.min() > -1e-3
    if name == "imtlg":
        alike = gains / gramian.diagonal().sqrt()
        torch.testing.assert_close(alike, alike[:1].expand(3))


@pytest.mark.parametrize("name", NAMES)
def test_groups_are_independent(name):
    torch.manual_seed(0)
    rows = torch.randn(4, 3, 3, 5, dtype=torch.float64)
    gramians = rows @ rows.mT  # four updates of three groups
    gramians[1, 2] = torch.nan
    together = get_method(name)
    single = [get_method(name) for _ in range(3)]
    for update in gramians:
        expected = torch.stack([method(gramian) for method, gramian in zip(single, update, strict=True)])
        assert torch.equal(together(update), expected)


@pytest.mark.parametrize("name", [*NAMES, "crmogm(pcd)", "crmogm(pcgrad)"])
def test_state_of_groups_goes_through_json_to_the_bit(name):
    torch.manual_seed(1)
    rows = torch.randn(6, 2, 3, 5) * torch.tensor([1.0, 1e-4])[:, None, None]
    gramians = rows @ rows.mT
    gramians[:4, 1, 0, 0] = torch.nan  # the second group has no state when it is saved
    whole, before = get_method(name), get_method(name)
    for gramian in gramians[:3]:
        assert torch.equal(whole(gramian), before(gramian))
    after = get_method(name)
    after.load_state_dict(json.loads(json.dumps(before.state_dict(), allow_nan=False)))
    assert after.state_dict() == before.state_dict()
    for gramian in gramians[3:]:
        assert torch.equal(after(gramian), whole(gramian))
    assert after.state_dict() == whole.state_dict()


def test_memory_must_have_one_shape():
    method = get_method("pcd")
    method(torch.eye(2))
    with pytest.raises(ValueError, match=r"pcd has state for \(groups, views\) = \(1, 2\) and was given .* \(1, 3\)"):
        method(torch.eye(3))
    with pytest.raises(ValueError, match="TorchJDWeighting expects the state"):
        method.load_state_dict({"views": 2})


@pytest.mark.parametrize("name", NAMES)
def test_no_random_numbers_are_drawn(name):
    before = torch.get_rng_state()
    weights = get_method(name)(CONFLICT)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(get_method(name)(CONFLICT), weights)


def test_one_transfer_for_all_groups(monkeypatch):
    moved = []
    cpu = torch.Tensor.cpu

    def count(tensor, *args, **kwargs):
        if len(tensor) == 50:
            moved.append(tuple(tensor.shape))
        return cpu(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "cpu", count)
    get_method("mgda")(CONFLICT.expand(50, 3, 3))
    assert moved == [(50, 10)]


def test_eigenvalues_below_the_precision_are_zero():
    """Three views, one of which is the sum of the others up to float32 precision."""
    rows = torch.tensor([[1.0, 0.3], [0.2, 1.0], [1.2, 1.3]])
    noisy = rows @ rows.T + 1e-7 * torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert get_method("aligned_mtl")(noisy).abs().max() < 1
    assert get_method("aligned_mtl")(noisy.double()).abs().max() > 100


@pytest.mark.parametrize("error", [ValueError("infeasible"), ZeroDivisionError(), torch.linalg.LinAlgError("singular")])
def test_failing_solvers_give_the_mean_and_warn_once(monkeypatch, caplog, error):
    method = get_method("mgda")
    assert not torch.allclose(method(CONFLICT), torch.full((3,), 1 / 3, dtype=torch.float64))

    def fail(self, gramian):
        raise error

    monkeypatch.setattr(aggregation.MGDAWeighting, "forward", fail)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert method(CONFLICT).tolist() == pytest.approx([1 / 3] * 3)
    assert len(caplog.records) == 1
    assert "'mgda' failed on a Gramian" in caplog.records[0].message


def test_errors_of_the_quadratic_solver_give_the_mean(monkeypatch, caplog):
    exceptions = pytest.importorskip("qpsolvers.exceptions")
    method = get_method("upgrad")
    method(CONFLICT)

    def fail(*args, **kwargs):
        raise exceptions.ProblemError("matrix P is not positive definite")

    monkeypatch.setattr("torchjd._linalg._dual_cone.solve_qp", fail)
    assert method(CONFLICT).tolist() == pytest.approx([1 / 3] * 3)
    assert "not positive definite" in caplog.text
    # A real failure: without regularization, a singular Gramian has no solution.
    monkeypatch.undo()
    singular = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert torch.isfinite(get_method("upgrad", reg_eps=0.0)(singular)).all()


def test_non_finite_weights_give_the_mean(monkeypatch, caplog):
    method = get_method("krum")
    method(CONFLICT)
    monkeypatch.setattr(aggregation.KrumWeighting, "forward", lambda self, gramian: gramian[0] * torch.nan)
    assert method(CONFLICT).tolist() == pytest.approx([1 / 3] * 3)
    assert "its weights are [nan, nan, nan]" in caplog.text


def test_errors_in_the_code_are_not_hidden(monkeypatch):
    method = get_method("mgda")
    method(CONFLICT)

    def fail(self, gramian):
        raise KeyError("a bug")

    monkeypatch.setattr(aggregation.MGDAWeighting, "forward", fail)
    with pytest.raises(KeyError):
        method(CONFLICT)


def test_imtlg_next_to_opposed_gradients(caplog):
    """Lengths 1 and 1.001, opposed: TorchJD's update would be a thousand times as long."""
    gramian = torch.tensor([[1.0, -1.001], [-1.001, 1.002001]], dtype=torch.float64)
    theirs = aggregation.IMTLGWeighting()(gramian)
    assert theirs.abs().max() > 100
    assert get_method("imtlg")(gramian).tolist() == [0.5, 0.5]
    assert "far longer than any gradient" in caplog.text


def test_fairgrad_with_a_view_without_gradient():
    assert get_method("fairgrad")(torch.diag(torch.tensor([1.0, 0.0]))).tolist() == [0.5, 0.5]


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 0.9), st.sampled_from(["aligned_mtl", "upgrad", "dualproj"]))
def test_preferences(share, name):
    if name not in NAMES:
        pytest.skip("quadprog is not installed")
    weights = get_method(name, pref_vector=[share, 1 - share])(torch.eye(2))
    assert weights.tolist() == pytest.approx([share, 1 - share])


def test_options_reach_torchjd():
    gramian = torch.tensor([[1.0, -0.5], [-0.5, 2.0]], dtype=torch.float64)
    assert not torch.equal(get_method("fairgrad", alpha=1.0)(gramian), get_method("fairgrad")(gramian))
    assert get_method("krum", n_selected=2)(CONFLICT).max() == 0.5
    assert not torch.equal(get_method("pcd", tau=[0.9])(gramian), get_method("pcd")(gramian))
    if "upgrad" in NAMES:
        assert not torch.equal(get_method("upgrad", reg_eps=0.1)(gramian), get_method("upgrad")(gramian))
        protected = torch.tensor([[1e-6, -5e-4], [-5e-4, 1.0]], dtype=torch.float64)
        loose, tight = (get_method("upgrad", reg_eps=eps)(protected) for eps in (1e-4, 1e-9))
        assert (protected @ loose)[0] < -1e-4
        assert (protected @ tight)[0] > -1e-6


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mgda", {"epsilom": 1}, "'mgda' has no option epsilom; it takes epsilon, max_iters"),
        ("imtlg", {"c": 1}, "'imtlg' has no option c; it has no options"),
        (
            "mgda",
            {"epsilon": -1},
            "wrong options {'epsilon': -1} for alignment method 'mgda': epsilon must be positive",
        ),
        ("mgda", {"max_iters": "ten"}, "wrong options .*'ten'.* for alignment method 'mgda'"),
        ("aligned_mtl", {"scale_mode": "max"}, "Invalid scale_mode='max'. Expected 'min', 'median', or 'rmse'"),
        ("aligned_mtl", {"pref_vector": [[1.0]]}, "pref_vector"),
        ("aligned_mtl", {"pref_vector": ["a", "b"]}, "wrong options"),
        ("aligned_mtl", {"pref_vector": [float("nan"), 1.0]}, r"its weights are \[nan, "),
        ("fairgrad", {"alpha": -1}, "alpha of fairgrad must be a number that is 0 or more, got -1"),
        ("fairgrad", {"alpha": "2"}, "alpha of fairgrad must be a number that is 0 or more, got '2'"),
        ("krum", {"n_byzantine": "one"}, "wrong options .* for alignment method 'krum'"),
        ("krum", {"n_selected": 0}, "n_selected must be a positive integer, but got 0"),
        ("mgda", {"epsilon": float("inf")}, "epsilon of mgda must be a finite number, got inf"),
        ("aligned_mtl", {"pref_vector": [True, 1]}, "pref_vector of aligned_mtl must be a list of numbers, got"),
        ("mgda", {"max_iters": True}, "max_iters of mgda must be a whole number, got True"),
        ("pcd", {"tau": 3}, r"Attribute `tau` must be in \[0, 1\]. Found tau=3"),
    ],
)
def test_wrong_options_are_reported(name, options, message):
    with pytest.raises(ValueError, match=message):
        get_method(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("krum", {}, "'krum' does not support 2 views with .*at least 3 rows"),
        (
            "aligned_mtl",
            {"pref_vector": [0.2, 0.3, 0.5]},
            "'aligned_mtl' does not support 2 views with .*should have 3 rows",
        ),
        ("pcd", {"tau": [0.1, 0.1]}, "'pcd' does not support 2 views with .*one value per secondary objective"),
    ],
)
def test_wrong_numbers_of_views_are_reported(name, options, message):
    for method in (get_method(name, **options), get_method(f"crmogm({name})", **options)):
        with pytest.raises(ValueError, match=message):
            method(torch.eye(2))


@pytest.fixture
def no_torchjd(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)


@pytest.mark.usefixtures("no_torchjd")
@pytest.mark.parametrize("name", ["mgda", "IMTL-G", "crmogm(krum)"])
def test_missing_package_says_what_to_install(name):
    message = r"needs torchjd, which is not installed; pip install \"torchjd\[fairgrad,"
    with pytest.raises(ValueError, match=message):
        get_method(name)
    with pytest.raises(ValueError, match=message):
        get_method(name, epsilon=1)
    with pytest.raises(ValueError, match=message):
        TorchJDWeighting("mgda")


@pytest.mark.usefixtures("no_torchjd")
def test_without_torchjd_other_methods_still_work():
    assert available_methods() == list(METHODS)
    assert get_method("crmogm(pcgrad)")(torch.eye(2)).tolist() == [0.5, 0.5]
    expected = r"available: none, .*, and crmogm\(NAME\) around each of them; pip install \"torchjd\[fairgrad,"
    with pytest.raises(ValueError, match=f"{expected}.* adds upgrad, .*, pcd"):
        get_method("typo")


def test_missing_solver_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "qpsolvers", None)
    monkeypatch.setitem(sys.modules, "quadprog", None)
    assert "upgrad" not in available_methods()
    assert "mgda" in available_methods()
    with pytest.raises(ValueError, match="'upgrad' needs qpsolvers and quadprog, which are not installed; pip install"):
        get_method("upgrad")
    assert ValueError in torchjd_weighting._solver_errors()


@pytest.mark.slow
def test_torchjd_is_imported_only_when_needed():
    program = (
        "import sys; from hf_gradalign.alignment import get_method; get_method('crmogm(pcgrad)'); "
        "first = 'torchjd' in sys.modules; get_method('mgda'); print(first, 'torchjd' in sys.modules)"
    )
    ran = forked_python.run([sys.executable, "-c", program])
    assert ran.stdout.split() == ["False", "True"]
