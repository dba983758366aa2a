"""The views of a run: parses `--views`, makes each view's transform, and tries it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hf_gradalign import augmentation as augmentations
from hf_gradalign import data
from hf_gradalign.utils.plain_text import split_at_colons

if TYPE_CHECKING:
    from hf_gradalign.augmentation.recipes import Augmentation

CLEAN = "clean"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def parse_views(text: str) -> dict[str, str]:
    """Read a list of views, such as `clean,augmented=rawboost4,codec,recipes/noise.yaml`.

    Args:
        text: Views separated by commas, each a recipe or `name=recipe`. A recipe is `clean` (the unchanged clip), a
            name that `get_augmentation` accepts, or the path of a YAML or JSON file. A view without a name is named
            after its recipe: `musan_rir_rawboost` after `musan_rir:/data/musan+rawboost`, or a file's name without
            folder and suffix.

    Returns:
        The recipe of each view by its name, in the given order. Files need not exist.

    Raises:
        ValueError: If there is no view, a name or recipe is missing, a name is not valid in the log or appears twice,
            or the view named `clean` is not the unchanged clip.
    """
    views: list[tuple[str, str]] = []
    for part in text.split(","):
        name, is_named, recipe = (word.strip() for word in part.partition("="))
        if not is_named:
            name, recipe = _default_name(name), name
        if not recipe or (is_named and not name):
            known = ", ".join(augmentations.available_augmentations())
            raise ValueError(
                f"--views {text}: {part.strip()!r} is not a view; use recipes separated by commas, each {CLEAN}, "
                f"one of {known}, or a YAML or JSON file; use name=recipe to name a view"
            )
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"--views: {name!r} cannot be the name of a view; names have letters, digits, '_', '-' and '.'; choose "
                f"one, as in noise={recipe}"
            )
        if name == CLEAN and recipe != CLEAN:
            raise ValueError(
                f"--views: the view named {CLEAN} is the unchanged clip, not {recipe}; choose another name"
            )
        views.append((name, recipe))
    _check_names([name for name, _ in views])
    return dict(views)


def build_views(views: Mapping[str, str]) -> dict[str, Augmentation | None]:
    """Make the transform of each view; None is the unchanged clip.

    Args:
        views: Recipes by name, from `parse_views`.

    Raises:
        ValueError: If a recipe is neither a known name nor a file with transforms.
    """
    transforms: dict[str, Augmentation | None] = {}
    for name, recipe in views.items():
        try:
            # The shell does not expand ~ after a comma or "=".
            transforms[name] = None if recipe == CLEAN else augmentations.get_augmentation(os.path.expanduser(recipe))
        except ValueError as error:
            hint = "" if Path(recipe).exists() else f"; or {CLEAN}, the unchanged clip"
            raise ValueError(f"view {name!r}: {error}{hint}") from error
    return transforms


def try_views(
    views: Mapping[str, Augmentation | None], sampling_rate: int, device: torch.device | str | None = None
) -> None:
    """Apply each transform of each view to a second of noise, and open the recordings that the transforms use.

    The global random generators and the transforms do not change.

    Args:
        views: From `build_views`.
        sampling_rate: In Hz.
        device: Device on which RawBoost is applied to batches; None if it is applied on the host.

    Raises:
        ValueError: If a package is missing, a recording cannot be read, or a transform fails.
    """
    from hf_gradalign.augmentation.preflight import try_augmentation

    for name, augmentation in views.items():
        if augmentation is None:
            continue
        try:
            with data.seeded_generators(np.random.SeedSequence(0)):
                try_augmentation(augmentation, sampling_rate, device)
        except ValueError as error:
            raise ValueError(f"view {name!r}: {error}") from error


def public_recipe(recipe: str) -> str:
    """Return a recipe for publication, without the folders of this machine."""
    if recipe == CLEAN or not augmentations.recipe_name(recipe):
        return Path(recipe).name
    return "+".join(":".join(map(_public_argument, split_at_colons(part))) for part in recipe.split("+"))


def _public_argument(argument: str) -> str:
    return Path(argument).name if Path(argument).expanduser().is_dir() else argument


def public_views(views: Mapping[str, str]) -> str:
    """Return views in the form of `--views`, with files without their folders."""
    return ",".join(
        public_recipe(recipe) if name == _default_name(recipe) else f"{name}={public_recipe(recipe)}"
        for name, recipe in views.items()
    )


def _default_name(recipe: str) -> str:
    known = augmentations.recipe_name(recipe)
    return Path(recipe).stem if recipe == CLEAN or known is None else known.replace("+", "_")


def _check_names(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"--views: two views are called {twice[0]}; give them different names, as in a={twice[0]},b={twice[0]}"
        )
    # For example, with views a, b_c, a_b and c. norm_ratio names the pairs in reverse order.
    for names_of_pair in (names, names[::-1]):
        pairs = Counter("_".join(pair) for pair in combinations(names_of_pair, 2))
        same = [pair for pair, count in pairs.items() if count > 1]
        if same:
            raise ValueError(f"--views: {same[0]} in the log would mean two pairs of views; choose other names")
