"""The models that come with the package, each a model file and its model card, by name."""

from pathlib import Path

FOLDER = Path(__file__).parent
SUFFIX = ".safetensors"  # Of every model file.
# What each model is for. The first one is the default of commands, web UI and HTTP API.
PURPOSES = {
    "scenes": "photographs",
    "faces": "portraits",
    "guided": "portraits, with a sketch",
}
DEFAULT = next(iter(PURPOSES))


def names() -> list[str]:
    """Names of the models: those with a purpose in their order, then others, sorted."""
    found = {path.stem for path in FOLDER.glob(f"*{SUFFIX}")}
    return [name for name in PURPOSES if name in found] + sorted(found - set(PURPOSES))


def find(name_or_path: str | Path) -> Path:
    """The file of a model that comes with the package, or the path as it is.

    A name goes before a file or folder of the same name, which is then "./NAME".
    """
    name = str(name_or_path)
    return FOLDER / f"{name}{SUFFIX}" if name in names() else Path(name_or_path)
