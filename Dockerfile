# An image that trains:
#   docker build --target cpu --tag deepfill_jax:cpu .
#   docker build --target cuda --tag deepfill_jax:cuda .     [--build-arg CUDA=cuda13]
#   docker run --gpus all --shm-size 8g --volume /data:/data deepfill_jax:cuda \
#     --config=configs/places.py --workdir=/data/runs/places --config.data.source=folder:/data/train ...
# `docker stop --time 300` lets it save; the same command goes on.
FROM python:3.12-slim AS dependencies
WORKDIR /deepfill_jax
ENV PYTHONPATH=/deepfill_jax
# A layer of their own, which a change of the code leaves as it is.
COPY pyproject.toml setup.cfg README.md LICENSE ./
# setup.cfg says which versions.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[train]'

FROM dependencies AS cpu
COPY configs configs
COPY deepfill_jax deepfill_jax
ENTRYPOINT ["python", "-m", "deepfill_jax.main"]

# The wheels bring CUDA; the machine brings its driver and the NVIDIA container toolkit.
FROM dependencies AS cuda
ARG CUDA=cuda12
# The version is the one that is there already.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir "jax[${CUDA}]"
COPY configs configs
COPY deepfill_jax deepfill_jax
ENTRYPOINT ["python", "-m", "deepfill_jax.main"]
