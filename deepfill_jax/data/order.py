"""The order in which a stream reads the items of its source, as functions of element numbers.

An item is the index of an image in its source. Starting anywhere in an order costs nothing, and no
process reads the images of the others.
"""

import functools
from collections.abc import Callable

import numpy as np

from deepfill_jax.data import examples

Order = Callable[[np.ndarray], np.ndarray]  # From elements to items, both int64 [N].


def shuffled(count: int, seed: int) -> Order:
    """Returns an endless order in which each epoch is a permutation of `count` items.

    Element i is the item at position i % count of the permutation drawn with seed
    [seed, i // count].
    """

    @functools.lru_cache(2)  # A batch may contain the end of one epoch and the start of the next.
    def permutation(epoch: int) -> np.ndarray:
        return examples.make_rng(seed, epoch, examples.ORDER).permutation(count)

    def items(elements: np.ndarray) -> np.ndarray:
        pairs = (divmod(element, count) for element in elements.tolist())
        return np.array([permutation(epoch)[position] for epoch, position in pairs], np.int64)

    return items


def spaced(count: int, chosen: int) -> Order:
    """Returns an order of `chosen` of `count` items, evenly spaced, which is then repeated."""
    return lambda elements: elements % chosen * count // chosen
