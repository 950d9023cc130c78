# syntax=docker/dockerfile:1
#
#   docker build --target cpu    -t kdedge:cpu .
#   docker build --target gpu    -t kdedge:gpu .                                                     an NVIDIA GPU
#   docker build --target jetson -t kdedge:jetson --platform linux/arm64 .                           on or for a board
#   docker run --rm -it -v "$PWD:/workspace" kdedge:cpu run quickstart
#   docker run --rm -it -v "$PWD:/workspace" --gpus all kdedge:gpu run quickstart
#   docker run --rm -it -v "$PWD:/workspace" --runtime nvidia kdedge:jetson profile model.onnx
#
# Never built so far: the machines kdedge is developed on have no Docker engine.  This file has been linted only, and
# each stage asks the base image for what it needs before it installs anything.

ARG CPU_BASE=python:3.12-slim
ARG GPU_BASE=nvidia/cuda:13.0.3-base-ubuntu24.04
ARG JETSON_BASE=nvcr.io/nvidia/tensorrt:25.04-py3-igpu

FROM python:3.12-slim AS wheel
WORKDIR /src
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist .


# Everything, on the CPU.  pip's default torch for x86 carries CUDA along; PIP_EXTRA_INDEX_URL may name an index of
# CPU-only wheels, whose versions satisfy the same constraints.
FROM ${CPU_BASE} AS cpu
ARG PIP_EXTRA_INDEX_URL
RUN python3 -c "import sys; assert sys.version_info >= (3, 11), 'kdedge needs Python 3.11 or newer'" \
    && python3 -m venv /opt/kdedge
COPY constraints.txt /opt/kdedge/
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    wheel=$(echo /dist/*.whl) \
    && /opt/kdedge/bin/pip install --no-cache-dir -c /opt/kdedge/constraints.txt "kdedge[train] @ file://$wheel"
RUN useradd --create-home kdedge && install -d -o kdedge /workspace /data
ENV PATH=/opt/kdedge/bin:$PATH KDEDGE_DATA=/data
USER kdedge
WORKDIR /workspace
ENTRYPOINT ["kdedge"]
CMD ["--help"]


# Everything, on an NVIDIA GPU.  torch brings its own CUDA libraries: the base only opens the driver to the container.
# g++ and python3-dev are for torch.compile.
FROM ${GPU_BASE} AS gpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv g++ python3-dev \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -c "import sys; assert sys.version_info >= (3, 11), 'kdedge needs Python 3.11 or newer'" \
    && python3 -m venv /opt/kdedge
COPY constraints.txt /opt/kdedge/
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    wheel=$(echo /dist/*.whl) \
    && /opt/kdedge/bin/pip install --no-cache-dir -c /opt/kdedge/constraints.txt "kdedge[train] @ file://$wheel"
RUN useradd --create-home kdedge && install -d -o kdedge /workspace /data
ENV PATH=/opt/kdedge/bin:$PATH KDEDGE_DATA=/data
USER kdedge
WORKDIR /workspace
ENTRYPOINT ["kdedge"]
CMD ["--help"]


# Profile and gate on a Jetson itself.  No torch: a board measures, it does not train.
#
# TensorRT is the base image's and never comes from pip, whose wheels are not built for Tegra; the venv sees it through
# --system-site-packages.  That ties kdedge to the base image's own Python, which must be 3.11 or newer.  The default
# base is Ubuntu 24.04 with Python 3.12 and starts on JetPack 6 and later.  JetPack's own Python is 3.10 (JetPack 6) or
# 3.8 (JetPack 5): there kdedge stays on the host, and what runs on the board is its measuring agent, which asks for
# Python 3.8 and numpy only.
FROM ${JETSON_BASE} AS jetson
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN python3 -c "import sys; assert sys.version_info >= (3, 11), 'kdedge needs Python 3.11 or newer'" \
    && python3 -c "import tensorrt; print('TensorRT', tensorrt.__version__)" \
    && apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/kdedge
COPY constraints.txt /opt/kdedge/
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    /opt/kdedge/bin/pip install --no-cache-dir -c /opt/kdedge/constraints.txt /dist/*.whl
# The group of the board's GPU device nodes.
RUN useradd --create-home --groups video kdedge && install -d -o kdedge /workspace /data
ENV PATH=/opt/kdedge/bin:$PATH KDEDGE_DATA=/data
USER kdedge
WORKDIR /workspace
ENTRYPOINT ["kdedge"]
CMD ["--help"]
