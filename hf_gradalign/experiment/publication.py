"""Publishing a run: trouble with the Hub is told early and never costs the trained model."""

import threading
from pathlib import Path

from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.utils import logging

from hf_gradalign.experiment.arguments import AudioSpoofTrainingArguments
from hf_gradalign.hub import PublishingError, check_access, publish
from hf_gradalign.utils.plain_text import plain_text

logger = logging.get_logger(__name__)


def require_publishable(args: AudioSpoofTrainingArguments) -> None:
    """Refuse, before anything is loaded, to publish what can never be published.

    Raises:
        ValueError: If the repository's name is not valid, or no access token is found.
    """
    if not args.push_to_hub:
        return
    name = args.hub_model_id or Path(args.output_dir).name
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"--push_to_hub: give a valid name with --hub_model_id namespace/name. {error}") from error
    if (args.hub_token or get_token()) is None:
        raise ValueError(
            "--push_to_hub: no access token was found. Run `hf auth login`, or set HF_TOKEN, with a token that has "
            "write permission; or train without --push_to_hub"
        )


def announce_hub(args: AudioSpoofTrainingArguments) -> bool:
    """See aside whether the Hub will take the model, with a warning where it will not; training need not wait for it.

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
        threading.Thread(target=_check_access, args=(args,), name="hub-access", daemon=True).start()
    return True


def _check_access(args: AudioSpoofTrainingArguments) -> None:
    try:
        check_access(args.hub_model_id, args.hub_token, private=args.hub_private_repo)
    except PublishingError as error:
        logger.warning(f"{plain_text(error)}\nTraining continues; the push is tried again when it ends.")


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
