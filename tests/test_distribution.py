"""What is distributed: metadata, licenses, model files, model cards and the documentation site."""

import configparser
import hashlib
import json
import re
import sys
from pathlib import Path

import made
import pytest
import safetensors
import safetensors.numpy
import yaml
from huggingface_hub import ModelCard

import deepfill_jax
from deepfill_jax import trained, weights
from deepfill_jax.convert import __main__ as convert
from deepfill_jax.convert import parent

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT), str(ROOT / "benchmarks")]
import model_cards  # noqa: E402

import mkdocs_hooks  # noqa: E402

MODEL_LICENSE = "LicenseRef-deepfill-jax-models-research-only"
# SHA-256 of everything behind the header: the tensors of version 0.1.
TENSORS = {"guided": "181c32bc29a2e3a0"}


@pytest.fixture(scope="module")
def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def header_end(content):
    return 8 + int.from_bytes(content[:8], "little")


def entries(path):
    with safetensors.safe_open(path, "numpy") as file:
        return file.metadata()


def save_model(path, **metadata):
    made_model = made.make_model("official")
    weights.save(path, weights.Model(made_model.variant, made_model.generator, metadata=metadata))


# Metadata of the package


def test_version_has_one_home(setup_cfg):
    assert setup_cfg["metadata"]["version"] == "attr: deepfill_jax.__version__"
    version = deepfill_jax.__version__
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version


def test_metadata_names_both_licenses(setup_cfg):
    metadata = setup_cfg["metadata"]
    assert metadata["license_expression"] == f"Apache-2.0 AND {MODEL_LICENSE}"
    files = metadata["license_files"].split()
    assert files == ["LICENSE", "deepfill_jax/trained/LICENSE"]
    text = (ROOT / files[1]).read_text()
    assert MODEL_LICENSE in text
    assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in trained.names())


def test_typing_marker_is_package_data(setup_cfg):
    assert (ROOT / "deepfill_jax" / "py.typed").is_file()
    assert "py.typed" in setup_cfg["options.package_data"]["deepfill_jax"]


def test_one_cuda_version_is_named():
    paths = ["README.md", "setup.cfg", "Dockerfile", "deepfill_jax/doctor/machine.py"]
    paths += [
        p.relative_to(ROOT) for folder in ("docs", "launch") for p in (ROOT / folder).iterdir()
    ]
    found = set()
    for path in paths:
        if (ROOT / path).suffix not in (".jpg", ".png"):
            found |= set(re.findall(r"jax\[(cuda\d+)", (ROOT / path).read_text()))
    assert found == {"cuda13"}


# Model files


def test_model_file_names_its_tensor_layout(tmp_path):
    save_model(tmp_path / "a.safetensors")
    found = entries(tmp_path / "a.safetensors")
    assert found["format"] == "flax" and json.loads(found["deepfill_jax"])["format"] == 1


def test_same_model_is_saved_as_the_same_bytes(tmp_path):
    for name in "abcdefgh":  # safetensors orders two entries at random.
        save_model(tmp_path / name, license="CC0 1.0")
    assert len({(tmp_path / name).read_bytes() for name in "abcdefgh"}) == 1


def test_file_without_format_is_read(tmp_path):
    path = tmp_path / "old.safetensors"
    save_model(path, licence="CC0 1.0")
    description = entries(path)["deepfill_jax"]
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors, path, {"deepfill_jax": description})
    assert "format" not in entries(path)
    assert weights.load(path).metadata == {"license": "CC0 1.0"}


def test_new_metadata_leaves_tensors_alone(tmp_path):
    save_model(tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    description = json.loads(entries(tmp_path / "a.safetensors")["deepfill_jax"])
    after = weights.with_metadata(before, description | {"license": "x" * 13})
    assert after[header_end(after) :] == before[header_end(before) :]
    assert header_end(after) % 8 == 0
    (tmp_path / "b.safetensors").write_bytes(after)
    assert weights.load(tmp_path / "b.safetensors").metadata == {"license": "x" * 13}


@pytest.mark.parametrize("name", trained.names())
def test_bundled_file_has_todays_metadata(name):
    content = trained.find(name).read_bytes()
    found = entries(trained.find(name))
    assert found["format"] == "flax"
    description = json.loads(found["deepfill_jax"])
    assert description["license"].startswith("Research use only") and "licence" not in description
    assert description.get("parent") == (None if name == "faces" else "faces")
    if name in TENSORS:
        tensors = content[header_end(content) :]
        assert hashlib.sha256(tensors).hexdigest()[:16] == TENSORS[name]


# Licenses of derived models


def test_source_is_named_without_its_folders(tmp_path):
    known = {"license": "CC0 1.0"}
    assert parent.describe("faces", known) == {"parent": "faces", "license": "CC0 1.0"}
    assert parent.describe("a/b/mine.safetensors", {}) == {"parent": "mine"}
    assert parent.describe("a/x.pth", {"release": "places"}) == {"parent": "places"}
    (tmp_path / "run").mkdir()
    assert parent.describe(tmp_path / "run", known)["parent"] == "run"
    assert parent.describe(tmp_path / "run", {"parent": "faces"})["parent"] == "faces"


def test_converted_bundled_model_keeps_name_and_license(tmp_path, capsys):
    output = tmp_path / "mine.safetensors"
    convert.main(["faces", "--output", str(output)])
    metadata = weights.load(output).metadata
    license = weights.load("faces").metadata["license"]
    assert (metadata["parent"], metadata["license"]) == ("faces", license)
    assert "replaces it" not in capsys.readouterr().out
    convert.main(["faces", "--output", str(output), "--overwrite", "--license", "CC0 1.0"])
    assert weights.load(output).metadata["license"] == "CC0 1.0"
    assert f"The license of faces was {license!r}" in capsys.readouterr().out


# Model cards


@pytest.mark.parametrize("name", trained.names())
def test_card_is_what_the_command_makes(name):
    card = trained.find(name).with_suffix(".md").read_text()
    assert card == model_cards.refresh(name, card), "Run `python benchmarks/model_cards.py`."


@pytest.mark.parametrize("name", trained.names())
def test_hub_reads_the_card(name):
    card = ModelCard(trained.find(name).with_suffix(".md").read_text())
    assert card.data.license == "other" and card.data.license_link == "LICENSE"
    assert card.data.license_name.join(("LicenseRef-", "")) == MODEL_LICENSE
    assert card.data.pipeline_tag == "image-to-image"
    if scored := model_cards.results(name):
        values = {metric["type"]: metric["value"] for metric in scored[0]["metrics"]}
        assert {x.metric_type: x.metric_value for x in card.data.eval_results} == values


def test_scores_of_another_file_are_left_out(monkeypatch):
    monkeypatch.setattr(model_cards, "checksum", lambda name: "0" * 16)
    assert model_cards.results("faces") == []
    assert "model-index" not in model_cards.front_matter("faces")


# Documentation site


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    pages = [place for place in mkdocs_hooks.sources() if place.endswith(".md")]
    missing = [page for page in pages if not re.search(rf": {re.escape(page)}$", navigation, re.M)]
    assert not missing, f"Add {missing} to the nav of mkdocs.yml."


def test_links_of_the_repository_become_links_of_the_site():
    places = mkdocs_hooks.sources()
    text = (
        "[a](../README.md#models) ![b](faces.jpg) [`c`](../setup.cfg) [d](https://x.org) [e](#f)\n"
        '<img alt="" src="../benchmarks/growth.png">\n```\n[code](../setup.cfg)\n```\n'
    )
    assert mkdocs_hooks.rewrite(text, "recipes.md", places) == (
        "[a](index.md#models) ![b](faces.jpg) `c` [d](https://x.org) [e](#f)\n"
        '<img alt="" src="benchmarks/growth.png">\n```\n[code](../setup.cfg)\n```\n'
    )
    linked = mkdocs_hooks.rewrite("[c](../setup.cfg)", "recipes.md", places, "https://x.org/blob")
    assert linked == "[c](https://x.org/blob/setup.cfg)"
    assert mkdocs_hooks.rewrite("![f](../../docs/faces.jpg)", "models/faces.md", places) == (
        "![f](../faces.jpg)"
    )
    with pytest.raises(FileNotFoundError, match="docs/recipes.md links to docs/nothing.md"):
        mkdocs_hooks.rewrite("[a](nothing.md)", "recipes.md", places)


def test_links_of_all_pages_exist():
    places = mkdocs_hooks.sources()
    for place, source in places.items():
        if place.endswith(".md"):
            mkdocs_hooks.rewrite((ROOT / source).read_text(), place, places)
