"""Places2 at 256 px with free-form masks.

    python -m deepfill_jax.main --config=configs/places.py --workdir=runs/places

Both references crop from the high-resolution images of Places365-Standard, whose shorter side has
512 px: 1.8 million images, 105 GB, and 36,500 for validation, 2 GB. Unpack
train_large_places365standard.tar and val_large.tar of http://places2.csail.mit.edu/download.html
and add --config.data.source=folder:data_large --config.data.val_source=folder:val_large

The default source is `places365_small` as prepared by TFDS. All of its images were scaled to 256 x
256 px, so the crops below take the whole image and the network never sees detail at the scale of
the references. Training warns of this.

The settings are those of MMagic's `deepfillv2_8xb2_places-256x256`: batch size 16, 100,000 steps,
irregular masks that cover 15 to 65 % of the image. MMagic published hole L1 8.635, PSNR 22.398 and
SSIM 0.815, with masks drawn at random in each evaluation.

`configs/places.py:official` has the settings of the TF1 release of the paper's authors instead:
their architecture and losses, the union of box and brush stroke masks, and crops at native size.
They trained without a fixed end; their users report a million steps.

Cost: 1.6 million images, 4.6 TFLOP per step, about 3 s per image on two CPU cores.

GPUs: the batch size must be a multiple of the number of GPUs. The published set-up has 2 images on
each of 8 GPUs; all 16 images on one GPU take 12 GB in float32 by XLA's plan. The result differs
only by rounding, because losses are means over the whole batch. --config.grad_accum_steps=4 or
--config.model.remat=True reduce memory.

--config.model.dtype=bfloat16 computes in bfloat16; parameters, Adam, losses, softmax and norms stay
in float32. In float32, GPUs round the factors of matrix products to TF32 unless
JAX_DEFAULT_MATMUL_PRECISION=highest is set. Adam's learning rate scales with the square root of the
batch size (Malladi et al. 2022, https://arxiv.org/abs/2205.10287): --config.batch_size=64
--config.optimizer.learning_rate=2e-4 --config.optimizer.warmup_steps=1000 --config.num_steps=25000.

No XLA flag is needed. Autotuning is on; --xla_gpu_enable_latency_hiding_scheduler=true can hide the
two collectives of a step, 41 MB of gradients in total, about 0.3 ms at 300 GB/s. Nothing in this
section has been measured on a GPU yet; benchmarks/gpu/run_all.sh measures it.

--config.deterministic=True makes GPU runs reproducible bit for bit, see docs/distributed.md.

Differences from MMagic: its 1.x config reads images in file order. Here they are shuffled, as in
MMagic 0.x, with which the published weights were trained. In both, each example has its own mask.

Differences from the TF1 release: its discriminator is updated on a batch of images and a mask of
its own, before the generator's batch is read; here both are updated on the same batch, as in MMagic
and nipponjo, so a step reads 16 images instead of 32. Its examples of a batch share one mask.
docs/architectures.md lists the other differences.
"""

from ml_collections import ConfigDict

ARCHITECTURES = ("mmagic", "official")


def get_config(architecture: str = "mmagic") -> ConfigDict:
    """Returns all settings of a run: MMagic's ("mmagic") or the TF1 release's ("official")."""
    if architecture not in ARCHITECTURES:
        raise ValueError(f"Unknown settings {architecture!r}; choose {' or '.join(ARCHITECTURES)}.")
    config = ConfigDict()
    config.seed = 0
    config.deterministic = False
    config.image_size = 256
    config.batch_size = 16
    config.num_steps = 100_000
    config.init_from = ""
    config.init_partial = False
    config.freeze = ""

    config.model = ConfigDict()
    config.model.architecture = "mmagic"
    config.model.width = 24
    config.model.discriminator_width = 64
    config.model.init = "published"
    config.model.dtype = "float32"
    config.model.guided = False
    config.model.remat = False

    config.loss = ConfigDict()
    config.loss.discriminator = 1.0
    config.loss.adversarial = 0.1
    config.loss.l1_whole = 0.0
    config.loss.l1_hole = 1.0
    config.loss.l1_known = 1.0
    config.loss.concat_real_fake = False
    config.loss.adversarial_start_step = 0
    config.loss.adversarial_ramp_steps = 0
    config.loss.perceptual = 0.0
    config.loss.perceptual_network = "alexnet"

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 1e-4
    config.optimizer.beta1 = 0.9
    config.optimizer.beta2 = 0.999
    config.optimizer.warmup_steps = 0
    config.optimizer.decay_start = 0
    config.optimizer.decay_steps = 0
    config.optimizer.clip_norm = 0.0
    # A value of the discriminator that is not set follows the generator's, overrides included.
    config.discriminator_optimizer = ConfigDict(
        {name: config.optimizer.get_oneway_ref(name) for name in config.optimizer}
    )
    config.discriminator_steps = 1
    config.skip_nonfinite = False
    config.ema_decay = 0.0
    config.grad_accum_steps = 1

    config.data = ConfigDict()
    config.data.source = "tfds:places365_small:train"
    config.data.val_source = "tfds:places365_small:validation"
    config.data.edges = ""
    config.data.val_edges = ""
    config.data.sketch_probability = 1.0
    config.data.crop_size = 384
    config.data.enlarge = False
    config.data.flip = False
    config.data.workers = 0

    config.masks = ConfigDict()
    config.masks.weights = ConfigDict(
        {"box": 0.0, "strokes": 0.0, "box_and_strokes": 0.0, "irregular": 1.0, "folder": 0.0}
    )
    config.masks.min_area = 0.15
    config.masks.max_area = 0.65
    config.masks.folder = ""

    config.eval = ConfigDict()
    config.eval.seed = 1
    config.eval.batch_size = 16
    config.eval.num_examples = 1024
    config.eval.every = 5_000
    config.eval.seamless = False

    config.log_every = 100
    config.checkpoint_every = 1_000
    config.keep_latest = 3
    config.keep_best = 1
    config.keep_every = 0
    config.best_metric = "l1_hole"
    config.wandb = ""
    config.profile_step = 0

    if architecture == "official":
        config.num_steps = 1_000_000
        config.model.architecture = "official"
        config.loss.discriminator = 0.5
        config.loss.adversarial = 1.0
        config.loss.l1_whole = 1.0
        config.loss.l1_hole = 0.0
        config.loss.l1_known = 0.0
        config.loss.concat_real_fake = True
        config.optimizer.beta1 = 0.5
        config.data.crop_size = 256
        config.data.enlarge = True
        config.masks.weights.irregular = 0.0
        config.masks.weights.box_and_strokes = 1.0
    return config
