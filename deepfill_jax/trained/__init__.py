"""The bundled models by name; each is a model file with a model card."""

from pathlib import Path

FOLDER = Path(__file__).parent
SUFFIX = ".safetensors"  # Suffix of all model files.
# What each model is for. The first one is the default of commands, web UI and HTTP API.
PURPOSES = {
    "scenes": "photographs",
    "faces": "portraits",
    "guided": "portraits, with a sketch",
}
DEFAULT = next(iter(PURPOSES))


def names() -> list[str]:
    """Returns the names of the bundled models: those of `PURPOSES` in their order, then others."""
    found = {path.stem for path in FOLDER.glob(f"*{SUFFIX}")}
    return [name for name in PURPOSES if name in found] + sorted(found - set(PURPOSES))


def find(name_or_path: str | Path) -> Path:
    """Returns the file of a bundled model; any other argument is returned as a path.

    A name takes precedence over a file or folder of the same name, which is written "./NAME".
    """
    name = str(name_or_path)
    return FOLDER / f"{name}{SUFFIX}" if name in names() else Path(name_or_path)
