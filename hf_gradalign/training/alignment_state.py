"""The state of the alignment in a checkpoint."""

import json
from pathlib import Path
from typing import Any

from transformers.utils import logging

logger = logging.get_logger(__name__)

ALIGNMENT_STATE_NAME = "alignment_state.json"


def save_alignment_state(trainer: Any, folder: str) -> None:
    """Write the alignment method's state and a `GradientAlignmentTrainer`'s counts to a checkpoint."""
    state = {
        "method": trainer.args.align_gradients,
        "method_state": trainer.alignment_method.state_dict(),
        "conflict_counts": trainer.conflict_counts.state_dict(),
        "skipped_updates": trainer.nonfinite.skipped,
    }
    Path(folder, ALIGNMENT_STATE_NAME).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def load_alignment_state(trainer: Any, checkpoint: str) -> None:
    """Restore what `save_alignment_state` wrote; warn if the alignment starts over."""
    path = Path(checkpoint, ALIGNMENT_STATE_NAME)
    if not path.is_file():
        logger.warning(
            f"{checkpoint} has no {ALIGNMENT_STATE_NAME}: the alignment method starts over (the checkpoint was not "
            "written by GradientAlignmentTrainer, or was written with save_only_model)."
        )
        return
    state = json.loads(path.read_text(encoding="utf-8"))
    if state["method"] == trainer.args.align_gradients:
        trainer.alignment_method.load_state_dict(state["method_state"])
    else:
        logger.warning(
            f"{checkpoint} was trained with --align_gradients {state['method']}; this run uses "
            f"{trainer.args.align_gradients}, which starts over."
        )
    trainer.conflict_counts.load_state_dict(state["conflict_counts"])
    trainer.nonfinite.skipped = state["skipped_updates"]
