"""A `Trainer` that restores the random generator of Apple's GPU (MPS)."""

import json
from pathlib import Path

import torch
from transformers import Trainer

# Not .safetensors: these files of a checkpoint are its weights.
STATE_NAME = "rng_state_mps.json"


class MpsGeneratorTrainer(Trainer):
    """Saves the state of the MPS generator in checkpoints, without which dropout of a resumed run would differ.

    The base class saves those of other accelerators.
    """

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.args.device.type == "mps":
            state = torch.mps.get_rng_state().tolist()
            Path(output_dir, STATE_NAME).write_text(json.dumps(state) + "\n", encoding="utf-8")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        path = Path(checkpoint or "", STATE_NAME)
        if checkpoint is not None and self.args.device.type == "mps" and path.is_file():
            state = json.loads(path.read_text(encoding="utf-8"))
            torch.mps.set_rng_state(torch.tensor(state, dtype=torch.uint8))
