"""An ONNX graph that is built operator by operator, with readable names.

A node is named by its scope and operator, such as `coarse/encode1/Conv`; further nodes of the same
operator in a scope are `coarse/encode1/Conv_2` and so on. The outputs of a node are values named
`coarse/encode1/Conv:0`, `:1` and so on.
"""

import collections
import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np


class Node(NamedTuple):
    """A node of the graph, see `onnx.NodeProto`."""

    operator: str
    inputs: list[str]
    outputs: list[str]
    name: str
    attributes: dict[str, Any]


class Graph:
    """Collects nodes: `graph.Conv(x, kernel, pads=...)` adds one and returns its output's name.

    Inputs are names of values; arrays, numbers and lists become constants. Those of float64, and
    floats of Python, become float32.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self._scope = ""
        self._counts: collections.Counter[str] = collections.Counter()

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        def add(*inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
            name = self._unique_name(operator)
            names = [
                x if isinstance(x, str) else self.constant(x, f"{name}/input{index}")
                for index, x in enumerate(inputs)
            ]
            results = [f"{name}:{index}" for index in range(outputs)]
            self.nodes.append(Node(operator, names, results, name, attributes))
            return results[0] if outputs == 1 else results

        return add

    @contextlib.contextmanager
    def scope(self, path: str) -> Iterator[None]:
        """Names the nodes that are added in this context `path/OPERATOR`.

        Args:
            path: The whole scope; it replaces the scope of an outer context.
        """
        outer, self._scope = self._scope, path
        try:
            yield
        finally:
            self._scope = outer

    def constant(self, value: np.typing.ArrayLike, name: str) -> str:
        """Adds a constant and returns its name."""
        value = np.asarray(value)
        self.constants[name] = value.astype(np.float32) if value.dtype == np.float64 else value
        return name

    def rename_output(self, name: str) -> None:
        """Renames the output of the last node, which is the output of the graph."""
        self.nodes[-1].outputs[0] = name

    def node_protos(self, onnx: ModuleType) -> list[Any]:
        """Returns the nodes as `onnx.NodeProto`."""
        return [
            onnx.helper.make_node(
                node.operator, node.inputs, node.outputs, node.name, **node.attributes
            )
            for node in self.nodes
        ]

    def _unique_name(self, operator: str) -> str:
        name = f"{self._scope}/{operator}" if self._scope else operator
        self._counts[name] += 1
        return name if self._counts[name] == 1 else f"{name}_{self._counts[name]}"
