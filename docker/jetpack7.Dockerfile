# wise-edge on a Jetson Orin or Thor with JetPack 7.2 (L4T R39.2): llama.cpp on CUDA, JetPack's TensorRT 10.16.2.
# Build it on the Jetson: docker build -f docker/jetpack7.Dockerfile -t wise-edge .
# There is no l4t-jetpack image of R39: its boards run CUDA for ARM servers, and the container runtime adds the driver.
ARG CUDA=13.2.1

FROM nvcr.io/nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS llama
ARG LLAMA_CPP_PYTHON=0.3.36
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /build
# 87 is Orin, 110 is Thor.
RUN CMAKE_ARGS="-DGGML_CUDA=on -DCMAKE_CUDA_ARCHITECTURES=87;110" \
    /build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels "llama-cpp-python==${LLAMA_CPP_PYTHON}"

FROM nvcr.io/nvidia/cuda:${CUDA}-runtime-ubuntu24.04
ARG L4T=r39.2
ARG TENSORRT=10.16.2.10-1+cuda13.2
# NVIDIA's index for servers ends at 10.16.1, an engine of which JetPack's 10.16.2 does not run, so take the Jetson's.
# /usr/local/cuda/compat holds a driver for servers, which would hide the board's.
ADD https://repo.download.nvidia.com/jetson/jetson-ota-public.asc /etc/apt/keyrings/jetson.asc
RUN chmod 644 /etc/apt/keyrings/jetson.asc \
    && echo "deb [signed-by=/etc/apt/keyrings/jetson.asc] https://repo.download.nvidia.com/jetson/common ${L4T} main" \
        > /etc/apt/sources.list.d/jetson.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 python3-venv \
        "libnvinfer10=${TENSORRT}" "libnvinfer-plugin10=${TENSORRT}" "libnvonnxparsers10=${TENSORRT}" \
        "python3-libnvinfer=${TENSORRT}" \
    && rm -rf /var/lib/apt/lists/* /usr/local/cuda/compat \
    && python3 -m venv --system-site-packages /opt/wise-edge \
    && install -d -o 1000 -g 1000 /cache
COPY . /src
RUN --mount=from=llama,source=/wheels,target=/wheels \
    /opt/wise-edge/bin/pip install --no-cache-dir --find-links /wheels '/src[llama,onnx,serve,video]' \
    && rm -rf /src
ENV PATH=/opt/wise-edge/bin:$PATH XDG_CACHE_HOME=/cache CUDA_CACHE_PATH=/cache/cuda
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["wise-edge"]
CMD ["doctor"]
