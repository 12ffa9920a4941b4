"""The input pipeline, in TensorFlow: batches of images and masks from folders, lists and TFDS."""
