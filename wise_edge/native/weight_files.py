"""The files that hold a checkpoint folder's weights, and each tensor's place, type and shape in them.

The files are those that transformers reads: safetensors, or PyTorch's own pickles (`.bin`), whole or in shards that an
index lists. Headers and pickles tell names, types and shapes, so a folder of many gigabytes is judged without reading
its numbers, which stay on disk until a tensor is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import INDEX_BYTES, read_json
from wise_edge.files.inputs import refuse_lfs_pointer
from wise_edge.native.loading import loading
from wise_edge.native.torch_pickles import load_pickle

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("model.safetensors", "pytorch_model.bin")
"""A model's files, in the order in which they count; in shards, an index of their names lies beside them."""
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int8": "I8",
    "uint8": "U8",
}
"""torch's names of types to those of safetensors; the others stay as they are."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's place in a file.

    Attributes:
        file: the file.
        name: its name in the file.
        dtype: its type as safetensors names it, for example "BF16" or "F8_E4M3".
        shape: its shape.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """Return the tensor as stored; its file stays mapped as long as the tensor exists.

        Raises:
            UsageError: the file cannot be read.
        """
        if self.file.suffix == ".bin":
            return _load_pickle(self.file)[self.name]
        with _open_safetensors(self.file) as tensors, loading(self.file, "a safetensors file"):
            tensor: Tensor = tensors.get_tensor(self.name)
        return tensor


def find_weight_files(folder: Path, names: Sequence[str] = NAMES) -> list[Path]:
    """Return the files of a folder's weights, in the order of their names; none if it has none.

    Raises:
        UsageError: an index is malformed, or names a file that is missing or outside of the folder; the folder holds
            two models.
    """
    for name in names:
        single, index = folder / name, folder / f"{name}.index.json"
        listed = _listed_files(index) if index.is_file() else []
        if single.is_file() and listed not in ([], [single]):
            raise UsageError(f"{folder} holds both {name} and the shards of {index.name}; remove those that are old")
        if files := listed or [single] * single.is_file():
            return files
    return []


def list_tensors(folder: Path, names: Sequence[str] = NAMES) -> list[StoredTensor]:
    """Return the tensors in a folder's weight files, without reading their numbers.

    Raises:
        UsageError: see `find_weight_files`; or a file is damaged, a pointer of Git LFS, or holds something other than
            tensors.
        MissingExtraError: safetensors, or torch for a `.bin` file, is not installed.
    """
    return [tensor for file in find_weight_files(folder, names) for tensor in list_file_tensors(file)]


def _listed_files(index: Path) -> list[Path]:
    listed = read_json(index, INDEX_BYTES).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise UsageError(f"{index} lists no files of weights; copy it again")
    names = sorted(set(listed.values()))
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise UsageError(f"{index} names {name!r}, which is outside of the folder; do not use this checkpoint")
    files = [index.parent / name for name in names]
    with loading(index, "an index of weights"):  # a name may be longer than any file's
        missing = [file.name for file in files if not file.is_file()]
    if missing:
        more = f", and {len(missing) - 1} more," if missing[1:] else ""
        raise UsageError(f"{index.parent / missing[0]}{more} is missing; copy or download the whole checkpoint")
    return files


def list_file_tensors(file: Path) -> Iterator[StoredTensor]:
    """Yield the tensors in a safetensors or `.bin` file; see `list_tensors`."""
    if file.suffix == ".bin":
        for name, tensor in _load_pickle(file).items():
            dtype = str(tensor.dtype).removeprefix("torch.")
            yield StoredTensor(file, name, DTYPES.get(dtype, dtype), tuple(tensor.shape))
        return
    with _open_safetensors(file) as tensors, loading(file, "a safetensors file"):
        parts = [(name, tensors.get_slice(name)) for name in tensors.keys()]  # noqa: SIM118 - it is not a mapping
        found = [StoredTensor(file, name, str(part.get_dtype()), tuple(part.get_shape())) for name, part in parts]
    yield from found


def _open_safetensors(file: Path) -> Any:
    safetensors = require("safetensors", "export")
    refuse_lfs_pointer(file)
    with loading(file, "a safetensors file"):
        return safetensors.safe_open(file, framework="pt")


def _load_pickle(file: Path) -> Mapping[str, Tensor]:
    stat = file.stat()
    return _load_unchanged_pickle(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1)  # tensors are read file by file, and unpickling a file's structure for each of them is slow
def _load_unchanged_pickle(file: Path, _mtime_ns: int, _size: int) -> Mapping[str, Tensor]:
    state, tensor = load_pickle(file), require("torch", "export").Tensor
    if not isinstance(state, dict) or not all(isinstance(value, tensor) for value in state.values()):
        raise UsageError(f"{file} is not a dictionary of tensors; pass a checkpoint that transformers saved")
    return state


def check_finite(source: str | Path, weights: Mapping[str, Tensor]) -> None:
    """Raise `UsageError` that names the first tensor with a value that is not finite."""
    torch = require("torch", "export")
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise UsageError(f"{source}: {name} holds values that are not finite; train or copy it again")
