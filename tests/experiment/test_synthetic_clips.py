import numpy as np

from hf_gradalign.data import decode_audio
from hf_gradalign.experiment.dry_run.stand_ins import synthetic_clips


def test_both_classes_in_two_lengths():
    clips = synthetic_clips(5, 0.5, 16_000, "train")
    assert clips["label"][:] == [0, 1, 0, 1, 0]
    assert len(set(clips["utterance_id"][:])) == 5
    samples = [decode_audio(audio, 16_000) for audio in clips["audio"][:]]
    assert [len(clip) for clip in samples] == [6400, 6400, 9600, 9600, 6400]
    assert all(0.05 < np.abs(clip).max() < 1 for clip in samples)
    assert not clips.cache_files  # nothing on disk
