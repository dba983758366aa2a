"""What the server does with requests that no page would send, and with files."""

import errno
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_gradalign.demo.examples import write_examples
from hf_gradalign.demo.gradio_library import BrokenUploads, prepare_gradio

httpx = pytest.importorskip("httpx")


def upload(site, *contents, **options):
    files = [("files", (f"{number}.wav", content)) for number, content in enumerate(contents)]
    return httpx.post(f"{site}gradio_api/upload", files=files, timeout=60, **options)


def test_limits_and_headers(site):
    answer = httpx.get(site)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert site.startswith("http://127.0.0.1:")
    assert upload(site, bytes(1000)).status_code == 200
    assert upload(site, bytes(4_050_000)).status_code == 413  # one file, by Gradio
    assert upload(site, bytes(3_000_000), bytes(3_000_000)).status_code == 413  # their sum
    assert httpx.get(f"{site}gradio_api/file=/etc/passwd").status_code == 403


def test_nothing_is_fetched_from_other_machines(site, monkeypatch):
    answer = httpx.get(f"{site}gradio_api/file=https://127.0.0.1:9/speech.wav")
    assert (answer.status_code, answer.text) == (403, "This page loads nothing from other machines.")

    fetched = []
    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", lambda url, **_: fetched.append(url))
    file = {"path": "https://example.com/speech.wav", "meta": {"_type": "gradio.FileData"}}
    answer = httpx.post(f"{site}gradio_api/run/predict", json={"fn_index": begin_number(site), "data": [file]})
    assert "loads nothing from other machines" in answer.text
    assert not fetched


def begin_number(site):
    """The number of the event that takes the recording alone."""
    config = httpx.get(f"{site}config").json()
    (audio,) = (part["id"] for part in config["components"] if part["type"] == "audio")
    return next(event["id"] for event in config["dependencies"] if event["inputs"] == [audio])


@pytest.mark.slow
def test_uploads_end_with_the_page(make_page, scorer):
    page = make_page({"a": scorer})
    (path,) = upload(page.local_url, b"some sound").json()
    assert Path(path).read_bytes() == b"some sound"
    assert Path(path).is_relative_to(os.environ["GRADIO_TEMP_DIR"])
    assert page.delete_cache == (60, 900)
    assert page.analytics_enabled is False
    examples = Path(page._examples.name)
    assert examples.exists()
    page.close(verbose=False)
    assert not Path(path).exists()
    assert not examples.exists()


@pytest.mark.slow
def test_uploads_that_are_broken_off(make_page, scorer, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    page = make_page({"a": scorer})
    monkeypatch.setattr("hf_gradalign.demo.gradio_library._folders", [SimpleNamespace(name=tmp_path)])
    start = b'--B\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n' + bytes(
        1_000_000
    )  # more than any buffer

    def leave():
        yield start
        deadline = time.monotonic() + 20
        while not any(path.stat().st_size for path in tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)
        raise ConnectionError

    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    with pytest.raises(ConnectionError):
        httpx.post(f"{page.local_url}gradio_api/upload", content=leave(), headers=headers)
    (left,) = BrokenUploads()
    assert bytes(1000) in Path(left).read_bytes()
    from gradio.route_utils import delete_files_created_by_app

    delete_files_created_by_app(page, 900)
    assert Path(left).exists()
    delete_files_created_by_app(page, -1)
    assert not Path(left).exists()


@pytest.mark.slow
def test_a_full_disk(make_page, scorer, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    page = make_page({"a": scorer})
    monkeypatch.setattr("starlette.datastructures.UploadFile.write", write)
    answer = upload(page.local_url, bytes(1000))
    assert (answer.status_code, answer.text) == (507, "The disk of the page is full. Please tell those who run it.")
    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(OSError, match=r"No space left on device: '.*genuine_speech.wav'"):
        write_examples("folder")


@pytest.mark.slow
def test_a_port_that_is_taken(scorer, monkeypatch):
    pytest.importorskip("gradio")
    from hf_gradalign.demo import page as module

    page = module.make_demo({"a": scorer})
    monkeypatch.setattr(module, "make_demo", lambda models, **options: page)
    handlers = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} cannot be used"):
            module.serve(["a"], port=port)
    assert signal.getsignal(signal.SIGTERM) is handlers


@pytest.mark.parametrize("port", [-1, 0, 99_999])
def test_what_is_no_port(port):
    pytest.importorskip("gradio")
    from hf_gradalign.demo import serve

    with pytest.raises(ValueError, match=f"port must be from 1 to 65535, not {port}"):
        serve(["missing"], port=port)


def test_gradio_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("hf_gradalign.demo.gradio_library.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs Gradio, which is not installed.*pip install -e \"\.\[demo\]\"\)"):
        prepare_gradio()
