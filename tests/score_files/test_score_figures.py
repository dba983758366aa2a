"""Figures show the scores, can be opened, and are deterministic."""

import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from scipy.stats import norm

from hf_gradalign.metrics import break_down, equal_error_rate
from hf_gradalign.score_files import draw_bars, draw_det, draw_histograms, import_matplotlib, save_figures

image = pytest.importorskip("matplotlib.image")
RNG = np.random.default_rng(0)
LABELS = np.tile([0, 1], 2000)
SCORES = RNG.normal(size=4000) + 2 * LABELS


def test_files_can_be_opened_and_are_deterministic(tmp_path):
    figures = {"det": draw_det({"mine": (SCORES, LABELS)}), "scores": draw_histograms(SCORES, LABELS, 1.0)}
    paths = save_figures(figures, tmp_path / "first")
    assert [path.name for path in paths] == ["det.png", "det.svg", "scores.png", "scores.svg"]
    for path in paths:
        if path.suffix == ".png":
            assert image.imread(path)[..., :3].std() > 0.05  # not blank
    text = " ".join(ElementTree.parse(tmp_path / "first" / "det.svg").getroot().itertext())
    assert f"mine: EER {100 * equal_error_rate(SCORES, LABELS)['eer']:.2f} %" in text
    again = save_figures({"det": draw_det({"mine": (SCORES, LABELS)})}, tmp_path / "again")
    assert again[1].read_bytes() == (tmp_path / "first" / "det.svg").read_bytes()
    with pytest.raises(ValueError, match="'xyz' is not supported"):
        save_figures(figures, tmp_path, ["xyz"])


def test_the_error_curve_of_normal_scores_is_a_straight_line():
    (axis,) = draw_det({"mine": (SCORES, LABELS)}).axes
    curve = axis.lines[0].get_xydata()
    middle = curve[(curve[:, 0] > norm.ppf(0.02)) & (curve[:, 0] < norm.ppf(0.5))]
    # Both classes have unit variance, and their means are two apart: the two deviates sum to -2.
    np.testing.assert_allclose(middle.sum(axis=1), -2, atol=0.25)
    assert len(middle) > 100
    labels = [tick.get_text() for tick in axis.get_xticklabels()]
    places = axis.get_xticks()
    assert labels[list(labels).index("10")] == "10"
    assert places[labels.index("10")] == pytest.approx(norm.ppf(0.1))
    rate = equal_error_rate(SCORES, LABELS)["eer"]
    np.testing.assert_allclose(axis.lines[1].get_xydata(), [[norm.ppf(rate)] * 2])


def test_steps_of_the_curve_are_drawn():
    # With two spoofed clips, one rate is constant while the other changes.
    (axis,) = draw_det({"mine": (np.append(SCORES[LABELS == 1], [1.0, 3.0]), np.repeat([1, 0], [2000, 2]))}).axes
    far, frr = axis.lines[0].get_xydata().T
    assert len(set(far.round(6))) == 3
    assert len(set(frr.round(6))) > 100


def test_a_curve_of_many_points_is_drawn_from_few():
    labels = np.tile([0, 1], 100_000)
    scores = RNG.normal(size=200_000) + 2 * labels
    (axis,) = draw_det({"mine": (scores, labels)}).axes
    assert len(axis.lines[0].get_xdata()) < 10_000


@pytest.mark.parametrize("shift", [20.0, -20.0])
def test_perfect_and_inverted_scores_can_be_drawn(shift, tmp_path):
    scores = SCORES + shift * LABELS
    save_figures({"det": draw_det({"a": (scores, LABELS), "b": (SCORES, LABELS)})}, tmp_path, ["svg"])
    save_figures({"one": draw_histograms(np.zeros(4000), LABELS, 0.0)}, tmp_path, ["svg"])


def test_the_curve_of_a_few_clips_reaches_all_rates():
    (axis,) = draw_det({"inverted": (np.array([0.3, 0.2, 0.1]), np.array([0, 1, 1]))}).axes
    far, frr = axis.lines[0].get_xydata().T
    assert far.max() == frr.max() == pytest.approx(norm.ppf(0.99))  # an edge of the figure


def test_histograms_have_each_class_with_area_one():
    scores = SCORES.copy()
    scores[0] = 1e6  # an outlier must not compress the others
    (axis,) = draw_histograms(scores, LABELS, 1.0).axes
    assert axis.get_xlim()[1] < 10
    (spoof,) = (
        patch
        for patch, text in zip(axis.patches, axis.get_legend().get_texts(), strict=False)
        if text.get_text() == "spoof"
    )
    outline = spoof.get_xy()
    assert outline[outline[:, 0] >= outline[:, 0].max() - 1e-9][:, 1].max() > 0  # but is at the edge
    for patch in axis.patches:
        x, y = patch.get_xy()[:-1].T
        area = abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2  # the area of the outline
        assert area == pytest.approx(1, abs=1e-6)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["bona fide", "spoof", "EER threshold"]


def test_bars_by_attack():
    attacks = np.where(LABELS == 1, "-", np.where(np.arange(4000) % 4 < 2, "A1", "A2"))
    breakdown = break_down("eer", SCORES, LABELS, attacks)
    (axis,) = draw_bars("system", breakdown, 0.15).axes
    assert [bar.get_height() for bar in axis.patches] == [100 * group.metrics["eer"] for group in breakdown.groups]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["A1", "A2"]
    assert axis.lines[0].get_ydata()[0] == 15
    (axis,) = draw_bars("system", break_down("eer", SCORES + 20 * LABELS, LABELS, attacks), 0.0).axes
    assert axis.get_ylim() == (0, 1)  # without errors


def test_names_are_text(tmp_path):
    names = np.where(LABELS == 1, "-", "$\\frac{$ <script>\x1b[31m\u202e\n`x`")
    figures = {
        "bars": draw_bars("a $x_", break_down("eer", SCORES, LABELS, names)),
        "det": draw_det({"$\\frac{$\x1b[2J": (SCORES, LABELS)}),
    }
    bars, det = save_figures(figures, tmp_path, ["svg"])
    text = " ".join(ElementTree.parse(bars).getroot().itertext())
    assert "$\\frac{$ <script> `x`" in text
    assert "a $x_" in text
    assert "$\\frac{$: EER" in " ".join(ElementTree.parse(det).getroot().itertext())


def test_bars_without_a_value():
    breakdown = break_down("eer", SCORES, LABELS, np.where(np.arange(4000) < 3999, "some", "none"), against="within")
    (axis,) = draw_bars("codec", breakdown).axes
    assert "n/a" in [text.get_text() for text in axis.texts]


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="its extra `plots`"):
        import_matplotlib()
