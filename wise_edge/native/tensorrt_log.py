"""TensorRT's log, kept for messages of ours: TensorRT logs its errors instead of raising them."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def make_log(trt: ModuleType) -> Any:
    """Return a logger that prints nothing and has `errors`, a list of messages, and `first`, the first of them.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
    """
    severe = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in severe:
                self.errors.append(" ".join(message.split()))

        @property
        def first(self) -> str:
            # A build without a GPU sometimes logs that the driver is missing, which makes no build fail.
            relevant = [error for error in self.errors if "cudaError" not in error]
            return next(iter(relevant or self.errors), "TensorRT reported no reason")

    return Log()
