"""Export to ONNX with free batch size, height and width.

The graph is built operator by operator from the tables of `models/generator.py`, because converters
of JAX functions do not support a free height and width. It therefore repeats the definition of the
networks in `models/`; the export command compares each file with `models/` and rejects differences.

Feature maps are [B, C, H, W], as usual in ONNX. Other letters are as in `models/attention.py`.
Nodes have the names of the modules and tensors in `models/`, such as `coarse/encode1/Conv`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import numpy as np

import deepfill_jax
from deepfill_jax import weights
from deepfill_jax.errors import UsageError
from deepfill_jax.export import description, require, smallest_side
from deepfill_jax.export.onnx_graph import Graph
from deepfill_jax.models import Variant
from deepfill_jax.models.attention import EXCLUDED_LOGIT, NORM_FLOOR, SOFTMAX_SCALE
from deepfill_jax.models.generator import (
    ATTENTION_ENCODER,
    COARSE_ENCODER,
    CONV_ENCODER,
    DECODER,
    DILATIONS,
    MULTIPLE,
)
from deepfill_jax.models.layers import Activation
from deepfill_jax.tensors import flatten

OPSETS = range(13, 22)  # ONNX opsets in which the operators used here have the same meaning.
DTYPES = ("float32", "float16")
TOLERANCE = 1e-3
HALF_TOLERANCE = 0.05  # With float16, whose rounding can change what the attention copies.

_ACTIVATIONS: dict[Activation, str] = {nn.elu: "Elu", nn.relu: "Relu"}
_FLOAT, _INT64, _FLOAT16 = 1, 7, 10  # Data types in onnx.TensorProto.
_TO_THE_END = np.iinfo(np.int64).max


def save(
    path: str | Path,
    model: weights.Model,
    *,
    opset: int = 17,
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Writes a model's generator, weights included, as the function described in `export`.

    The file's metadata has the keys "deepfill_jax", a JSON object with the model's architecture and
    metadata, and "model_license", if the license is known.

    Args:
        path: The file to write.
        model: The model whose generator is exported.
        opset: ONNX opset, of `OPSETS`; a lower one runs in older programs.
        dtype: Type of the convolutions: their weights, the feature maps between them and the
            activations. The inputs, the output, the contextual attention (norms, softmax and sums
            of patches), the last activation of each stage and the compositing are float32 in any
            case.

    Raises:
        UsageError: The extra `export` is not installed, the opset is not supported, or a weight is
            too large for float16.
    """
    onnx = require("onnx")
    if opset not in OPSETS:
        raise UsageError(f"Opset {opset} is not supported; choose {OPSETS[0]} to {OPSETS[-1]}.")
    network = _Network(model.variant, flatten(model.generator), np.dtype(dtype))
    network.complete(*_inputs(model.variant))
    graph = network.graph
    graph.rename_output("completed")

    def image_info(name: str, channels: int) -> Any:
        shape = ["batch", "height", "width", channels]
        return onnx.helper.make_tensor_value_info(name, _FLOAT, shape)

    opsets = [onnx.helper.make_opsetid("", opset)]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.node_protos(onnx),
            "deepfill",
            [image_info(name, channels) for name, channels in _inputs(model.variant).items()],
            [image_info("completed", 3)],
            [onnx.numpy_helper.from_array(x, name) for name, x in graph.constants.items()],
        ),
        opset_imports=opsets,
        ir_version=onnx.helper.find_min_ir_version_for(opsets),
        producer_name=deepfill_jax.__name__,
        producer_version=deepfill_jax.__version__,
        doc_string="image: RGB in [-1, 1]. mask: above 0.5 is the hole. Sides: multiples of "
        f"{MULTIPLE}, {smallest_side(model.variant)} or more."
        + " sketch: above 0.5 is a line."
        * model.variant.guided,
    )
    metadata = {weights.METADATA_KEY: description(model)}
    if license := model.metadata.get("license"):
        metadata["model_license"] = str(license)
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    Path(path).write_bytes(proto.SerializeToString())


def load(path: str | Path) -> Callable[..., np.ndarray]:
    """Loads a file written by `save` into onnxruntime, on the CPU.

    Returns:
        Function of image, mask and, if guided, sketch.

    Raises:
        UsageError: The extra `export` is not installed, or onnxruntime cannot load the file.
    """
    onnxruntime = require("onnxruntime")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's many error classes have no other common base.
        raise UsageError(f"{path} cannot be loaded by onnxruntime: {error}.") from error
    names = [x.name for x in session.get_inputs()]
    return lambda *arrays: session.run(["completed"], dict(zip(names, arrays, strict=True)))[0]


def _inputs(variant: Variant) -> dict[str, int]:
    """Returns the names of the graph's inputs and their numbers of channels."""
    return {"image": 3, "mask": 1} | ({"sketch": 1} if variant.guided else {})


class _Network:
    """Builds the graph of `models.Generator`; methods correspond to functions and modules there."""

    def __init__(self, variant: Variant, tensors: Mapping[str, np.ndarray], dtype: np.dtype):
        self.graph = Graph()
        self.variant = variant
        self.tensors = tensors
        self.dtype = dtype  # Data type of the convolutions.

    def to_dtype(self, x: str) -> str:
        return x if self.dtype == np.float32 else self.graph.Cast(x, to=_FLOAT16)

    def to_float32(self, x: str) -> str:
        return x if self.dtype == np.float32 else self.graph.Cast(x, to=_FLOAT)

    def complete(self, image: str, mask: str, *sketch: str) -> str:
        """Maps an image [B, H, W, 3], a mask and a sketch [B, H, W, 1] to [B, H, W, 3]."""
        g = self.graph
        image, mask, *lines = (g.Transpose(x, perm=[0, 3, 1, 2]) for x in (image, mask, *sketch))
        hole = g.Greater(mask, 0.5)
        mask = g.Cast(hole, to=_FLOAT)
        lines = [g.Cast(g.And(hole, g.Greater(x, 0.5)), to=_FLOAT) for x in lines]
        masked = g.Where(hole, 0.0, image)
        coarse = self.coarse_net(masked, mask, lines)
        refined = self.refine_net(g.Where(hole, coarse, masked), mask, lines)
        return g.Transpose(g.Where(hole, refined, masked), perm=[0, 2, 3, 1])

    def coarse_net(self, masked: str, mask: str, sketch: Sequence[str]) -> str:
        with self.graph.scope("coarse"):
            x = self.to_dtype(self.with_mask(masked, mask, sketch))
        x = self.encode(x, "coarse", COARSE_ENCODER)
        return self.decode(self.dilate(x, "coarse"), "coarse/decoder")

    def refine_net(self, pasted: str, mask: str, sketch: Sequence[str]) -> str:
        g = self.graph
        with g.scope("refine"):
            x = self.with_mask(pasted, mask, sketch) if self.variant.refine_sees_mask else pasted
            x = self.to_dtype(x)
        branch = "refine/conv_branch"
        convolved = self.dilate(self.encode(x, branch, CONV_ENCODER), branch)
        branch, last = "refine/attention_branch", self.variant.attention_activation
        x = self.encode(x, branch, ATTENTION_ENCODER, last=last)
        with g.scope(f"{branch}/contextual_attention"):
            attended = self.contextual_attention(self.to_float32(x), self.small_mask(mask))
            x = self.to_dtype(attended)
        for name in ("attended1", "attended2"):
            x = self.gated_conv(x, f"{branch}/{name}")
        with g.scope("refine"):
            x = g.Concat(convolved, x, axis=1)
        return self.decode(x, "refine/decoder")

    def with_mask(self, x: str, mask: str, sketch: Sequence[str]) -> str:
        ones = [0, 0, 0, 0, 0, 1, 0, 0]  # Padding that appends one channel.
        x = self.graph.Concat(x, *sketch, axis=1) if sketch else x
        return self.graph.Concat(self.graph.Pad(x, ones, 1.0), mask, axis=1)

    def encode(self, x: str, path: str, table: Sequence, *, last: Activation = nn.elu) -> str:
        for index, (_, stride, _) in enumerate(table, start=1):
            activation = last if index == len(table) else nn.elu
            x = self.gated_conv(x, f"{path}/encode{index}", stride=stride, activation=activation)
        return x

    def dilate(self, x: str, path: str) -> str:
        for dilation in DILATIONS:
            x = self.gated_conv(x, f"{path}/dilate{dilation}", dilation=dilation)
        return x

    def decode(self, x: str, path: str) -> str:
        for index, (upsampled2x, _) in enumerate(DECODER, start=1):
            with self.graph.scope(f"{path}/decode{index}"):
                x = self.upsample2x(x) if upsampled2x else x
            x = self.gated_conv(x, f"{path}/decode{index}")
        to_rgb = self.convolve
        if self.variant.gated_rgb:
            to_rgb = functools.partial(self.gated_conv, activation=None)
        x = to_rgb(x, f"{path}/to_rgb")
        with self.graph.scope(path):
            return self.graph.Tanh(self.to_float32(x))

    def gated_conv(
        self, x: str, path: str, *, activation: Activation | None = nn.elu, **geometry: int
    ) -> str:
        g, features = self.graph, self.tensors[f"{path}/bias"].size // 2
        y = self.convolve(x, path, **geometry)
        with g.scope(path):
            value, gate = g.Split(y, [features, features], axis=1, outputs=2)
            if activation:
                value = getattr(g, _ACTIVATIONS[activation])(value)
            return g.Mul(value, g.Sigmoid(gate))

    def convolve(self, x: str, path: str, *, stride: int = 1, dilation: int = 1) -> str:
        g, kernel = self.graph, self.tensors[f"{path}/kernel"]
        span = dilation * (kernel.shape[0] - 1)
        # This is the total padding of SAME if the sides are multiples of the stride.
        total = span + 1 - stride if self.variant.padding == "SAME" else span
        pads = [total // 2] * 2 + [total - total // 2] * 2
        with g.scope(path):
            if self.variant.padding == "REFLECT":
                x = g.Pad(x, [0, 0, *pads[:2], 0, 0, *pads[2:]], mode="reflect")
                pads = [0] * 4
            return g.Conv(
                x,
                self.weight(f"{path}/kernel", kernel.transpose(3, 2, 0, 1)),
                self.weight(f"{path}/bias", self.tensors[f"{path}/bias"]),
                strides=[stride] * 2,
                dilations=[dilation] * 2,
                pads=pads,
            )

    def weight(self, name: str, value: np.ndarray) -> str:
        limit = np.finfo(self.dtype).max
        if (largest := np.abs(value).max()) > limit:
            raise UsageError(
                f"{name} has values of up to {largest:.3g}, and {self.dtype} holds at most "
                f"{limit:.3g}; export the model in float32."
            )
        return self.graph.constant(value.astype(self.dtype), name)

    def upsample2x(self, x: str) -> str:
        scales = np.array([1, 1, 2, 2], np.float32)
        rule = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.graph.Resize(x, "", scales, mode="nearest", **rule)

    def downsample_nearest(self, x: str, factor: int) -> str:
        g = self.graph
        if self.variant.nearest == "floor":
            return g.Slice(x, [0, 0], [_TO_THE_END] * 2, [2, 3], [factor] * 2)
        for axis in (2, 3):
            size = g.Cast(g.Gather(g.Shape(x), axis), to=_FLOAT)
            shrunk = g.Div(size, float(factor))
            scale = g.Div(g.Sub(size, 1.0), g.Max(g.Sub(shrunk, 1.0), 1.0))
            positions = g.Mul(g.Range(0.0, shrunk, 1.0), scale)
            x = g.Gather(x, g.Cast(g.Floor(g.Add(positions, 0.5)), to=_INT64), axis=axis)
        return x

    def small_mask(self, mask: str) -> str:
        if self.variant.mask_at_once:
            return self.downsample_nearest(mask, 8)
        return self.downsample_nearest(self.downsample_nearest(mask, 4), 2)

    def contextual_attention(self, x: str, small_mask: str) -> str:
        g, variant = self.graph, self.variant
        channels = self.tensors["refine/attention_branch/attended1/kernel"].shape[2]
        small = self.downsample_nearest(x, 2)
        hw = g.Slice(g.Shape(small), [2], [4])
        wh = g.Gather(hw, [1, 0])

        queries = self.patches(small, 3, 1, channels)
        square = g.ReduceSum(g.Mul(queries, queries), [2])
        keys = g.Div(queries, g.Sqrt(g.Max(square, NORM_FLOOR**2)))
        scores = g.MatMul(g.Transpose(queries, perm=[0, 1, 3, 2]), keys)  # [B, 1, Q, K]
        for order in (hw, wh) if variant.fused else ():
            scores = g.Conv(scores, np.eye(3)[np.newaxis, np.newaxis], pads=[1] * 4)
            grid = g.Reshape(scores, g.Concat([0], order, order, axis=0))
            scores = g.Reshape(g.Transpose(grid, perm=[0, 2, 1, 4, 3]), g.Shape(scores))

        touched = g.MaxPool(small_mask, kernel_shape=[3, 3], pads=[1] * 4)
        available = g.Reshape(g.Sub(1.0, touched), [0, 1, 1, -1])
        logits = g.Mul(g.Mul(scores, SOFTMAX_SCALE), available)
        if variant.unavailable == "excluded":
            logits = g.Where(g.Greater(available, 0.0), logits, EXCLUDED_LOGIT)
        attention = g.Mul(g.Softmax(logits, axis=-1), available)

        values = self.patches(x, 4, 2, channels)
        copied = g.MatMul(values, g.Transpose(attention, perm=[0, 1, 3, 2]))  # [B, 1, D, Q]
        copied = g.Reshape(copied, g.Concat([0, 16 * channels], hw, axis=0))
        coverage: float | str = 4.0
        if variant.overlap == "counted":
            coverage = self.paste(g.Expand(1.0, g.Concat([1, 16], hw, axis=0)), 1)
        return g.Div(self.paste(copied, channels), coverage)

    def patches(self, x: str, size: int, stride: int, channels: int) -> str:
        """Cuts patches of [B, C, H, W]: [B, 1, D, positions]."""
        taps = {"group": channels, "strides": [stride] * 2, "pads": [1] * 4}
        cut_out = self.graph.Conv(x, _taps(size, channels), **taps)
        return self.graph.Reshape(cut_out, [0, 1, channels * size**2, -1])

    def paste(self, patches: str, channels: int) -> str:
        """Adds up 4x4 patches [B, 16 * C, h, w] at a stride of 2: [B, C, 2h, 2w]."""
        taps = {"group": channels, "strides": [2, 2], "pads": [1] * 4}
        return self.graph.ConvTranspose(patches, _taps(4, channels), **taps)


def _taps(size: int, channels: int) -> np.ndarray:
    """Returns the kernel that cuts patches; it has one output channel per pixel of a patch."""
    return np.tile(np.eye(size**2).reshape(-1, 1, size, size), (channels, 1, 1, 1))
