"""The peer process of nipponjo/deepfillv2-pytorch, whose clone must be on the import path."""

import numpy as np
import torch
from model.networks import Generator
from peers import protocol


def make_calls(case, path, pictures):
    width = torch.load(path)["G"]["stage1.conv1.conv.bias"].numel() // 2
    generator = Generator(cnum=2 * width, checkpoint=path)
    image, mask = (
        torch.from_numpy(np.moveaxis(x, 3, 1).astype(np.float32, order="C")) for x in next(pictures)
    )
    masked, ones = (image / 127.5 - 1) * (1 - mask), torch.ones_like(mask)

    def call():
        with torch.inference_mode():
            _, refined = generator(torch.cat([masked, ones, mask], dim=1), mask)
            completed = masked + refined * mask
        images = {"refined": refined, "completed": completed}
        return {name: np.moveaxis(x.numpy(), 1, 3) for name, x in images.items()}

    return {"forward": call}


if __name__ == "__main__":
    torch.set_num_threads(protocol.cores())
    versions = f"torch {torch.__version__}"
    protocol.serve(make_calls, {"versions": versions, "threads": torch.get_num_threads()})
