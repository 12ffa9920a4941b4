"""The web UI and its HTTP API: `deepfill app`."""

import os

# gradio reads these when it is imported. They disable telemetry and downloads.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
