"""DeepFillv2 in JAX: free-form image inpainting with gated convolution."""

__version__ = "0.1.0"
