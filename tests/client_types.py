"""What a program that uses the package may rely on, for `mypy --strict` and strict pyright."""

# pyright: strict

import numpy as np

from deepfill_jax import Inpainter, Prediction

inpainter: Inpainter = Inpainter.load("scenes", working_size=256)
image = np.zeros((64, 64, 3), np.uint8)
one: np.ndarray = inpainter("photo.jpg", "mask.png", strategy="crop", dilate=3)
array: np.ndarray = inpainter(image, image[..., 0])
several: list[np.ndarray] = inpainter(["a.jpg", "b.jpg"], ["a.png", "b.png"])
batch: np.ndarray = inpainter(np.stack([image, image]), [image[..., 0], image[..., 0]])
scale: float = inpainter.complete(image, image).scale
prediction: Prediction[np.ndarray] = inpainter.predict(image[None] / 255.0, image[None, ..., :1])
side: int = prediction.completed.shape[1]
