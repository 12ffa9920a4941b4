# Images for training and for the web UI:
#   docker build --target cpu --tag deepfill_jax:cpu .
#   docker build --target cuda --tag deepfill_jax:cuda .
#   docker build --target app --tag deepfill_jax:app .
#
#   docker run --gpus all --shm-size 8g --volume /data:/data deepfill_jax:cuda \
#     --config=configs/places.py --workdir=/data/runs/places --config.data.source=folder:/data/train ...
#   docker run --publish 127.0.0.1:7860:7860 deepfill_jax:app
#
# `docker stop --time 300` gives a training time to save; the same command resumes it.
FROM python:3.12-slim AS base
WORKDIR /deepfill_jax
ENV PYTHONPATH=/deepfill_jax
# What installing the package needs; a change of its other code leaves the layers below as they are.
COPY pyproject.toml setup.cfg setup.py README.md LICENSE ./
COPY configs configs
COPY deepfill_jax/__init__.py deepfill_jax/
COPY deepfill_jax/trained/LICENSE deepfill_jax/trained/

FROM base AS app
# setup.cfg says which versions.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[app,pictures]' && useradd --create-home --uid 1000 app
COPY deepfill_jax deepfill_jax
USER 1000
EXPOSE 7860
# 0.0.0.0 inside the container; `--publish` decides who reaches it. For others than this machine,
# set DEEPFILL_PASSWORD with `--env` and put a proxy with TLS in front.
ENTRYPOINT ["python", "-m", "deepfill_jax.app", "--host", "0.0.0.0"]

FROM base AS cpu
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[train]'
COPY deepfill_jax deepfill_jax
ENTRYPOINT ["python", "-m", "deepfill_jax.main"]

# The wheels bring CUDA; the host brings an NVIDIA driver (580 or newer) and its container toolkit.
FROM base AS cuda
# hadolint ignore=DL3013
RUN pip install --no-cache-dir '.[train,cuda]'
COPY deepfill_jax deepfill_jax
ENTRYPOINT ["python", "-m", "deepfill_jax.main"]
