"""Times the same networks with the same weights in plain PyTorch, for comparison with speed.py.

    PYTHONPATH=.:benchmarks python benchmarks/gpu/torch_peer.py [--cases training-256-16 ...]
        [--precisions float32 tf32 bfloat16] [--width 24] [--rounds 5] [--output FILE]

The script first compares its completed images and losses with ours, computed in float32 on the CPU,
and then prints a line of JSON per case. Each case is timed in both memory layouts of PyTorch, with
cuDNN's autotuning: in float32, in TF32, and in bfloat16 by autocast with float32 losses. Without
PyTorch, it prints a message and exits.
"""

import functools
import itertools
import os
import sys

# JAX computes the reference on the CPU and leaves a GPU to PyTorch.
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import programs
from peers.protocol import Case

try:
    import torch
    import torch.nn.functional as F
    from torch_networks import generate, score
except ImportError:
    print("PyTorch is not installed, so the comparison is skipped.")
    sys.exit()

from deepfill_jax import sharding

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
SIZE = 72  # Image side of the comparison. PyTorch cannot mirror smaller maps as far as needed.


class Peer:
    """Our weights in PyTorch, with inference and training steps."""

    def __init__(self, state, layout, autocast):
        self._layout, self._autocast = layout, autocast
        networks = jax.device_get((state.generator.params, state.discriminator.params))
        self.generator, self.discriminator = jax.tree.map(self._tensor, networks)
        spectral = jax.device_get(state.discriminator.spectral)
        self._spectral = {k: torch.tensor(x["u"], device=DEVICE) for k, x in spectral.items()}
        self._optimizers = [
            torch.optim.Adam([x.requires_grad_() for x in jax.tree.leaves(net)], 1e-4, fused=True)
            for net in (self.generator, self.discriminator)
        ]

    def _tensor(self, x):
        if x.ndim == 4:
            x = x.transpose(3, 2, 0, 1)
        x = torch.tensor(np.ascontiguousarray(x), device=DEVICE)
        return x.to(memory_format=self._layout) if x.ndim == 4 else x

    def batch(self, case):
        """Returns the images in [-1, 1] and the masks."""
        arrays = (x.transpose(0, 3, 1, 2) for x in case.pictures())
        image, mask = (torch.tensor(x, device=DEVICE).float() for x in arrays)
        return [x.to(memory_format=self._layout) for x in (image / 127.5 - 1, mask)]

    def _context(self):
        return torch.autocast(DEVICE, torch.bfloat16, enabled=self._autocast)

    def inference(self, image, mask):
        """Returns the completed images."""
        with torch.no_grad(), self._context():
            return generate(self.generator, image * (1 - mask), mask)[2]

    def training(self, image, mask):
        """Updates both networks and returns the losses."""
        fake = self.inference(image, mask)
        with self._context():
            fake_scores = score(self.discriminator, self._spectral, fake, mask)
            real_scores = score(self.discriminator, self._spectral, image, mask)
        hinge = F.relu(1 + fake_scores).mean() + F.relu(1 - real_scores).mean()
        self._update(1, hinge)
        with self._context():
            *stages, completed = generate(self.generator, image * (1 - mask), mask)
            scores = score(self.discriminator, self._spectral, completed, mask)
        loss = -programs.RECIPE.adversarial * scores.mean()
        for stage in stages:
            for region in (mask, 1 - mask):
                loss = loss + ((stage - image).abs() * region).sum() / (3 * region.sum())
        self._update(0, loss)
        return {"loss/discriminator": hinge.detach(), "loss/generator": loss.detach()}

    def _update(self, which, loss):
        optimizer = self._optimizers[which]
        optimizer.zero_grad()
        # The generator's loss does not need the gradient of the discriminator's parameters.
        loss.backward(inputs=optimizer.param_groups[0]["params"])
        optimizer.step()


def differences(peer, width) -> dict[str, float]:
    """Returns the largest difference of completed images and relative ones of losses from ours."""
    cases = Case("inference", SIZE, 2), Case("training", SIZE, 2)
    ours, scalars = (programs.make_program(c, "mmagic", width, "float32").call() for c in cases)
    batch = peer.batch(cases[0])
    theirs = peer.inference(*batch).cpu().numpy().transpose(0, 2, 3, 1)
    result = {"completed": float(np.abs(ours["completed"] / 127.5 - 1 - theirs).max())}
    for name, loss in peer.training(*batch).items():
        result[name] = float(abs(loss.cpu() / float(scalars[name]) - 1))
    return result


def measure(case, peer, rounds) -> dict:
    """Times one case, or returns the "error" if the GPU runs out of memory."""
    result = {}
    try:
        batch = peer.batch(case)
        call = functools.partial(getattr(peer, case.kind), *batch)
        call()
        seconds = programs.time_calls(call, rounds, wait)
        result |= {"seconds": seconds, "images_per_second": case.batch / seconds["median"]}
    except torch.OutOfMemoryError as error:
        result["error"] = str(error).splitlines()[0]
    if DEVICE == "cuda":
        result["device_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
    return result


def wait(_):
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def allow_tf32(allowed):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


def main() -> None:
    cases = ("inference-256-1", "training-256-2")
    options = programs.case_arguments(__doc__, cases).parse_args()
    networks = programs.make_networks("mmagic", options.width, jnp.float32)
    state = programs.make_state(networks, sharding.make_mesh())
    allow_tf32(False)
    compared = differences(Peer(state, torch.contiguous_format, autocast=False), options.width)
    same = max(compared.values()) < 1e-3
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    about = {"torch": torch.__version__, "device": device}
    programs.report(options.output, **about, same=same, differences=compared)
    if not same:
        sys.exit("The PyTorch networks compute different results, so they are not timed.")
    torch.backends.cudnn.benchmark = True
    for precision in options.precisions:
        allow_tf32(precision != "float32")
        for case, (layout, memory_format) in itertools.product(options.cases, LAYOUTS.items()):
            peer = Peer(state, memory_format, autocast=precision == "bfloat16")
            about = {"case": str(case), "precision": precision, "layout": layout}
            programs.report(options.output, **about, **measure(case, peer, options.rounds))


if __name__ == "__main__":
    main()
