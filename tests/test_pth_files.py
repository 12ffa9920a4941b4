"""Files of other projects: logs, other networks, code, damage."""

import hashlib
import os
import pickle
import sys
import types

import numpy as np
import pytest
import torch_files
from mmagic_files import NARROW, narrow, save

from deepfill_jax.app.registry import available
from deepfill_jax.convert import releases, sources
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inpainter import Inpainter


def test_other_projects_files_load_without_conversion(tmp_path):
    path = save(tmp_path / "theirs.pth", narrow())
    assert Inpainter.load(path, working_size=64).working_size == 64
    assert list(available([f"{path}"])) == ["theirs"]


def test_published_file_is_recognised_by_its_digest(tmp_path, monkeypatch):
    path = save(tmp_path / "renamed.pth", narrow())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(releases.MMAGIC, digest, "published")
    assert sources.read(path).model.metadata["release"] == "published"


class HistoryBuffer:
    """Mimics mmengine's class, which contains arrays and references to its own methods."""

    def __init__(self):
        self._log_history, self._count_history = np.ones(3), np.ones(3, int)
        self._statistics_methods = {"mean": HistoryBuffer.mean}

    def mean(self):
        raise AssertionError


def test_mmengine_checkpoint_with_logs_is_converted(tmp_path, monkeypatch):
    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(HistoryBuffer, "__module__", module.__name__)
    hub = {"log_scalars": {"loss": HistoryBuffer()}, "runtime_info": {"lr": np.float32(1e-4)}}
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "mmengine", types.ModuleType("mmengine"))
        patched.setitem(sys.modules, "mmengine.logging", types.ModuleType("mmengine.logging"))
        path = save(tmp_path / "iter.pth", narrow(), message_hub=hub)
    assert b"getattr" in path.read_bytes()
    monkeypatch.delitem(sys.modules, module.__name__)
    assert sources.read(path).model.variant == NARROW


def test_weights_of_another_network_are_refused(tmp_path):
    layers = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "fc.weight", "fc.bias")
    path = save(tmp_path / "resnet.pth", {name: np.zeros((4, 4), np.float32) for name in layers})
    with pytest.raises(UsageError) as error:
        sources.read(path)
    assert str(error.value) == (
        f"{path} holds the weights of another network: none of the 84 expected tensors is among "
        "its 5, such as bn1.weight."
    )


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": [1]}, {"state_dict": {1: 2}}, None])
def test_files_without_tensors_are_refused(tmp_path, content):
    torch_files.save(tmp_path / "odd.pth", content)
    with pytest.raises(UsageError, match="none of the 84 expected tensors is among its 0"):
        sources.read(tmp_path / "odd.pth")


class Attack:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("format", torch_files.FORMATS)
def test_code_in_a_file_is_not_run(tmp_path, format):
    harmed = tmp_path / "harmed"
    pickle.loads(pickle.dumps(Attack(harmed)))
    harmed.rmdir()  # This fails if the attack did not create the folder.
    tensors = {"generator.stage1.encoder.enc1.conv.conv.bias": np.zeros(48, np.float32)}
    path = tmp_path / "attack.pth"
    save(path, tensors, meta=Attack(harmed), format=format)
    with pytest.raises(UsageError, match="would run code when loaded, which is refused") as error:
        sources.read(path)
    assert "mkdir" in str(error.value)  # The message names the function that was not run.
    assert "\n" not in str(error.value)
    assert not harmed.exists()


@pytest.mark.parametrize("format", torch_files.FORMATS)
@pytest.mark.parametrize("kept", [0, 1, 40, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, format, kept):
    tensors = {"generator.stage1.encoder.enc1.conv.conv.bias": np.zeros(48, np.float32)}
    path = save(tmp_path / "cut.pth", tensors, format=format)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(UsageError, match="cut.pth cannot be read as a PyTorch weights file"):
        sources.read(path)


@pytest.mark.parametrize("content", [b"hello\n", b"<!DOCTYPE html>", b"\x89PNG\r\n", b"version"])
def test_files_of_other_formats_are_refused(tmp_path, content):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="other.pth cannot be read as a PyTorch weights file"):
        sources.read(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="There is no file .*absent.pth"):
        sources.read(tmp_path / "absent.pth")
