import re
from pathlib import Path

import pytest

FIGURE = Path(__file__).parents[2] / "docs" / "images" / "alignment.svg"


@pytest.fixture
def draw(load_script):
    pytest.importorskip("matplotlib")
    return load_script("draw_alignment")


def texts(path):
    return re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text(encoding="utf-8"))


def test_the_figure_of_the_documentation_is_what_the_code_draws(draw, tmp_path, capsys):
    assert draw.main(["--output", str(tmp_path / "alignment.svg")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'alignment.svg'}\n"
    assert texts(tmp_path / "alignment.svg") == texts(FIGURE)


def test_the_mean_works_against_a_view_and_the_aligned_update_against_none():
    products = {float(number) for number in re.findall(r"· \w+ = ([+-][\d.]+)", " ".join(texts(FIGURE)))}
    assert len(products) == 4
    assert sum(product < 0 for product in products) == 1


def test_a_format_that_is_none(draw, tmp_path, capsys):
    assert draw.main(["--output", str(tmp_path / "alignment.xyz")]) == 2
    assert "'xyz' is not supported" in capsys.readouterr().err
