"""The pages of the documentation, and the code in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = {"scores.md", "ablations.md", "api.md"}  # By programs, in a form of their own.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in GENERATED),
]
LINKING = [
    *PAGES,
    *(ROOT / "docs" / name for name in ("scores.md", "ablations.md")),
    *sorted((ROOT / "deepfill_jax" / "trained").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(path):
    return str(path.relative_to(ROOT))


def blocks(path, language):
    return [body for found, body in FENCE.findall(path.read_text()) if found == language]


def outside_code(path):
    return FENCE.sub("", path.read_text())


def inline_code(path):
    return re.findall(r"`([^`\n]+)`", outside_code(path))
