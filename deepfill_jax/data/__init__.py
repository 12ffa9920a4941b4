"""The input pipeline: folders, lists and TFDS to batches of images and masks, with TensorFlow."""
