"""A scoring to be killed, for `forked_group.start`."""

import os

from datasets import load_from_disk

from hf_gradalign.scoring import SpoofScorer, process_state, score_corpus


def score(model, corpus, score_file, num_workers):
    scorer = SpoofScorer(model, batch_size=4, device="cpu", num_workers=num_workers)
    assert process_state().num_processes == int(os.environ.get("WORLD_SIZE", "1"))
    score_corpus(scorer, load_from_disk(corpus), score_file, columns=["label"], progress=False)
