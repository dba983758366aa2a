import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from conflict_rows import make_rows, write_rows

from hf_gradalign.experiment import ConflictHistory, draw_conflicts, draw_run_figures
from hf_gradalign.training.conflicts.figures import MAX_COLUMNS, bin_steps, draw_modules, draw_overview

image = pytest.importorskip("matplotlib.image")
MODULES = ["encoder.layers.0", "encoder.layers.1", "classifier"]


def test_draws_files_that_can_be_opened(tmp_path):
    write_rows(tmp_path, make_rows(40, modules=MODULES))
    paths = draw_conflicts(tmp_path)
    names = ["conflicts.png", "conflicts.svg", "conflicts_by_module.png", "conflicts_by_module.svg"]
    assert paths == [tmp_path / "figures" / name for name in names]
    for path in paths:
        if path.suffix == ".png":
            assert image.imread(path)[..., :3].std() > 0.05  # it is not empty
        else:
            text = " ".join(ElementTree.parse(path).getroot().itertext())
            assert ("classifier" if "module" in path.name else "cosine of the gradients of clean and augmented") in text


@pytest.mark.slow
def test_where_and_in_which_formats(tmp_path):
    record = write_rows(tmp_path / "run", make_rows())
    assert draw_conflicts(record, formats=["pdf"]) == [tmp_path / "run" / "figures" / "conflicts.pdf"]
    assert draw_conflicts(record, tmp_path / "elsewhere", ["svg"]) == [tmp_path / "elsewhere" / "conflicts.svg"]
    with pytest.raises(ValueError, match="'xyz' is not supported"):
        draw_conflicts(record, formats=["xyz"])


@pytest.mark.slow
def test_the_same_record_gives_the_same_file(tmp_path):
    record = write_rows(tmp_path, make_rows(modules=MODULES))
    first, second = ([p.read_bytes() for p in draw_conflicts(record, tmp_path / name, ["svg"])] for name in "ab")
    assert first == second


def test_the_overview_shows_the_records_figures():
    rows = make_rows(44, per_epoch=20)
    for row in rows[:20]:
        row["cosine_clean_augmented"] = 0.25
    rows[30]["norm_ratio_augmented_clean"] = None  # |0| / |0|
    rows[31]["norm_ratio_augmented_clean"] = 100.0
    rates, cosines, ratios = draw_overview(ConflictHistory(rows)).axes
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in rates.patches] == [
        (1, 0.0),
        (2, pytest.approx(25.0)),
        (3, pytest.approx(25.0)),
    ]
    counts = {round(bar.get_x(), 6): bar.get_height() for bar in cosines.patches if bar.get_height()}
    assert counts == {-0.5: 6, 0.25: 38}
    assert "in conflict (13.6 %)" in [text.get_text() for text in cosines.get_legend().get_texts()]
    _, points, median = ratios.lines
    assert ratios.get_yscale() == "log"
    assert len(points.get_ydata()) == 43
    assert points.get_ydata().max() == 100
    assert set(median.get_ydata()) == {2.0}


def test_ratios_of_any_range_have_labels():
    for largest in (3.0, 1e4, 1e30):
        rows = make_rows(20)
        for index, row in enumerate(rows):
            row["norm_ratio_augmented_clean"] = largest if index % 2 else 1.0
        figure = draw_overview(ConflictHistory(rows))
        figure.draw_without_rendering()
        axis = figure.axes[2]
        low, high = axis.get_ylim()
        shown = [label.get_text() for label in axis.get_yticklabels() if low <= label.get_position()[1] <= high]
        assert 2 <= len([text for text in shown if text]) < 20


def test_the_papers_rate_is_named(tmp_path):
    rates, *_ = draw_overview(ConflictHistory(make_rows())).axes
    assert rates.get_legend().get_texts()[0].get_text() == "about 25 % in arXiv 2509.20682"


def test_a_panel_a_pair():
    history = ConflictHistory(make_rows(views=["a", "b", "c"], modules=MODULES))
    overview = draw_overview(history)
    assert [axis.get_ylabel() for axis in overview.axes[2::3]] == ["|b| / |a|", "|c| / |a|", "|c| / |b|"]
    assert len(overview.axes) == 9
    titles = [axis.get_title() for axis in draw_modules(history).axes]
    assert [title for title in titles if title] == [
        f"Cosine of the gradients of {pair}, by module" for pair in ("a and b", "a and c", "b and c")
    ]


def test_the_heat_map_shows_the_records_cosines():
    rows = make_rows(6, modules=MODULES)
    rows[2]["module_cosine_clean_augmented"] = [None, -0.5, 1.0]
    axis, _ = draw_modules(ConflictHistory(rows)).axes
    [mesh] = axis.collections
    values = mesh.get_array()
    assert values.shape == (3, 6)
    assert values[:, 0].tolist() == [0.0, 0.1, 0.2]
    assert values[:, 2].tolist() == [None, -0.5, 1.0]  # masked: gray
    assert mesh.get_clim() == (-1, 1)  # centered on 0
    assert [label.get_text() for label in axis.get_yticklabels()] == MODULES
    assert axis.get_ylim() == (2.5, -0.5)  # the first layer on top
    assert mesh.get_coordinates()[0, :, 0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5]


def test_many_steps_are_binned():
    steps = np.arange(1, 1205)
    values = np.stack([steps, np.where(steps % 2, np.nan, 1.0), np.full(len(steps), np.nan)], axis=1)
    edges, means = bin_steps(steps, values)
    assert means.shape == (MAX_COLUMNS, 3)
    assert (edges[0], edges[-1]) == (0.5, 1204.5)
    widths = np.diff(edges)
    np.testing.assert_allclose(means[:, 0], edges[:-1] + widths / 2)
    assert set(widths) == {2, 3}
    assert set(means[:, 1]) == {1.0}
    assert np.isnan(means[:, 2]).all()


@pytest.mark.parametrize("modules", [61, 400])
def test_many_modules_have_room_and_fewer_labels(modules):
    figure = draw_modules(ConflictHistory(make_rows(4, modules=[f"m.{i}" for i in range(modules)])))
    assert len(figure.axes[0].get_yticks()) <= 60
    assert figure.get_size_inches()[1] <= 11


@pytest.mark.slow
def test_nothing_finite_can_be_drawn_too(tmp_path):
    rows = make_rows(3, modules=MODULES)
    for row in rows:
        row |= {"cosine_clean_augmented": None, "norm_ratio_augmented_clean": None}
        row["module_cosine_clean_augmented"] = [None] * 3
    assert len(draw_conflicts(write_rows(tmp_path, rows))) == 4


def test_one_view_has_nothing_to_draw(tmp_path):
    write_rows(tmp_path, make_rows(views=["clean"]))
    with pytest.raises(ValueError, match=r"a single view \(clean\), which has no conflicts"):
        draw_conflicts(tmp_path)


@pytest.fixture
def messages(monkeypatch):
    told = []
    logger = "hf_gradalign.training.conflicts.figures.logger"
    for level in ("info", "warning"):
        monkeypatch.setattr(f"{logger}.{level}", lambda text, level=level: told.append((level, text)))
    return told


def test_figures_of_a_card(tmp_path, messages):
    write_rows(tmp_path, make_rows(modules=MODULES))
    figures = draw_run_figures(tmp_path)
    assert list(figures) == ["figures/conflicts.png", "figures/conflicts_by_module.png"]
    assert all((tmp_path / path).is_file() for path in figures)
    assert not messages


def test_trouble_with_figures_costs_no_card(tmp_path, messages):
    write_rows(tmp_path, make_rows(views=["clean"]))
    assert draw_run_figures(tmp_path) == {}
    assert not messages
    (tmp_path / "conflicts.jsonl").write_text("no JSON\n")
    assert draw_run_figures(tmp_path) == {}
    [(level, text)] = messages
    assert level == "warning"
    assert text.startswith("The conflict record was not drawn: ")


def test_matplotlib_is_asked_for(tmp_path, monkeypatch, messages):
    write_rows(tmp_path, make_rows())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib.* extra `plots`"):
        draw_conflicts(tmp_path)
    assert draw_run_figures(tmp_path) == {}
    [(level, text)] = messages
    assert level == "info"
    assert "pip install matplotlib" in text
