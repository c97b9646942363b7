"""A Qwen-VL policy on llama.cpp, through the low-level interface of llama-cpp-python.

llama.cpp resizes and pads images in its own way, which gives other logits than training did. So images come here in
their final size, and its limits on image tokens are opened wide enough that it leaves them alone. Prompts come as
tokens of the policy's own tokenizer; llama.cpp's is not asked.

The structures of the interface mirror C structures that change between versions, so a version that was not tried is
refused.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.errors import DeviceError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.native.memory import find_shortage

TESTED_VERSIONS = ("0.3.36",)
_LEAST_IMAGE_TOKENS, _MOST_IMAGE_TOKENS = 4, 1 << 16
MAX_SEQUENCES = 8
"""Sequences of keys and values that a model holds at once."""
_SMALL_FILE = 32 * 10**6  # bytes
_ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR


def require_llama() -> ModuleType:
    """Import `llama_cpp.llama_cpp`, with its log silenced.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
        DeviceError: its version was not tried; another layout of the structures would crash.
    """
    require("llama_cpp", "llama")
    installed = version("llama-cpp-python")
    if installed not in TESTED_VERSIONS:
        raise DeviceError(
            f"llama-cpp-python {installed} was not tried with this wise-edge; run: "
            f"pip install llama-cpp-python=={TESTED_VERSIONS[-1]}"
        )
    low_level = require("llama_cpp.llama_cpp", "llama")
    _LOG.install(low_level)
    return low_level


def offloads_to_gpu() -> bool:
    """Return whether llama-cpp-python is of a version that was tried and was built for a GPU."""
    try:
        return bool(require_llama().llama_supports_gpu_offload())
    except DeviceError:
        return False


class _Log:
    """Keeps llama.cpp quiet, and its first error since the last message for our own."""

    def __init__(self) -> None:
        self._callback: Any = None
        self._error = ""

    def install(self, low_level: ModuleType) -> None:
        if self._callback is None:
            self._callback = low_level.llama_log_callback(self._receive)  # kept: C holds no reference
            low_level.llama_log_set(self._callback, ctypes.c_void_p(0))
            mtmd = require("llama_cpp.mtmd_cpp", "llama")
            mtmd.mtmd_log_set(self._callback, ctypes.c_void_p(0))
            mtmd.mtmd_helper_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _: Any) -> None:
        if level == _ERROR_LEVEL and not self._error:
            self._error = text.decode("utf-8", "replace").strip()

    def explain(self, what: str) -> str:
        error, self._error = self._error, ""
        return f"{what}: {error or 'llama.cpp gives no reason'}"


_LOG = _Log()


def explain_failure(what: str) -> str:
    """Return a message that ends in llama.cpp's own reason, and forget the reason."""
    return _LOG.explain(what)


class LlamaImage:
    """An image as llama.cpp holds it between queries.

    Attributes:
        embeddings: float32 [image tokens, width]; Qwen3-VL's are wider than its language model by the deeper layers'.
    """

    def __init__(self, mtmd: ModuleType, chunk: int, embeddings: npt.NDArray[np.float32]) -> None:
        self.chunk = chunk
        self.embeddings = embeddings
        weakref.finalize(self, mtmd.mtmd_input_chunk_free, chunk)


@dataclass(frozen=True)
class Piece:
    """Tokens to run.

    Attributes:
        tokens: at least one.
        position: of the first.
        sequence: which sequence they belong to.
    """

    tokens: Sequence[int]
    position: int
    sequence: int = 0


def default_threads(text: Path) -> int:
    """Return the CPU threads for a language model's file: one a core, or one alone for a small file.

    In a small model threads wait for one another longer than they compute: 41 ms a query instead of 57 for the embedded
    policy on two cores (`benchmarks/against_reference.py`).
    """
    small = text.exists() and text.stat().st_size < _SMALL_FILE
    return 1 if small else os.cpu_count() or 1


class _Batch:
    """llama.cpp's description of tokens to run, in memory that is asked for once.

    Args:
        llama: the interface.
        most: tokens that it has room for.
    """

    def __init__(self, llama: ModuleType, most: int) -> None:
        self._batch = llama.llama_batch_init(most, 0, 1)
        weakref.finalize(self, llama.llama_batch_free, self._batch)
        self._tokens = np.ctypeslib.as_array(self._batch.token, (most,))
        self._positions = np.ctypeslib.as_array(self._batch.pos, (most,))
        self._wanted = np.ctypeslib.as_array(self._batch.logits, (most,))
        np.ctypeslib.as_array(self._batch.n_seq_id, (most,))[:] = 1

    def fill(self, pieces: Sequence[Piece], rows: int) -> Any:
        """Describe pieces, the logits of the last `rows` tokens of each being wanted."""
        start = 0
        for piece in pieces:
            end = start + len(piece.tokens)
            self._tokens[start:end] = piece.tokens
            self._positions[start:end] = range(piece.position, piece.position + end - start)
            self._wanted[start : end - rows] = 0
            self._wanted[end - rows : end] = 1
            for place in range(start, end):
                self._batch.seq_id[place][0] = piece.sequence
            start = end
        self._batch.n_tokens = start
        return self._batch


class LlamaModel:
    """A language model and its vision tower with a sequence of keys and values, and forks of it.

    Args:
        text: GGUF file of the language model.
        vision: GGUF file of the vision tower (mmproj).
        context: tokens that all sequences hold together, a beginning that they share counted once.
        threads: CPU threads; None takes `default_threads` (llama.cpp would take four, however many cores there are).
        gpu: put all layers on the GPU.
        flash_attention: attend with fused kernels; None does where llama.cpp sees fit on a GPU, and not on a CPU. There
            the kernel goes through keys one by one: 3.9 ms instead of 2.0 for a token of each of eight sequences of the
            embedded policy, 176 instead of 150 for one of a policy of 3B, and nothing gained anywhere.
        exact: keep keys and values in float32 and attend without fused kernels, to compare with torch.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
        DeviceError: its version was not tried, a GPU is asked for and its build has none, or memory ran out.
        WiseEdgeError: a file cannot be loaded.
    """

    def __init__(
        self,
        text: Path,
        vision: Path,
        context: int,
        *,
        threads: int | None = None,
        gpu: bool = False,
        flash_attention: bool | None = None,
        exact: bool = False,
    ) -> None:
        self._finalizers: list[weakref.finalize[Any, LlamaModel]] = []
        self._llama = require_llama()
        self._mtmd = require("llama_cpp.mtmd_cpp", "llama")
        if gpu and not self._llama.llama_supports_gpu_offload():
            raise DeviceError(
                "this llama-cpp-python was built for the CPU; run: CMAKE_ARGS=-DGGML_CUDA=on FORCE_CMAKE=1 "
                f"pip install --no-cache-dir --force-reinstall llama-cpp-python=={TESTED_VERSIONS[-1]}"
            )
        self._length = context
        threads = threads or default_threads(text)
        self._flash_attention = False if exact or (flash_attention is None and not gpu) else flash_attention
        self._open_text(text, threads, gpu, exact)
        self._open_vision(vision, threads, gpu, exact)

    def _open_text(self, file: Path, threads: int, gpu: bool, exact: bool) -> None:
        llama = self._llama
        llama.llama_backend_init()
        model_params = llama.llama_model_default_params()
        model_params.n_gpu_layers = -1 if gpu else 0
        model_params.split_mode = llama.LLAMA_SPLIT_MODE_NONE  # one GPU: its memory and energy are those that are told
        model = llama.llama_model_load_from_file(str(file).encode(), model_params)
        if not model:
            raise _loading_error(file, f"llama.cpp cannot load {file}")
        self._finalizers.append(weakref.finalize(self, llama.llama_model_free, model))
        self._model = model
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = self._length
        params.n_seq_max, params.kv_unified = MAX_SEQUENCES, True  # sequences share cells, and so a prefix
        params.n_threads = params.n_threads_batch = threads  # short and long calls alternate: one number for both
        params.flash_attn_type = {
            None: llama.LLAMA_FLASH_ATTN_TYPE_AUTO,
            False: llama.LLAMA_FLASH_ATTN_TYPE_DISABLED,
            True: llama.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        }[self._flash_attention]
        if exact:
            params.type_k = params.type_v = 0  # GGML_TYPE_F32
        context = llama.llama_init_from_model(model, params)
        if not context:
            raise _loading_error(file, f"llama.cpp cannot hold {self._length} tokens of {file}")
        self._finalizers.append(weakref.finalize(self, llama.llama_free, context))
        self._context = context
        self._batch = _Batch(llama, self._length)
        self._vocabulary = int(llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model)))
        self._width = int(llama.llama_model_n_embd_inp(model))

    def _open_vision(self, file: Path, threads: int, gpu: bool, exact: bool) -> None:
        mtmd = self._mtmd
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = gpu
        params.print_timings = params.warmup = False
        params.image_min_tokens, params.image_max_tokens = _LEAST_IMAGE_TOKENS, _MOST_IMAGE_TOKENS
        params.n_threads = threads
        if exact:
            params.flash_attn_type = self._llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = mtmd.mtmd_init_from_file(str(file).encode(), self._model, params)
        if not context:
            raise _loading_error(file, f"llama.cpp cannot load {file}")
        self._finalizers.append(weakref.finalize(self, mtmd.mtmd_free, context))
        self._tower = context

    def close(self) -> None:
        """Give the memory back; nothing can be run afterwards."""
        while self._finalizers:
            self._finalizers.pop()()  # the last made first: they rest on one another

    def encode(self, image: npt.NDArray[np.uint8]) -> LlamaImage:
        """Run the vision tower.

        Args:
            image: HWC uint8 RGB in its final size, sides multiples of a merged patch.

        Raises:
            WiseEdgeError: llama.cpp failed.
        """
        chunk = self._image_chunk(image)
        picture = LlamaImage(self._mtmd, chunk, np.empty((0, self._width), np.float32))
        if self._mtmd.mtmd_encode_chunk(self._tower, chunk):
            raise WiseEdgeError(explain_failure("llama.cpp's vision tower failed"))
        count = int(self._mtmd.mtmd_input_chunk_get_n_tokens(chunk))
        output = self._mtmd.mtmd_get_output_embd(self._tower)
        picture.embeddings = np.ctypeslib.as_array(output, (count, self._width)).copy()
        return picture

    def _image_chunk(self, image: npt.NDArray[np.uint8]) -> int:
        """Return llama.cpp's own description of an image, a pointer that the caller frees."""
        mtmd, vision = self._mtmd, self._tower
        height, width, _ = image.shape
        pixels = np.ascontiguousarray(image)
        bitmap = mtmd.mtmd_bitmap_init(width, height, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
        chunks = mtmd.mtmd_input_chunks_init()
        marker = mtmd.mtmd_default_marker()
        text = mtmd.mtmd_input_text(marker, len(marker), add_special=False, parse_special=True)
        try:
            bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
            if mtmd.mtmd_tokenize(vision, chunks, ctypes.byref(text), bitmaps, 1):
                raise WiseEdgeError(explain_failure("llama.cpp cannot prepare the image"))
            for index in range(mtmd.mtmd_input_chunks_size(chunks)):
                chunk = mtmd.mtmd_input_chunks_get(chunks, index)
                if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                    return int(mtmd.mtmd_input_chunk_copy(chunk))
            raise WiseEdgeError(explain_failure("llama.cpp sees no image"))
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)

    def append_image(self, picture: LlamaImage, position: int) -> int:
        """Run the language model over an image's embeddings.

        Args:
            image: from `encode`.
            position: of its first token.

        Returns:
            The position behind it: M-RoPE counts an image by its longer side, not by its tokens.
        """
        following = self._llama.llama_pos(0)
        failed = self._mtmd.mtmd_helper_decode_image_chunk(
            self._tower,
            self._context,
            picture.chunk,
            picture.embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            position,
            0,
            self._length,
            ctypes.byref(following),
            self._mtmd.mtmd_helper_post_decode_callback(),
            None,
        )
        if failed:
            raise WiseEdgeError(explain_failure("llama.cpp failed on the image"))
        return int(following.value)

    def append(self, tokens: Sequence[int], position: int, *, rows: int = 1) -> npt.NDArray[np.float32]:
        """Run the language model over tokens behind those that the first sequence holds.

        Args:
            tokens: at least one.
            position: of the first.
            rows: of how many tokens, the last ones, to return the logits.

        Returns:
            float32 [rows, vocabulary], a copy.

        Raises:
            WiseEdgeError: llama.cpp failed.
        """
        return self.append_each([Piece(tokens, position)], rows=rows)

    def append_each(self, pieces: Sequence[Piece], *, rows: int = 1) -> npt.NDArray[np.float32]:
        """Run the language model over tokens of several sequences in one call.

        Args:
            pieces: at least one, one for a sequence.
            rows: of how many tokens of each piece, the last ones, to return the logits.

        Returns:
            float32 [pieces * rows, vocabulary], a copy, those of the first piece in front.
        """
        if self._llama.llama_decode(self._context, self._batch.fill(pieces, rows)):
            raise WiseEdgeError(explain_failure("llama.cpp failed on the prompt"))
        found = self._llama.llama_get_logits(self._context)  # those that were wanted, one behind the other
        count = len(pieces) * rows
        floats: Any = (ctypes.c_float * (count * self._vocabulary)).from_address(ctypes.addressof(found.contents))
        logits: npt.NDArray[np.float32] = np.frombuffer(floats, np.float32).reshape(count, -1).copy()
        return logits

    def truncate(self, position: int) -> None:
        """Forget everything of the first sequence from a position on."""
        self._llama.llama_memory_seq_rm(self._llama.llama_get_memory(self._context), 0, position, -1)

    def fork(self, position: int, count: int) -> None:
        """Let so many sequences, the first one included, begin with what the first holds up to a position."""
        memory = self._llama.llama_get_memory(self._context)
        for sequence in range(1, count):
            self._llama.llama_memory_seq_cp(memory, 0, sequence, 0, position)

    def join(self) -> None:
        """Forget every sequence but the first."""
        memory = self._llama.llama_get_memory(self._context)
        for sequence in range(1, MAX_SEQUENCES):
            self._llama.llama_memory_seq_rm(memory, sequence, -1, -1)

    def save(self) -> npt.NDArray[np.uint8]:
        """Return the keys and values of the first sequence."""
        size = self._llama.llama_state_seq_get_size(self._context, 0)
        state = np.empty(size, np.uint8)
        written = self._llama.llama_state_seq_get_data(self._context, _bytes_of(state), size, 0)
        return state[:written]

    def restore(self, state: npt.NDArray[np.uint8]) -> None:
        """Let the first sequence hold what `save` returned.

        Raises:
            WiseEdgeError: llama.cpp does not take it.
        """
        self.truncate(0)
        if not self._llama.llama_state_seq_set_data(self._context, _bytes_of(state), state.size, 0):
            raise WiseEdgeError(explain_failure("llama.cpp cannot restore its state"))


def _loading_error(file: Path, what: str) -> WiseEdgeError:
    reason = explain_failure(what)
    return find_shortage(file, reason) or WiseEdgeError(reason)


def _bytes_of(array: npt.NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
