"""A scoring to be killed, in a process of its own or several, all of one group."""

import gc
import multiprocessing
import os
import sys
import traceback

from datasets import load_from_disk

from hf_gradalign.scoring import SpoofScorer, process_state, score_corpus


def score(model, corpus, score_file, num_workers):
    scorer = SpoofScorer(model, batch_size=4, device="cpu", num_workers=num_workers)
    assert process_state().num_processes == int(os.environ.get("WORLD_SIZE", "1"))
    score_corpus(scorer, load_from_disk(corpus), score_file, columns=["label"], progress=False)


def run(model, corpus, score_file, num_workers, processes=1, port=0):
    os.setsid()
    log = os.open(f"{score_file}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    multiprocessing.set_start_method("fork", force=True)
    gc.freeze()
    if processes == 1:
        score(model, corpus, score_file, num_workers)
        return
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                score(model, corpus, score_file, num_workers)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        children.append(child)
    failed = [os.waitpid(child, 0)[1] for child in children]  # all of them are waited for
    if any(failed):
        raise RuntimeError("a process failed")
