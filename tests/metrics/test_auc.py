"""The area under the ROC curve."""

import pytest
from hypothesis import given
from score_samples import few_values, scored_clips

from hf_gradalign.metrics import roc_auc

# Random scores are often suspicious.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@given(scored_clips(values=few_values))
def test_counts_pairs(clips):
    scores, labels = clips
    bonafide = [s for s, label in zip(scores, labels, strict=True) if label == 1]
    spoof = [s for s, label in zip(scores, labels, strict=True) if label == 0]
    pairs = sum((b > s) + (b == s) / 2 for b in bonafide for s in spoof)
    assert roc_auc(scores, labels)["roc_auc"] == pytest.approx(pairs / (len(bonafide) * len(spoof)), abs=1e-15)


def test_by_hand():
    assert roc_auc([0, 1, 2, 3], [0, 0, 1, 1]) == {"roc_auc": 1.0}
    assert roc_auc([0, 2, 1, 3], [0, 0, 1, 1]) == {"roc_auc": 0.75}
    with pytest.warns(UserWarning, match="equal"):
        assert roc_auc([1, 1, 1], [0, 0, 1]) == {"roc_auc": 0.5}
