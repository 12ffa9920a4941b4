"""PyTorch's files, read without running code that they hold."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import ml_dtypes
import numpy as np

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.convert.layout import Moments
from deepfill_jax.errors import UsageError


class _Log:
    """Stands in for mmengine's HistoryBuffer, the losses of a training; nobody looks at it."""


def _nothing(*_: Any) -> None:
    """Stands in for `getattr`, by which a HistoryBuffer names its own methods."""


def load(path: Path) -> Any:
    """Reads a file; needs torch.

    Raises:
        UsageError: torch is not installed, there is no such file, or it is broken or would run
            code.
    """
    torch = _torch(path)
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Broken files raise many kinds, KeyError and IndexError among them.
        # The context, if there is one, is the finding; the error is advice to run the code.
        reason = (str(error.__context__ or error) or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"{path} cannot be read as a PyTorch weights file ({reason}); it is broken, or would "
            "run code when loaded, which is refused: save the bare state_dict instead."
        ) from error


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file, numpy's arrays as tensors; needs torch.

    Raises:
        UsageError: torch is not installed, or the file cannot be written.
    """
    torch = _torch(path)
    as_tensors = jax.tree.map(
        lambda x: torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x, content
    )
    with atomic_write(path) as unfinished:
        torch.save(as_tensors, unfinished)


def _torch(path: Path) -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"{path} needs PyTorch to be read or written: pip install 'deepfill_jax[convert]'."
        ) from error
    return torch


def _harmless() -> list[Any]:
    """What trainings by mmengine hold beyond torch's own list: numpy's arrays and scalars, logs.

    Neither numpy's part nor the stand-ins do more than hold values.
    """
    core = np._core.multiarray
    dtypes = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type)]
    named = [
        (getattr(core, name), f"{module}.{name}")
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("_reconstruct", "scalar")
    ]
    return [
        *named,
        np.ndarray,
        np.dtype,
        *dtypes,
        (_Log, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_nothing, "builtins.getattr"),
    ]


def tensors(state_dict: Any) -> dict[str, np.ndarray]:
    """The tensors of a state dict, in its order; of anything else, none."""
    import torch

    named = state_dict.items() if isinstance(state_dict, Mapping) else ()
    return {str(name): _array(x) for name, x in named if torch.is_tensor(x)}


def _array(x: Any) -> np.ndarray:
    import torch

    x = x.detach().contiguous()
    if x.dtype == torch.bfloat16:  # Which numpy does not have.
        return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def adam(optimizer: Any, names: list[str]) -> Moments | None:
    """The moments in the state dict of a torch.optim.Adam, or None if it is none.

    Args:
        optimizer: Its state dict.
        names: Of the parameters, in the order of `Module.parameters()`, which is that of the
            module's state dict without its buffers.
    """
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        (group,) = optimizer["param_groups"]
        states = [optimizer["state"][index] for index in group["params"]]
        named = dict(zip(names, states, strict=True))
        first, second = (
            tensors({name: state[moment] for name, state in named.items()})
            for moment in ("exp_avg", "exp_avg_sq")
        )
        return Moments(int(states[0]["step"]), first, second)
    return None
