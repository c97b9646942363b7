"""A backend that is one row: a policy that writes a canned answer, and a segmenter that fills the box.

backends.BACKENDS = (ROW, *backends.BACKENDS)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fake_session import FakeMask, FakePolicy
from wise_edge.bundle.store import Bundle
from wise_edge.runtimes.backends import Backend, Support

ROW = Backend(
    "fictional",
    "the fictional runtime",
    "the fictional runtime is installed",
    "fiction",
    {
        "policy": Support("fake_backend", ("policy.decoder",), ("numpy",)),
        "mask": Support("fake_backend", ("sam.decoder",), ("numpy",)),
    },
    "fiction",
    build_fits=lambda: True,
    build_advice="this fictional runtime was built for nothing; build it again",
)
UNINSTALLED = replace(ROW, parts={"policy": replace(ROW.parts["policy"], packages=("no_such_package",))})


def open_policy(bundle: Bundle, row: Backend, **_: Any) -> FakePolicy:
    return FakePolicy(name=row.name, input_size=bundle.manifest.policy.input_size)


def open_mask(bundle: Bundle, row: Backend, **_: Any) -> FakeMask:
    return FakeMask(row.name)
