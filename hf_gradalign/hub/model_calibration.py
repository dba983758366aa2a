"""Stores a calibration with a model, so that everything that loads the model applies it."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from huggingface_hub import constants
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME

from hf_gradalign.metrics import Calibration, CalibrationMethod
from hf_gradalign.models import SpoofDetectorConfig, output_labels
from hf_gradalign.models.model_files import WEIGHTS
from hf_gradalign.models.stored_calibration import calibration_of, fold_calibration
from hf_gradalign.scoring.fingerprint import digest_of_weights
from hf_gradalign.scoring.model_loading import load_detector
from hf_gradalign.training.checkpoint_integrity import MANIFEST_NAME
from hf_gradalign.utils.files import apply_default_mode, require_reachable, write_text_atomically
from hf_gradalign.utils.plain_text import markdown_text, today

_ADAPTER_CONFIG = "adapter_config.json"
_START, _END = "<!-- begin of hf-gradalign calibrate -->", "<!-- end of hf-gradalign calibrate -->"
# Without metadata, the Hub shows no task, and may refuse the card.
_METADATA = "---\nlibrary_name: transformers\npipeline_tag: audio-classification\n---\n"
_BEFORE = "\n## Intended use"
_UNCALIBRATED = "Scores are not calibrated: they rank clips and are not probabilities."
_CALIBRATED = "Scores are calibrated, but only for recordings like those of the calibration."


def scoring_settings(score_file: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the settings of a score file of this package, from `<stem>.json` next to it; None for other score files.

    They come from `describe_scoring`: the digest of the model's weights, windows, calibration and more.
    """
    file = Path(score_file)
    try:
        content = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        settings, owner = content["settings"], content["report"]["score_file"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    # The settings of another score file may have the same stem. Both may have been renamed together.
    if not isinstance(settings, dict) or (owner != file.name and file.with_name(str(owner)).exists()):
        return None
    return settings


def windowing_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the windows that scores with these settings were computed on."""
    return {name: settings.get(name) for name in ("windows", "window_samples", "hop_samples", "combine", "rms_level")}


class CalibratedFolder:
    """A model's folder that a calibration will be stored in. Its checks run before the calibration is fitted.

    Args:
        folder: The folder.
        bonafide_label: See `output_labels`.
        trust_remote_code: Whether to run modeling code that comes with the model.

    Attributes:
        folder: The folder.
        model: The model.
        earlier: The model's current calibration; None if it has none.

    Raises:
        OSError: If there is no such model, or it cannot be written.
        ValueError: If a calibration cannot be stored in it.
    """

    def __init__(
        self, folder: str | os.PathLike[str], bonafide_label: str | None = None, *, trust_remote_code: bool = False
    ) -> None:
        self.folder = Path(folder)
        require_reachable(self.folder)
        if self.folder.is_file():
            raise NotADirectoryError(f"{folder} is a file: a calibration is stored in the folder of a complete model")
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"there is no folder {folder}: a calibration is stored in a model's folder. To calibrate a model on "
                f"the Hub, first download it: hf download {folder} --local-dir DIR"
            )
        if not (self.folder / CONFIG_NAME).is_file():
            raise FileNotFoundError(
                f"{folder} has no {CONFIG_NAME}, which would store the calibration. Pass the folder of a complete "
                "model. Published checkpoints can be converted to one with hf-gradalign convert"
            )
        try:
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise type(error)(
                f"the model's folder {folder} cannot be written ({error.strerror}): change its permissions, or "
                "calibrate a copy of it"
            ) from error
        config = json.loads((self.folder / CONFIG_NAME).read_text(encoding="utf-8"))
        self._is_detector = config.get("model_type") == SpoofDetectorConfig.model_type
        # A detector's code is this package's, and the copy in its folder may be older.
        trust_remote_code = trust_remote_code and not self._is_detector
        self.model, self._feature_extractor = load_detector(str(folder), trust_remote_code=trust_remote_code)
        config: Any = self.model.config
        self._order = output_labels(config.id2label, config.label2id, bonafide_label)
        self.earlier: dict[str, Any] | None = calibration_of(self.model)
        self._sha256 = digest_of_weights(self.model)
        if self._is_detector:
            names = [config.id2label[index] for index in range(len(config.id2label))]
            if names != list(self._order):
                raise ValueError(
                    f"the outputs of {folder} are named {', '.join(names)}, but the outputs of a calibrated detector "
                    "must be named spoof and bonafide: change id2label and label2id in its config.json first"
                )
        else:
            self._require_foldable()

    def require_same_model(self, sha256: str) -> None:
        """Check that scores come from this model.

        Args:
            sha256: The digest of the weights that gave the scores, from their settings.

        Raises:
            ValueError: If the digest belongs to other weights.
        """
        if sha256 not in (self._sha256, (self.earlier or {}).get("raw_model_sha256")):
            raise ValueError(
                f"the scores come from another model than {self.folder} (the digests of the weights differ): score "
                f"with this model: hf-gradalign score {self.folder} --raw_scores"
            )

    def require_method(self, method: CalibrationMethod, windowing: Mapping[str, Any] | None = None) -> None:
        """Check that the model can apply a calibration of this kind.

        Args:
            method: The kind of calibration.
            windowing: The windows of the scores.

        Raises:
            ValueError: If it cannot.
        """
        if method == "affine":
            return
        if not self._is_detector:
            raise ValueError(
                f"a {type(self.model).__name__} cannot apply a PAV calibration: its calibration becomes part of its "
                "last layer, which is linear. Use --method affine"
            )
        combine = (windowing or {}).get("combine")
        if combine in ("mean", "median"):
            raise ValueError(
                f"a PAV calibration of the {combine} of windows cannot be applied to each window, as a model would: "
                "use --method affine, or score with --combine min or max"
            )

    def store(
        self,
        calibration: Calibration,
        *,
        n_bonafide: int,
        n_spoof: int,
        fitted_on: Mapping[str, str] | None = None,
        windowing: Mapping[str, Any] | None = None,
        table: str | None = None,
    ) -> dict[str, Any]:
        """Store a calibration in the configuration and in the model card. Replaces an earlier one.

        A detector of this package applies it to its logits. In a transformers classifier, it becomes part of the last
        layer.

        Args:
            calibration: From raw scores of the model to log-likelihood ratios.
            n_bonafide: The number of bona fide clips that it was fitted on.
            n_spoof: The number of spoofed clips.
            fitted_on: The names of the files `scores` and `keys`, and their digests, for JSON.
            windowing: The windows of the scores (`windowing_of`). The scorer warns about other windows.
            table: Its effect on the metrics, as a Markdown table for the model card.

        Returns:
            The content of `calibration` in the configuration, with today's date.

        Raises:
            OSError: If a file cannot be written.
            ValueError: If the model cannot apply the calibration.
        """
        self.require_method(calibration.method, windowing)
        content: dict[str, Any] = {
            **calibration.as_dict(),
            "n_bonafide": n_bonafide,
            "n_spoof": n_spoof,
            "date": today(),
        }
        content |= {"fitted_on": dict(fitted_on)} if fitted_on else {}
        content |= {"windowing": dict(windowing)} if windowing else {}
        if self._is_detector:
            self._update_code()
            self._write_config(content)
        else:
            content = self._store_folded(calibration, content)
        self._write_card(content, table)
        self.earlier = content
        return content

    def unused_weights(self) -> list[str]:
        """Return the names of the weight files in the folder that are not loaded."""
        return [name for name in WEIGHTS if (self.folder / name).is_file()][1:]

    def _require_foldable(self) -> None:
        name = type(self.model).__name__
        if (self.folder / _ADAPTER_CONFIG).is_file():
            raise ValueError(
                f"{self.folder} contains adapters of a {name}, which has no place for a calibration: merge them into "
                "their base model first"
            )
        if (self.folder / MANIFEST_NAME).is_file():
            raise ValueError(
                f"{self.folder} is a checkpoint of a run, but calibrating a {name} changes its weights: "
                "calibrate the run's final model, or a copy of the checkpoint without its "
                f"{MANIFEST_NAME}"
            )

    def _store_folded(self, calibration: Calibration, content: dict[str, Any]) -> dict[str, Any]:
        slope, offset = cast(float, calibration.slope), cast(float, calibration.offset)
        if self.earlier is not None:  # the layer has a calibration already
            content["previous"] = {key: value for key, value in self.earlier.items() if key != "previous"}
            slope /= self.earlier["slope"]
            offset -= slope * self.earlier["offset"]
        note = fold_calibration(self.model, self._feature_extractor, self._order, slope, offset)
        content |= {**note, "raw_model_sha256": (self.earlier or {}).get("raw_model_sha256", self._sha256)}
        # Write the configuration first: its digest tells that it does not belong to the old weights.
        self._write_config(content)
        with tempfile.TemporaryDirectory(prefix=".calibrate.", dir=self.folder) as drafts:
            self.model.save_pretrained(drafts, max_shard_size="1TB")  # one file, which comes before all others
            os.replace(Path(drafts, SAFE_WEIGHTS_NAME), self.folder / SAFE_WEIGHTS_NAME)
        apply_default_mode(self.folder / SAFE_WEIGHTS_NAME)
        content.pop("previous", None)
        self._write_config(content)
        return content

    def _update_code(self) -> None:
        """Replace the modeling code that comes with a detector, because older code does not apply calibrations."""
        if not any(self.folder.glob("modeling_*.py")):
            return
        with tempfile.TemporaryDirectory(prefix=".calibrate.", dir=self.folder) as drafts:
            for file in set(custom_object_save(self.model, drafts)):
                os.replace(file, self.folder / Path(file).name)

    def _write_config(self, content: Mapping[str, Any]) -> None:
        path = self.folder / CONFIG_NAME
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["calibration"] = content
        if not self._is_detector:  # its weights are in float32 now, and a ratio in half precision would be coarse
            settings.pop("torch_dtype", None)
            settings["dtype"] = "float32"
        write_text_atomically(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")

    def _write_card(self, content: Mapping[str, Any], table: str | None) -> None:
        path = self.folder / constants.REPOCARD_NAME
        text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""
        card = add_calibration_section(text, content, table, is_folded=not self._is_detector)
        write_text_atomically(path, card)


def add_calibration_section(
    card: str, calibration: Mapping[str, Any], table: str | None = None, *, is_folded: bool = False
) -> str:
    """Add a section about the calibration to a model card, in place of an earlier one.

    Args:
        card: The card; empty for a new one, which gets metadata too.
        calibration: From the configuration.
        table: The calibration's effect on the metrics, as a Markdown table.
        is_folded: Whether the calibration is part of the model's weights.

    Returns:
        The card.
    """
    section = f"{_START}\n{_section(calibration, table, is_folded)}\n\n{_END}"
    card = card.replace(_UNCALIBRATED, _CALIBRATED) if card.strip() else _METADATA
    start, end = card.find(_START), card.find(_END)
    if 0 <= start < end:
        return card[:start] + section + card[end + len(_END) :]
    place = card.find(_BEFORE)
    if place < 0:
        return f"{card.rstrip()}\n\n{section}\n".lstrip("\n")
    return f"{card[:place].rstrip()}\n\n{section}\n{card[place:]}"


def _section(calibration: Mapping[str, Any], table: str | None, is_folded: bool) -> str:
    fitted_on = calibration.get("fitted_on") or {}
    listed = ", ".join(markdown_text(fitted_on[name]) for name in ("scores", "keys") if fitted_on.get(name))
    if calibration["method"] == "affine":
        how = f"slope {calibration['slope']:.6g}, offset {calibration['offset']:.6g}, by logistic regression"
    else:
        how = f"{len(calibration['knots'])} knots, by pooling adjacent violators"
    text = (
        "## Calibration\n\n"
        "The scores of this model are log-likelihood ratios (natural logarithm): how many times more probable a score "
        "is for bona fide than for spoofed speech. A ratio says nothing about how common spoofs are.\n\n"
        f"- Calibration: {how}, with a prior of {calibration['prior']:g} for bona fide\n"
        f"- Fitted on: {calibration['n_bonafide']} bona fide and {calibration['n_spoof']} spoofed clips"
        f"{f' ({listed})' if listed else ''}, {markdown_text(calibration['date'])}\n"
        "- Scores and thresholds elsewhere in this card are from before the calibration. `SpoofScorer(..., "
        "raw_scores=True)` gives such scores"
        f"{', computed back from the weights of the last layer, which contain the calibration' if is_folded else ''}."
    )
    if table:
        text += f"\n\nClips that the calibration was not fitted on, before and after:\n\n{table}"
    return text
