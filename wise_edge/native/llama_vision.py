"""A policy's vision tower on llama.cpp.

llama.cpp resizes and pads images in its own way, which yields other logits than training did. Images are therefore
passed in their final size, with llama.cpp's limits on image tokens so wide that it leaves them unchanged.
"""

from __future__ import annotations

import ctypes
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.errors import WiseEdgeError
from wise_edge.native.gguf_header import check_gguf
from wise_edge.native.llama_library import explain_failure, loading_error, require_llama, require_mtmd

_MIN_IMAGE_TOKENS, _MAX_IMAGE_TOKENS = 1, 1 << 16


class LlamaImage:
    """An encoded image as llama.cpp holds it between queries.

    Attributes:
        chunk: address of llama.cpp's description of the image.
        embeddings: float32 [image tokens, width]; Qwen3-VL's are wider than its language model, since they include
            those of deeper layers.
    """

    def __init__(self, mtmd: ModuleType, chunk: int, embeddings: npt.NDArray[np.float32]) -> None:
        self.chunk = chunk
        self.embeddings = embeddings
        weakref.finalize(self, mtmd.mtmd_input_chunk_free, chunk)


class LlamaVision:
    """A vision tower.

    Args:
        file: GGUF file of the vision tower (mmproj).
        model: address of the language model that it belongs to, which must outlive it.
        width: width of an image token's embedding.
        threads: CPU threads.
        gpu: run on the GPU.
        exact: attend without fused kernels.

    Attributes:
        context: address of llama.cpp's vision context.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
        DeviceError: its version is untested, or memory ran out.
        WiseEdgeError: the file cannot be loaded.
    """

    def __init__(self, file: Path, model: Any, width: int, *, threads: int, gpu: bool, exact: bool) -> None:
        llama, self._mtmd = require_llama(), require_mtmd()
        self._width = width
        check_gguf(file)
        params = self._mtmd.mtmd_context_params_default()
        params.use_gpu = gpu
        params.print_timings = params.warmup = False
        params.image_min_tokens, params.image_max_tokens = _MIN_IMAGE_TOKENS, _MAX_IMAGE_TOKENS
        params.n_threads = threads
        if exact:
            params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = self._mtmd.mtmd_init_from_file(str(file).encode(), model, params)
        if not self.context:
            raise loading_error(file, f"llama.cpp cannot load {file}")
        self._finalizer = weakref.finalize(self, self._mtmd.mtmd_free, self.context)

    def close(self) -> None:
        """Free the memory; nothing can be encoded afterwards."""
        self._finalizer()

    def encode(self, image: npt.NDArray[np.uint8]) -> LlamaImage:
        """Run the vision tower.

        Args:
            image: HWC uint8 RGB in its final size, sides multiples of a merged patch.

        Raises:
            WiseEdgeError: llama.cpp failed.
        """
        chunk = self._image_chunk(image)
        encoded = LlamaImage(self._mtmd, chunk, np.empty((0, self._width), np.float32))
        if self._mtmd.mtmd_encode_chunk(self.context, chunk):
            raise WiseEdgeError(explain_failure("llama.cpp's vision tower failed"))
        count = int(self._mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        output = self._mtmd.mtmd_get_output_embd(self.context)
        encoded.embeddings = np.ctypeslib.as_array(output, (count, self._width)).copy()
        return encoded

    def _image_chunk(self, image: npt.NDArray[np.uint8]) -> int:
        """Return the address of llama.cpp's description of an image, which the caller frees."""
        mtmd = self._mtmd
        height, width, _ = image.shape
        pixels = np.ascontiguousarray(image)
        bitmap = mtmd.mtmd_bitmap_init(width, height, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
        chunks = mtmd.mtmd_input_chunks_init()
        marker = mtmd.mtmd_default_marker()
        text = mtmd.mtmd_input_text(marker, len(marker), add_special=False, parse_special=True)
        try:
            bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
            if mtmd.mtmd_tokenize(self.context, chunks, ctypes.byref(text), bitmaps, 1):
                raise WiseEdgeError(explain_failure("llama.cpp cannot prepare the image"))
            for index in range(mtmd.mtmd_input_chunks_size(chunks)):
                chunk = mtmd.mtmd_input_chunks_get(chunks, index)
                if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                    return int(mtmd.mtmd_input_chunk_copy(chunk))
            raise WiseEdgeError(explain_failure("llama.cpp found no image in its input"))
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)
