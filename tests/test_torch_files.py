"""PyTorch files are read without PyTorch, exactly, and without running code from them."""

import contextlib
import io
import os
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch_files
from torch_files import FORMATS, legacy, program, seeded, zipped

from deepfill_jax.convert import sources, torch_file, torch_pickle, torch_writer
from deepfill_jax.errors import UsageError

PROTO, STOP = pickle.PROTO + b"\x02", pickle.STOP
WEIGHTS = {"a": seeded((3, 4)), "b": seeded((2,), seed=1), "empty": np.zeros((0, 3), np.float32)}


@pytest.mark.parametrize("format", FORMATS)
def test_state_dict_is_read_in_both_formats(tmp_path, format):
    path = torch_files.save(tmp_path / "x.pth", {"iter": 7, "state": WEIGHTS}, format=format)
    content = torch_file.load(path)
    assert content["iter"] == 7
    read = torch_file.tensors(content["state"])
    assert list(read) == list(WEIGHTS)
    for name, x in WEIGHTS.items():
        np.testing.assert_array_equal(read[name], x, strict=True)


def test_storages_of_big_endian_systems_are_swapped(tmp_path):
    pickled, arrays = program(WEIGHTS)
    path = tmp_path / "x.pth"
    path.write_bytes(zipped(pickled, [x.astype(">f4") for x in arrays], order="big"))
    for name, x in torch_file.tensors(torch_file.load(path)).items():
        np.testing.assert_array_equal(x, WEIGHTS[name], strict=True)


def various_tensors(torch, *, untyped):
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    kinds = "float64 float16 bfloat16 complex64 complex128 int64 int32 int16 int8 uint8 bool"
    kinds += " uint16 uint32 uint64 float8_e4m3fn float8_e5m2" * untyped
    return {
        **{kind: (100 * base).abs().to(getattr(torch, kind)) for kind in kinds.split()},
        "float32": base,
        "shared": base,
        "view": base[1:4, ::2],
        "transposed": base.T,
        "permuted": base.reshape(2, 3, 8).permute(2, 0, 1),
        "expanded": torch.arange(3.0)[:, None].expand(3, 5),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(5.0),
        "parameter": torch.nn.Parameter(base),
        "swapped": base.bfloat16().T,
    }


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_equal_those_that_torch_reads(tmp_path, zipped, protocol):
    torch = pytest.importorskip("torch")
    state = OrderedDict(various_tensors(torch, untyped=zipped))  # torch itself fails on others.
    state._metadata = {"": {"version": 1}}
    meta = {"iter": 3, "lr": [0.1, None], "size": torch.Size((2, 3)), "loss": np.float32(2)}
    path = tmp_path / "x.pth"
    content = {"state_dict": state, "meta": meta}
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    theirs = torch.load(path, weights_only=False)["state_dict"]
    ours = torch_file.load(path)
    assert ours["meta"]["iter"] == 3 and ours["meta"]["lr"] == [0.1, None]
    assert ours["meta"]["size"] == (2, 3)
    arrays = torch_file.tensors(ours["state_dict"])
    assert arrays.keys() == theirs.keys()
    for name, x in arrays.items():
        expected = theirs[name].detach().contiguous()
        assert f"torch.{x.dtype}" == f"{expected.dtype}" and x.shape == expected.shape, name
        stored = expected.reshape(-1).view(torch.uint8).numpy()
        np.testing.assert_array_equal(x.reshape(-1).view(np.uint8), stored, err_msg=name)


@pytest.mark.torch
def test_torch_reads_written_files(tmp_path):
    torch = pytest.importorskip("torch")
    content = {"meta": {"iter": 3, "license": "CC0"}, "state_dict": {**WEIGHTS, "n": np.arange(3)}}
    content["state_dict"]["transposed"] = seeded((3, 4)).T
    torch_writer.save(tmp_path / "x.pth", content)
    for options in ({}, {"mmap": True}):
        read = torch.load(tmp_path / "x.pth", weights_only=True, **options)
        assert read["meta"] == content["meta"]
        for name, x in content["state_dict"].items():
            np.testing.assert_array_equal(read["state_dict"][name].numpy(), x, strict=True)


def call(module, name, *arguments):
    """Returns instructions that call a function."""
    made = b"".join(torch_writer._make_plain(x) for x in arguments)
    function = pickle.GLOBAL + f"{module}\n{name}\n".encode()
    return function + pickle.MARK + made + pickle.TUPLE + pickle.REDUCE


def storage(*, kind="storage", type="FloatStorage", key="0", count=4, view=b""):
    parts = [torch_writer._make_plain(x) for x in (kind, key, "cpu", count)]
    parts.insert(1, f"ctorch\n{type}\n".encode())
    return torch_writer._make_tuple(*parts, *([view] if view else [])) + pickle.BINPERSID


def tensor(*, offset=0, shape=(4,), strides=(1,), stored=None, more=()):
    arguments = (offset, shape, strides, False, None, *more)
    made = map(torch_writer._make_plain, arguments)
    function = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return function + torch_writer._make_tuple(stored or storage(), *made) + pickle.REDUCE


def text(value):
    return torch_writer._make_plain(value)


LARGE = text((0,) * 100_000)
# Malicious pickles, and what the message says. HARM is replaced by the path of a folder to create.
MALICIOUS = {
    "function": (call("os", "mkdir", "HARM"), "os.mkdir"),
    "function of posix": (call("posix", "mkdir", "HARM"), "posix.mkdir"),
    "eval": (call("builtins", "eval", "__import__('os').mkdir('HARM')"), "builtins.eval"),
    "exec of Python 2": (call("__builtin__", "execfile", "HARM"), "__builtin__.execfile"),
    "import": (call("importlib", "import_module", "os"), "importlib.import_module"),
    "torch.load": (call("torch", "load", "HARM"), "torch.load"),
    "torch.hub": (call("torch.hub", "load", "owner/name", "HARM"), "torch.hub.load"),
    "pickle": (call("pickle", "loads", b"\x80\x02cos\nmkdir\nX\4\0\0\0HARM\x85R."), "pickle.loads"),
    "numpy": (call("numpy", "load", "HARM"), "numpy.load"),
    "numpy in numpy": (call("numpy.core.multiarray", "fromfile", "HARM"), "multiarray.fromfile"),
    "own package": (call("deepfill_jax.errors", "report", 1), "deepfill_jax.errors.report"),
    "by strings": (text("os") + text("mkdir") + b"\x93" + text(("HARM",)) + b"R", "os.mkdir"),
    "by attributes": (
        text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93",
        "__globals__",
    ),
    "class": (b"csubprocess\nPopen\n" + text((["mkdir", "HARM"],)) + b"\x81", "subprocess.Popen"),
    "old class": (b"(X\4\0\0\0HARMios\nmkdir\n", "instruction INST"),
    "old object": (b"(cos\nmkdir\nX\4\0\0\0HARMo", "os.mkdir"),
    "extension": (b"\x82\x01", "no extension code|instruction EXT1"),
    "result of getattr": (call("builtins", "getattr", "x", "y") + b")R", "damaged"),
    "attributes of a function": (
        b"ctorch._utils\n_rebuild_tensor_v2\n" + text({"__defaults__": (1,)}) + b"b",
        "attributes are set",
    ),
    "attributes of a tensor": (tensor() + text({"storage": 1}) + b"b", "attributes are set"),
    "memo": (text(1) + b"r\xff\xff\xff\xff", "none of the"),
    "long bytes": (b"\x8e" + (2**40).to_bytes(8, "little") + b"abc", "expected .* bytes"),
    "endless bytes": (b"\x8e" + b"\xff" * 8 + b"abc", "damaged"),
    "long text": (b"X" + b"\xff" * 4 + b"abc", "expected .* bytes"),
    "long integer": (b"\x8b" + (2**31 - 1).to_bytes(4, "little") + b"abc", "damaged"),
    "copies": (LARGE + b"q\0" + b"h\0ctorch\nSize\nh\0\x85R" * 2_000, "none of the"),
    "copies of dicts": (
        text(dict.fromkeys(range(50_000))) + b"q\0" + b"ccollections\nCounter\nh\0\x85R" * 2_000,
        "none of the",
    ),
    "nested keys": (b"}" + b")" + b"q\0h\0\x86" * 60 + b"K\1s", "neither text"),
    "instruction of no pickler": (b")2", "instruction DUP"),
    "nesting": (b"]" * 50_000 + b"a" * 49_999, "none of the"),
    "nesting without end": (b"]q\0h\0a", "none of the"),
    "expanded": (tensor(shape=(10**12,), strides=(0,)), "repeats few elements"),
    "many dimensions": (tensor(shape=(1,) * 99, strides=(1,) * 99), "no valid storage, shape"),
    "overflow": (tensor(shape=(2**61, 2**61), strides=(0, 0)), "repeats few elements"),
    "too large": (tensor(shape=(5,)), "exceeds its storage"),
    "offset": (tensor(offset=1), "exceeds its storage"),
    "negative offset": (tensor(offset=-1), "no valid storage"),
    "negative stride": (tensor(offset=3, strides=(-1,)), "no valid storage"),
    "shape of text": (tensor(shape="abcd"), "no valid storage"),
    "float sizes": (tensor(shape=(4.0,)), "no valid storage"),
    "two lengths": (tensor(strides=(1, 1)), "differ in length"),
    "tensor of text": (tensor(stored=text("data")), "damaged"),
    "missing arguments": (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "missing"),
    "conjugate": (tensor(more=({"conj": True},)), "conjugate"),
    "sparse": (call("torch._utils", "_rebuild_sparse_tensor", 1), "_rebuild_sparse_tensor"),
    "huge storage": (tensor(stored=storage(count=2**40)), "storage 0|1 elements"),
    "negative storage": (storage(count=-1), "not to a whole storage"),
    "view of a storage": (storage(view=text(("1", 0, 2))), "not to a whole storage"),
    "storage of two types": (storage() + b"0" + storage(type="IntStorage"), "two types or sizes"),
    "quantized": (storage(type="QInt8Storage"), "torch.QInt8Storage"),
    "module": (storage(kind="module"), "not to a whole storage"),
    "key outside": (tensor(stored=storage(key="../../etc/passwd")), "damaged|list of storages"),
    "underflow": (b"\x87", "lacks operands"),
    "no mark": (b"u", "damaged"),
    "no end": (b"N" * 10, "exhausted before"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", MALICIOUS)
def test_malicious_pickles_neither_run_code_nor_take_memory(tmp_path, name, format, monkeypatch):
    instructions, message = MALICIOUS[name]
    harm = tmp_path / "harm"
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    instructions = instructions.replace(b"HARM", b"harm")
    pickled = PROTO + instructions + (b"" if name == "no end" else STOP)
    uses_storage = b"FloatStorage" in instructions
    path.write_bytes(FORMATS[format](pickled, [seeded((4,))] if uses_storage else ()))
    with limited_memory(64), pytest.raises(UsageError, match=message):
        sources.read(path)
    assert not harm.exists()


@contextlib.contextmanager
def limited_memory(megabytes):
    """Fails if the context allocates more at its peak."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()


def test_attack_of_the_test_works_where_pickle_runs_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(PROTO + call("os", "mkdir", "harm") + STOP)
    assert (tmp_path / "harm").is_dir()


def test_long_pickles_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_pickle, "MAX_INSTRUCTIONS", 1000)
    path = tmp_path / "x.pth"
    path.write_bytes(legacy(PROTO + b"]" * 1000 + STOP))
    with pytest.raises(UsageError, match="more than 1,000 instructions"):
        torch_file.load(path)


def rezipped(edit):
    """Returns a zip file whose records were changed by a function of their dict."""
    records = {"archive/data.pkl": program(WEIGHTS)[0]}
    records |= {f"archive/data/{n}": x.tobytes() for n, x in enumerate(program(WEIGHTS)[1])}
    edit(records)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return stream.getvalue()


def overlapping():
    """Returns a zip file with many records that are one and the same part of the file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", program(WEIGHTS)[0])
        archive.writestr("archive/data/0", bytes(1_000_000))
        info = archive.getinfo("archive/data/0")
        archive.filelist += [info] * 1000
    return stream.getvalue()


PICKLED, ARRAYS = program(WEIGHTS)
WHOLE = {"legacy": legacy(PICKLED, ARRAYS), "zip": zipped(PICKLED, ARRAYS)}
DAMAGED = {
    "empty": (b"", "empty"),
    "text": (b"<!DOCTYPE html><title>404</title>", "opcode b'<' unknown"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a pickle is damaged"),
    "tar of 2016": (b"storages" + bytes(92) + b"0000644\0" + bytes(1000), "lacks operands"),
    "another number": (legacy(PICKLED, ARRAYS, magic=5), "magic number"),
    "another version": (legacy(PICKLED, ARRAYS, version=1002), "unknown version 1002"),
    "fewer keys": (legacy(PICKLED, ARRAYS, keys=["0", "1"]), "list of storages"),
    "other keys": (legacy(PICKLED, ARRAYS, keys=["0", "1", "9"]), "list of storages"),
    "keys of another type": (legacy(PICKLED, ARRAYS, keys=[0, {}, None]), "not supported"),
    "another count": (legacy(PICKLED, [ARRAYS[1], *ARRAYS[1:]]), "storage 0 has 2 elements"),
    "no storages": (legacy(PICKLED, ARRAYS)[: -sum(x.nbytes for x in ARRAYS) - 24], "0 elements"),
    "half a storage": (legacy(PICKLED, ARRAYS[:2])[:-3], "list of storages|bytes, not"),
    "pickle alone": (PICKLED, "not to a whole storage|magic number"),
    "compressed": (zipped(PICKLED, ARRAYS, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "bomb": (
        zipped(PICKLED, [np.zeros(10**6)], compression=zipfile.ZIP_DEFLATED),
        "is compressed",
    ),
    "overlap": (overlapping(), "records of the archive overlap"),
    "byte order": (zipped(PICKLED, ARRAYS, order="middle"), "byte order is middle"),
    "no pickle": (rezipped(lambda x: x.pop("archive/data.pkl")), "data.pkl"),
    "no record": (rezipped(lambda x: x.pop("archive/data/1")), "data/1"),
    "short record": (
        rezipped(lambda x: x.update({"archive/data/1": b"1234"})),
        "storage 1 has 4 bytes, not 8",
    ),
    "checksum": (WHOLE["zip"].replace(ARRAYS[0].tobytes(), bytes(48)), "Bad CRC-32"),
    "encrypted": (
        WHOLE["zip"].replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"),
        "encr",
    ),
    "zip without end": (WHOLE["zip"][:-30], "not a zip file"),
    "zip of another kind": (rezipped(lambda x: x.clear() or x.update(a=b"b")), "data.pkl"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused(tmp_path, name):
    content, message = DAMAGED[name]
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    whole_message = rf"x.pth cannot be read as a PyTorch weights file \(.*({message}).*$"
    with limited_memory(64), pytest.raises(UsageError, match=whole_message):
        sources.read(path)


@pytest.mark.parametrize("format", FORMATS)
def test_random_damage_is_refused_or_harmless(tmp_path, format):
    whole, rng = WHOLE[format], np.random.default_rng(0)
    path = tmp_path / "x.pth"
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.3 else whole)
        for position in rng.integers(0, len(damaged), rng.integers(1, 6)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        with limited_memory(16):
            try:
                torch_file.tensors(torch_file.load(path))
            except UsageError:
                refused += 1
    assert refused > 100


def test_code_is_refused_in_other_files_with_a_pickle(tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(pickle.dumps(os.getcwd))
    with pytest.raises(UsageError, match="contains posix.getcwd, which would run code"):
        torch_file.load(path)
