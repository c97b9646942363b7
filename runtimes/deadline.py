"""Chooses the rationale and the budget of pixels that fit a deadline, from what queries took on this device so far.

The paper (https://arxiv.org/abs/2604.02040) leaves an adaptive budget for future work. Where the bundle records
evaluations, the most accurate of the evaluated pairs of variant and budget whose expected time fits is chosen;
otherwise the richest variant. Its rationale is closed when the time left would not suffice for the answer.

Expected is the 90th percentile of the latest readings of each part: the work on the image, the prompt's words and the
mask, and one step of the language model, each by budget; the steps of an answer, and those of a variant's rationale.
Until a variant has been seen, the mean of its evaluation stands in for its rationale, or the paper's. Until a budget
has been seen, the parts of the one that is nearest in image tokens stand in for its own, and what the policy spends on
the image is scaled by their number.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wise_edge.arguments import describe, is_number
from wise_edge.bundle.evaluated import Evaluated
from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json, to_json
from wise_edge.files.writing import replacing
from wise_edge.policy.prompts import check_variant
from wise_edge.runtimes.deadline_options import RICHEST_FIRST, Option

_KEPT = 32
_SHARE = 0.9
_LONGEST_MS = 1e9
_SHORTEST_STEP_MS = 1e-6
_MOST_BUDGETS = 128
"""More than a bundle records; the one that was not seen for longest is forgotten."""
_COMPLETIONS = "completions"
_PARTS = ("frame_ms", "image_ms", "image_tokens", "query_ms", "step_ms")

Readings = dict[str, deque[float]]


@dataclass(frozen=True)
class DeadlineChoice:
    """What was chosen to meet a deadline.

    Attributes:
        deadline_ms: the deadline, from the image to the mask.
        variant: the prompt variant.
        pixels: most pixels of the image as the policy sees it; None for as many as the bundle takes.
        max_rationale_tokens: the rationale is closed after so many tokens; None for no limit.
        expected_ms: expected time of the query; None if nothing had been measured.
        giou: accuracy of variant and budget as the bundle records it, a fraction; None if it records nothing.
        reason: why.
        considered: what there was to choose from, one line each.
    """

    deadline_ms: float
    variant: str
    pixels: int | None
    max_rationale_tokens: int | None
    expected_ms: float | None
    giou: float | None
    reason: str
    considered: tuple[str, ...]


@dataclass(frozen=True)
class FrameCost:
    """What an image cost that was new.

    Attributes:
        ms: all work on it.
        policy_ms: the policy's part.
        image_tokens: as how many tokens the policy saw it.
    """

    ms: float
    policy_ms: float
    image_tokens: int


@dataclass(frozen=True)
class _Pace:
    """What the parts of a query are expected to take."""

    frame_ms: float
    query_ms: float
    step_ms: float


class LatencyHistory:
    """The latest measurements of one device, bundle and choice of backends."""

    def __init__(self) -> None:
        self._completions = _no_readings()  # steps of an answer, and each variant's tokens of a rationale
        self._budgets: dict[str, Readings] = {}  # the latest last

    @classmethod
    def read(cls, file: Path) -> LatencyHistory:
        """Return what `write` kept; an empty history if the file is missing or unreadable."""
        history = cls()
        try:
            for section, readings in read_json(file).items():
                own = history._completions if section == _COMPLETIONS else history._of_budget(section)
                for name, values in readings.items():
                    own[name].extend(_to_reading(value) for value in values)
        except (AttributeError, UsageError, ValueError, TypeError):
            return cls()
        return history

    def write(self, file: Path) -> None:
        """Keep the measurements for another process; raises `OSError` or `WiseEdgeError` if it cannot be written."""
        file.parent.mkdir(parents=True, exist_ok=True)
        sections = {_COMPLETIONS: self._completions, **self._budgets}
        kept = {
            section: {name: list(values) for name, values in readings.items()} for section, readings in sections.items()
        }
        with replacing(file) as fresh:
            fresh.write_text(to_json(kept))

    def observe(
        self, variant: str, pixels: int | None = None, *, frame: FrameCost | None, query_ms: float, decode: Decode
    ) -> None:
        """Add a query.

        Args:
            variant: the prompt variant.
            pixels: the budget of pixels.
            frame: the work on the image; None if an earlier query paid for any of it.
            query_ms: the prompt's words and the mask.
            decode: writing the completion.
        """
        budget = self._of_budget(_section(pixels))
        if frame is not None:
            budget["frame_ms"].append(frame.ms)
            budget["image_ms"].append(frame.policy_ms)
            budget["image_tokens"].append(frame.image_tokens)
        budget["query_ms"].append(query_ms)
        if decode.steps:
            budget["step_ms"].append(decode.ms / decode.steps)
            self._completions["answer_steps"].append(max(0, decode.steps - decode.rationale_tokens))
            self._completions[variant].append(decode.rationale_tokens)

    def choose(self, deadline_ms: float, options: Sequence[Option]) -> DeadlineChoice:
        """Choose the first option that fits.

        Args:
            deadline_ms: from the image to the mask.
            options: the best first; one at least.
        """
        paces = {option: self._pace(option) for option in options}
        if not all(paces.values()):
            fastest = min(options, key=lambda option: (self._rationale(option), option.image_tokens))
            reason = f"{fastest.name}: nothing was measured on this device yet, and it is the fastest"
            return _choice(deadline_ms, fastest, None, None, reason, {option: None for option in options})
        least = {option: self._least_ms(option, pace) for option, pace in paces.items() if pace}
        steps = {option: max(_SHORTEST_STEP_MS, pace.step_ms) for option, pace in paces.items() if pace}
        expected = {option: least[option] + steps[option] * self._rationale(option) for option in options}
        fastest = min(options[::-1], key=lambda option: (expected[option], option.image_tokens))
        fitting = [option for option in options if expected[option] <= deadline_ms]
        if not fitting:
            reason = f"{fastest.name}: nothing was expected to fit {deadline_ms:g} ms, and it is the fastest"
            return _choice(deadline_ms, fastest, None, expected[fastest], reason, expected)
        chosen = fitting[0]
        most = int((deadline_ms - least[chosen]) / steps[chosen]) if chosen.rationale_tokens > 0 else None
        rank = "the richest" if chosen.giou is None else "the most accurate of those evaluated"
        reason = f"{chosen.name} is {rank} that fits {deadline_ms:g} ms"
        return _choice(deadline_ms, chosen, most, expected[chosen], reason, expected)

    def _least_ms(self, option: Option, pace: _Pace) -> float:
        """Return what an option takes without a rationale."""
        answer_ms = max(_SHORTEST_STEP_MS, pace.step_ms) * _upper(self._completions["answer_steps"])
        return option.new_frame * pace.frame_ms + pace.query_ms + answer_ms

    def _pace(self, option: Option) -> _Pace | None:
        """Return what a budget's parts take, by its own readings or by the nearest budget's; None without any."""
        measured = {name: parts for name, parts in self._budgets.items() if all(parts.get(part) for part in _PARTS)}
        if not measured or not self._completions.get("answer_steps"):
            return None
        own = _section(option.pixels)

        def distance(name: str) -> tuple[bool, float]:
            return name != own, abs(_upper(measured[name]["image_tokens"]) - option.image_tokens)

        nearest = min(measured, key=distance)
        frame_ms, image_ms, tokens, query_ms, step_ms = (_upper(measured[nearest][part]) for part in _PARTS)
        if nearest != own:
            frame_ms = max(0.0, frame_ms - image_ms) + image_ms * option.image_tokens / max(1.0, tokens)
        return _Pace(frame_ms, query_ms, step_ms)

    def _rationale(self, option: Option) -> float:
        seen = self._completions.get(option.variant)
        return _upper(seen) if seen else option.rationale_tokens

    def _of_budget(self, section: str) -> Readings:
        """Return the readings of a budget, which becomes the latest one."""
        self._budgets[section] = self._budgets.pop(section, _no_readings())
        while len(self._budgets) > _MOST_BUDGETS:
            del self._budgets[next(iter(self._budgets))]
        return self._budgets[section]


@dataclass(frozen=True)
class Decode:
    """The cost of writing a completion.

    Attributes:
        ms: time.
        steps: runs of the language model.
        rationale_tokens: tokens of the rationale.
    """

    ms: float
    steps: int
    rationale_tokens: int


def check_choice(
    variants: Collection[str], variant: str | None, deadline_ms: float | None = None, evaluated: Evaluated | None = None
) -> None:
    """Check what chooses the prompt variant of a query.

    Args:
        variants: those of the policy.
        variant: the one that was asked for; None for the default.
        deadline_ms: the deadline that chooses it instead; None for none.
        evaluated: what the bundle records.

    Raises:
        UsageError: the variant is unknown, the deadline is no positive number or has no variant to choose from, or both
            are given.
    """
    if variant is not None:
        check_variant(variant, variants)
    if deadline_ms is None:
        return
    if evaluated is None and not any(name in variants for name in RICHEST_FIRST):
        raise UsageError(
            f"a deadline chooses among {', '.join(RICHEST_FIRST)}; this policy has none of them, and its bundle "
            "records no evaluation of others (wise-edge bundle record)"
        )
    if not is_number(deadline_ms) or deadline_ms <= 0:
        raise UsageError(f"deadline_ms must be a positive number, got {describe(deadline_ms)}")
    if variant is not None:
        raise UsageError("a deadline chooses the variant; pass only one of them")


def _choice(
    deadline_ms: float,
    option: Option,
    max_rationale_tokens: int | None,
    expected_ms: float | None,
    reason: str,
    expected: Mapping[Option, float | None],
) -> DeadlineChoice:
    considered = tuple(_describe(each, took_ms) for each, took_ms in expected.items())
    return DeadlineChoice(
        deadline_ms,
        option.variant,
        option.pixels,
        max_rationale_tokens,
        expected_ms,
        option.giou,
        reason,
        considered,
    )


def _describe(option: Option, expected_ms: float | None) -> str:
    accuracy = "" if option.giou is None else f", gIoU {option.giou:.3f}"
    return f"{option.name}{accuracy}, " + (
        "not measured yet" if expected_ms is None else f"{expected_ms:.0f} ms expected"
    )


def _section(pixels: int | None) -> str:
    return "all" if pixels is None else str(pixels)


def _no_readings() -> Readings:
    return defaultdict(lambda: deque(maxlen=_KEPT))


def _to_reading(value: object) -> float:
    if not is_number(value) or not 0 <= float(value) <= _LONGEST_MS:  # type: ignore[arg-type]
        raise ValueError
    return float(value)  # type: ignore[arg-type]


def _upper(values: Iterable[float]) -> float:
    return float(np.quantile(list(values), _SHARE))
