"""Time that passes only when somebody waits, samplers that read in it, and backends that take it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fake_session import FakeImage, FakeMask, FakePolicy, Write, write_canned
from wise_edge.power.sampler import PowerSampler
from wise_edge.power.sources import PowerSource
from wise_edge.profiling import meter
from wise_edge.runtimes import segmenter, session
from wise_edge.runtimes.base import MaskOutput, MaskPrompt, PolicyOutput, Request


class VirtualTime:
    """A clock, what waits by it, and samplers that it steps: no busy machine changes what they see."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._due: dict[Iterator[float], float] = {}

    @property
    def options(self) -> dict[str, Any]:
        """What lets a meter live in this time."""
        return {"clock": self.clock, "pause": self.pause, "make_sampler": self.make_sampler}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let sessions and profiles live in this time."""
        for module in (segmenter, session):
            monkeypatch.setattr(module, "perf_counter", self.clock)
        monkeypatch.setattr(meter, "Meter", partial(meter.Meter, **self.options))

    def clock(self) -> float:
        return self.now_s

    def pause(self, seconds: float) -> None:
        """Let time pass, and samplers read whenever they are due."""
        end_s = self.now_s + seconds
        while self._due and (next_s := min(self._due.values())) <= end_s:
            self.now_s = max(self.now_s, next_s)
            for readings in [readings for readings, due_s in self._due.items() if due_s <= self.now_s]:
                self._due[readings] = self.now_s + next(readings, math.inf)  # a source that is lost is not read again
        self.now_s = end_s

    def make_sampler(self, source: PowerSource, clock: Callable[[], float]) -> PowerSampler:
        time = self

        class Stepped(PowerSampler):
            @contextmanager
            def running(self) -> Iterator[PowerSampler]:
                self.stepped = self.readings()
                time._due[self.stepped] = time.now_s
                try:
                    yield self
                finally:
                    del time._due[self.stepped]

            @contextmanager
            def resting(self) -> Iterator[None]:
                due_s = time._due.pop(self.stepped)
                try:
                    yield
                finally:
                    time._due[self.stepped] = max(due_s, time.now_s)

        return Stepped(source, clock)


class TimedPolicy(FakePolicy):
    """Takes the time that it reports."""

    def __init__(self, time: VirtualTime, write: Write = write_canned, name: str = "fake") -> None:
        super().__init__(write, name=name)
        self.time = time

    def encode(self, image: npt.NDArray[np.uint8], pixels: int | None = None) -> FakeImage:
        encoded = super().encode(image, pixels)
        self.time.pause((encoded.preprocess_ms + encoded.vision_encode_ms + encoded.prefill_ms) / 1e3)
        return encoded

    def generate(self, encoded: FakeImage, request: Request) -> PolicyOutput:
        output = super().generate(encoded, request)
        self.time.pause((output.prefill_ms + output.decode_ms) / 1e3)
        return output


class TimedMask(FakeMask):
    """Takes the time that it reports."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__()
        self.time = time

    def encode(self, image: npt.NDArray[np.uint8]) -> FakeImage:
        encoded = super().encode(image)
        self.time.pause((encoded.preprocess_ms + encoded.encode_ms) / 1e3)
        return encoded

    def decode(self, encoded: FakeImage, prompt: MaskPrompt) -> MaskOutput:
        found = super().decode(encoded, prompt)
        self.time.pause(found.decode_ms / 1e3)
        return found
