# wise-edge on a Jetson with JetPack 6 (L4T R36): llama.cpp on CUDA, JetPack's TensorRT 10.3. Build it on the Jetson:
#   docker build --network host -f docker/jetpack6.Dockerfile -t wise-edge .
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0
ARG LLAMA_CPP_PYTHON=0.3.36
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/wise-edge \
    && install -d -o 1000 -g 1000 /cache
# 87 is Orin, the only kind of board that JetPack 6 runs on.
RUN CMAKE_ARGS="-DGGML_CUDA=on -DCMAKE_CUDA_ARCHITECTURES=87" \
    /opt/wise-edge/bin/pip install --no-cache-dir "llama-cpp-python==${LLAMA_CPP_PYTHON}"
COPY . /src
RUN /opt/wise-edge/bin/pip install --no-cache-dir '/src[llama,onnx,serve,video]' \
    && rm -rf /src
ENV PATH=/opt/wise-edge/bin:$PATH XDG_CACHE_HOME=/cache CUDA_CACHE_PATH=/cache/cuda
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["wise-edge"]
CMD ["doctor"]
