"""Fused files: the same systems in the same order as in the fit."""

import numpy as np
import pyarrow as pa
import pytest

from hf_gradalign.score_files import (
    Clips,
    FusedSystem,
    Fusion,
    ScoreFileError,
    apply_fusion,
    join_systems,
    require_same_scoring,
    require_same_systems,
)

FUSION = Fusion((FusedSystem("a.txt", 2.0, -1.0, 1.0), FusedSystem("b.txt", -0.5, 0.0, 10.0)), 1.0, 0.5, 0.01, 50, 50)


def joint(*scores, sources=("x.txt", "y.txt")):
    names = pa.array([f"u{number}" for number in range(len(scores[0]))])
    files = [Clips(source, names, scores=np.array(own, float)) for source, own in zip(sources, scores, strict=True)]
    return join_systems(files)


def test_scores_are_weighted():
    assert apply_fusion(FUSION, joint([0.5, -1.0], [4.0, 10.0])).tolist() == [0.0, -6.0]


def test_scores_of_another_kind():
    with pytest.warns(
        UserWarning, match=r"67% of the scores of y\.txt \(-20 to 5\) lie outside .* b\.txt that .* \(0 to 10\)\."
    ):
        apply_fusion(FUSION, joint([0.5, 0.5, 7.0], [-20.0, -1.0, 5.0]))


@pytest.mark.parametrize(
    ("fitted", "applied"),
    [
        (["dev/aasist.txt", "dev/sls.txt"], ["eval/aasist.txt", "eval/sls.txt"]),
        (["m1.txt", "m2.txt"], ["m3.txt", "m4.txt"]),
        (["m1_dev2.txt", "m2_dev2.txt"], ["m1_eval1.txt", "m2_eval1.txt"]),
        (["a_2019.txt", "b_2021.txt"], ["a_2021.txt", "b_2019.txt"]),
        (["a.txt (1)", "a.txt (2)"], ["x.txt", "x.txt"]),
        (["a.txt", "b.txt", "c.txt"], ["/data/a/x.txt", "/data/b/x.txt", "/data/c/x.txt"]),
    ],
)
def test_the_given_order_is_kept(fitted, applied, recwarn):
    require_same_systems(fitted, applied)
    assert not list(recwarn)


@pytest.mark.parametrize(
    ("fitted", "applied", "order"),
    [
        (
            ["aasist.txt", "sls.txt"],
            ["e/SLS.txt", "e/AASIST.txt"],
            "e/AASIST.txt for aasist.txt, e/SLS.txt for sls.txt",
        ),
        (
            ["a/dev.txt", "b/dev.txt"],
            ["b/eval.txt", "a/eval.txt"],
            "a/eval.txt for a/dev.txt, b/eval.txt for b/dev.txt",
        ),
        (["m1", "m2", "m3"], ["m2", "m3", "m1"], "m1 for m1, m2 for m2, m3 for m3"),
        (["a", "b", "c"], ["b", "a", "c"], "a for a, b for b, c for c"),
    ],
)
def test_names_in_another_order_are_refused(fitted, applied, order):
    with pytest.raises(ScoreFileError, match=f"{order}. Give them in the order of the fit, or rename them"):
        require_same_systems(fitted, applied)


def test_names_that_may_be_in_another_order():
    with pytest.warns(UserWarning, match=r"b\.txt for a\.txt, new\.txt for b\.txt|a\.txt for a\.txt, new\.txt for b"):
        require_same_systems(["a.txt", "b.txt"], ["new.txt", "a.txt"])


def test_another_number_of_files():
    with pytest.raises(ScoreFileError, match=r"fitted on 2 systems \(a\.txt, b\.txt\), but there are 3 files"):
        apply_fusion(FUSION, joint([0.5], [4.0], [1.0], sources=("a.txt", "b.txt", "c.txt")))


@pytest.mark.parametrize("calibration", [None, {"slope": 2.0}])
def test_scores_with_another_calibration_are_refused(calibration):
    fitted = {"model_sha256": "x", "calibration": {"slope": 1.0}}
    require_same_scoring({"a.txt": fitted}, [("b.txt", dict(fitted))])
    with pytest.raises(ScoreFileError, match=r"^b.txt and a.txt, .* are not calibrated in the same way\. Score both"):
        require_same_scoring({"a.txt": fitted}, [("b.txt", {**fitted, "calibration": calibration})])
