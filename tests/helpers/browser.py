"""A headless Chromium for tests, which refuses to load anything from other machines."""

import multiprocessing
import os
import shutil
from contextlib import contextmanager

import pytest


@contextmanager
def chromium():
    """The browser. Skips the test where Chromium (of the system) or playwright is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()
        # Loader workers that other tests have left were forked with the pipe to playwright's driver, which ends when it
        # is closed everywhere.
        for child in multiprocessing.active_children():
            child.terminate()
            child.join()


@contextmanager
def visit(browser, url, **options):
    """A page of its own. Fails if it asks other machines for anything, or if its scripts fail."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    page.goto(url)
    yield page
    context.close()
    elsewhere = [address for address in asked if not address.startswith((url, "data:", "blob:"))]
    assert not elsewhere
    assert not errors
