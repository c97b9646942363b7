"""What torch has saved in a file, read without running anything in it, and within its own size.

torch reads a pickle with operations and classes of its own list. It still hashes what nests itself as the key of a
dictionary, which takes two to the power of its depth, unpacks what was compressed, and believes the size of a tensor
that repeats one number. So these are checked first.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PosixPath
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.inputs import refuse_lfs_pointer
from wise_edge.native.loading import COPY, BoundedFile, name_reason

if TYPE_CHECKING:
    from torch import Tensor

_LEGACY_PICKLES = 4
"""Before torch 1.6: a number, a version, facts of the machine, and then the object; storages follow
(https://github.com/pytorch/pytorch/blob/main/torch/serialization.py, `_legacy_save`)."""
_LOCAL_HEADER = 30  # bytes of a zip archive's header before a member's name
_LONGEST_HASH = 10_000  # values that one hash may visit; a trainer's tuples have a few
_MOST_REPEATED_BYTES = 1 << 30
"""What tensors may have beyond their storage: `expand` repeats its numbers, which are saved once."""
_STORES, _FETCHES = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), ("GET", "BINGET", "LONG_BINGET")
_HASHED = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "NEWOBJ")
"""Operations whose result may be hashed with all that it holds."""


def load_pickle(
    file: Path,
    stand_in: Callable[[str], type | None] = lambda name: None,
    remedies: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Return what torch saved in a file, its tensors memory-mapped; nothing in the file is run.

    Args:
        file: the file.
        stand_in: returns the class to read objects of another class as, given that one's full name, or None.
        remedies: what to do about an object of a class, by how the class's full name begins.

    Raises:
        UsageError: it cannot be read, is a pointer of Git LFS, or holds objects other than containers, numbers, text,
            tensors, arrays and a trainer's arguments; the message names their class.
        MissingExtraError: torch is not installed.
    """
    require("torch", "export")
    refuse_lfs_pointer(file)
    try:
        found = _load_archive(file, stand_in) if zipfile.is_zipfile(file) else _load_legacy(file)
        _check_sizes(_find_tensors(found), file.stat().st_size)
        return found
    except UsageError:
        raise
    except Exception as error:  # torch's unpickler raises almost any class for what is no checkpoint
        if stranger := re.search(r"GLOBAL (\S+) was not an allowed global", str(error)):
            fitting = (text for start, text in remedies.items() if stranger[1].startswith(start))
            remedy = next(fitting, "save the model's state_dict() instead")
            raise UsageError(
                f"{file} holds no weights that can be read safely: it holds an object of {stranger[1]}, and reading "
                f"it would run its code; {remedy}"
            ) from error
        # torch says the reason somewhere in a page about its settings.
        stated = re.search(r"WeightsUnpickler error: \s*(.+)", str(error))
        reason = stated[1][:160] if stated else name_reason(error)
        raise UsageError(f"{file} holds no weights that can be read safely ({reason}); {COPY}") from error


def _load_archive(file: Path, stand_in: Callable[[str], type | None]) -> Any:
    """Load a file of torch 1.6 or later, which is a zip archive."""
    names: set[str] = set()
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(Path(member.filename).name == "constants.pkl" for member in members):
        raise UsageError(f"{file} is a TorchScript archive; save the model's state_dict() instead")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UsageError(f"{file} is compressed; unpack it, or save it again with torch.save")
    if sum(member.file_size for member in members) > file.stat().st_size:
        raise ValueError("its parts are larger than the file")
    with BoundedFile(file) as stream:
        for member in members:
            if Path(member.filename).name == "data.pkl":
                names |= _check_hashes(io.BytesIO(_read_member(stream, member)))
    stand_ins = [(found, name) for name in sorted(names) if (found := stand_in(name))]
    with _allowing([*_harmless_classes(), *stand_ins]):
        return require("torch", "export").load(file, map_location="cpu", weights_only=True, mmap=True)


def _read_member(stream: IO[bytes], member: zipfile.ZipInfo) -> bytes:
    """Read a member without its checksum, which torch can be told to leave out."""
    stream.seek(member.header_offset)
    header = stream.read(_LOCAL_HEADER)
    lengths = (int.from_bytes(header[place : place + 2], "little") for place in (26, 28))  # of name and extra field
    stream.seek(sum(lengths), os.SEEK_CUR)
    return stream.read(member.file_size)


def _load_legacy(file: Path) -> Any:
    """Load a file of before torch 1.6, which cannot be mapped."""
    with BoundedFile(file) as stream:
        if stream.peek(1)[:1] != pickle.PROTO:
            raise ValueError("it does not begin as torch's files do")
        for _ in range(_LEGACY_PICKLES):
            _check_hashes(stream)
        stream.seek(0)
        with _allowing(_harmless_classes()):
            return require("torch", "export").load(stream, map_location="cpu", weights_only=True)


@contextmanager
def _allowing(classes: Iterable[Any]) -> Iterator[None]:
    """Have torch load these classes alone: of two for one name, for example its own DTensor, it takes either."""
    serialization = require("torch", "export").serialization
    others = serialization.get_safe_globals()
    serialization.clear_safe_globals()
    serialization.add_safe_globals(list(classes))
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(others)


def _check_hashes(stream: IO[bytes]) -> set[str]:
    """Go through a pickle to its end, and return the full names of the classes and functions that it names.

    Raises:
        ValueError: a hash in it may visit too many values.
    """
    names = set()
    stack: list[int | None] = []  # how many values a hash of each object visits; None for a mark
    stored: dict[int, int | None] = {}
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name == "GLOBAL":
            names.add(str(argument).replace(" ", "."))
        if operation.name in _STORES:
            stored[len(stored) if argument is None else argument] = stack[-1]
            continue
        if operation.name in _FETCHES:
            stack.append(stored[int(argument or 0)])
            continue
        visited = 1
        for taken in reversed(operation.stack_before):
            if taken is pickletools.markobject:
                continue
            while stack:
                visited += (value := stack.pop()) or 0
                if taken is not pickletools.stackslice or value is None:
                    break
        if visited > _LONGEST_HASH and operation.name in _HASHED:
            raise ValueError("its values are nested too deeply")
        for given in operation.stack_after:
            is_mark = given is pickletools.markobject
            stack.append(None if is_mark else visited if operation.name in _HASHED else 1)
    return names


def _find_tensors(found: Any) -> Iterator[Tensor]:
    """Yield the tensors in containers, and in tensors that only wrap others, each container once."""
    torch, waiting, seen = require("torch", "export"), [found], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            if type(value).__torch_dispatch__ is torch.Tensor.__torch_dispatch__:
                yield value
            else:
                waiting += vars(value).values()
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def _check_sizes(tensors: Iterable[Tensor], file_bytes: int) -> None:
    """Raise `ValueError` for tensors of far more numbers than the file holds."""
    repeated = 0
    for tensor in tensors:
        if tensor.layout is not require("torch", "export").strided:
            continue  # torch checks the indices of sparse ones
        stored = tensor.untyped_storage().nbytes()
        repeated += max(0, tensor.nbytes - stored)
        if stored > file_bytes or repeated > _MOST_REPEATED_BYTES:
            raise ValueError("a tensor is larger than what is stored of it")


def _harmless_classes() -> list[Any]:
    """Return what trainings save beside weights and torch does not allow by itself; none of it runs anything."""
    import numpy as np

    core = importlib.import_module("numpy._core" if hasattr(np, "_core") else "numpy.core").multiarray
    arrays = [
        (getattr(core, name), f"numpy.{room}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for room in ("core", "_core")
    ]
    types = {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdSU"}
    return [argparse.Namespace, PosixPath, np.ndarray, np.dtype, *types, *arrays]
