"""Detectors in the Arena's tool, which creates the class without arguments, loads it once and passes batches."""

import numpy as np
import pytest
from tiny_detectors import make_detector
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification, set_seed

from hf_gradalign.data import BadAudioError
from hf_gradalign.hub.arena import GradAlignModel
from hf_gradalign.scoring import SpoofScorer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A detector with a head, and a plain classifier of transformers for 8 kHz with reversed labels."""
    root = tmp_path_factory.mktemp("models")
    detector = make_detector()
    detector.config.n_samples = 8000
    detector.save_pretrained(root / "detector")
    detector.make_feature_extractor().save_pretrained(root / "detector")
    set_seed(0)
    config = Wav2Vec2Config(
        **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
        **{"conv_dim": (16, 16), "conv_kernel": (10, 8), "conv_stride": (10, 8), "classifier_proj_size": 16},
        **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2},
        **{"id2label": {0: "bonafide", 1: "spoof"}, "label2id": {"bonafide": 0, "spoof": 1}},
    )
    Wav2Vec2ForSequenceClassification(config).save_pretrained(root / "plain")
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(root / "plain")
    return root


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("HF_GRADALIGN_DEVICE", "cpu")
    return monkeypatch


def clips(number=5, rate=16_000):
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, rate // 4 * (1 + place % 3)).astype(np.float32) for place in range(number)]


def run_as_the_tool_does(model_class, audio, rate=16_000):
    """Return the lines of a score file, and the number of skipped clips. Retries failed batches clip by clip."""
    model = model_class()
    model.load()
    lines, n_skipped = [], 0
    for start in range(0, len(audio), model.batch_size):
        batch = audio[start : start + model.batch_size]
        try:
            scores = [float(score) for score in model.score_batch(batch, [rate] * len(batch))]
        except Exception:
            scores = []
            for clip in batch:
                try:
                    scores.append(float(model.score_batch([clip], [rate])[0]))
                except Exception:
                    scores.append(None)
        lines += [f"{start + place} {score:.6f}" for place, score in enumerate(scores) if score is not None]
        n_skipped += scores.count(None)
    model.unload()
    return lines, n_skipped


@pytest.mark.parametrize(("name", "rate"), [("detector", 16_000), ("plain", 8000)])
def test_the_tool_gets_the_scorers_scores(folders, environment, name, rate):
    environment.setenv("HF_GRADALIGN_MODEL", str(folders / name))
    environment.setenv("HF_GRADALIGN_BATCH_SIZE", "2")
    model = GradAlignModel()
    assert (model.name, model.batch_size, model.expected_sample_rate) == (name, 2, 16_000)
    model.load()
    assert model.expected_sample_rate == rate
    audio = clips(rate=rate)
    lines, n_skipped = run_as_the_tool_does(GradAlignModel, audio, rate)
    expected = SpoofScorer(folders / name, batch_size=3, device="cpu").score(audio)
    assert [float(line.split()[1]) for line in lines] == pytest.approx(expected, abs=2e-6)
    assert len(set(lines)) == 5
    assert n_skipped == 0


def test_a_subclass_has_its_own_name_and_model_whatever_the_environment_says(folders, environment):
    environment.setenv("HF_GRADALIGN_MODEL", "no/such-model")
    environment.setenv("HF_GRADALIGN_NAME", "another")

    class Mine(GradAlignModel):
        name = "mine"
        model = folders / "detector"
        batch_size = 3
        scorer_options = {"windows": "all", "window_seconds": 0.25}  # noqa: RUF012

    lines, n_skipped = run_as_the_tool_does(Mine, clips())
    assert (Mine().name, Mine().batch_size) == ("mine", 3)
    expected = SpoofScorer(folders / "detector", device="cpu", windows="all", window_seconds=0.25).score(clips())
    assert [float(line.split()[1]) for line in lines] == pytest.approx(expected, abs=2e-6)
    assert n_skipped == 0


def test_options_come_from_the_environment(folders, environment):
    for name, value in {
        "MODEL": f"{folders}/detector/",
        "NAME": "shown",
        "DTYPE": "bfloat16",
        "RMS_LEVEL": "0.2",
    }.items():
        environment.setenv(f"HF_GRADALIGN_{name}", value)
    model = GradAlignModel()
    model.load()
    assert model.name == "shown"
    expected = SpoofScorer(folders / "detector", device="cpu", dtype="bfloat16", rms_level=0.2).score(clips())
    assert model.score_batch(clips(), [16_000] * 5) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("said", ["1", "true", "0", "no"])
def test_code_that_comes_along_is_run_on_request_only(environment, said):
    environment.setenv("HF_GRADALIGN_TRUST_REMOTE_CODE", said)
    assert GradAlignModel().trust_remote_code == (said in ("1", "true"))
    environment.delenv("HF_GRADALIGN_TRUST_REMOTE_CODE")
    assert not GradAlignModel().trust_remote_code


def test_bad_clips_are_skipped_alone_and_leave_no_nan(folders, environment):
    environment.setenv("HF_GRADALIGN_MODEL", str(folders / "detector"))
    environment.setenv("HF_GRADALIGN_BATCH_SIZE", "4")
    audio = clips(10)
    good, _ = run_as_the_tool_does(GradAlignModel, audio)
    audio[2] = np.zeros(0, np.float32)
    audio[3] = np.full(4000, np.nan, np.float32)
    audio[9] = np.append(audio[9], np.inf).astype(np.float32)
    lines, n_skipped = run_as_the_tool_does(GradAlignModel, audio)
    assert n_skipped == 3
    assert [line.split()[0] for line in lines] == ["0", "1", "4", "5", "6", "7", "8"]
    kept = {line.split()[0]: float(line.split()[1]) for line in good}
    assert all(float(line.split()[1]) == pytest.approx(kept[line.split()[0]], abs=2e-6) for line in lines)
    model = GradAlignModel()
    model.load()
    with pytest.raises(BadAudioError, match=r"^clip 1: it is empty \(no samples\); clip 2: it has NaN or infinite"):
        model.score_batch([audio[0], audio[2], audio[3]], [16_000] * 3)


def test_other_rates_are_resampled_and_channels_averaged(folders, environment):
    environment.setenv("HF_GRADALIGN_MODEL", str(folders / "detector"))
    model = GradAlignModel()
    model.load()
    time = np.arange(48_000) / 48_000
    at_48k = np.sin(2 * np.pi * 440 * time)
    stereo = np.stack([at_48k[::3] + 0.1, at_48k[::3] - 0.1])
    scores = model.score_batch([at_48k[::3], at_48k, stereo], [16_000, 48_000, 16_000])
    assert scores[2] == pytest.approx(scores[0], abs=1e-6)
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)
    assert model.score_batch([at_48k], [16_000])[0] != pytest.approx(scores[0], abs=1e-3)


def test_what_is_missing_or_wrong_is_said(folders, environment):
    environment.delenv("HF_GRADALIGN_MODEL", raising=False)
    model = GradAlignModel()
    assert model.name == "hf_gradalign"
    with pytest.raises(ValueError, match="set HF_GRADALIGN_MODEL to a folder or Hub id"):
        model.load()
    with pytest.raises(RuntimeError, match="load"):
        model.score_batch(clips(1), [16_000])
    environment.setenv("HF_GRADALIGN_MODEL", str(folders / "detector"))
    environment.setenv("HF_GRADALIGN_RMS_LEVEL", "loud")
    with pytest.raises(ValueError, match="HF_GRADALIGN_RMS_LEVEL must be a number, not 'loud'"):
        GradAlignModel().load()
    environment.setenv("HF_GRADALIGN_BATCH_SIZE", "many")
    with pytest.raises(ValueError, match="HF_GRADALIGN_BATCH_SIZE must be a whole number of at least 1, not 'many'"):
        GradAlignModel()


def test_an_unloaded_model_scores_no_more(folders, environment):
    environment.setenv("HF_GRADALIGN_MODEL", str(folders / "detector"))
    model = GradAlignModel()
    model.load()
    model.unload()
    with pytest.raises(RuntimeError, match="load"):
        model.score_batch(clips(1), [16_000])
