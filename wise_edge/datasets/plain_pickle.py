"""Reads pickles of plain data without running any code that a pickle asks for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

from wise_edge.errors import UsageError
from wise_edge.files.inputs import refuse_lfs_pointer


def load_plain_pickle(path: Path) -> Any:
    """Read a pickle of lists, tuples, dicts, texts, numbers, booleans and None.

    Args:
        path: a file of any pickle protocol; byte strings of Python 2 are read as UTF-8.

    Raises:
        UsageError: the file asks for a class or function, is damaged, or cannot be read.
    """
    refuse_lfs_pointer(path)
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8", errors="replace").load()
    except UsageError as error:
        raise UsageError(f"{path} {error}; it was not loaded, download it again from its publisher") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # on damaged pickles the unpickler raises almost anything
        raise UsageError(f"{path} is damaged or not a pickle ({type(error).__name__}); download it again") from None


class _PlainUnpickler(pickle.Unpickler):
    """Plain data needs no names, so every name is rejected before it is imported."""

    def find_class(self, module: str, name: str, /) -> NoReturn:
        raise UsageError(f"asks for {module}.{name} and not only for plain data")

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise UsageError("refers to data outside the file")
