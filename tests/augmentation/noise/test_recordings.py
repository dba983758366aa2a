import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from audiomentations.core.utils import find_audio_files

from hf_gradalign.augmentation import get_augmentation
from hf_gradalign.augmentation.noise import recordings
from hf_gradalign.augmentation.noise.recordings import find_recordings, list_for_audiomentations, list_recordings

MUSAN = ["musan/noise/free-sound/noise-free-sound-0001.wav", "musan/noise/sound-bible/noise-sound-bible-0000.wav"]
MUSAN += ["musan/music/fma/music-fma-0000.wav", "musan/speech/librivox/speech-librivox-0000.wav"]
RIRS = [
    "RIRS_NOISES/simulated_rirs/smallroom/Room001/Room001-00001.wav",
    "RIRS_NOISES/simulated_rirs/mediumroom/Room001/Room001-00001.wav",
    "RIRS_NOISES/simulated_rirs/largeroom/Room001/Room001-00001.wav",
    "RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom1_far_angla.wav",
    "RIRS_NOISES/real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom1_1.wav",
    "RIRS_NOISES/pointsource_noises/noise-free-sound-0100.wav",
]


def write(path, n_samples=1600, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, n_samples), rate)
    return path


@pytest.fixture
def official(tmp_path):
    """The official trees in miniature."""
    for name in MUSAN + RIRS:
        write(tmp_path / name)
    (tmp_path / "musan" / "README").write_text("MUSAN")
    (tmp_path / "musan" / "noise" / "free-sound" / "LICENSE").write_text("CC0")
    return tmp_path


def relative(sounds, folder):
    return {kind: [path.removeprefix(f"{folder}/") for path in paths] for kind, paths in sounds.items()}


def test_the_official_layouts(official):
    expected_rirs = [RIRS[3], RIRS[1], RIRS[0]]
    assert relative(find_recordings([official / "musan", official / "RIRS_NOISES"]), official) == {
        "noise": [*MUSAN[:2], RIRS[5]],
        "music": [MUSAN[2]],
        "speech": [MUSAN[3]],
        "impulse response": expected_rirs,
    }
    both = relative(find_recordings([str(official)]), official)
    assert both["impulse response"] == expected_rirs
    assert both["noise"] == [RIRS[5], *MUSAN[:2]]


def test_one_kind_by_the_folders_own_name(tmp_path):
    path = write(tmp_path / "speech" / "deep" / "a.flac")
    assert find_recordings([tmp_path / "speech"]) == {"speech": [str(path)]}
    path = write(tmp_path / "RIRs" / "kitchen noise.wav")
    with pytest.raises(ValueError, match="no recordings of a known kind"):  # a noise among impulse responses
        find_recordings([tmp_path / "RIRs"])


def test_a_relative_folder(official, monkeypatch):
    monkeypatch.chdir(official / "musan")
    assert set(find_recordings(["."])) == {"noise", "music", "speech"}


def test_copies_without_folders_are_known_by_their_names(tmp_path):
    for name in MUSAN:
        write(tmp_path / name.rpartition("/")[2])
    write(tmp_path / "other.wav")
    found = find_recordings([tmp_path])
    assert {kind: len(paths) for kind, paths in found.items()} == {"noise": 2, "music": 1, "speech": 1}


def test_folders_without_recordings_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"no recordings of a known kind\. Expected MUSAN's folders noise, music and speech"
    ):
        find_recordings([tmp_path])
    with pytest.raises(ValueError, match="is neither a folder nor a data set on the Hub"):
        find_recordings([tmp_path / "missing"])


def test_a_hub_repository_of_files(official, monkeypatch):
    asked = []

    def download(name, repo_type):
        asked.append((name, repo_type))
        return str(official / "musan")

    monkeypatch.setattr(recordings, "snapshot_download", download)
    assert len(find_recordings(["someone/musan"])["noise"]) == 2
    assert asked == [("someone/musan", "dataset")]


def test_a_hub_repository_of_parquet_files_is_unpacked_once(official, tmp_path, monkeypatch):
    revision = tmp_path / "hub" / "0123abc"
    revision.mkdir(parents=True)
    audio = [{"path": name.removeprefix("musan/"), "bytes": (official / name).read_bytes()} for name in MUSAN]
    audio.append({"path": "../../outside/noise-1.wav", "bytes": (official / MUSAN[0]).read_bytes()})
    pq.write_table(pa.table({"audio": audio, "other": list(range(5))}), revision / "train-0.parquet")
    monkeypatch.setattr(recordings, "snapshot_download", lambda name, repo_type: str(revision))
    assets = tmp_path / "assets"
    monkeypatch.setattr(
        recordings, "cached_assets_path", lambda library, namespace, subfolder: assets / namespace / subfolder
    )
    found = find_recordings(["someone/musan"])
    assert {kind: len(paths) for kind, paths in found.items()} == {"noise": 3, "music": 1, "speech": 1}
    assert all(
        path.startswith(str(assets / "someone--musan" / "0123abc")) for paths in found.values() for path in paths
    )
    monkeypatch.setattr(recordings.pq, "ParquetFile", None)
    assert find_recordings(["someone/musan"]) == found


def test_a_hub_that_cannot_be_reached(monkeypatch):
    def fail(name, repo_type):
        raise OSError("no network")

    monkeypatch.setattr(recordings, "snapshot_download", fail)
    with pytest.raises(ValueError, match=r"someone/musan is neither a folder nor a data set .*: no network"):
        find_recordings(["someone/musan"])


def test_one_listing_for_noise_too(official, tmp_path, caplog):
    noise = official / "musan" / "noise"
    (noise / "._a.wav").touch()
    (noise / "phone.amr").touch()
    (noise / "voice.M4A").touch()  # to be refused when it is opened
    elsewhere = write(tmp_path / "elsewhere" / "rain.wav").parent
    (noise / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(noise)
    found = relative(find_recordings([official / "musan"]), noise)["noise"]
    theirs = [name.removeprefix("musan/noise/") for name in MUSAN[:2]]
    assert found == [theirs[0], "linked/rain.wav", theirs[1], "voice.M4A"]
    assert [path.removeprefix(f"{noise}/") for path in list_recordings(noise, "sounds_path")] == found
    assert "Left out: 1 hidden file or folder, 2 files that are not audio (2 without an extension)" in caplog.text
    assert f"are left out, because audiomentations cannot read their formats: {noise / 'phone.amr'}" in caplog.text


def test_a_link_to_the_folder_of_sounds(official, tmp_path):
    (tmp_path / "link").symlink_to(official / "musan")
    assert set(find_recordings([tmp_path / "link"])) == {"noise", "music", "speech"}


def test_folders_of_audiomentations_transforms(official, tmp_path):
    noise = official / "musan" / "noise"
    theirs = [str(path) for path in find_audio_files(noise)]
    assert list_for_audiomentations(str(noise)) == theirs  # draws do not change
    (noise / "._a.wav").touch()
    recipe = tmp_path / "noise.yaml"
    recipe.write_text(f"- {{transform: AddBackgroundNoise, sounds_path: {noise}}}\n")
    found = get_augmentation(recipe).transforms[0].sound_file_paths
    assert sorted(map(str, found)) == sorted(theirs)
