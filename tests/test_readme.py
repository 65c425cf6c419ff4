"""The README and the documents beside it are true."""

import json
import re
from pathlib import Path

import measuring
import pytest
import results
import skips
import yaml

from training.datasets import TASKS
from unet import ARCHITECTURES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_space_runs_the_pinned_gradio():
    """A Space takes gradio from the front matter and everything else from requirements.txt."""
    front = yaml.safe_load(README.split("---\n")[1])
    pin = re.search(r"^gradio==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]
    assert front["sdk"] == "gradio"
    assert front["sdk_version"] == pin
    assert (ROOT / front["app_file"]).is_file()
    assert front["python_version"] in ("3.12.12", "3.10.13"), "what ZeroGPU offers"
    assert len(front["short_description"]) <= 60


def test_the_results_are_those_of_the_bundles():
    assert measuring.place("results")[2] == results.results(ROOT / "weights")


def test_the_table_of_skips_is_what_was_measured():
    measured = json.loads(skips.RESULTS.read_text(encoding="utf-8"))
    assert measuring.place("skips")[2] == skips.skips(measured)


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_every_file_that_is_linked_is_there(path):
    links = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    for link in local:
        assert (path.parent / link).exists(), link
    assert local


def test_cards_stand_beside_every_bundle():
    for config in (ROOT / "weights").glob("*/*/config.json"):
        task, architecture = config.parts[-3:-1]
        assert task in TASKS
        assert architecture in ARCHITECTURES
        assert architecture in (config.parent / "README.md").read_text(encoding="utf-8")
