"""The SN-PatchGAN discriminator (section 3.2 of the paper)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from deepfill_jax.models.layers import SNConv
from deepfill_jax.models.variants import Variant

MULTIPLES = (1, 2, 4, 4, 4, 4)  # Channels of each layer, in units of the discriminator's width.


class Discriminator(nn.Module):
    """Six strided 5x5 convolutions; every value of the last feature map is a score.

    The hinge loss is the mean over all scores, so no layer reduces the map to one channel. The last
    layer keeps its leaky ReLU, as in both references.
    """

    variant: Variant
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        image: jax.Array,
        mask: jax.Array,
        sketch: jax.Array | None = None,
        *,
        update_spectral: bool = False,
    ) -> jax.Array:
        """Scores real images or completed ones.

        Args:
            image: [B, H, W, 3] in [-1, 1].
            mask: [B, H, W, 1], 1 in the hole.
            sketch: [B, H, W, 1], 1 on the lines in the hole; only for sketch-guided variants.
            update_spectral: Run one power iteration in every layer; the collection "spectral" must
                be mutable then. Both references do so in each pass of a training step.

        Returns:
            float32 scores [B, ceil(H / 64), ceil(W / 64), 4 * discriminator_width].

        Raises:
            ValueError: The variant is sketch-guided and `sketch` is None, or the other way round.
        """
        if (sketch is not None) != self.variant.guided:
            raise ValueError("A sketch is required if and only if the discriminator is guided.")
        sketches = [] if sketch is None else [sketch]
        x = jnp.concatenate([image, mask, *sketches], axis=-1)
        for index, multiple in enumerate(MULTIPLES, start=1):
            x = SNConv(
                features=multiple * self.variant.discriminator_width,
                kernel_size=5,
                stride=2,
                padding=self.variant.discriminator_padding,
                kernel_init=self.variant.discriminator_kernel_init,
                gradient=self.variant.spectral_gradient,
                dtype=self.dtype,
                name=f"patch{index}",
            )(x, update_spectral=update_spectral)
            x = nn.leaky_relu(x, 0.2)
        return x.astype(jnp.float32)
