"""Chromium for tests that look at pages as a reader does."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str:
    """Where the machine's Chromium is; the test is skipped where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine; install it with: apt-get install chromium")
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium, which is the machine's own: nothing is downloaded."""
    path = chromium_path()
    with sync_playwright() as playwright:
        # containers lack the user namespaces that its sandbox needs; the pages are the tests' own
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()
