"""Reader and writer for PyTorch files; reading never runs code from a file."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import ml_dtypes
import numpy as np
from numpy._core import multiarray

from deepfill_jax.atomic_write import atomic_write
from deepfill_jax.convert.layout import Moments
from deepfill_jax.errors import UsageError


class _Log:
    """Replaces mmengine's HistoryBuffer, a log of losses that the conversion does not need."""


def _nothing(*_: Any) -> None:
    """Replaces `getattr`, with which a pickled HistoryBuffer refers to its own methods."""


def load(path: Path) -> Any:
    """Reads a file; needs torch.

    Raises:
        UsageError: torch is not installed, the file does not exist, is damaged, or would run code.
    """
    torch = _torch(path)
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Damaged files raise KeyError, IndexError and many others.
        # If there is a context, it has the actual reason; the error itself advises to run the code.
        reason = (str(error.__context__ or error) or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"{path} cannot be read as a PyTorch weights file ({reason}); it is damaged, or would "
            "run code when loaded, which is refused: save only the state_dict instead."
        ) from error


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file, with numpy arrays converted to tensors; needs torch.

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
    """Returns types and functions in mmengine checkpoints that torch does not allow by default.

    These are numpy's arrays and scalars, and logs. They are safe to allow, because numpy's types
    and the two replacements above only store values.
    """
    dtypes = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type)]
    named = [
        (getattr(multiarray, name), f"{module}.{name}")
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
    """Returns the tensors of a state dict in its order; empty if it is not a state dict."""
    import torch

    named = state_dict.items() if isinstance(state_dict, Mapping) else ()
    return {str(name): _array(x) for name, x in named if torch.is_tensor(x)}


def _array(x: Any) -> np.ndarray:
    import torch

    x = x.detach().contiguous()
    if x.dtype == torch.bfloat16:  # numpy has no bfloat16, so `x.numpy()` would fail.
        return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def adam(optimizer: Any, names: list[str]) -> Moments | None:
    """Reads Adam's moments from the state dict of a torch.optim.Adam.

    Args:
        optimizer: The optimizer's state dict.
        names: Names of the parameters in the order of `Module.parameters()`, which is the order of
            the module's state dict without its buffers.

    Returns:
        The moments, or None if `optimizer` is not the state dict of an Adam optimizer.
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
