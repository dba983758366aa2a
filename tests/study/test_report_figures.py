import pytest

from hf_gradalign.study.report_figures import draw_by_epoch, draw_modules


def make_rows(n_modules, method="pcgrad"):
    """Rows in which later modules have larger shares of the gradient norm."""
    return [
        {"condition": "c", "method": method, "epochs": 2, "module": f"m{i}", "conflict_rate": 0.1, "norm_share": i}
        for i in range(n_modules)
    ]


@pytest.mark.parametrize(("n_modules", "shown"), [(3, [0, 1, 2]), (45, range(5, 45))])
def test_of_many_modules_those_with_the_largest_gradients_are_drawn(n_modules, shown):
    pytest.importorskip("matplotlib")
    axis, _ = draw_modules(make_rows(n_modules) + make_rows(n_modules, "cagrad")).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [f"m{i}" for i in shown]
    assert axis.get_title() == ("" if n_modules == 3 else "the 40 of 45 modules with the largest gradient norms")


def test_a_long_legend_does_not_shrink_the_panels():
    pytest.importorskip("matplotlib")
    row = {"condition": "c", "epochs": 2, "conflict_rate_mean": 0.1, "conflict_rate_sd": 0.1, "cosine_mean": 0.2}
    heights = []
    for n_groups in (2, 40):
        groups = [{**row, "method": f"m{i}", "epoch": e, "norm_ratio": 1.0} for i in range(n_groups) for e in (1, 2)]
        figure = draw_by_epoch(groups)
        figure.draw_without_rendering()
        heights.append(figure.axes[0].get_window_extent().height)
    assert heights[1] > 0.8 * heights[0]
