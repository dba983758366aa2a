import pickle

import pytest
import torch
from transformers import BatchEncoding, default_data_collator

from hf_gradalign.training import ViewBatchCollator


def item(value, label=1):
    return {"x": torch.full((2,), value), "label": label}


def test_each_view_by_itself():
    items = [{"clean": item(1.0, 0), "augmented": item(2.0, 0)}, {"clean": item(3.0), "augmented": item(4.0)}]
    batch = ViewBatchCollator()(items)
    assert list(batch) == ["clean", "augmented"]
    assert batch["clean"]["x"].tolist() == [[1, 1], [3, 3]]
    assert batch["augmented"]["x"].tolist() == [[2, 2], [4, 4]]
    assert batch["augmented"]["labels"].tolist() == [0, 1]


def test_ordinary_items_are_left_to_the_collator():
    batch = ViewBatchCollator()([item(1.0), item(2.0)])
    assert batch["x"].tolist() == [[1, 1], [2, 2]]
    assert batch["labels"].tolist() == [1, 1]


def test_any_collator_and_any_mapping():
    collator = ViewBatchCollator(lambda items: len(items))
    assert collator([{"clean": BatchEncoding({"input_ids": [1]})}] * 3) == {"clean": 3}
    assert collator([object()] * 2) == 2


def test_without_it_the_default_collator_fails():
    # If this no longer fails, ViewBatchCollator is less necessary.
    with pytest.raises(Exception, match="dict"):
        default_data_collator([{"clean": item(1.0)}])


@pytest.mark.parametrize("other", [{}, {"clean": item(1.0)}, {"clean": item(1.0), "noisy": item(1.0)}])
def test_items_with_other_views_are_refused(other):
    first = {"clean": item(1.0), "augmented": item(2.0)}
    with pytest.raises(ValueError, match="every item needs the same views, got clean, augmented and"):
        ViewBatchCollator()([first, other])


def test_it_can_be_sent_to_a_spawned_worker():
    collator = pickle.loads(pickle.dumps(ViewBatchCollator()))
    assert collator([{"clean": item(1.0)}])["clean"]["x"].tolist() == [[1, 1]]
