import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from hf_gradalign.alignment import CRMOGM, AlignmentMethod, available_methods, canonical_name, get_method
from hf_gradalign.alignment.methods.base import METHODS

GRAMIANS = [torch.tensor([[1.0, c], [c, 2.0]]) for c in (0.5, 0.9, -0.4, 0.1)]


def test_names():
    assert available_methods()[:4] == ["none", "pcgrad", "gradvac", "cagrad"]
    assert set(available_methods()[4:]) >= {"mgda", "imtlg", "aligned_mtl", "fairgrad", "krum", "pcd"}
    assert type(get_method("PCGrad")) is type(get_method("pcgrad"))


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("PC-Grad", "pcgrad"),
        ("Aligned-MTL", "aligned_mtl"),
        ("alignedmtl", "aligned_mtl"),
        ("IMTL_G", "imtlg"),
        (" UPGrad ", "upgrad"),
        ("CR-MOGM( PCGrad )", "crmogm(pcgrad)"),
        ("crmogm(Fair_Grad)", "crmogm(fairgrad)"),
    ],
)
def test_spellings(spelling, name):
    assert canonical_name(spelling) == name
    assert canonical_name(name) == name


@pytest.mark.parametrize("name", ["", "crmogm", "crmogm()", "crmogm(typo)", "crmogm(crmogm(pcgrad))", "x(none)", "("])
def test_invalid_names(name):
    with pytest.raises(ValueError, match="there is no alignment method"):
        canonical_name(name)


def test_own_methods_cannot_be_replaced():
    for name in ("none", "pcgrad", "gradvac", "cagrad"):
        assert type(get_method(name)).__module__ != "hf_gradalign.alignment.methods.torchjd"
        assert type(get_method(f"crmogm({name})").method) is type(get_method(name))


def test_your_own_method(monkeypatch):
    monkeypatch.setattr("hf_gradalign.alignment.methods.base.METHODS", methods := dict(METHODS))
    monkeypatch.setattr("hf_gradalign.alignment.methods.registry.METHODS", methods)

    def define(name):
        class First(AlignmentMethod, name=name):
            def _weights(self, gramian, valid, precision):
                return gramian[:, 0] * 0 + torch.tensor([1.0, 0.0])

        return First

    define("first_only")
    assert define("First-Only") is methods["first_only"]  # defined again, as in a notebook
    assert methods["first_only"]()(GRAMIANS[0]).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"the name 'PC-Grad', which .*\.PCGrad already has; choose another"):
        define("PC-Grad")
    assert methods["pcgrad"] is METHODS["pcgrad"]
    monkeypatch.setitem(sys.modules, "twin", SimpleNamespace(__file__=__file__))
    methods["first_only"].__module__ = "twin"  # as __main__, if a script is also imported
    define("first_only").__module__ = "elsewhere"
    with pytest.raises(ValueError, match="which elsewhere"):
        define("first_only")
    define("UPGrad")
    with pytest.raises(ValueError, match=r"First has the same name as TorchJD's method UPGrad; choose another one"):
        get_method("upgrad")


def test_weights_of_another_shape_are_refused():
    class Three(AlignmentMethod):
        def _weights(self, gramian, valid, precision):
            return gramian.new_ones(3)

    with pytest.raises(ValueError, match=r"Three._weights must return one weight per .* \(1, 2\); got \(3,\)"):
        Three()(GRAMIANS[0])


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"'pcgard'; available: none, pcgrad, .*krum.*, and crmogm\(NAME\) around"):
        get_method("pcgard")


def test_unknown_option_lists_the_known():
    with pytest.raises(ValueError, match="'gradvac' has no option betta; it takes beta, update_on_conflict"):
        get_method("gradvac", betta=0.1)
    with pytest.raises(ValueError, match="'none' has no option c; it has no options"):
        get_method("none", c=1)
    with pytest.raises(ValueError, match=r"has no option gama, oops; crmogm takes alpha, .*; gradvac takes beta, "):
        get_method("crmogm(gradvac)", oops=1, gama=1, beta=0.1, alpha=0.5)


def test_options_of_smoothed_methods():
    method = get_method("crmogm(gradvac)", alpha=0.4, beta=0.1)
    assert (method.alpha, method.method.beta) == (0.4, 0.1)
    method = get_method("crmogm(gradvac)", **{"crmogm.alpha": 0.4, "gradvac.beta": 0.1})
    assert (method.alpha, method.method.beta) == (0.4, 0.1)
    assert get_method("gradvac", **{"gradvac.beta": 0.1}).beta == 0.1
    with pytest.raises(ValueError, match=r"has no option pcgrad\.beta"):
        get_method("crmogm(gradvac)", **{"pcgrad.beta": 0.1})


def test_ambiguous_options_name_their_methods():
    with pytest.raises(ValueError, match=r"both crmogm and fairgrad have an option alpha; use crmogm\.alpha or "):
        get_method("crmogm(fairgrad)", alpha=0.5)
    method = get_method("crmogm(fairgrad)", **{"crmogm.alpha": 0.4, "fairgrad.alpha": 1.0})
    assert isinstance(method, CRMOGM)
    assert (method.alpha, method.method.options["alpha"]) == (0.4, 1.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gradvac", {"beta": 1.5}, r"beta must be in \[0, 1\], got 1.5"),
        ("gradvac", {"beta": "0.5"}, "beta of gradvac must be a finite number, got '0.5'"),
        ("gradvac", {"beta": True}, "beta of gradvac must be a finite number, got True"),
        (
            "gradvac",
            {"update_on_conflict": "false"},
            "update_on_conflict .* must be true or false, got 'false'",
        ),
        ("cagrad", {"c": -0.1}, "c must be finite and not negative, got -0.1"),
        ("cagrad", {"c": math.inf}, "c of cagrad must be a finite number, got inf"),
        ("cagrad", {"rescale": "false"}, "rescale of cagrad must be true or false, got 'false'"),
        ("cagrad", {"rescale": 0}, "rescale of cagrad must be true or false, got 0"),
        ("crmogm(pcgrad)", {"seed": 1.5}, "seed of pcgrad must be a whole number, got 1.5"),
        ("pcgrad", {"reduction": None}, "reduction of pcgrad must be a string, got None"),
        ("pcgrad", {"reduction": "max"}, "reduction must be 'mean'.*got 'max'"),
        ("gradvac", {"reduction": "max"}, "reduction must be 'mean'.*got 'max'"),
    ],
)
def test_wrong_values(name, options, message):
    with pytest.raises(ValueError, match=message):
        get_method(name, **options)


@pytest.mark.parametrize("shape", [(2,), (2, 3), (0, 0)])
def test_gramian_must_be_square(shape):
    with pytest.raises(ValueError, match="a Gramian must be a square matrix"):
        get_method("pcgrad")(torch.zeros(shape))


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("name", [*available_methods(), "crmogm(gradvac)"])
def test_state_goes_through_json(name, views):
    if name == "krum" and views == 2:
        pytest.skip("krum needs three views")
    torch.manual_seed(views)
    rows = [torch.randn(views, 3) for _ in range(6)]
    whole, before, after = get_method(name), get_method(name), get_method(name)
    at_start = before.state_dict()
    for matrix in rows[:3]:
        whole(matrix @ matrix.T)
        before(matrix @ matrix.T)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    before.load_state_dict(at_start)
    fresh = get_method(name)
    for matrix in rows[3:]:
        assert torch.equal(after(matrix @ matrix.T), whole(matrix @ matrix.T))
        assert torch.equal(before(matrix @ matrix.T), fresh(matrix @ matrix.T))


@pytest.mark.parametrize("name", [*available_methods(), "crmogm(gradvac)"])
def test_state_of_another_method_is_refused(name):
    with pytest.raises(ValueError, match="state"):
        get_method(name).load_state_dict({"momentum": 1})


def test_gradvac_needs_the_same_number_of_views():
    method = get_method("gradvac")
    method(torch.eye(2))
    with pytest.raises(ValueError, match=r"\(1, 2, 2\) and was given Gramians of shape \(1, 3, 3\)"):
        method(torch.eye(3))


def test_sum_follows_the_paper():
    for name in ("pcgrad", "gradvac"):
        for gramian in GRAMIANS:
            torch.testing.assert_close(get_method(name, reduction="sum")(gramian), 2 * get_method(name)(gramian))


def test_gradvac_target_and_conflicts():
    published, paper = get_method("gradvac"), get_method("gradvac", update_on_conflict=True)
    for method in (published, paper):
        method(torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
        method(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
    assert published.state_dict()["targets"][0][0][1] == pytest.approx(0.4)
    assert paper.state_dict()["targets"][0][0][1] == pytest.approx(-0.05)


def test_random_order_depends_on_seed_and_call():
    rows = torch.tensor([[1.0, 0.0], [-0.9, 0.3], [-0.8, -0.6]])
    gramian = rows @ rows.T
    weights = {tuple(get_method("pcgrad", seed=seed)(gramian).tolist()) for seed in range(8)}
    assert len(weights) > 1
    method = get_method("pcgrad")
    assert len({tuple(method(gramian).tolist()) for _ in range(8)}) > 1
