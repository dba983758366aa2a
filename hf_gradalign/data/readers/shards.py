"""Notice shards of a data set that are not there, from the names of the others: `train-00001-of-00004.parquet`."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from hf_gradalign.data.readers.class_folders import listed, splits_of_paths
from hf_gradalign.data.request import CorpusError, CorpusRequest

logger = logging.getLogger(__name__)

# Some names end with a hash of their own: train-00000-of-00002-0123456789abcdef.parquet.
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)-of-(?P<total>\d+)(-[0-9a-f]{16})?(?P<after>\D.*)?")
# More shards than any data set has: a number that means something else.
_MOST = 100_000


def report_missing_shards(files: Sequence[Path], request: CorpusRequest, *, are_chosen: bool = False) -> None:
    """Report shards that are missing, unless only splits that are not wanted lack them.

    Args:
        files: The shards that are there.
        request: What is asked for.
        are_chosen: Whether someone named these files, rather than a folder that should hold all.

    Raises:
        CorpusError: If there are any, for a folder whose missing audio is not to be skipped. Otherwise warns.
    """
    shards: dict[tuple[Path, str, int, int, str], set[int]] = defaultdict(set)
    for file in files:
        if (match := _NUMBERED.fullmatch(file.name)) is not None and int(match["total"]) <= _MOST:
            width = len(match["number"])
            key = (file.parent, match["before"], width, int(match["total"]), match["total"] + (match["after"] or ""))
            shards[key].add(int(match["number"]))
    missing: list[str] = []
    for (folder, before, width, total, after), present in shards.items():
        first = int(0 not in present and total in present)  # some count from 1
        absent = sorted({*range(first, first + total)} - present)
        if absent and _is_wanted(Path(folder.name, before), request):
            missing += [str(folder / f"{before}{number:0{width}}-of-{after}") for number in absent]
    if not missing:
        return
    shard_is = "shard is" if len(missing) == 1 else "shards are"
    message = f"{len(missing)} {shard_is} missing, going by the names of the others: {listed(missing)}."
    if not are_chosen and request.on_missing_audio == "stop":
        raise CorpusError(f"{message} Download them, or use the others alone with --on_missing_audio skip.")
    logger.warning("%s Their clips are left out.", message)


def _is_wanted(shard: Path, request: CorpusRequest) -> bool:
    try:
        return splits_of_paths([shard / "clip"], request.split_names)[0] in request.split_names
    except CorpusError:  # a split within another one's folder: told later
        return True
