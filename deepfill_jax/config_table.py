"""All config keys, with their types and ranges; see config.py."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Number:
    """The type and the range of a number.

    Attributes:
        kind: int or float.
        least: Smallest value.
        most: Largest value; infinity itself is never allowed.
        open: Whether `most` is excluded.
    """

    kind: type = float
    least: float = 0
    most: float = math.inf
    open: bool = False

    def __contains__(self, value: float) -> bool:
        below = value < self.most if self.open else value <= self.most
        return math.isfinite(value) and self.least <= value and below

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"{self.least} or more"
        return f"from {self.least} to {self.most}" + ", which is excluded" * self.open


COUNT, WHOLE = Number(int, 1), Number(int)
WEIGHT, SHARE, DECAY = Number(), Number(most=1), Number(most=1, open=True)
OPTIMIZER = {  # The arguments of train/state.make_optimizer.
    "learning_rate": WEIGHT,
    "beta1": DECAY,
    "beta2": DECAY,
    "warmup_steps": WHOLE,
    "decay_start": WHOLE,
    "decay_steps": WHOLE,
    "clip_norm": WEIGHT,
}
KEYS = {
    "seed": WHOLE,  # Seed of initial parameters, image order, crops and training masks.
    "deterministic": bool,  # Makes runs on GPUs reproducible bit for bit, but slower.
    "image_size": Number(int, 8),  # Side in pixels; a multiple of 8.
    "batch_size": COUNT,  # Global batch size, over all processes.
    "num_steps": COUNT,  # One step is one update of the generator.
    "init_from": str,  # Weights to start from, see convert/sources.py; "" initialises at random.
    "init_partial": bool,  # Takes from `init_from` what fits these networks, see partial_start.py.
    "freeze": str,  # Glob patterns of parameters that do not change, see train/freezing.py.
    "model": {
        "architecture": str,  # A name of models/variants.py, which lists the differences.
        "width": COUNT,  # Channels after the first gated convolution; 24 in the paper.
        "discriminator_width": COUNT,  # Channels after its first convolution; 64 in the paper.
        "init": str,  # "published", or "unit_variance", with which the generator learns faster.
        "dtype": str,  # Type of the computation: "float32" or "bfloat16".
        "guided": bool,  # Whether the model takes a sketch of the hole, see data.edges.
        "remat": bool,  # Recomputes activations: less memory, about a third more time.
    },
    "loss": {  # See losses.Recipe.
        "discriminator": WEIGHT,
        "adversarial": WEIGHT,
        "l1_whole": WEIGHT,
        "l1_hole": WEIGHT,
        "l1_known": WEIGHT,
        "concat_real_fake": bool,
        "adversarial_start_step": WHOLE,
        "adversarial_ramp_steps": WHOLE,
        "perceptual": WEIGHT,
        "perceptual_network": str,
    },
    "optimizer": OPTIMIZER,  # Optimizer of the generator.
    # Optimizer of the discriminator: values that are not set follow those of the generator.
    "discriminator_optimizer": OPTIMIZER,
    "discriminator_steps": COUNT,  # Updates of the discriminator for one of the generator.
    "skip_nonfinite": bool,  # Omits steps with a loss or gradient that is not finite, see step.py.
    "ema_decay": DECAY,  # Decay of the generator's exponential moving average; 0 disables it.
    "grad_accum_steps": COUNT,  # Number of parts of a batch, computed in sequence to save memory.
    "data": {
        "source": str,  # Training images: folder:PATH, flist:FILE or tfds:NAME[:SPLIT].
        "val_source": str,  # Validation images, in the same forms.
        "edges": str,  # For guided models: folder:PATH of the source's edge maps (data/edges.py).
        "val_edges": str,  # The same for val_source.
        "sketch_probability": SHARE,  # Share of examples with a sketch; the rest have an empty one.
        "crop_size": WHOLE,  # This and the next two keys: see data.examples.Preprocessing.
        "enlarge": bool,
        "flip": bool,
        "workers": WHOLE,  # Decode processes of each process; 0: one for each of its cores.
    },
    "masks": {
        "weights": {  # Relative frequencies of the kinds of masks, which masks.py draws.
            "box": WEIGHT,
            "strokes": WEIGHT,
            "box_and_strokes": WEIGHT,
            "irregular": WEIGHT,
            "folder": WEIGHT,
        },
        "min_area": SHARE,  # Smallest area of irregular masks, as a fraction of the image.
        "max_area": SHARE,  # Largest area, likewise.
        "folder": str,  # Folder of mask files, for the kind "folder"; 255 is the hole.
    },
    "eval": {
        "seed": WHOLE,  # Seed of the fixed crops and masks.
        "batch_size": COUNT,
        "num_examples": WHOLE,  # Number of images, evenly spaced over the source; 0 takes all.
        "every": WHOLE,  # Interval in steps; 0 disables evaluation during training.
        "seamless": bool,  # Matches colors at the border as inpainting does, see `Inpainter`.
    },
    "log_every": COUNT,  # Interval in steps.
    "checkpoint_every": WHOLE,  # Interval in steps; 0 saves only at the end.
    "keep_latest": COUNT,  # Number of most recent checkpoints to keep.
    "keep_best": WHOLE,  # Number of checkpoints with the best validation metric to keep besides.
    "keep_every": WHOLE,  # Keeps checkpoints whose step is a multiple of it besides; 0 for none.
    "best_metric": str,  # metric_table.METRICS or "lpips"; hole L1 alone prefers blur.
    "wandb": str,  # Project at Weights & Biases for the curves; "" writes only for TensorBoard.
    "profile_step": WHOLE,  # First of 5 steps to trace; 0 disables tracing.
}
