# The pipeline with its pinned versions.
#   docker build -t pipeline .                             for processors
#   docker build -t pipeline --build-arg TORCH=cu128 .     for NVIDIA GPUs; run it with --gpus all
#   docker run --rm -v "$PWD:/work" pipeline +experiment=digits_mlp
FROM python:3.12-slim

# Which build of PyTorch: cpu, or a version of CUDA such as cu128.
ARG TORCH=cpu
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/${TORCH} \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    MLFLOW_DISABLE_TELEMETRY=true

# LightGBM is built on OpenMP; runs record the commit of the working tree.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml constraints.txt README.md LICENSE /pipeline/
COPY src /pipeline/src
COPY conf /pipeline/conf
RUN pip install --no-cache-dir --constraint /pipeline/constraints.txt "/pipeline[export,explain,tables,postgres]"

# Runs and data land in the directory that is mounted here.
WORKDIR /work
ENTRYPOINT ["python", "-m", "pipeline"]
