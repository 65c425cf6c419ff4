"""Fixtures that several test files share."""

import os
import shutil

# Networks as small as the tests' wait for a second thread longer than they compute. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import huggingface_hub
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from huggingface_hub import constants
from loopback_hub import LoopbackHub
from playwright.sync_api import sync_playwright

from unet.predict import has_native_bfloat16

# Nothing but the page under test: no updates, no look-ups at the browser maker's.
CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]

NATIVE = has_native_bfloat16(torch.device("cpu"))


@pytest.fixture(params=[False, True] if NATIVE else [False], ids=lambda native: "bfloat16" if native else "float32")
def bfloat16(request, monkeypatch):
    """Run the test on a processor with and without native bfloat16.

    A capable processor stands in for one without; one without runs the test once.

    A whole process without: ONEDNN_MAX_CPU_ISA=AVX2.
    """
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: request.param, raising=False)
    for state in (AcceleratorState, PartialState):  # a precision that an earlier test chose
        state._reset_state()
    return request.param


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with LoopbackHub() as hub:
        # What HF_ENDPOINT, HF_HOME and HF_HUB_DISABLE_XET set, had they been there when the client was imported.
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", "hf_write")
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its attempts
        yield hub
        huggingface_hub.close_session()


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=CHROMIUM)
        yield browser
        browser.close()
