"""Paths in a folder that may not be searched, or on a disk that fails, are not told as missing ones.

Since Python 3.14, pathlib says of both that they do not exist. Here it does in all versions.
"""

import errno
import os
from pathlib import Path

import pytest

from hf_gradalign import conversion, data, hub, models, scoring
from hf_gradalign.augmentation.noise.recordings import list_recordings
from hf_gradalign.experiment import parse_arguments
from hf_gradalign.experiment.output_folder import hold_output_folder, run_folder
from hf_gradalign.hub.model_calibration import CalibratedFolder
from hf_gradalign.study.comparison import StudyResults
from hf_gradalign.study.tables import StudyTables
from hf_gradalign.training.conflicts.record import ConflictHistory
from hf_gradalign.utils.files import require_free


@pytest.mark.parametrize(
    "use",
    [
        conversion.locate_checkpoint,
        data.load_corpus,
        lambda path: data.load_corpus(f"asvspoof2019_la:{path}"),
        lambda path: hold_output_folder(path, None, "label", dry_run=True).__enter__(),
        lambda path: hub.publish(path, "owner/name"),
        lambda path: list_recordings([path], "paths"),
        models.load_audio_classifier,
        lambda path: parse_arguments([f"{path}.yaml"]),
        require_free,
        run_folder,
        scoring.SpoofScorer,
        lambda path: scoring.list_audio_files([path]),
        lambda path: StudyResults(StudyTables(path)),
        ConflictHistory.read,
        CalibratedFolder,
    ],
)
@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE])
def test_what_cannot_be_looked_up_is_not_missing(tmp_path, monkeypatch, use, number):
    look = os.stat

    def stat(path, *args, **options):
        if str(path).startswith(str(tmp_path / "closed")):
            raise OSError(number, os.strerror(number), str(path))
        return look(path, *args, **options)

    def says_no(what):
        answer = getattr(Path, what)
        return lambda path, **options: "closed" not in path.parts and answer(path, **options)

    for what in ("exists", "is_file", "is_dir"):
        monkeypatch.setattr(Path, what, says_no(what))
    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(OSError, match=r"closed/a") as error:
        use(str(tmp_path / "closed" / "a"))
    assert error.value.errno == number
