"""The page as a Hugging Face Space: a README, requirements, an app file, the models, and a copy of this package."""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import requires, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from huggingface_hub import HfApi
from packaging.requirements import Requirement

import hf_gradalign
from hf_gradalign.conversion.by_name import model_folder
from hf_gradalign.demo.judging import Settings
from hf_gradalign.demo.recording import check_limits
from hf_gradalign.hub.publishing import PublishingError, publishing_errors, stage_model
from hf_gradalign.metrics import DetectionCosts
from hf_gradalign.models import load_config, output_labels
from hf_gradalign.utils.files import link_or_copy

_APP_FILE = "app.py"
_MODELS = "models"
_PACKAGE = Path(hf_gradalign.__file__).parent
_APP = '''\
"""The page of hf_gradalign that tells genuine from fake speech. `hf-gradalign demo --push` wrote it."""

from hf_gradalign.demo import serve

serve({models!r}, **{options!r})
'''
_README = """\
---
{front_matter}---

# Genuine or fake speech?

Drop, record or choose a recording. {models} to tell genuine (bona fide) from machine-made (spoofed) speech. A verdict
can be wrong, and it is no proof: read the models' cards, which the page shows, for their limits.

Recordings are kept in a temporary folder for up to 15 minutes and are not passed on.

The page is made with `hf-gradalign demo`. `hf_gradalign/` is a copy of the package.
"""


def push_space(
    models: Sequence[str | os.PathLike[str]],
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    **options: Any,
) -> str:
    """Publish the page as a Hugging Face Space, or update a Space that this function made.

        push_space(["runs/my-run", "you/your-detector"], "you/detector-demo")

    Models on the Hub stay there. Local ones are uploaded into the Space, as `hf_gradalign.hub.publish` would upload
    them. The Space installs what this package needs, and runs a copy of the package.

    Args:
        models: See `make_demo`.
        repo_id: `namespace/name` of the Space, or `name` for the namespace of the token's owner.
        token: Access token with write permission. None uses `HF_TOKEN`, or the token from `hf auth login`.
        private: Whether a new Space is private. None uses the namespace's default.
        options: Options of `make_demo` for the Space.

    Returns:
        The URL of the Space.

    Raises:
        OSError: If there is no such model.
        PublishingError: If the upload fails, the Space exists and contains something else, or a local model would lack
            weights there, as for `publish`.
        ValueError: If an option is out of range, or a local model's labels do not say which one is bona fide.
    """
    with TemporaryDirectory(prefix="hf_gradalign_space_") as folder:
        write_space(folder, models, title=repo_id.rpartition("/")[2], token=token, **options)
        with publishing_errors(repo_id, token, "\nFix this, and run the same command again."):
            api = HfApi(token=token)
            repo = api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
            _require_ours(api, repo.repo_id)
            api.upload_folder(
                repo_id=repo.repo_id,
                repo_type="space",
                folder_path=folder,
                commit_message="Upload the page of hf_gradalign",
                delete_patterns=[f"{_PACKAGE.name}/*", f"{_MODELS}/*"],  # the files of an earlier version
            )
    return str(repo)


def write_space(
    folder: str | os.PathLike[str],
    models: Sequence[str | os.PathLike[str]],
    *,
    title: str,
    token: str | None = None,
    **options: Any,
) -> None:
    """Write the files of a Space into an empty folder. See `push_space`."""
    # Check now, because the Space would fail only when it starts.
    check_limits(**{name: options[name] for name in ("max_mb", "max_minutes") if name in options})
    costs = DetectionCosts(**{name: options[name] for name in ("p_spoof", "c_miss", "c_fa") if name in options})
    Settings(costs, options.get("undecided_band", 0.0))
    folder = Path(folder)
    names = _stage_models(folder, [os.fspath(model) for model in models], token, options)
    on_hub = [name for name in names if not name.startswith(f"{_MODELS}/")]
    for path in _package_files():
        target = folder / _PACKAGE.name / path.relative_to(_PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(path, target)
    (folder / _APP_FILE).write_text(_APP.format(models=names, options=options), encoding="utf-8", newline="\n")
    (folder / "requirements.txt").write_text(
        "".join(f"{line}\n" for line in _requirements()), encoding="utf-8", newline="\n"
    )
    verb = "A detector listens" if len(names) == 1 else f"{len(names)} detectors listen"
    readme = _README.format(front_matter=_front_matter(title, on_hub), models=verb)
    (folder / "README.md").write_text(readme, encoding="utf-8", newline="\n")


def _stage_models(folder: Path, names: Sequence[str], token: str | None, options: Mapping[str, Any]) -> list[str]:
    """Copy local models into the Space. Return the models' names as the Space sees them."""
    staged = []
    for number, name in enumerate(names):
        if not Path(name).exists():
            staged.append(name)
            continue
        local, _ = model_folder(name, {"token": token})  # converts a published checkpoint
        _require_usable(local, options)
        stem = Path(name).resolve().stem
        inside = f"{_MODELS}/{stem}" if not (folder / _MODELS / stem).exists() else f"{_MODELS}/{stem}-{number}"
        stage_model(Path(local), folder / inside)
        staged.append(inside)
    return staged


def _require_usable(name: str, options: Mapping[str, Any]) -> None:
    """Raise OSError or ValueError for a local model that the page in a Space could not use."""
    config: Any = load_config(name, {"trust_remote_code": options.get("trust_remote_code")})
    output_labels(config.id2label, config.label2id, options.get("bonafide_label"))


def _package_files() -> list[Path]:
    files = (path for path in sorted(_PACKAGE.rglob("*")) if path.is_file())
    return [path for path in files if "__pycache__" not in path.parts]


def _requirements() -> list[str]:
    """Return what the package and the page need. Gradio's version is in the README."""
    needed = [Requirement(line) for line in requires("hf-gradalign") or ()]
    chosen = [one for one in needed if not one.marker or one.marker.evaluate({"extra": "demo"})]
    return [str(one).partition(";")[0].strip() for one in chosen if one.name != "gradio"]


def _front_matter(title: str, models_on_hub: Sequence[str]) -> str:
    content: Mapping[str, Any] = {
        "title": title.replace("-", " ").replace("_", " ").capitalize(),
        "emoji": "\N{EAR}",
        "colorFrom": "blue",
        "colorTo": "red",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": _APP_FILE,
        "pinned": False,
        "license": "apache-2.0",
        "short_description": "Tells genuine from fake speech",
        "tags": ["audio", "anti-spoofing", "speech-deepfake-detection"],
        "models": [name.partition(":")[0] for name in models_on_hub],
    }
    shown = {key: value for key, value in content.items() if value not in ([], None)}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)


def _require_ours(api: HfApi, repo_id: str) -> None:
    """Raise PublishingError if a Space has an app that this module did not write."""
    if not api.file_exists(repo_id, _APP_FILE, repo_type="space"):
        return
    present = Path(api.hf_hub_download(repo_id, _APP_FILE, repo_type="space")).read_text(encoding="utf-8")
    if "hf-gradalign demo" not in present:
        raise PublishingError(
            f"The Space {repo_id} exists and contains another app, which would be replaced. Choose another name."
        )
