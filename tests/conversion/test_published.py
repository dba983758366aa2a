"""The table of published detectors: complete, consistent with the converter, and found by repository, hash or name."""

import inspect

import pytest

from hf_gradalign.conversion import ConversionCardFacts, card_facts, convert_state_dict, published_detectors
from hf_gradalign.conversion.layouts import HEAD_LAYOUTS
from hf_gradalign.conversion.published import as_mapping, find_by_file, find_by_repo, matching
from hf_gradalign.models import HEADS

DETECTORS = published_detectors()


def test_names_and_repositories_are_unique():
    names = [detector.name for detector in DETECTORS]
    repos = [detector.repo for detector in DETECTORS if detector.repo]
    assert len(set(names)) == len(names)
    assert len(set(repos)) == len(repos) == 17


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_an_entry_is_complete(detector):
    assert detector.repo or detector.source
    assert detector.files or not detector.repo
    assert all(start == start.lower() and 8 <= len(start) <= 64 for start in detector.sha256)
    assert all(0 < eer < 50 and test_set and origin for test_set, eer, origin in detector.results)
    assert "not available here" in detector.checked
    assert detector.head in HEAD_LAYOUTS
    own = set(inspect.signature(convert_state_dict).parameters)
    of_head = set(inspect.signature(HEADS[detector.head]).parameters) if detector.head in HEADS else set()
    assert set(detector.options) <= own | of_head
    assert ConversionCardFacts(**card_facts(detector), load_from="x").license == detector.license
    assert as_mapping(detector)["name"] == detector.name


def test_licenses():
    licensed = {detector.family: detector.license for detector in DETECTORS if detector.license}
    assert licensed == {"AASIST": "mit", "AntiDeepfake": "cc-by-nc-sa-4.0"}
    assert find_by_repo("nii-yamagishilab/xls-r-1b-anti-deepfake").shown_license == "CC-BY-NC-SA-4.0"


@pytest.mark.parametrize(
    ("filename", "sha256", "name"),
    [
        ("anything.pth", "51d2d9cf" + "0" * 56, "AASIST"),
        ("best.pth", "8f10fe1d" + "0" * 56, "ASVspoof 5 baseline AASIST"),
        ("AASIST-L.pth", "0" * 64, "AASIST-L"),
        ("WavLM_Nes2Net_X_SeLU_e74_seed420_valid0.042.pt", "0" * 64, "WavLM-Nes2Net-X-SeLU"),
        ("WavLM_Nes2Net_X_e75_seed420_valid0.031.pt", "0" * 64, "WavLM-Nes2Net-X"),
        ("best.pth", "0" * 64, None),
        ("model.safetensors", "0" * 64, None),
    ],
)
def test_files_of_the_table(filename, sha256, name):
    detector = find_by_file(filename, sha256)
    assert (detector.name if detector else None) == name


def test_a_filter_takes_all_words():
    assert len(matching([])) == len(DETECTORS)
    assert [detector.name for detector in matching(["ANTIDEEPFAKE", "xls-r 2b"])] == [
        "AntiDeepfake XLS-R 2B",
        "AntiDeepfake XLS-R 2B NDA",
    ]
    assert matching(["AASIST.pth"])[0].name == "AASIST"
    assert matching(["nothing"]) == []
