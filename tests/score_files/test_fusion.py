"""Fusion: the optimum of an independent reference, invariances, and what it says of odd systems."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from hf_gradalign.metrics import fit_calibration, fit_logistic
from hf_gradalign.score_files import FusedSystem, Fusion, ScoreFileError, fit_fusion

RNG = np.random.default_rng(0)
LABELS = np.arange(200) % 4 // 3  # 50 bona fide, 150 spoofed
SCORES = RNG.normal(size=(200, 3)) + np.outer(LABELS, [2.0, 1.5, 1.0]) + 0.5 * RNG.normal(size=(200, 1))


@st.composite
def systems_and_labels(draw):
    """Scores of two to four systems that overlap, with both classes."""
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    n_bonafide, n_spoof = draw(st.integers(5, 40)), draw(st.integers(5, 40))
    labels = np.repeat([1, 0], [n_bonafide, n_spoof])
    gains = generator.uniform(-1, 2, draw(st.integers(2, 4)))
    return generator.normal(size=(len(labels), len(gains))) + np.outer(labels, gains), labels


def fit_quietly(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return fit_fusion(*arguments, **options)


def reference(scores, labels, prior, l2):
    """The optimum of the penalized loss by SciPy, as a function of scores."""
    weights = np.where(labels == 1, prior / np.sum(labels == 1), (1 - prior) / np.sum(labels == 0))
    center = weights @ scores
    scale = np.sqrt(weights @ (scores - center) ** 2)
    features, signs, shift = (scores - center) / scale, 2 * labels - 1, np.log(prior / (1 - prior))

    def loss(parameters):
        ratios = features @ parameters[1:] + parameters[0]
        return weights @ np.logaddexp(0, -signs * (ratios + shift)) + l2 / 2 * parameters[1:] @ parameters[1:]

    best = minimize(loss, np.zeros(1 + scores.shape[1]), method="BFGS", options={"gtol": 1e-9}).x
    return lambda others: (others - center) / scale @ best[1:] + best[0]


@settings(max_examples=8)
@given(systems_and_labels(), st.sampled_from([0.5, 0.05, 0.9]), st.sampled_from([None, 0.01, 1.0]))
def test_as_the_optimum_of_scipy(clips, prior, l2):
    fusion = fit_quietly(*clips, prior=prior, l2=l2)
    assert fusion(clips[0]) == pytest.approx(reference(*clips, prior, fusion.l2)(clips[0]), abs=1e-4)
    assert fusion.l2 == (l2 or 0.1 / min(np.bincount(clips[1])))


@settings(max_examples=20)
@given(systems_and_labels(), st.data())
def test_scale_sign_and_order_of_systems_do_not_matter(clips, data):
    scores, labels = clips
    n_systems = scores.shape[1]
    numbers = st.floats(1e-4, 1e4).flatmap(lambda scale: st.sampled_from([scale, -scale]))
    scales = np.array(data.draw(st.lists(numbers, min_size=n_systems, max_size=n_systems)))
    shifts = np.array(data.draw(st.lists(st.floats(-100, 100), min_size=n_systems, max_size=n_systems)))
    order = data.draw(st.permutations(range(n_systems)))
    fusion = fit_quietly(scores, labels)
    changed = (scores * scales + shifts)[:, order]
    other = fit_quietly(changed, labels)
    assert other(changed) == pytest.approx(fusion(scores), abs=1e-5)
    assert other.weights == pytest.approx((fusion.weights / scales)[order], rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_a_system_are_fused_as_it_is_calibrated(copies):
    scores = SCORES[:, :1]
    repeated = np.repeat(scores, copies, axis=1) * np.arange(1, copies + 1)
    # Each copy has 1 / copies of the weight, so the sum of the squared weights is 1 / copies too.
    fusion = fit_quietly(repeated, LABELS, l2=0.02)
    (weight,), offset = fit_logistic(scores, LABELS, l2=0.02 / copies)
    assert fusion(repeated) == pytest.approx(scores[:, 0] * weight + offset, abs=1e-5)
    assert fusion.weights * np.arange(1, copies + 1) == pytest.approx([weight / copies] * copies)
    calibrated = fit_calibration(scores[:, 0], LABELS)(scores[:, 0])
    assert fit_quietly(repeated, LABELS, l2=0.0)(repeated) == pytest.approx(calibrated, abs=1e-5)


def warnings_of(scores, labels=LABELS, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fusion = fit_fusion(scores, labels, ["a.txt", "b.txt", "c.txt"][: scores.shape[1]], **options)
    return fusion, [str(item.message) for item in caught]


def test_ordinary_systems_give_no_warning():
    fusion, found = warnings_of(SCORES)
    assert found == []
    assert (fusion.weights > 0).all()
    assert [(system.lowest, system.highest) for system in fusion.systems] == list(
        zip(SCORES.min(axis=0), SCORES.max(axis=0), strict=True)
    )


def test_the_same_system_twice():
    fusion, found = warnings_of(np.stack([SCORES[:, 0], SCORES[:, 1], np.round(5 - 0.3 * SCORES[:, 0], 6)], axis=1))
    assert found[0].startswith("The scores of a.txt and c.txt are the same up to a scale")
    assert np.isfinite(fusion.weights).all()
    assert fusion.weights[0] == pytest.approx(-0.3 * fusion.weights[2], rel=1e-3)
    _, found = warnings_of(np.stack([SCORES[:, 0], SCORES[:, 1], SCORES[:, 0] + SCORES[:, 1]], axis=1))
    assert found == [
        "The scores of one system are a weighted sum of those of others, so the fusion gains nothing from it."
    ]


def test_an_inverted_system():
    fusion, found = warnings_of(SCORES * [1, -1, 1])
    assert fusion.weights[1] < 0
    assert len(found) == 1
    assert found[0].startswith(
        f"The weight of b.txt is negative ({fusion.weights[1]:.4g}), because its scores are higher"
    )
    assert "--higher_is" in found[0]


def test_a_system_that_is_subtracted():
    noise = RNG.normal(size=200)
    fusion, found = warnings_of(np.stack([LABELS + noise, 0.2 * LABELS + noise + 0.1 * RNG.normal(size=200)], axis=1))
    assert fusion.weights[1] < 0
    assert "although its scores are higher for bona fide clips" in found[0]


def test_separated_classes():
    scores = SCORES + 20 * LABELS[:, None]
    fusion, found = warnings_of(scores)
    assert len(found) == 1
    assert found[0].startswith("The fused scores separate the bona fide from the spoofed clips")
    assert np.abs(fusion(scores)).max() < 50


def test_few_clips():
    few = np.flatnonzero(LABELS == 0)[:10]
    _, found = warnings_of(SCORES[[*few, *np.flatnonzero(LABELS)]], LABELS[[*few, *np.flatnonzero(LABELS)]])
    assert found[0] == "The fusion is fitted on only 50 bona fide and 10 spoofed clips, so it is uncertain."


@pytest.mark.parametrize(
    ("change", "labels", "message"),
    [
        (lambda scores: scores[:, :1], LABELS, r"at least two systems.* not \(200, 1\).*fit_calibration"),
        (lambda scores: scores[:, 0], LABELS, r"at least two systems"),
        (lambda scores: scores * [1, 0, 1] + 7, LABELS, r"All scores of system 2 are 7, so .* Leave this system out"),
        (
            lambda scores: np.where(scores == scores[3, 2], np.nan, scores),
            LABELS,
            "1 of 200 scores of system 3 are NaN",
        ),
        (lambda scores: scores, np.ones(200, int), "All 200 clips are bona fide"),
        (lambda scores: scores, (np.arange(200) < 4).astype(int), "4 bona fide and 196 spoofed clips, too few"),
        (lambda scores: scores, LABELS[1:], "200 scores but 199 labels"),
        (lambda scores: scores, LABELS + 1, "Labels must be 1"),
    ],
)
def test_refuses_what_cannot_be_fitted(change, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_fusion(change(SCORES), labels)


def test_names_and_numbers_are_checked():
    with pytest.raises(ValueError, match="3 systems but 2 names"):
        fit_fusion(SCORES, LABELS, ["a", "b"])
    fusion = fit_fusion(SCORES, LABELS)
    with pytest.raises(ValueError, match=r"shape \(clips, 3\), not \(200, 2\)"):
        fusion(SCORES[:, :2])
    with pytest.raises(ValueError, match="NaN or infinite"):
        fusion(np.full((1, 3), np.inf))
    with pytest.raises(ValueError, match="at least two systems, not 1"):
        Fusion((FusedSystem("a", 1.0, 0.0, 1.0),), 0.0, 0.5, 0.1, 5, 5)
    with pytest.raises(ValueError, match="must be finite"):
        Fusion((FusedSystem("a", 1.0, 0.0, 1.0), FusedSystem("b", np.inf, 0.0, 1.0)), 0.0, 0.5, 0.1, 5, 5)


def test_a_saved_fusion_is_the_same(tmp_path):
    fusion = fit_fusion(SCORES, LABELS, ["a.txt", "b.txt", "c.txt"])
    path = tmp_path / "fusion.json"
    fusion.save(path)
    assert Fusion.load(path) == fusion
    assert (Fusion.load(path)(SCORES) == fusion(SCORES)).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("not JSON", "not a readable"),
        ("[1, 2]", "it is not a JSON object"),
        ('{"metrics": {}}', "no entry 'systems'"),
        ({"offset": "1"}, "offset is not a number but '1'"),
        ({"offset": True}, "offset is not a number"),
        ({"systems": []}, "at least two systems"),
        ({"systems": [{"name": "a"}]}, "no entry 'weight'"),
    ],
)
def test_invalid_fusion_files(tmp_path, content, reason):
    path = tmp_path / "fusion.json"
    if isinstance(content, dict):
        content = json.dumps({**fit_fusion(SCORES, LABELS).as_dict(), **content})
    path.write_text(content)
    with pytest.raises(ScoreFileError, match=f"is not a fusion.json from hf-gradalign fuse: .*{reason}"):
        Fusion.load(path)
