"""A Qwen-VL policy on llama.cpp, through the low-level interface of llama-cpp-python.

Prompts are passed as tokens of the policy's own tokenizer; llama.cpp's tokenizer is not used.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from wise_edge.errors import DeviceError, WiseEdgeError
from wise_edge.files.mapped import is_mapped
from wise_edge.native.gguf_header import check_gguf
from wise_edge.native.llama_library import (
    TESTED_VERSIONS,
    explain_failure,
    loading_error,
    require_llama,
    require_mtmd,
)
from wise_edge.native.llama_vision import LlamaImage, LlamaVision

MAX_SEQUENCES = 8
"""Sequences of keys and values that a model holds at once."""
_STATES = 4
"""Of a model with a recurrent state, which takes memory for each of them, 53 MB with the shape of Qwen3.5-4B."""
_SNAPSHOTS = 2
"""States to return to that such a model keeps besides: after the words before an image, and after it."""
_SMALL_FILE = 32 * 10**6  # bytes


@dataclass(frozen=True)
class Piece:
    """Tokens of one sequence to run.

    Attributes:
        tokens: at least one token.
        position: position of the first token.
        sequence: index of the sequence that they belong to.
    """

    tokens: Sequence[int]
    position: int
    sequence: int = 0


def default_threads(text: Path) -> int:
    """Return the CPU threads for a language model's file: one per core, or a single one for a small file.

    In a small model, threads wait for one another longer than they compute: one thread takes 41 ms per query of the
    embedded policy instead of 57 on two cores (`benchmarks/against_reference.py`).
    """
    small = text.exists() and text.stat().st_size < _SMALL_FILE
    return 1 if small else os.cpu_count() or 1


class _Batch:
    """llama.cpp's description of tokens to run, in memory that is allocated once.

    Args:
        llama: llama.cpp's interface.
        capacity: the most tokens that it can describe.
    """

    def __init__(self, llama: ModuleType, capacity: int) -> None:
        self._batch = llama.llama_batch_init(capacity, 0, 1)
        weakref.finalize(self, llama.llama_batch_free, self._batch)
        self._tokens = np.ctypeslib.as_array(self._batch.token, (capacity,))
        self._positions = np.ctypeslib.as_array(self._batch.pos, (capacity,))
        self._wanted = np.ctypeslib.as_array(self._batch.logits, (capacity,))
        np.ctypeslib.as_array(self._batch.n_seq_id, (capacity,))[:] = 1

    def fill(self, pieces: Sequence[Piece], rows: int) -> Any:
        """Describe pieces, and request the logits of the last `rows` tokens of each."""
        start = 0
        for piece in pieces:
            end = start + len(piece.tokens)
            self._tokens[start:end] = piece.tokens
            self._positions[start:end] = range(piece.position, piece.position + end - start)
            self._wanted[start : end - rows] = 0
            self._wanted[end - rows : end] = 1
            for index in range(start, end):
                self._batch.seq_id[index][0] = piece.sequence
            start = end
        self._batch.n_tokens = start
        return self._batch


class LlamaModel:
    """A language model and its vision tower, with one sequence of keys and values and forks of it.

    Args:
        text: GGUF file of the language model.
        vision: GGUF file of the vision tower (mmproj).
        context: tokens that all sequences hold together; a prefix that they share counts once.
        threads: CPU threads; None uses `default_threads` (llama.cpp would use four, whatever the number of cores).
        gpu: put all layers on the GPU.
        flash_attention: attend with fused kernels. None leaves the choice to llama.cpp on a GPU, and does not use them
            on a CPU, where the kernel visits keys one by one: 3.9 ms instead of 2.0 for a token of each of eight
            sequences of the embedded policy, 176 instead of 150 for one of a policy of 3B, and faster nowhere.
        exact: keep keys and values in float32 and attend without fused kernels, for comparison with torch.

    Attributes:
        rewinds: whether `truncate` returns to any position. Layers with a recurrent state (Qwen3.5's) cannot forget
            single tokens: such a model returns to snapshots, and can run no draft that may be wrong.
        sequences: the most sequences that run together.

    Raises:
        MissingExtraError: llama-cpp-python is not installed.
        DeviceError: its version is untested, `gpu` is set and it was built for the CPU, or memory ran out.
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
        self._llama, self._mtmd = require_llama(), require_mtmd()
        if gpu and not self._llama.llama_supports_gpu_offload():
            raise DeviceError(
                "this llama-cpp-python was built for the CPU; run: CMAKE_ARGS=-DGGML_CUDA=on FORCE_CMAKE=1 "
                f"pip install --no-cache-dir --force-reinstall llama-cpp-python=={TESTED_VERSIONS[-1]}"
            )
        self._length = context
        self._snapshots: list[int] = []  # positions; each is held by a sequence beyond the others
        threads = threads or default_threads(text)
        self._flash_attention = False if exact or (flash_attention is None and not gpu) else flash_attention
        self._open_text(text, threads, gpu, exact)
        self._vision = LlamaVision(vision, self._model, self._width, threads=threads, gpu=gpu, exact=exact)
        self._finalizers.append(weakref.finalize(self, self._vision.close))

    def _open_text(self, file: Path, threads: int, gpu: bool, exact: bool) -> None:
        llama = self._llama
        check_gguf(file)
        llama.llama_backend_init()
        model_params = llama.llama_model_default_params()
        if not is_mapped(file):
            model_params.load_mode = (
                llama.LLAMA_LOAD_MODE_NONE
            )  # read it; ctypes takes the old name, use_mmap, in silence
        model_params.n_gpu_layers = -1 if gpu else 0
        model_params.split_mode = llama.LLAMA_SPLIT_MODE_NONE  # one GPU: the one whose memory and energy are reported
        model = llama.llama_model_load_from_file(str(file).encode(), model_params)
        if not model:
            raise loading_error(file, f"llama.cpp cannot load {file}")
        self._finalizers.append(weakref.finalize(self, llama.llama_model_free, model))
        self._model = model
        self.rewinds = not (llama.llama_model_is_hybrid(model) or llama.llama_model_is_recurrent(model))
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = self._length
        self.sequences = MAX_SEQUENCES if self.rewinds else _STATES
        params.n_seq_max = self.sequences + (0 if self.rewinds else _SNAPSHOTS)
        params.kv_unified = True  # sequences share cells, and so a prefix
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
            raise loading_error(file, f"llama.cpp cannot hold {self._length} tokens of {file}")
        self._finalizers.append(weakref.finalize(self, llama.llama_free, context))
        self._context = context
        self._batch = _Batch(llama, self._length)
        self._vocabulary = int(llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model)))
        self._width = int(llama.llama_model_n_embd_inp(model))

    def close(self) -> None:
        """Free the memory; nothing can be run afterwards."""
        while self._finalizers:
            self._finalizers.pop()()  # in reverse order: each depends on those before it

    def encode(self, image: npt.NDArray[np.uint8]) -> LlamaImage:
        """Run the vision tower, see `LlamaVision.encode`."""
        return self._vision.encode(image)

    def append_image(self, image: LlamaImage, position: int) -> int:
        """Run the language model over an image's embeddings, after the tokens that the first sequence holds.

        Args:
            image: from `encode`.
            position: position of its first token.

        Returns:
            The position after it: M-RoPE counts an image by its longer side, not by its tokens.

        Raises:
            WiseEdgeError: llama.cpp failed.
        """
        following = self._llama.llama_pos(0)
        failed = self._mtmd.mtmd_helper_decode_image_chunk(
            self._vision.context,
            self._context,
            image.chunk,
            image.embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            position,
            0,
            self._length,
            ctypes.byref(following),
            self._mtmd.mtmd_helper_post_decode_callback(),
            None,
        )
        if failed:
            self._forget_states()
            raise WiseEdgeError(explain_failure("llama.cpp failed on the image"))
        return int(following.value)

    def append(self, tokens: Sequence[int], position: int, *, rows: int = 1) -> npt.NDArray[np.float32]:
        """Run the language model over tokens after those that the first sequence holds.

        Args:
            tokens: at least one token.
            position: position of the first token.
            rows: number of last tokens whose logits are returned.

        Returns:
            float32 [rows, vocabulary], a copy.

        Raises:
            WiseEdgeError: llama.cpp failed.
        """
        return self.append_each([Piece(tokens, position)], rows=rows)

    def append_each(self, pieces: Sequence[Piece], *, rows: int = 1) -> npt.NDArray[np.float32]:
        """Run the language model over tokens of several sequences in one call.

        Args:
            pieces: at least one, at most one per sequence.
            rows: number of last tokens of each piece whose logits are returned.

        Returns:
            float32 [pieces * rows, vocabulary], a copy, in the order of the pieces.

        Raises:
            WiseEdgeError: llama.cpp failed.
        """
        if self._llama.llama_decode(self._context, self._batch.fill(pieces, rows)):
            self._forget_states()
            raise WiseEdgeError(explain_failure("llama.cpp failed on the prompt"))
        found = self._llama.llama_get_logits(self._context)  # the requested ones, one after another
        count = len(pieces) * rows
        floats: Any = (ctypes.c_float * (count * self._vocabulary)).from_address(ctypes.addressof(found.contents))
        logits: npt.NDArray[np.float32] = np.frombuffer(floats, np.float32).reshape(count, -1).copy()
        return logits

    def truncate(self, position: int) -> int:
        """Remove what the first sequence holds from a position on.

        Returns:
            That position or, if the model does not rewind, that of the last snapshot up to it, else 0.
        """
        if self.rewinds:
            self._llama.llama_memory_seq_rm(self._memory, 0, position, -1)
            return position
        while self._snapshots and self._snapshots[-1] > position:
            self._snapshots.pop()
            self._remove(self.sequences + len(self._snapshots))
        self._remove(0)
        if not self._snapshots:
            return 0
        self._copy(self.sequences + len(self._snapshots) - 1, 0)
        return self._snapshots[-1]

    def snapshot(self, position: int) -> None:
        """Let `truncate` return to what the first sequence holds now, in place of the last snapshot if all are used.

        Nothing is copied: two sequences share a state until one of them runs.

        Args:
            position: of the next token.
        """
        if not self.rewinds:
            self._snapshots = self._snapshots[: _SNAPSHOTS - 1]
            keeper = self.sequences + len(self._snapshots)
            self._remove(keeper)
            self._copy(0, keeper)
            self._snapshots.append(position)

    def _forget_states(self) -> None:
        """Remove everything from a model with recurrent states, which a failed call may have written in part."""
        if not self.rewinds:
            self.truncate(0)

    def fork(self, position: int, count: int) -> None:
        """Let `count` sequences, the first one included, share what the first one holds: all up to a position."""
        for sequence in range(1, count):
            self._llama.llama_memory_seq_cp(self._memory, 0, sequence, 0, position)

    def join(self) -> None:
        """Remove every sequence except the first."""
        for sequence in range(1, self.sequences):
            self._remove(sequence)

    @property
    def _memory(self) -> Any:
        return self._llama.llama_get_memory(self._context)

    def _copy(self, source: int, target: int) -> None:
        self._llama.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def _remove(self, sequence: int) -> None:
        self._llama.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def save(self) -> npt.NDArray[np.uint8]:
        """Return the keys and values of the first sequence, uint8 [bytes]."""
        size = self._llama.llama_state_seq_get_size(self._context, 0)
        state = np.empty(size, np.uint8)
        written = self._llama.llama_state_seq_get_data(self._context, _bytes_of(state), size, 0)
        return state[:written]

    def restore(self, state: npt.NDArray[np.uint8]) -> None:
        """Replace the first sequence by what `save` returned; no snapshot stays.

        Raises:
            WiseEdgeError: llama.cpp rejects the state.
        """
        self.truncate(0)
        if not self._llama.llama_state_seq_set_data(self._context, _bytes_of(state), state.size, 0):
            raise WiseEdgeError(explain_failure("llama.cpp cannot restore its state"))


def _bytes_of(array: npt.NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
