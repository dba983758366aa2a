"""Publishing a run: trouble with the Hub is told early and never costs the trained model."""

from pathlib import Path

from transformers.utils import logging

from hf_gradalign.experiment.arguments import AudioSpoofTrainingArguments
from hf_gradalign.hub import PublishingError, check_access, publish

logger = logging.get_logger(__name__)


def announce_hub(args: AudioSpoofTrainingArguments) -> bool:
    """See before training whether the Hub will take the model; train in any case.

    Turns `args.push_to_hub` off: the Trainer would push by itself, and fail where the Hub cannot be reached.

    Returns:
        Whether the run is to be published when it ends.
    """
    wanted = args.push_to_hub
    if not wanted:
        return False
    args.hub_model_id = args.hub_model_id or Path(args.output_dir).name
    args.push_to_hub = False
    if args.should_save:
        try:
            check_access(args.hub_model_id, args.hub_token, private=args.hub_private_repo)
        except PublishingError as error:
            logger.warning(f"{error}\nTraining goes on; the push is tried again when it ends.")
    return True


def publish_run(args: AudioSpoofTrainingArguments) -> str:
    """Push the run's folder; returns the address.

    Raises:
        PublishingError: If the Hub does not take it. The message has the command that pushes it later.
    """
    return publish(
        args.output_dir,
        args.hub_model_id,
        token=args.hub_token,
        private=args.hub_private_repo,
        revision=args.hub_revision,
    )
