import pytest
from browser import chromium
from telling_detector import CALIBRATION, make_telling_detector

from hf_gradalign.demo.examples import write_examples
from hf_gradalign.scoring import SpoofScorer


@pytest.fixture(scope="session", autouse=True)
def _uploads_in_the_folder_of_the_tests(tmp_path_factory):
    """Processes of pytest-xdist end without the cleaning that others do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        yield


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    """The paths of the page's example recordings by their labels."""
    folder = tmp_path_factory.mktemp("examples")
    return {example.label: example.path for example in write_examples(folder)}


@pytest.fixture(scope="session")
def make_scorer(examples):
    """A scorer that tells the examples apart, calibrated or not."""

    def make(calibration=CALIBRATION, **options):
        model = make_telling_detector(examples["Genuine speech"], examples["Fake speech"], calibration)
        return SpoofScorer(model, model.make_feature_extractor(), device="cpu", **options)

    return make


@pytest.fixture(scope="session")
def scorer(make_scorer):
    return make_scorer()


@pytest.fixture(scope="session")
def uncalibrated(make_scorer):
    return make_scorer(None)


@pytest.fixture(scope="session")
def make_page():
    """Launch pages, which are closed at the end."""
    pytest.importorskip("gradio")
    from hf_gradalign.demo import make_demo

    pages = []

    def make(scorers, **options):
        pages.append(make_demo(scorers, **options))
        pages[-1].launch(prevent_thread_lock=True, quiet=True)
        return pages[-1]

    yield make
    for page in pages:
        page.close(verbose=False)


@pytest.fixture(scope="session")
def site(make_page, scorer):
    """The address of a page with one calibrated model."""
    return make_page({"my-detector": scorer}, max_mb=4, max_minutes=11).local_url


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser
