"""Options of heads by name."""

import pytest
from tiny_detectors import SMALL

from hf_gradalign.models import HEADS, SpoofDetectorConfig
from hf_gradalign.models.heads import head_options

EVERY = pytest.mark.parametrize("name", HEADS)


def test_an_unknown_head_is_named_and_the_known_ones_listed():
    with pytest.raises(ValueError, match=f"there is no head 'assist'; available: {', '.join(sorted(HEADS))}"):
        head_options("assist")


def test_an_unknown_option_is_named_and_the_known_ones_listed():
    with pytest.raises(
        ValueError, match=r"the head sls has no option depth, width; it has n_frames, hidden_size, log_probabilities"
    ):
        head_options("sls", {"width": 3, "depth": 1, "n_frames": 30})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sls", {"log_probabilities": "false"}, "log_probabilities of the head sls must be true or false, got 'false'"),
        ("sls", {"hidden_size": 0}, "hidden_size of the head sls must be a whole number of at least 1 or null, got 0"),
        ("conformer_tcm", {"num_blocks": 0}, "num_blocks .* must be a whole number of at least 1, got 0"),
        ("mhfa", {"num_heads": 0}, "num_heads of the head mhfa must be a whole number of at least 1, got 0"),
        ("mhfa", {"num_heads": 2.0}, "num_heads .* must be a whole number of at least 1, got 2.0"),
        ("mhfa", {"num_heads": True}, "num_heads .* must be a whole number of at least 1, got True"),
        ("linear", {"dropout": "0.1"}, "dropout of the head linear must be a number of at least 0, got '0.1'"),
        ("linear", {"dropout": float("nan")}, "dropout .* must be a number of at least 0, got nan"),
        ("nes2net", {"pooling": None}, "pooling of the head nes2net must be a string, got None"),
        ("aasist", {"pool_ratios": [0.5, "0.5", 0.5]}, "pool_ratios .* must be a list of numbers of at least 0"),
        ("aasist", {"channels": []}, r"channels .* must be a list of whole numbers of at least 1, got \[\]"),
        ("aasist", {"channels": 32}, "channels .* must be a list of whole numbers of at least 1, got 32"),
    ],
)
def test_values_that_an_option_cannot_have(name, options, message):
    with pytest.raises(ValueError, match=message):
        head_options(name, options)


@EVERY
def test_every_option_is_checked(name):
    for option in head_options(name):
        with pytest.raises(ValueError, match=f"{option} of the head {name} must be "):
            head_options(name, {option: object()})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("linear", {"dropout": 1.0}, "dropout of linear must be at least 0 and below 1, got 1.0"),
        ("sls", {"n_frames": 2}, "n_frames of sls must be at least 3, which are pooled to one, got 2"),
        ("aasist", {"graph_sizes": [8]}, r"graph_sizes must be two whole numbers, got \[8\]"),
        ("aasist", {"pool_ratios": [0.5]}, r"pool_ratios must be three numbers above 0 and up to 1, got \[0.5\]"),
        ("aasist", {"projection_size": 2}, "projection_size must be at least 3"),
    ],
)
def test_sizes_that_a_head_cannot_have(name, options, message):
    with pytest.raises(ValueError, match=message):
        HEADS[name](64, 3, 2, **options)


@EVERY
def test_options_are_completed_and_survive_the_configuration(name, tmp_path):
    options = head_options(name, SMALL[name])
    assert SMALL[name].items() <= options.items()
    assert head_options(name, options) == options
    SpoofDetectorConfig(head=name, head_options=options).save_pretrained(tmp_path)
    loaded = SpoofDetectorConfig.from_pretrained(tmp_path)
    assert (loaded.head, loaded.head_options) == (name, options)
    assert HEADS[name](64, 3, 2, **loaded.head_options)
