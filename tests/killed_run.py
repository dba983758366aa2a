"""A training run to be killed: a program for torchrun, and a function for a process of its own."""

import gc
import json
import multiprocessing
import os
import sys
import traceback
from pathlib import Path

import torch
from safetensors.torch import save_file
from toy import ToyViews, make_model, make_trainer, timeless, weights_of

from hf_gradalign.training.atomic_writing import write_text_atomically
from hf_gradalign.training.run_checkpoints import RunCheckpoints

STARTED = "started"


class NoisyViews(ToyViews):
    """The augmented view is another one in each epoch."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        views = super().__getitem__(index)
        noise = torch.randn(6, generator=torch.Generator().manual_seed(1000 * self.epoch + index))
        views["augmented"]["x"] = views["augmented"]["x"] + 0.1 * noise
        return views


def train(folder, options):
    """Train, from the last whole checkpoint if there is one, and write what came of it, on each process."""
    folder = Path(folder)
    trainer = make_trainer(
        folder,
        NoisyViews(96),
        make_model(dropout=0.2),
        eval_dataset=[item["clean"] for item in ToyViews(8)],
        align_gradients="gradvac",
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        eval_strategy="steps",
        eval_steps=5,
        logging_steps=5,
        optim="adamw_torch",
        lr_scheduler_type="linear",
        **options,
    )
    last = RunCheckpoints(folder).last_complete()
    trainer.train(resume_from_checkpoint=last is not None)
    rank = trainer.args.process_index
    save_file(weights_of(trainer), folder / f"result-{rank}.safetensors")
    found = {
        "alignment": repr(trainer.alignment_method.state_dict()),
        "conflicts": trainer.conflict_counts.state_dict(),
        "log": timeless(trainer.state.log_history),
    }
    write_text_atomically(folder / f"result-{rank}.json", json.dumps(found))


def run(folder, options, processes, port):
    """`train` in this process, or in several below it, all of one group that is this process's own."""
    os.setsid()
    Path(folder).mkdir(parents=True, exist_ok=True)
    log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    Path(folder, STARTED).touch()
    # Loader workers as in an ordinary process; and what was imported is much to look through for garbage.
    multiprocessing.set_start_method("fork", force=True)
    gc.freeze()
    if processes == 1:
        train(folder, options)
        return
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                train(folder, options)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        children.append(child)
    failed = [os.waitpid(child, 0)[1] for child in children]
    if any(failed):
        raise RuntimeError(f"processes ended with {failed}")


if __name__ == "__main__":
    train(sys.argv[1], json.loads(sys.argv[2]))
