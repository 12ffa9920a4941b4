"""The page and its HTTP API: `deepfill app`."""

import os

# Read when gradio is imported: nothing is told to anyone, nor fetched.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
