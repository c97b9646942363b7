"""What TensorRT says, kept for our own messages: it prints nothing, and its errors come without being raised."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def make_log(trt: ModuleType) -> Any:
    """Return a logger with `errors`, a list of messages, and `first`, the first of them.

    Args:
        trt: `tensorrt` or `tensorrt_rtx`.
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
            # Building without a GPU, the driver is asked for and missed now and then; no build fails by it.
            telling = [error for error in self.errors if "cudaError" not in error]
            return next(iter(telling or self.errors), "no reason given")

    return Log()
