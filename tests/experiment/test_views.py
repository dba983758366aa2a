import random
import sys

import numpy as np
import pytest
import torch

from hf_gradalign.augmentation import Codec, RawBoost
from hf_gradalign.experiment import DataArguments
from hf_gradalign.experiment.views import build_views, parse_views, public_views, try_views


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("clean,rawboost,codec", {"clean": "clean", "rawboost": "rawboost", "codec": "codec"}),
        (" clean , augmented = rawboost4,codec", {"clean": "clean", "augmented": "rawboost4", "codec": "codec"}),
        ("rawboost", {"rawboost": "rawboost"}),
        (
            "original=clean,recipes/street_noise.yaml",
            {"original": "clean", "street_noise": "recipes/street_noise.yaml"},
        ),
        (
            "clean,musan_rir:/data/musan:/data/RIRS_NOISES+rawboost,codec:g722",
            {
                "clean": "clean",
                "musan_rir_rawboost": "musan_rir:/data/musan:/data/RIRS_NOISES+rawboost",
                "codec": "codec:g722",
            },
        ),
        ("n=/a/b=c.json,a=codec,b=codec", {"n": "/a/b=c.json", "a": "codec", "b": "codec"}),
    ],
)
def test_names_and_recipes_in_order(text, views):
    assert parse_views(text) == views
    assert list(parse_views(text)) == list(views)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "'' is not a view; use recipes .*, each clean, one of rawboost, .*time_frequency_mask, or a YAML",
        ),
        ("clean,,codec", "--views clean,,codec: '' is not a view"),
        ("clean,", "'' is not a view"),
        ("clean,noise=", "'noise=' is not a view"),
        ("clean,=codec", "'=codec' is not a view"),
        ("clean,clean", "two views are called clean; give them different names, as in a=clean,b=clean"),
        ("x=codec,a/x.yaml", "two views are called x;"),
        ("clean,my noise.yaml", "'my noise' cannot be the name of a view; .* as in noise=my noise.yaml"),
        ("clean,a/b=codec", "'a/b' cannot be the name of a view"),
        ("clean=rawboost", "the view named clean is the unchanged clip, not rawboost"),
        ("a=clean,b_c=codec,a_b=codec,c=codec", "a_b_c in the log would mean two pairs of views"),
        ("c=clean,a_b=codec,b_c=codec,a=codec", "a_b_c in the log would mean two pairs of views"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_views(text)
    with pytest.raises(ValueError, match=message):
        DataArguments(views=text)


def test_builds_each_views_augmentation(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "noise.yaml").write_text("[{transform: PolarityInversion, p: 1.0}]")
    views = build_views(parse_views("clean,strong=rawboost2,codec,~/noise.yaml"))
    assert list(views) == ["clean", "strong", "codec", "noise"]
    assert views["clean"] is None
    assert isinstance(views["strong"], RawBoost)
    assert views["strong"].algorithm == 2
    assert isinstance(views["codec"], Codec)
    samples = np.ones(4, np.float32)
    np.testing.assert_array_equal(views["noise"](samples, 16_000), -samples)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "clean,rawbost",
            "view 'rawbost': unknown augmentation 'rawbost': give one of rawboost, .*; or clean, the unchanged clip",
        ),
        ("clean,noise=missing.yaml", "view 'noise': unknown augmentation 'missing.yaml'"),
    ],
)
def test_unknown_recipes_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        build_views(parse_views(text))


def test_defaults_and_the_shorter_option():
    assert DataArguments().view_recipes == {"clean": "clean", "augmented": "rawboost"}
    assert DataArguments(augmentation="rawboost5").view_recipes == {"clean": "clean", "augmented": "rawboost5"}
    assert DataArguments(views="clean,codec").view_recipes == {"clean": "clean", "codec": "codec"}


@pytest.mark.parametrize("augmentation", ["rawboost", "codec"])
def test_only_one_of_the_two_options(augmentation):
    message = f"use one of them, as in --views clean,codec,augmented={augmentation}"
    with pytest.raises(ValueError, match=message):
        DataArguments(views="clean,codec", augmentation=augmentation)


def test_folders_are_not_shown():
    views = parse_views("clean,augmented=rawboost,/home/me/noise.yaml,far=/home/me/rooms.json")
    assert public_views(views) == "clean,augmented=rawboost,noise.yaml,far=rooms.json"
    assert parse_views(public_views(views)).keys() == views.keys()


def test_folders_of_recordings_are_not_shown(tmp_path):
    (tmp_path / "musan").mkdir()
    text = f"clean,far=musan_rir:{tmp_path}/musan:someone/rirs+codec:opus,telephone"
    assert public_views(parse_views(text)) == "clean,far=musan_rir:musan:someone/rirs+codec:opus,telephone"


def test_builds_recipes_one_after_the_other():
    views = build_views(parse_views("clean,musan_rir+rawboost5"))
    assert list(views) == ["clean", "musan_rir_rawboost5"]
    assert [type(transform).__name__ for transform in views["musan_rir_rawboost5"].transforms] == [
        "MusanRir",
        "RawBoost",
    ]


def test_preflight_names_the_view_and_draws_no_numbers(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fast_mp3_augment", None)
    (tmp_path / "mp3.yaml").write_text("- {transform: Mp3Compression, p: 0.3}")
    views = build_views({"clean": "clean", "far": "musan_rir+rawboost", "augmented": str(tmp_path / "mp3.yaml")})
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    with pytest.raises(
        ValueError, match=r"^view 'augmented': entry 1 \(Mp3Compression\) needs pip install fast-mp3-augment$"
    ):
        try_views(views, 16_000)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
