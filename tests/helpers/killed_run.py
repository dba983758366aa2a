"""A training run to be killed: a program for torchrun, and a function for `forked_group.start`."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from toy import ToyViews, make_model, make_trainer, timeless, weights_of

from hf_gradalign.training.run_checkpoints import RunCheckpoints
from hf_gradalign.utils.files import write_text_atomically

STARTED = "started"


class NoisyViews(ToyViews):
    """The augmented view changes with the epoch."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        views = super().__getitem__(index)
        noise = torch.randn(6, generator=torch.Generator().manual_seed(1000 * self.epoch + index))
        views["augmented"]["x"] = views["augmented"]["x"] + 0.1 * noise
        return views


def train(folder, options):
    """Train, from the last complete checkpoint if there is one, and write the results of each process."""
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


def run(folder, options):
    """Create a file to show that training starts, then `train`."""
    Path(folder, STARTED).touch()
    train(folder, options)


if __name__ == "__main__":
    train(sys.argv[1], json.loads(sys.argv[2]))
