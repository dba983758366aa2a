from hf_gradalign.experiment import RunResults, summary_table


def make_results(**changes):
    values = {
        "metrics": {"eval_eer": 0.0312, "test_eer": 0.2104},
        "eer_by_system": {"eval": {"A01": 0.01}, "test": {"W01": 0.4}},
        "conflict_rate": 0.125,
        "conflict_rate_by_epoch": {0: 0.0, 1: 0.25},
        "averaged_checkpoints": 0,
        "nonfinite_updates": 0,
        "settings": {},
    }
    return RunResults(**{**values, **changes})


def test_per_cent_for_people():
    table = summary_table(make_results(), "pcgrad").splitlines()
    assert table[1].split() == ["validation", "3.12"]
    assert table[2].split() == ["A01", "1.00"]
    assert table[3].split() == ["test", "21.04"]
    assert table[5].endswith("alignment: pcgrad")
    assert table[6].split() == ["all", "12.50"]
    assert table[7].split() == ["by", "epoch", "0", "25"]
    assert len(table) == 8


def test_more_than_two_views_and_only_one():
    three = {"views": {"clean": "clean", "rawboost": "rawboost", "codec": "codec"}}
    table = summary_table(make_results(settings=three), "pcgrad")
    assert "Updates in which the gradients of any two of the views (clean, rawboost, codec) conflicted" in table
    one = make_results(settings={"views": {"codec": "codec"}}, conflict_rate=None, conflict_rate_by_epoch={})
    assert "One view (codec), so no gradients to align" in summary_table(one, "none")
    assert "conflicted" not in summary_table(one, "none")


def test_what_is_not_known_is_left_out():
    table = summary_table(make_results(metrics={"eval_eer": 0.5}, eer_by_system={}, conflict_rate=None), "none")
    assert "test" not in table
    assert "by epoch" not in table
    assert "3 updates had gradients that were not finite" in summary_table(make_results(nonfinite_updates=3), "none")
    table = summary_table(make_results(nonfinite_updates=3, skipped_updates=2), "none")
    assert "2 updates were skipped (--on_nonfinite skip)" in table


def test_remarks_come_last():
    table = summary_table(make_results(remarks=["Test split: odd."]), "pcgrad").splitlines()
    assert table[-1] == "Test split: odd."
