# wise-edge on a desktop or server GPU: llama.cpp and ONNX Runtime on CUDA, TensorRT for RTX. Driver 580 or later.
# In the repository's folder: docker build -f docker/desktop.Dockerfile -t wise-edge .
ARG CUDA=13.2.1

FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS llama
# The version that pyproject.toml asks for; the architectures are those of RTX 20 to 50, A100, H100 and B200.
ARG LLAMA_CPP_PYTHON=0.3.36
ARG CUDA_ARCHITECTURES=75;80;86;89;90;100;120
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /build
# Not for this machine's CPU alone: the image is to run on others.
RUN CMAKE_ARGS="-DGGML_CUDA=on -DGGML_NATIVE=off -DCMAKE_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES}" \
    /build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels "llama-cpp-python==${LLAMA_CPP_PYTHON}"

FROM nvidia/cuda:${CUDA}-cudnn-runtime-ubuntu24.04
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/wise-edge \
    && install -d -o 1000 -g 1000 /cache
COPY . /src
RUN --mount=from=llama,source=/wheels,target=/wheels \
    /opt/wise-edge/bin/pip install --no-cache-dir --find-links /wheels '/src[gpu,llama,rtx,serve,video]' \
    && rm -rf /src
ENV PATH=/opt/wise-edge/bin:$PATH XDG_CACHE_HOME=/cache CUDA_CACHE_PATH=/cache/cuda
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["wise-edge"]
CMD ["doctor"]
