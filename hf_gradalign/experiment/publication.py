"""The model card of a run, and its push to the Hub."""

import shlex
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import PretrainedConfig
from transformers.trainer_utils import SchedulerType
from transformers.utils import logging

from hf_gradalign import conversion
from hf_gradalign.data import ViewDataset
from hf_gradalign.data.corpora import CorpusSpec, parse_corpus
from hf_gradalign.experiment.arguments import AudioSpoofTrainingArguments, DataArguments, RunArguments
from hf_gradalign.experiment.command_line import command_words
from hf_gradalign.experiment.preparation import Preparation
from hf_gradalign.experiment.results import SPLITS_BY_PREFIX, RunResults
from hf_gradalign.experiment.views import CLEAN, parse_views, public_recipe, public_views
from hf_gradalign.hub import ModelCardFacts, PublishingError, check_access, publish, write_model_card
from hf_gradalign.models import ARCHITECTURES, SpoofDetectorConfig, SpoofDetectorForAudioClassification
from hf_gradalign.models.lora import count_parameters
from hf_gradalign.models.losses import CROSS_ENTROPY
from hf_gradalign.training import find_conflict_record
from hf_gradalign.training.adapters import has_adapters
from hf_gradalign.training.conflicts.figures import draw_run_figures
from hf_gradalign.utils.plain_text import join_words, plain_text

logger = logging.get_logger(__name__)

_DEMO_LANGUAGES = ("en", "es", "fr", "it", "ru")


def write_run_card(results: RunResults, preparation: Preparation, run: RunArguments) -> Path:
    """Write the model card of a run into its folder, with the figures of its conflict record.

    Args:
        results: The results of the run.
        preparation: The run's data and model.
        run: The run's arguments. The card shows the command line, without the folders of this machine.

    Returns:
        Path of the card.
    """
    model_args, data_args, args = run.model, run.data, run.training
    model, base_name = preparation.model, model_args.model_name_or_path
    base = cast(Any, model).get_base_model() if has_adapters(model) else model
    trained_on = [parse_corpus(text) for text in data_args.corpora]
    is_demo = all(spec.is_demo for spec in trained_on)
    record = find_conflict_record(args.run_folder) if args.conflict_record != "none" else None
    facts = ModelCardFacts(
        model_name=(args.hub_model_id or args.run_folder.name).split("/")[-1],
        repo_id=args.hub_model_id,
        base_model=None if base_name in ARCHITECTURES else _without_filename(base_name),
        dataset_name=join_words([_public_name(spec) for spec in trained_on]),
        dataset_id=trained_on[0].hub_id if len(trained_on) == 1 else None,
        is_demo_corpus=is_demo,
        license=model_args.model_license or _license_of_base(base_name),
        languages=_DEMO_LANGUAGES if is_demo else (),
        alignment_method=args.align_gradients,
        alignment_options=cast("dict[str, Any]", args.alignment_options or {}),
        views={
            name: None if recipe == CLEAN else public_recipe(recipe) for name, recipe in data_args.view_recipes.items()
        },
        view_weights=cast("dict[str, float]", args.view_weights or {}),
        hyperparameters=_hyperparameters(results, run, preparation),
        results={
            split: {
                "eer": results.metrics[f"{prefix}_eer"],
                "threshold": results.metrics[f"{prefix}_eer_threshold"],
                "by_system": results.eer_by_system.get(prefix, {}),
                **_evaluation_corpus(split, data_args, preparation),
            }
            for prefix, split in SPLITS_BY_PREFIX.items()
            if f"{prefix}_eer" in results.metrics
        },
        conflict_rate=results.conflict_rate,
        conflict_rate_by_epoch=list(results.conflict_rate_by_epoch.values()),
        conflict_record=record.name if record else None,
        figures=draw_run_figures(args.run_folder) if record else {},
        sampling_rate=preparation.feature_extractor.sampling_rate,
        window_seconds=data_args.eval_window_seconds,
        brings_code=isinstance(base, SpoofDetectorForAudioClassification),
        is_adapter=base is not model and not args.merge_adapters,
        id2label=cast("dict[int, str]", model.config.id2label),
        n_parameters=count_parameters(model),
        versions=results.versions,
        command=shlex.join(_public_words(command_words(run.options))),
    )
    return write_model_card(args.run_folder, facts)


def _license_of_base(name: str | None) -> str | None:
    """Return the license of the published detector that was fine-tuned, which may apply to the result."""
    detector = None if name is None else conversion.find_by_repo(str(_without_filename(name)))
    return None if detector is None else detector.license


def _without_filename(name: str | None) -> str | None:
    """Return the repository of `org/repo:filename`; other names are returned unchanged."""
    repo, colon, _ = (name or "").partition(":")
    return repo if colon and repo.count("/") == 1 and not Path(str(name)).exists() else name


def _public_name(spec: CorpusSpec) -> str:
    """Return the name of a corpus for publication, without the folders of this machine."""
    if spec.is_demo:
        return "the hf_gradalign demo corpus"
    if spec.layout is not None:
        return spec.layout.title
    return spec.hub_id or spec.name


def _evaluation_corpus(split: str, data_args: DataArguments, preparation: Preparation) -> dict[str, str | None]:
    """Return the corpus of a split if it is not the training corpus."""
    sources = preparation.eval_sources
    if split not in sources or data_args.corpora == [sources[split]]:
        return {}
    spec = parse_corpus(sources[split])
    return {"dataset_name": _public_name(spec), "dataset_id": spec.hub_id}


def _public_words(command: Sequence[str]) -> Iterator[str]:
    for before, word in zip(["", *command], command, strict=False):
        yield public_views(parse_views(word)) if before == "--views" else _without_folders(word)


def _without_folders(word: str) -> str:
    name, colon, path = word.partition(":")
    if colon and Path(path).expanduser().is_absolute():  # a named corpus with its path
        return f"{name}:{Path(path).name}"
    return Path(word).name if Path(word).is_absolute() else word


def _hyperparameters(results: RunResults, run: RunArguments, preparation: Preparation) -> dict[str, Any]:
    data_args, args = run.data, run.training
    model = cast(Any, preparation.model)
    weights = getattr(model.config, "class_weights", None)
    lora = model.peft_config["default"] if has_adapters(model) else None
    return {
        "corpus weights": ", ".join(f"{weight:g}" for weight in data_args.corpus_weights or ()) or None,
        "classes balanced": "yes" if data_args.balance_classes else None,
        "training clips": "streamed" if data_args.streaming else len(cast("ViewDataset", preparation.train_dataset)),
        "epochs": args.num_train_epochs if args.max_steps <= 0 else None,
        "updates": args.max_steps if args.max_steps > 0 else None,
        "utterances per batch (per device)": args.per_device_train_batch_size,
        "processes": args.world_size,
        "accumulation steps": args.gradient_accumulation_steps,
        "learning rate": args.learning_rate,
        "learning rate of the head": args.head_learning_rate,
        "learning rate decay per layer": args.layerwise_lr_decay,
        "schedule": SchedulerType(args.lr_scheduler_type).value,
        "weight decay": args.weight_decay,
        "optimizer": "Adam, weight decay in the gradient" if args.coupled_weight_decay else None,
        "rank of LoRA": run.model.lora_r,
        "alpha of LoRA": lora and lora.lora_alpha,
        "layers with LoRA": lora and ", ".join(run.model.lora_target_modules or [str(lora.target_modules)]),
        "frozen layers": run.model.freeze_layers,
        "alignment scope": args.alignment_scope if args.alignment_scope != "model" else None,
        "modules aligned separately": ", ".join(args.alignment_modules or ()) or None,
        "parameters aligned": ", ".join(args.alignment_parameters or ()) or None,
        "gradient norm clipped at": args.max_grad_norm or None,
        "loss": _loss(model.config),
        "class weights (spoof, bona fide)": None if weights is None else ", ".join(f"{w:g}" for w in weights),
        "training window (s)": data_args.window_seconds,
        "crop": data_args.crop,
        "selected by": f"validation {args.metric_for_best_model}" if args.load_best_model_at_end else None,
        "checkpoints averaged": results.averaged_checkpoints or None,
        "seed": args.seed,
    }


def _loss(config: PretrainedConfig) -> str | None:
    """Return a loss other than the cross-entropy as text."""
    if not isinstance(config, SpoofDetectorConfig) or config.loss == CROSS_ENTROPY:
        return None
    options = ", ".join(f"{name} {value:g}" for name, value in (config.loss_options or {}).items())
    return f"{config.loss} ({options})" + ("; the score is a cosine" if config.loss == "oc_softmax" else "")


def require_publishable(args: AudioSpoofTrainingArguments) -> None:
    """Check, before anything is loaded, that a run with `push_to_hub` can be published.

    Raises:
        ValueError: If the repository's name is not valid, or no access token is found.
    """
    if not args.push_to_hub:
        return
    name = args.hub_model_id or args.run_folder.name
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"--push_to_hub: pass a valid name with --hub_model_id namespace/name. {error}") from error
    if (args.hub_token or get_token()) is None:
        raise ValueError(
            "--push_to_hub: no access token was found. Run `hf auth login` or set HF_TOKEN, with a token that "
            "has write "
            "permission; or train without --push_to_hub"
        )


def announce_hub(args: AudioSpoofTrainingArguments) -> None:
    """Check in the background whether the Hub accepts the model, and warn if not. Training does not wait for this.

    Turns off `args.push_to_hub`, because the Trainer would push on its own and fail if the Hub cannot be reached.
    """
    if not args.push_to_hub:
        return
    args.hub_model_id = args.hub_model_id or args.run_folder.name
    args.push_to_hub = False
    if args.should_save:
        threading.Thread(target=_check_access, args=(args,), name="hub-access", daemon=True).start()


def _check_access(args: AudioSpoofTrainingArguments) -> None:
    try:
        check_access(str(args.hub_model_id), args.hub_token, private=args.hub_private_repo)
    except PublishingError as error:
        logger.warning(f"{plain_text(error)}\nTraining continues, and the run tries to push again at the end.")


def publish_run(args: AudioSpoofTrainingArguments) -> str:
    """Push the folder of a run and return its address.

    Raises:
        PublishingError: If the Hub does not accept the model. The message contains the command to push it later.
    """
    return publish(
        str(args.run_folder),
        str(args.hub_model_id),  # `announce_hub` has set it
        token=args.hub_token,
        private=args.hub_private_repo,
        revision=args.hub_revision,
    )
