"""The page as programs and people meet it: served within this process, or looked at in a browser."""

import asyncio
import gc
import http.client
import json
import re
import uuid
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image
from playwright.sync_api import expect

import app
from page import networks

SIDES = ("residual-add", "crop-concat")
PATIENCE = 60_000  # milliseconds; for machines that are busy with something else


class Page:
    """The page on a free port, asked over real HTTP."""

    def __init__(self, cache):
        self.cache = cache
        self.demo = app.build_demo()
        _, self.url, _ = app.launch(
            self.demo, prevent_thread_lock=True, quiet=True, inbrowser=False, server_name="127.0.0.1"
        )
        self.client = httpx.Client(base_url=self.url, timeout=120)
        self.endpoints = self.client.get("gradio_api/info").json()["named_endpoints"]

    def get(self, path):
        """Body of an answer to exactly this path; httpx would tidy it up."""
        connection = http.client.HTTPConnection("127.0.0.1", httpx.URL(self.url).port, timeout=60)
        connection.request("GET", path)
        body = connection.getresponse().read()
        connection.close()
        return body

    def upload(self, name, content):
        return self.client.post("gradio_api/upload", files={"files": (name, content)}).json()[0]

    def call(self, endpoint, data):
        """("complete" or "error", what came with it) of an endpoint."""
        asked = self.client.post(f"gradio_api/call{endpoint}", json={"data": data})
        if asked.status_code != 200:
            return "error", asked.text
        text = self.client.get(f"gradio_api/call{endpoint}/{asked.json()['event_id']}").text
        event, _, rest = text.strip().rpartition("event: ")[2].partition("\ndata: ")
        return event, rest

    def event(self, number, data):
        """("complete" or "error", what came with it) of any handler, asked as the page itself asks."""
        session = uuid.uuid4().hex
        asked = json.dumps({"data": data, "fn_index": number, "session_hash": session})  # lone surrogates escaped
        self.client.post("gradio_api/queue/join", content=asked, headers={"Content-Type": "application/json"})
        with self.client.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as stream:
            for line in filter(None, stream.iter_lines()):
                message = json.loads(line.removeprefix("data: "))
                if message["msg"] == "process_completed":
                    kind = "complete" if message["success"] else "error"
                    return kind, json.dumps(message["output"], ensure_ascii=False)
        raise AssertionError("the page ended its answer before it was complete")

    def arguments(self, endpoint, picture):
        """Sound arguments of an endpoint, and which of them are files."""
        values, files = [], []
        for i, parameter in enumerate(self.endpoints[endpoint]["parameters"]):
            kind = parameter["type"]
            if parameter["component"] in ("Image", "File"):
                files.append(i)
                values.append([file(picture)] if kind.get("type") == "array" else file(picture))
            else:
                choice = kind.get("enum", [SIDES[0]])[0]  # the name of a network is free text
                values.append(parameter["parameter_default"] if parameter["parameter_has_default"] else choice)
        return values, files


def file(path, **more):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}} | more


@contextmanager
def served(folder):
    """A `Page` of the bundles in folder/weights, with its files in folder/cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "cache"))
        patch.setattr(networks, "WEIGHTS", str(folder / "weights"))
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        networks.tasks.cache_clear()
        page = Page(folder / "cache")
        yield page
        page.client.close()
        page.demo.close(verbose=False)
        networks.tasks.cache_clear()
        # Gradio gives this thread event loops that nobody closes. Python complains of each when it is collected: here,
        # and not in whichever later test that would happen.
        asyncio.get_event_loop().close()
        asyncio.set_event_loop(None)
        gc.collect()


# ---- in the browser --------------------------------------------------------------------------------------------------


def upload(page, path, box="#ways"):
    """path: of a file, or playwright's payload of one."""
    page.locator(f"{box} input[type=file]").first.set_input_files(path)


def shows(page, selector, pattern):
    expect(page.locator(selector)).to_contain_text(re.compile(pattern), timeout=PATIENCE)


def answers(page):
    """How many answers the viewer has shown so far."""
    return int(page.locator(".viewer").get_attribute("data-answer"))


def wait_for_other_answer(page, before):
    page.wait_for_function(
        "before => Number(document.querySelector('.viewer')?.dataset.answer) > before", arg=before, timeout=PATIENCE
    )


def looked_at(page):
    """How the viewer looks at the picture, and where its panes draw it."""
    return page.evaluate("unetViewer.state()")


def size_of_view(page):
    return tuple(looked_at(page)[side] for side in ("height", "width"))


def saved(page, side, what):
    """A picture from the viewer's menu: uint8 (H, W, 3), or (H, W) for a label map."""
    page.locator(".save summary").click()
    with page.expect_download() as download:
        page.locator(".save").get_by_role("button", name=f"{side}, {what}").click()
    picture = Image.open(download.value.path())
    return np.asarray(picture if picture.mode == "P" else picture.convert("RGB"))
