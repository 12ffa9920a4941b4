"""The peer process of ONNX Runtime, which runs the file that `deepfill export` writes."""

import numpy as np
import onnxruntime
from peers import protocol


def make_calls(case, path, pictures):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = protocol.cores()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    image, mask = (x.astype(np.float32) for x in next(pictures))
    inputs = {"image": image / 127.5 - 1, "mask": mask}

    def call():
        return {"completed": session.run(["completed"], inputs)[0]}

    return {"forward": call}


if __name__ == "__main__":
    versions = f"onnxruntime {onnxruntime.__version__}"
    protocol.serve(make_calls, {"versions": versions, "threads": protocol.cores()})
