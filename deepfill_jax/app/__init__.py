"""The page and its HTTP API: `deepfill app`."""
