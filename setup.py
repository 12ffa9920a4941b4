"""Installs `configs/` as a part of the package, which setup.cfg cannot express."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["deepfill_jax*"]), "deepfill_jax.configs"],
    package_dir={"deepfill_jax.configs": "configs"},
)
