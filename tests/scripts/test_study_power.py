from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SMALL_SCALE = Path(__file__).parents[2] / "docs" / "small_scale"


@pytest.fixture
def study_power(load_script):
    return load_script("study_power")


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (1.0, 10), (1.5, 6), (2.0, 5)])
def test_seeds_are_those_of_published_tables_of_the_paired_t_test(study_power, effect, seeds):
    assert study_power.seeds_needed(effect, 1.0) == seeds


def test_clips_limit_what_any_number_of_seeds_can_show(study_power):
    assert study_power.seeds_needed(1.0, 1.0, clip_error=0.2) > 10
    assert study_power.seeds_needed(1.0, 1.0, clip_error=0.5) is None


def test_the_smallest_effect_needs_the_seeds_that_it_is_for(study_power):
    effect = study_power.smallest_effect(20, 0.7, 0.1)
    assert study_power.seeds_needed(effect * 1.001, 0.7, 0.1) == 20
    assert study_power.seeds_needed(effect * 0.999, 0.7, 0.1) == 21


def test_power_without_an_effect_is_the_level(study_power):
    assert study_power.power(0.0, 7, 1.3) == pytest.approx(0.05)


def test_a_set_without_errors_tells_nothing_of_clips(study_power):
    spread = study_power.Spread("pcgrad", "easy", 2, 0.0, 0.0, 0.0)
    clips = SimpleNamespace(labels=np.array([0, 1]))
    group = SimpleNamespace(values=lambda name: {0: 0.0, 1: 0.0})
    results = SimpleNamespace(clips={"easy": clips}, groups={"condition": [group]})
    with pytest.raises(ValueError, match="no model makes errors on easy"):
        study_power.relative_clip_error(spread, results)


def test_a_study_gives_spreads_and_a_table(study_power, capsys):
    assert study_power.main([str(SMALL_SCALE), "--set", "demo", "--draws", "20", "--spreads", "1", "2"]) == 0
    out = capsys.readouterr().out
    assert "| pcgrad, rawboost, linear, batch 16 | demo | 10 | +0.83 |" in out
    assert "| 2 | 17 | 34 | 252 |" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        ([str(SMALL_SCALE), "--set", "itw"], "no evaluation set itw; it has eval, demo, dev"),
        ([str(SMALL_SCALE), "--methods", "pcgard"], "no comparison of pcgard with dual path"),
        ([str(SMALL_SCALE), "--seeds", "1"], "--seeds must be at least 2"),
        ([str(SMALL_SCALE), "--eer", "100"], "--eer must be between 0 and 100 %, not 100"),
        ([str(SMALL_SCALE), "--spreads", "1", "-1"], "--spreads must be more than 0"),
        ([str(SMALL_SCALE), "--bonafide", "0"], "--bonafide must be more than 0"),
    ],
)
def test_errors_say_what_is_wrong(study_power, capsys, words, message):
    assert study_power.main([*words, "--draws", "2"]) == 2
    assert message in capsys.readouterr().err
