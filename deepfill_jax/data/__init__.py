"""Pictures from folders, lists and TFDS to batches of images and masks; only here is TensorFlow."""
