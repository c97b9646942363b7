"""Reading pickles that hold plain data, without running what a pickle can ask to be run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

from wise_edge.errors import UsageError


def load_plain_pickle(path: Path) -> Any:
    """Read a pickle of lists, tuples, dicts, texts, numbers, booleans and None.

    Args:
        path: a file of any pickle protocol; texts that Python 2 wrote are taken as UTF-8.

    Raises:
        UsageError: the file asks for a class or function, is damaged, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8", errors="replace").load()
    except UsageError as error:
        raise UsageError(f"{path} {error}; it is refused, get it from its makers again") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # on damaged pickles the unpickler raises nearly anything
        raise UsageError(f"{path} is damaged or no pickle ({type(error).__name__}); fetch it again") from None


class _PlainUnpickler(pickle.Unpickler):
    """Plain data needs no name, so every name is refused before it is imported."""

    def find_class(self, module: str, name: str, /) -> NoReturn:
        raise UsageError(f"asks for {module}.{name} and not for plain data alone")

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise UsageError("refers to data outside of itself")
