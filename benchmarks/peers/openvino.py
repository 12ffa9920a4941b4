"""The peer process of OpenVINO, which runs the file that `deepfill export` writes."""

import numpy as np
import openvino
from peers import protocol


def make_calls(case, path, pictures):
    core = openvino.Core()
    model = core.read_model(path)
    image, mask = (x.astype(np.float32) for x in next(pictures))
    # OpenVINO computes fixed shapes faster than those that are free in the file.
    model.reshape({"image": image.shape, "mask": mask.shape})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": protocol.cores(),
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    inputs = {"image": image / 127.5 - 1, "mask": mask}

    def call():
        return {"completed": request.infer(inputs)["completed"]}

    return {"forward": call}


if __name__ == "__main__":
    about = {"versions": f"openvino {openvino.__version__}", "threads": protocol.cores()}
    protocol.serve(make_calls, about)
