"""What several test files share."""

import huggingface_hub
import pytest
from huggingface_hub import constants
from loopback_hub import LoopbackHub


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
