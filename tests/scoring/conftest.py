import pytest
from datasets import Audio, ClassLabel, Dataset
from noise_clips import WINDOW, draw_clip, encode
from tiny_detectors import make_detector

from hf_gradalign.models import SpoofDetectorFeatureExtractor


@pytest.fixture(scope="session")
def detector():
    return make_detector()


@pytest.fixture(scope="session")
def extractor():
    return SpoofDetectorFeatureExtractor(n_samples=WINDOW)


@pytest.fixture(scope="session")
def detector_folder(detector, extractor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    detector.config.n_samples = WINDOW
    detector.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_corpus():
    """A data set with the columns of load_corpus: clips of different lengths, and no audio at the indices `bad`."""

    def make(n_clips, bad=()):
        clips = [encode(draw_clip(seed, 1600 + 137 * (seed % 40))) for seed in range(n_clips)]
        audio = [{"bytes": b"RIFF?" if i in bad else clip, "path": f"clip_{i}.wav"} for i, clip in enumerate(clips)]
        table = {
            "audio": audio,
            "utterance_id": [f"utt_{i:04d}" for i in range(n_clips)],
            "label": [i % 2 for i in range(n_clips)],
            "system": ["-" if i % 2 else f"A0{i % 3 + 1}" for i in range(n_clips)],
        }
        corpus = Dataset.from_dict(table).cast_column("audio", Audio(decode=False))
        return corpus.cast_column("label", ClassLabel(names=["spoof", "bonafide"]))

    return make
