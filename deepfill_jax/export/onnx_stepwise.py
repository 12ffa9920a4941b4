"""Runs an ONNX file node by node, so that each value is rounded to its type.

On CPUs, onnxruntime computes float16 nodes in float32 and omits the rounding between them, so a
whole file runs there as if it were float32. A GPU stores the values in between as float16. Running
each node in a session of its own has the same effect.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deepfill_jax.export import require


def load(path: str | Path) -> Callable[..., np.ndarray]:
    """Loads a file written by `onnx.save`, which keeps its weights inside.

    Returns:
        Function of the file's inputs that returns its output.

    Raises:
        UsageError: The extra `export` is not installed.
    """
    onnx = require("onnx")
    proto = onnx.load(str(path))
    graph = proto.graph
    constants = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}
    session = functools.cache(functools.partial(_session, proto))

    def run(*arrays: np.ndarray) -> np.ndarray:
        values = constants | {x.name: y for x, y in zip(graph.input, arrays, strict=True)}
        for index, node in enumerate(graph.node):
            inputs = {name: values[name] for name in node.input if name}
            types = tuple((x.dtype, x.ndim) for x in inputs.values())
            results = session(index, types).run(list(node.output), inputs)
            values.update(zip(node.output, results, strict=True))
        return values[graph.output[0].name]

    return run


def _session(proto: Any, index: int, types: tuple[tuple[np.dtype, int], ...]) -> Any:
    """Returns an onnxruntime session that runs one node.

    Args:
        proto: The model.
        index: Index of the node.
        types: Type and rank of each of its inputs that is not left out.
    """
    onnx, onnxruntime = require("onnx"), require("onnxruntime")
    node = proto.graph.node[index]
    names = [name for name in dict.fromkeys(node.input) if name]
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(dtype), [None] * rank
        )
        for name, (dtype, rank) in zip(names, types, strict=True)
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = onnx.helper.make_graph([node], "node", inputs, outputs)
    alone = onnx.helper.make_model(
        graph, opset_imports=proto.opset_import, ir_version=proto.ir_version
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # Starting threads would take most of the time.
    return onnxruntime.InferenceSession(
        alone.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
