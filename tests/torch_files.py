"""Files in both formats of PyTorch, written without PyTorch, from objects or from raw pickles."""

import io
import pickle
import zipfile

import numpy as np

from deepfill_jax.convert import torch_file, torch_writer


def program(content):
    """Returns the pickle of a content with arrays as tensors, and its storages."""
    arrays = []
    made = torch_writer._make(content, arrays)
    return pickle.PROTO + b"\x02" + made + pickle.STOP, arrays


def legacy(pickled, storages=(), *, magic=torch_file.MAGIC_NUMBER, version=1001, keys=None):
    """Returns a file of the format before version 1.6, which the published weights of 2020 have."""
    keys = [f"{n}" for n in range(len(storages))] if keys is None else keys
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    start = b"".join(pickle.dumps(x, 2) for x in (magic, version, system))
    data = (x.size.to_bytes(8, "little") + x.tobytes() for x in storages)
    return start + pickled + pickle.dumps(keys, 2) + b"".join(data)


def zipped(pickled, storages=(), *, compression=zipfile.ZIP_STORED, order="little"):
    """Returns a file of the zip format."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", order)
        for key, x in enumerate(storages):
            archive.writestr(f"archive/data/{key}", x.tobytes())
    return stream.getvalue()


FORMATS = {"legacy": legacy, "zip": zipped}


def save(path, content, *, format="zip"):
    """Writes a content whose arrays become tensors."""
    path.write_bytes(FORMATS[format](*program(content)))
    return path


def seeded(shape, *, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
