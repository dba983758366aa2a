"""A local Hub for each test, and clients of it in processes of their own (they read the environment on import)."""

import functools
import gc
import json
import multiprocessing
import os
import random
import sys
import traceback
from pathlib import Path

# Before torch is imported, here and in the processes that tests start: several at a time would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# On a GPU, torch would use TF32 in convolutions, and tolerances are those of float32. Processes that tests start, too.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

import pytest
import soundfile
import torch

if not torch.cuda.is_available():
    # Before Triton is imported: without a GPU its kernels run in the interpreter, on tensors of the CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")

import forked_python
import jinja2
import numpy as np
from hub_server import VALID_TOKEN, HubServer

import hf_gradalign  # noqa: F401  (makes torchaudio importable before transformers and evaluate look for it)

if sys.platform == "linux":
    # As before Python 3.14, whose loader workers start from a server, without what a test has patched.
    multiprocessing.set_start_method("fork")


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server
    assert not server.unknown_calls


@pytest.fixture
def run_client(hub, tmp_path):
    """Run a program against the hub; give what it passed to `report`, a function that it finds defined."""

    def run(program, *args, token=VALID_TOKEN, home="home", **environment):
        prelude = "import json, sys\nargs = sys.argv[1:]\ndef report(x): print('REPORT', json.dumps(x))\n"
        command = [sys.executable, "-c", prelude + program, *args]
        done = forked_python.run(command, hub.environment(tmp_path / home, token, **environment), tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        reports = [line.removeprefix("REPORT ") for line in done.stdout.splitlines() if line.startswith("REPORT ")]
        return json.loads(reports[-1])

    return run


@pytest.fixture(scope="module", autouse=True)
def _little_garbage_to_look_through():
    """What is imported stays: collections, of which each `train()` makes two, look at what came since."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _packages_are_looked_for_once():
    """accelerate looks for optional packages at every update, in all of `sys.path`."""
    with pytest.MonkeyPatch.context() as patch:
        if "accelerate" in sys.modules:
            from accelerate.utils import imports

            patch.setattr(imports, "_is_package_available", functools.cache(imports._is_package_available))
        yield


@pytest.fixture(scope="session", autouse=True)
def _templates_are_compiled_once():
    """Each card that is written compiles its template, which takes longer than all else about the card."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", functools.cache(jinja2.Environment.compile))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """No test cuts the power. Kills, which some tests make, lose nothing that was written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(soundfile.SoundFile, "flush", lambda file: None)  # libsndfile's fsync, at every close
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache_of_conversions(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_GRADALIGN_CACHE", str(tmp_path_factory.mktemp("converted")))
        yield


def _draw_from(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _is_of_posix(error):
    """Whether a test itself, not the package, used what Windows lacks. For the package, `ty check` finds it."""
    frames = traceback.extract_tb(error.__traceback__)
    is_missing = "has no attribute" in str(error) or "cannot find context for" in str(error)
    is_refused = getattr(error, "winerror", None) == 1314  # links need a privilege
    return is_refused or (is_missing and Path(frames[-1].filename).is_relative_to(Path(__file__).parent))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """On Windows, tests that use pipes with names, forks, SIGKILL and the like are skipped."""
    try:
        return (yield)
    except (AttributeError, ValueError, OSError) as error:
        if sys.platform == "win32" and _is_of_posix(error):
            pytest.skip(f"needs POSIX: {error}")
        raise


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Each test starts alike, whatever ran before it in the same worker."""
    _draw_from(1)
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.set_verbosity_warning()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    _draw_from(2)  # whatever shared fixtures drew


def pytest_collection():
    """What is imported stays: looking for garbage in it took a tenth of the time."""
    gc.disable()


def pytest_collection_finish():
    gc.enable()


def pytest_unconfigure():
    gc.unfreeze()  # or Triton's bindings report everything as leaked


def _forks(item):
    names = {"forked_group", "forked_python", "run_processes"}
    return "run_client" in item.fixturenames or not names.isdisjoint(vars(item.module))


def pytest_collection_modifyitems(items):
    # First, so that one worker runs them all, and only this one starts the processes to fork from. pytest-xdist gives
    # the first half to one worker, and takes from its end what another one steals.
    items.sort(key=lambda item: not _forks(item))
    if sys.platform == "win32":
        for item in items:
            if _forks(item) or item.get_closest_marker("posix"):
                item.add_marker(pytest.mark.skip(reason="needs POSIX"))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
