"""Detects missing shards of a data set from the names of the others, such as `train-00001-of-00004.parquet`."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hf_gradalign.data.readers.class_folders import splits_of_paths
from hf_gradalign.data.request import CorpusError, CorpusRequest
from hf_gradalign.utils.messages import first_few

logger = logging.getLogger(__name__)

# Some names end with a hash: train-00000-of-00002-0123456789abcdef.parquet.
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)-of-(?P<total>\d+)(-[0-9a-f]{8,64})?(?P<after>\D.*)?")
# No data set has more shards, so a larger number means something else.
_MOST = 100_000


class _Series(NamedTuple):
    """The parts that the names of one split's shards have in common."""

    folder: Path
    before: str
    width: int
    total: str
    after: str

    def name(self, number: int) -> str:
        return str(self.folder / f"{self.before}{number:0{self.width}}-of-{self.total}{self.after}")


def report_missing_shards(
    files: Sequence[Path], request: CorpusRequest, *, are_chosen: bool = False, are_wanted: bool = False
) -> None:
    """Report shards of wanted splits that are not on disk.

    Args:
        files: Some shards on disk. Others in the same folders count too.
        request: What to load.
        are_chosen: Whether the user named these files, rather than a folder that should contain all of them.
        are_wanted: Whether all files belong to wanted splits. If not, their names tell.

    Raises:
        CorpusError: If shards are missing from a folder, unless missing audio is skipped. In other cases, a warning is
            logged.
    """
    shards = _numbers_by_series(files)
    # Some shards on disk may not be among `files`.
    folders = {series.folder for series, numbers in shards.items() if len(numbers) < int(series.total)}
    on_disk = _numbers_by_series(file for folder in folders for file in folder.glob("*-of-*") if file.is_file())
    missing: list[str] = []
    for series, numbers in shards.items():
        if are_wanted or _is_wanted(Path(series.folder.name, series.before), request):
            missing += _missing_names(series, numbers | on_disk.get(series, set()))
    if not missing:
        return
    shard_is = "shard is" if len(missing) == 1 else "shards are"
    message = f"{len(missing)} {shard_is} missing, judging by the names of the others: {first_few(missing)}."
    if not are_chosen and request.on_missing_audio == "stop":
        raise CorpusError(f"{message} Download them, or use only the others with --on_missing_audio skip.")
    logger.warning("%s Their clips are left out.", message)


def _numbers_by_series(files: Iterable[Path]) -> dict[_Series, set[int]]:
    shards: dict[_Series, set[int]] = defaultdict(set)
    for file in files:
        if (match := _NUMBERED.fullmatch(file.name)) is not None and int(match["total"]) <= _MOST:
            width = len(match["number"])
            series = _Series(file.parent, match["before"], width, match["total"], match["after"] or "")
            shards[series].add(int(match["number"]))
    return shards


def _missing_names(series: _Series, present: set[int]) -> list[str]:
    total = int(series.total)
    missing = [series.name(number) for number in sorted({*range(1, total)} - present)]
    if not present & {0, total}:  # they may count from 0 or from 1
        missing.append(f"{series.name(0)} (or {Path(series.name(total)).name})")
    return missing


def _is_wanted(shard: Path, request: CorpusRequest) -> bool:
    try:
        return splits_of_paths([shard / "clip"], request.split_names)[0] in request.split_names
    except CorpusError:  # a split within another split's folder is reported later
        return True
