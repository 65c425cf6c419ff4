"""A card says what its bundle records, and keeps what a person wrote."""

import dataclasses

import pytest
from bundles import PNG, front_matter, make_bundle, save_bundle
from huggingface_hub.repocard_data import model_index_to_eval_results

from training.card import BEGIN, END, model_card, write_card
from unet import ARCHITECTURES, UNet
from unet.hub import HubError

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, see conftest.py


def test_card_says_what_the_bundle_records():
    text = model_card(make_bundle(), repo_id="ann/unet-residual-add-streets")
    for expected in (
        'Segmenter.load("ann/unet-residual-add-streets", revision="main")',
        "| road | 0.500 | 0.550 |",
        "| tree | – | – |",
        "| **mean** | **0.512** | **0.600** |",
        "101 pictures",
        "Pixel accuracy 0.900",
        "python train.py --task streets",
        "- Seed: 1000",
        "- Steps: 30,000",
        "- Weights kept: those of step 28,000, the best on val",
        "- Time: 1 h 7 min",
        "- Versions: torch 2.11.0",
        "Research use.",
        "<https://example.org/camvid>",
        "about 10,000 pixels",
        "The widths are 4, 8 and 16 here; residual-add usually has 32, 64 and 128.",
        "Not the network of this paper",
        "ronneberger2015unet",
    ):
        assert expected in text


def test_card_of_the_paper_network_has_the_sizes_of_its_figure_1():
    bundle = make_bundle()
    bundle.net = UNet(dataclasses.replace(ARCHITECTURES["crop-concat"], num_outputs=3))
    bundle.architecture = "crop-concat"
    text = model_card(bundle)
    for expected in (
        "0       64 x 568x568   --- crop to 392x392, concatenate -->  64 x 388x388",
        "512 x 64x64    --- crop to 56x56, concatenate -->    512 x 52x52",
        "1024 x 28x28",
        "31,031,875 parameters",
        "The network of this paper, parameter for parameter",
    ):
        assert expected in text
    assert "usually has" not in text


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_card_metadata(architecture):
    front = front_matter(model_card(make_bundle(architecture)))
    assert front["library_name"] == "unet"
    assert front["pipeline_tag"] == "image-segmentation"
    assert front["license"] == "cc-by-nc-4.0"
    assert "license_name" not in front
    assert "datasets" not in front
    assert architecture in front["tags"]
    assert "streets" in front["tags"]
    name, results = model_index_to_eval_results(front["model-index"])
    assert name == f"unet-{architecture}-streets"
    assert {r.metric_type: r.metric_value for r in results} == {"mean_iou": 0.5124, "f1": 0.6, "accuracy": 0.9}
    assert {(r.dataset_name, r.dataset_split) for r in results} == {("CamVid", "val")}
    assert front["metrics"] == ["mean_iou", "f1", "accuracy"]


def test_licence_of_the_data_is_the_licence_of_the_card():
    data = {"name": "Hands", "license": "other", "license_name": "Research only", "url": "https://example.org/terms"}
    other = model_card(make_bundle(data=data))
    front = front_matter(other)
    assert (front["license"], front["license_name"]) == ("other", "research-only")
    assert front["license_link"] == "https://example.org/terms"
    free = front_matter(model_card(make_bundle(data={"license": "cc0-1.0"}), existing=other))
    assert free["license"] == "cc0-1.0"
    assert not {"license_name", "license_link"} & set(free)


def test_what_is_not_recorded_is_left_out():
    text = model_card(make_bundle(data={}, training={}, scores={"val": {"miou": float("nan"), "iou": None}}))
    front = front_matter(text)
    assert set(front) == {"library_name", "pipeline_tag", "tags"}
    assert "None" not in text
    assert "nan" not in text
    assert "## How it was trained" not in text
    assert "## What it was trained on" not in text


def test_pictures_are_shown_where_they_are(tmp_path):
    bundle = make_bundle()
    folder = bundle.save(tmp_path)
    assert "![" not in write_card(bundle, folder).read_text()
    (folder / "confusion.png").write_bytes(PNG)
    text = write_card(bundle, folder).read_text()
    assert "](confusion.png)" in text
    assert "curves.png" not in text


def test_writing_a_card_again_changes_nothing(tmp_path):
    bundle = make_bundle()
    folder = bundle.save(tmp_path)
    first = write_card(bundle, folder).read_text()
    assert write_card(bundle, folder).read_text() == first
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_what_a_person_wrote_into_a_card_stays(tmp_path):
    folder, bundle = save_bundle(tmp_path), make_bundle()
    card = folder / "README.md"
    text = card.read_text().replace("library_name: unet\n", "library_name: unet\nlanguage: en\nco2: {emissions: 3}\n")
    text = text.replace("tags:\n", "tags:\n- driving\n").replace("0.512", "0.999")
    text = text.replace(BEGIN, f"Hello *before*.\n\n{BEGIN}").replace(END, f"{END}\n\n## Thanks\n\nTo all.")
    card.write_bytes(text.replace("\n", "\r\n").encode())
    after = write_card(bundle, folder).read_text()
    assert "Hello *before*.\n\n" + BEGIN in after
    assert after.rstrip().endswith(END + "\n\n## Thanks\n\nTo all.")
    assert "0.999" not in after
    assert "**0.512**" in after
    front = front_matter(after)
    assert front["language"] == "en"
    assert front["co2"] == {"emissions": 3}
    assert front["tags"][0] == "driving"
    assert "u-net" in front["tags"]


def test_a_card_without_our_part_gets_it_at_the_end():
    text = model_card(make_bundle(), existing="# Mine\n\nWords.\n")
    assert text.index("Words.") < text.index(BEGIN)
    assert model_card(make_bundle(), existing=text) == text


@pytest.mark.parametrize("text", [BEGIN, f"{END} {BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_card_with_broken_markers_is_not_touched(text, tmp_path):
    bundle = make_bundle()
    folder = bundle.save(tmp_path)
    (folder / "README.md").write_text(text)
    with pytest.raises(HubError, match=r"once"):
        write_card(bundle, folder)
    assert (folder / "README.md").read_text() == text


@pytest.mark.parametrize("front", ["a: [", "- a\n- b", "just text"])
def test_a_card_with_a_broken_front_matter_is_refused(front):
    with pytest.raises(HubError, match=r"front matter.*not valid"):
        model_card(make_bundle(), existing=f"---\n{front}\n---\n")


def test_strange_names_cannot_break_the_card():
    bundle = make_bundle(data={"name": f"a|b\n\n# c {END} <script>"}, scores={"val": {"iou": {"x|y\nz": 0.5}}})
    bundle.class_names = ("x|y\nz", END, "c")
    text = model_card(bundle)
    assert text.count(END) == 1
    assert "<script>" not in text
    assert "\n# c" not in text
    assert "| x\\|y z | 0.500 | – |" in text
