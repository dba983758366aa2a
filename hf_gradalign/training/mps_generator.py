"""A `Trainer` that restores the random generator of Apple's GPU (MPS)."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer

from hf_gradalign.utils.files import apply_default_mode

STATE_NAME = "rng_state_mps.safetensors"


class MpsGeneratorTrainer(Trainer):
    """Saves the state of the MPS generator in checkpoints, without which dropout of a resumed run would differ.

    The base class saves those of other accelerators.
    """

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.args.device.type == "mps":
            path = Path(output_dir, STATE_NAME)
            save_file({"state": torch.mps.get_rng_state()}, path)
            apply_default_mode(path)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        path = Path(checkpoint or "", STATE_NAME)
        if checkpoint is not None and self.args.device.type == "mps" and path.is_file():
            torch.mps.set_rng_state(load_file(path)["state"])
