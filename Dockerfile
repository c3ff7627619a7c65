# syntax=docker/dockerfile:1
# birdsonnx in a container. Small, the default: the base install, which reads Keras files, trains and predicts.
#     docker build -t birdsonnx .
# For several ranks in one container, with mpirun:
#     docker build -t birdsonnx:mpi --build-arg EXTRAS=mpi .
# EXTRAS takes any of pyproject.toml's, separated by commas: mpi,plot,openvino.
#     docker run --rm -v "$PWD:/birds" --user "$(id -u):$(id -g)" birdsonnx predict photos/ --model birds.onnx

# 3.12 has wheels of the training runtime, which fine-tunes convolutions.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=""
WORKDIR /source
RUN python -m venv /opt/birdsonnx
ENV PATH=/opt/birdsonnx/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY birdsonnx ./birdsonnx
COPY models ./models
# The tested versions; the mount keeps what pip downloads for the next build, and stays out of the image.
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt ".${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim
# ONNX Runtime and MPICH bring all that they need but for the C++ library of Debian's slim image, which has it.
COPY --from=build /opt/birdsonnx /opt/birdsonnx
ENV PATH=/opt/birdsonnx/bin:$PATH PYTHONDONTWRITEBYTECODE=1 XDG_CACHE_HOME=/tmp/cache
RUN useradd --uid 1000 --create-home birds && install -d -o birds /birds
USER 1000
WORKDIR /birds
# Ctrl-C and `docker stop` reach birdsonnx itself, which keeps where a training stands before it ends.
STOPSIGNAL SIGTERM
ENTRYPOINT ["birdsonnx"]
CMD ["--help"]
