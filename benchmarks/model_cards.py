"""Refreshes what the bundled models' cards say of their files.

    python benchmarks/model_cards.py

Each card, deepfill_jax/trained/NAME.md, gets the checksum of its file, and YAML front matter as the
Hugging Face Hub reads it. Scores are taken from results/quality if they belong to this very file.
"""

import hashlib
import json
import re
from pathlib import Path

import yaml

from deepfill_jax import trained, weights

RESULTS = Path(__file__).parent / "results" / "quality"  # See quality.py, which scores at 256 px.
DATASETS = {"faces": ["celeba"], "guided": ["celeba"], "scenes": ["imagenet-1k", "coco", "bsds500"]}
METRICS = {"l1_hole": "Hole L1, %", "psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS (AlexNet)"}
MASKS = "irregular"  # The kind that the published tables are of.
CHECKSUM = re.compile(r"(?<=SHA-256 )[0-9a-f]{16}")
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n\n?", re.DOTALL)


def checksum(name):
    """The first 16 digits of the SHA-256 of a bundled model's file."""
    return hashlib.sha256(trained.find(name).read_bytes()).hexdigest()[:16]


def results(name):
    """The entry of `model-index` with a model's scores; none if they are of another file."""
    path = RESULTS / f"{name}-{MASKS}-{name}.json"
    kept = json.loads(path.read_text()) if path.is_file() else {"conditions": {"model": None}}
    if kept["conditions"]["model"] != checksum(name):
        return []
    scores = {metric: kept["summary"][metric] for metric in METRICS}
    count = scores["psnr"]["count"]
    return [
        {
            "task": {"type": "image-to-image", "name": "Image inpainting"},
            "dataset": {
                "type": DATASETS[name][0],
                "name": f"{name}: {count} held-out images at 256 px, {MASKS} masks",
            },
            "metrics": [
                {"type": metric, "name": METRICS[metric], "value": round(score["mean"], 4)}
                for metric, score in scores.items()
            ],
        }
    ]


def front_matter(name):
    """What the Hub reads of a card, as a dictionary."""
    model = weights.load(name)
    scored = results(name)
    architecture = f"deepfillv2-{model.variant.name}"
    tags = ["image-inpainting", "inpainting", "deepfillv2", architecture, "jax", "flax"]
    about = {
        "license": "other",
        "license_name": "deepfill-jax-models-research-only",
        "license_link": "LICENSE",
        "library_name": "deepfill_jax",
        "pipeline_tag": "image-to-image",
        "tags": tags + ["sketch-guided"] * model.variant.guided,
        "datasets": DATASETS[name],
    }
    if scored:
        about["metrics"] = list(METRICS)
        about["model-index"] = [{"name": name, "results": scored}]
    return about


def refresh(name, card):
    """A card with the front matter and the checksum of its model's file."""
    text = FRONT_MATTER.sub("", card, count=1)
    dumped = yaml.safe_dump(front_matter(name), sort_keys=False, allow_unicode=True)
    return f"---\n{dumped}---\n\n{CHECKSUM.sub(checksum(name), text, count=1)}"


def main():
    """Rewrites the cards of all bundled models."""
    for name in trained.names():
        path = trained.find(name).with_suffix(".md")
        path.write_text(refresh(name, path.read_text()))
        print(path)


if __name__ == "__main__":
    main()
