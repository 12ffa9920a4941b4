"""Conversion of other implementations' published weights to our parameter tree and back.

One table per source maps its layers to ours, and `layout` applies it. `sources.read` chooses the
reader for any supported file or folder.
"""
