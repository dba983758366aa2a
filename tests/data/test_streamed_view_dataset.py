import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import datasets
import forked_group
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from toy import make_arguments, timeless, weights_of
from transformers import Wav2Vec2ForSequenceClassification

from hf_gradalign.augmentation import RawBoost
from hf_gradalign.data import AudioDecodingError, StreamedViewDataset, ViewCollator, ViewDataset
from hf_gradalign.data.streaming import as_stream
from hf_gradalign.models import LABEL2ID, small_feature_extractor, small_wav2vec2_config
from hf_gradalign.training import GradientAlignmentTrainer

N_CLIPS = 20


def say_which(samples, sample_rate):
    """A view that keeps the clip's first sample, which identifies it, and draws the second."""
    samples[1] = np.random.rand()
    return samples


@pytest.fixture(scope="module")
def written_clips(tmp_path_factory):
    """Write clips. The first sample of clip i encodes i."""
    folder = tmp_path_factory.mktemp("clips")
    for index in range(N_CLIPS):
        samples = np.random.default_rng(index).normal(0, 0.1, 600).astype(np.float32)
        samples[0] = index / 100
        soundfile.write(folder / f"{index}.wav", samples, 16_000, subtype="FLOAT")
    return folder


@pytest.fixture
def clips(written_clips, make_dataset):
    return make_dataset([written_clips / f"{index}.wav" for index in range(N_CLIPS)])


@pytest.fixture
def own_clips(written_clips, make_dataset, tmp_path):
    """A copy for tests that damage clips."""
    shutil.copytree(written_clips, tmp_path / "own")
    return make_dataset([tmp_path / "own" / f"{index}.wav" for index in range(N_CLIPS)])


def views_of(clips, **options):
    options = {"sampling_rate": 16_000, "window_samples": 500, "crop": "leading", "seed": 3, **options}
    return StreamedViewDataset(as_stream(clips), {"clean": None, "drawn": say_which}, **options)


def which(item):
    return round(100 * float(item["clean"]["input_values"][0]))


def batches(dataset, n_batches, workers=0, batch_size=3):
    loader = DataLoader(dataset, batch_size=batch_size, num_workers=workers, collate_fn=list)
    return list(islice(loader, n_batches))


def bits(items):
    return [(item["drawn"]["input_values"].tobytes(), item["drawn"]["labels"]) for item in items]


def test_items(clips):
    items = list(islice(views_of(clips), N_CLIPS))
    assert Counter(map(which, items)) == Counter(range(N_CLIPS))
    for item in items:
        assert list(item) == ["clean", "drawn"]
        assert item["clean"]["input_values"].shape == (500,)
        assert item["clean"]["input_values"].dtype == np.float32
        assert item["clean"]["labels"] == which(item) % 2
        assert (item["clean"]["input_values"][2:] == item["drawn"]["input_values"][2:]).all()


def test_options_do_as_in_a_view_dataset(clips):
    options = {"window_samples": None, "window_seconds": 0.025, "rms_level": 0.2, "label2id": {"real": 0, "fake": 1}}
    views = {"clean": None, "drawn": say_which}
    whole = ViewDataset(clips, views, sampling_rate=16_000, crop="leading", **options)
    for index, item in enumerate(islice(views_of(clips, shuffle_buffer_size=0, **options), 3)):
        np.testing.assert_array_equal(item["clean"]["input_values"], whole[index]["clean"]["input_values"])
        assert item["clean"]["labels"] == whole[index]["clean"]["labels"]


def test_each_epoch_has_another_order_and_other_draws(clips):
    items = list(islice(views_of(clips), 2 * N_CLIPS))
    first, second = ({which(item): item for item in part} for part in (items[:N_CLIPS], items[N_CLIPS:]))
    assert list(first) != list(second)
    assert set(first) == set(second) == set(range(N_CLIPS))
    for index in range(N_CLIPS):
        assert first[index]["drawn"]["input_values"][1] != second[index]["drawn"]["input_values"][1]


def test_order_and_draws_depend_on_the_seed(clips):
    expected = bits(islice(views_of(clips), 30))
    assert bits(islice(views_of(clips), 30)) == expected
    assert [which(item) for item in islice(views_of(clips, seed=4), 9)] != [
        which(item) for item in islice(views_of(clips), 9)
    ]
    plain = views_of(clips, shuffle_buffer_size=0)
    assert [which(item) for item in islice(plain, N_CLIPS)] == list(range(N_CLIPS))


@pytest.mark.parametrize("workers", [1, 3])
def test_draws_for_a_clip_do_not_depend_on_workers(clips, workers):
    expected = dict(zip(range(N_CLIPS), bits(islice(views_of(clips, shuffle_buffer_size=0), N_CLIPS)), strict=True))
    found = [item for batch in batches(views_of(clips), 12, workers) for item in batch]
    for item, drawn in zip(found, bits(found), strict=True):
        if which(item) in expected:
            assert expected.pop(which(item)) == drawn
    assert len(expected) < N_CLIPS / 2


@pytest.mark.parametrize(
    ("workers", "n_processes"),
    [(0, 2), (0, 3), pytest.param(2, 2, marks=pytest.mark.slow), (1, 3), pytest.param(2, 3, marks=pytest.mark.slow)],
)
def test_processes_share_the_clips(clips, n_processes, workers):
    # Two processes get ten of the twenty shards each. Three cannot, so each takes every third clip.
    parts = [views_of(clips, process_index=rank, n_processes=n_processes) for rank in range(n_processes)]
    seen = [[which(item) for batch in batches(part, 2, workers, 2) for item in batch] for part in parts]
    everything = [index for part in seen for index in part]
    assert len(set(everything)) == len(everything) == 4 * n_processes
    assert bits(i for b in batches(parts[1], 4, workers) for i in b) == bits(
        i for b in batches(parts[1], 4, workers) for i in b
    )


@pytest.mark.parametrize("workers", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def test_blank_places(clips, workers):
    expected = batches(views_of(clips), 9 + 5, workers)
    for skipped in (1, 4, 9):
        dataset = views_of(clips)
        dataset.leave_blank(skipped, 3)
        found = batches(dataset, skipped + 5, workers)
        for number, (whole, blank) in enumerate(zip(expected, found, strict=False)):
            assert (bits(whole) == bits(blank)) == (number >= skipped), (skipped, number)
            assert number >= skipped or not np.any([item["clean"]["input_values"] for item in blank])


def test_blank_places_are_not_decoded(clips, monkeypatch):
    from hf_gradalign.data import view_maker

    calls = []
    decode = view_maker.decode_audio
    monkeypatch.setattr(view_maker, "decode_audio", lambda *args, **kw: calls.append(1) or decode(*args, **kw))
    dataset = views_of(clips)
    dataset.leave_blank(5, 3)
    batches(dataset, 6)
    assert len(calls) == 1 + 3


def spoil(clips, places):
    for place in places:
        Path(clips[place]["audio"]["path"]).write_bytes(b"no audio")


def test_a_bad_clip_stops_it(own_clips):
    spoil(own_clips, [3])
    with pytest.raises(AudioDecodingError, match="utt_3"):
        list(islice(views_of(own_clips), N_CLIPS))


@pytest.mark.parametrize("places", [[0], [0, 1, 2], [4, 5, 9]])
@pytest.mark.parametrize("blank", [0, 2])
def test_a_bad_clip_is_replaced(own_clips, places, blank, caplog):
    spoil(own_clips, places)
    options = {"shuffle_buffer_size": 0, "on_bad_audio": "skip"}
    expected = batches(views_of(own_clips, **options), 10)
    names = [which(item) for batch in expected for item in batch]
    assert not set(names) & set(places)
    for place in places:
        assert f"Cannot decode utt_{place}: not audio" in caplog.text
    dataset = views_of(own_clips, **options)
    dataset.leave_blank(blank, 3)
    found = batches(dataset, 10)
    assert list(map(bits, found[blank:])) == list(map(bits, expected[blank:]))


def test_only_bad_clips(own_clips):
    spoil(own_clips, range(N_CLIPS))
    with pytest.raises(ValueError, match="no clips for this process"):
        next(iter(views_of(own_clips, on_bad_audio="skip")))


def test_many_bad_clips_in_a_row(own_clips, monkeypatch):
    from hf_gradalign.data import datasets

    monkeypatch.setattr(datasets, "_MAX_RECENT", 2)
    items = iter(views_of(own_clips, shuffle_buffer_size=0, on_bad_audio="skip"))
    next(items), next(items)
    spoil(own_clips, range(N_CLIPS))
    with pytest.raises(AudioDecodingError, match="utt_2: neither this clip nor the 2 before it"):
        next(items)


def test_a_repeated_clip_is_augmented_again(clips):
    stream = clips.select([0, 0, 1])
    for repeats in (False, True):
        dataset = views_of(stream, shuffle_buffer_size=0, repeats=repeats)
        first, again, _ = islice(dataset, 3)
        assert (bits([first]) == bits([again])) != repeats


def test_more_workers_than_shards(clips):
    few = views_of(clips.select([0, 1]))
    assert few.n_shards == 2
    assert len(batches(few, 8, workers=3)) == 8


def test_arguments_out_of_range(clips):
    with pytest.raises(ValueError, match="shuffle_buffer_size must be at least 0, not -1"):
        views_of(clips, shuffle_buffer_size=-1)
    with pytest.raises(ValueError, match="crop must be one of random, leading"):
        views_of(clips, crop="middle")
    with pytest.raises(ValueError, match="views must name at least one view"):
        StreamedViewDataset(as_stream(clips), {}, sampling_rate=16_000)
    with pytest.raises(TypeError, match=r"stream must be a datasets\.IterableDataset, not Dataset\. ViewDataset takes"):
        StreamedViewDataset(clips, {"clean": None}, sampling_rate=16_000)


TINY = {"conv_dim": (8, 8), "conv_stride": (10, 8), "conv_kernel": (10, 8), "hidden_size": 16, "num_hidden_layers": 1}
TINY |= {"num_attention_heads": 2, "intermediate_size": 16, "num_conv_pos_embedding_groups": 2}


def trainer_of(clips, folder, **options):
    torch.manual_seed(0)
    arguments = {"max_steps": 10, "per_device_train_batch_size": 4, "align_gradients": "gradvac", "logging_steps": 1}
    args = make_arguments(folder, **{**arguments, "save_strategy": "steps", "save_steps": 1, **options})
    return GradientAlignmentTrainer(
        model=Wav2Vec2ForSequenceClassification(small_wav2vec2_config(**TINY)),
        args=args,
        train_dataset=StreamedViewDataset(
            as_stream(clips),
            {"clean": None, "augmented": RawBoost()},
            sampling_rate=16_000,
            window_samples=500,
            seed=1,
            shuffle_buffer_size=5,
            label2id=LABEL2ID,
            process_index=args.process_index,
            n_processes=args.world_size,
        ),
        data_collator=ViewCollator(small_feature_extractor()),
    )


def assert_resumes(clips, tmp_path, stop, **options):
    whole, resumed = (trainer_of(clips, tmp_path / name, **options) for name in ("whole", "resumed"))
    whole.train()
    shutil.copytree(tmp_path / "whole" / f"checkpoint-{stop}", tmp_path / "resumed" / f"checkpoint-{stop}")
    resumed.train(resume_from_checkpoint=True)
    for name, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(resumed)[name]), name
    assert timeless(whole.state.log_history) == timeless(resumed.state.log_history)
    assert len({row["loss"] for row in whole.state.log_history if "loss" in row}) > 1


@pytest.mark.parametrize(
    ("workers", "accumulation", "stop"), [pytest.param(0, 2, 7, marks=pytest.mark.slow), (2, 1, 3)]
)
def test_a_resumed_run_is_the_same_to_the_bit(clips, tmp_path, workers, accumulation, stop):
    # Ten updates with four to eight of the twenty clips: several passes over the stream.
    options = {"dataloader_num_workers": workers, "gradient_accumulation_steps": accumulation, "save_steps": stop}
    assert_resumes(clips, tmp_path, stop, **options)


def test_a_stream_takes_steps_and_not_epochs(clips, tmp_path):
    with pytest.raises(ValueError, match="max_steps"):
        trainer_of(clips, tmp_path, max_steps=-1)


def train_in_a_group(clips, folder, workers, resume):
    options = {"use_cpu": True, "ddp_backend": "gloo", "dataloader_num_workers": workers}
    trainer = trainer_of(datasets.load_from_disk(clips), folder, **options)
    trainer.train(resume_from_checkpoint=resume)
    save_file(weights_of(trainer), f"{folder}/rank-{trainer.args.process_index}.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.long), 2])
def test_two_processes_and_again(clips, tmp_path, workers):
    clips.save_to_disk(tmp_path / "clips")

    def run(name, resume=False):
        folder, log = tmp_path / name, tmp_path / "log"
        words = (str(tmp_path / "clips"), str(folder), workers, resume)
        process = forked_group.start(train_in_a_group, *words, log=log, processes=2)
        process.join()
        assert process.exitcode == 0, log.read_text()
        return [(folder / f"rank-{rank}.safetensors").read_bytes() for rank in range(2)]

    first, second = run("whole")
    assert first == second
    shutil.copytree(tmp_path / "whole" / "checkpoint-6", tmp_path / "resumed" / "checkpoint-6")
    assert run("resumed", resume=True) == [first, second]
