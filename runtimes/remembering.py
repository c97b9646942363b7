"""Following objects with the segmenter's memory, which the policy's answers start and correct.

A memory recognizes an object by what it looked like on earlier frames. So it says whether the object is visible, and
finds it where it comes out again, which a prompt at the last place cannot. The policy is still the judge of what is
meant: what it names is matched with what the memory saw on the same frame, by the IoU of the masks. What agrees is left
alone, what is near is corrected, what is new is begun, and what was visible without being named is forgotten. What was
hidden could not be named, and is kept. An answer is about the frame that the policy saw: however late it comes, its
prompts are given on that frame, and the memory catches up on the newest one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from wise_edge.geometry import box_iou
from wise_edge.metrics import mask_iou
from wise_edge.policy.answers.reading import MAX_OBJECTS
from wise_edge.runtimes.base import MaskImage, MaskPrompt, RememberedMask
from wise_edge.runtimes.following import Pace, Track, see
from wise_edge.runtimes.objects import HiddenObject, RememberedObject, SegmentedObject

if TYPE_CHECKING:
    from wise_edge.runtimes.grounding import Grounding
    from wise_edge.runtimes.segmenter import Memory
    from wise_edge.runtimes.tracking import Stamped

_SAME, _AGREES = 0.5, 0.75  # IoU on one frame of masks of one object, and of such that need no correction
_UNSURE = 0.5  # a mask's score below it is a reason to ask the policy
_HIDDEN_S = 30.0  # an object that was not seen for longer is forgotten, since following it costs as much


@dataclass(frozen=True, eq=False)
class _Sight:
    """What is seen on a frame; it is encoded only if something is followed."""

    frame: Stamped
    encoded: MaskImage | None = None
    objects: tuple[RememberedObject, ...] = ()
    hidden: tuple[HiddenObject, ...] = ()

    @property
    def doubtful(self) -> set[int]:
        """The numbers of objects that are lost or have a poor mask."""
        poor = {item.number for item in self.objects if item.score is None or item.score < _UNSURE}
        return poor | {item.number for item in self.hidden}


class MemoryFollower:
    """Follows objects through one video; at most `MAX_OBJECTS`, unless an answer names more.

    Args:
        memory: an empty one.

    Attributes:
        grounding: the policy's last answer that could be read or that nothing stood against; None before the first.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._tracks: dict[int, Track] = {}
        self._seen_s: dict[int, float] = {}
        self._newest: _Sight | None = None
        self._current = False  # whether the newest sight counts the latest answer
        self._asked: _Sight | None = None
        self._doubted: set[int] = set()  # what the policy was asked about while it was doubtful, and still is
        self.grounding: Grounding | None = None

    @property
    def hidden(self) -> tuple[HiddenObject, ...]:
        """The objects that are followed and not visible on the newest frame."""
        return self._newest.hidden if self._newest is not None else ()

    def follow(self, frame: Stamped) -> tuple[SegmentedObject, ...]:
        """Return the objects that are visible on a frame, which is the newest one."""
        return self._look(frame).objects

    def wants_grounding(self, frame: Stamped, pace: Pace) -> bool:
        """Whether to ask the policy about the newest frame."""
        sight = self._look(frame)
        if self._asked is None:
            return True
        if (before := self._asked.frame) is frame:
            return False
        since_s = frame.stamp_s - before.stamp_s
        if not self._tracks:
            wait_s = pace.nothing_s
        else:
            wait_s = pace.doubt_s if sight.doubtful - self._doubted else pace.every_s
        return since_s < 0 or since_s >= wait_s

    def begin_grounding(self, frame: Stamped) -> MaskImage | None:
        """Note that the policy is asked about the newest frame; return it as encoded, if it is."""
        self._asked = self._look(frame)
        return self._asked.encoded

    def reground(self, grounding: Grounding) -> bool:
        """Continue from the policy's answer on the frame that it was asked about.

        Returns:
            Whether something else is known of the newest frame now.
        """
        asked = self._asked
        if asked is None or asked.frame is not grounding.frame:
            raise RuntimeError("the policy answers what it was not asked")
        self._asked = _Sight(asked.frame)  # so that its arrays are freed
        answer = grounding.result
        if answer.reason is not None and self._tracks:  # it says nothing of what is there
            self._doubted = asked.doubtful
            return False
        self.grounding = replace(grounding, encoded=None)
        late = self._newest is None or self._newest.frame is not asked.frame
        named, fresh = _match(answer.objects, [item for item in asked.objects if item.number in self._tracks])
        for number in {item.number for item in asked.objects} & self._tracks.keys() - named.keys():
            self._forget(number)
        self._make_room(len(fresh), named)
        free = (number for number in count(1) if number not in self._tracks)
        begun = dict(zip(free, fresh, strict=False))
        near = {number: item for number, (item, iou) in named.items() if iou < _AGREES}
        for number, (item, _) in named.items():
            self._tracks[number] = replace(self._tracks[number], label=item.label)
        if begun or near:
            self._prompt(asked.encoded or grounding.encoded, begun, near, late=late)
        self._current = False
        self._doubted = asked.doubtful | begun.keys() | near.keys()
        return bool(begun or near) or not late

    def _prompt(
        self,
        encoded: MaskImage | None,
        begun: Mapping[int, SegmentedObject],
        near: Mapping[int, SegmentedObject],
        *,
        late: bool,
    ) -> None:
        """Prompt the memory with new objects, and with better masks of known ones, on the frame that the policy saw."""
        if encoded is None or self._asked is None:
            raise RuntimeError("the policy found objects on a frame that the segmenter did not see")
        if late:  # what it remembers of these since then is wrong
            for number in near:
                self._memory.forget(number)
        prompts = {number: MaskPrompt(item.box, item.points) for number, item in {**near, **begun}.items()}
        for number, output in self._memory.prompt(encoded, prompts).items():
            if number in begun and not _is_seen(output):  # it would be remembered as what it is not
                self._memory.forget(number)
                continue
            self._tracks[number] = Track.of(begun[number] if number in begun else near[number])
            self._seen_s[number] = self._asked.frame.stamp_s
        if not late:
            self._newest = _Sight(self._asked.frame, encoded)

    def _look(self, frame: Stamped) -> _Sight:
        """Find everything that is followed on the newest frame."""
        newest, encoded = self._newest, None
        if newest is not None and newest.frame is frame:
            if self._current:
                return newest
            encoded = newest.encoded
        found: Mapping[int, RememberedMask] = {}
        if self._tracks:
            encoded = self._memory.encode(frame.image) if encoded is None else encoded
            found = self._memory.follow(encoded)
        objects, hidden = [], []
        for number, output in sorted(found.items()):
            if _is_seen(output):
                item = _remembered(see(number, self._tracks[number], output), output.object_score)
                self._tracks[number], self._seen_s[number] = Track.of(item), frame.stamp_s
                objects.append(item)
            elif (hidden_s := frame.stamp_s - self._seen_s[number]) > _HIDDEN_S:
                self._forget(number)
            else:
                track = self._tracks[number]
                hidden.append(HiddenObject(number, track.box, track.label, output.object_score, hidden_s))
        self._newest, self._current = _Sight(frame, encoded, tuple(objects), tuple(hidden)), True
        self._doubted &= self._newest.doubtful
        return self._newest

    def _make_room(self, more: int, named: Collection[int]) -> None:
        """Forget what was not seen for the longest, if with so many new objects there would be too many."""
        others = sorted(self._tracks.keys() - named, key=self._seen_s.__getitem__)
        for number in others[: max(0, len(self._tracks) + more - MAX_OBJECTS)]:
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._memory.forget(number)
        del self._tracks[number], self._seen_s[number]


def _is_seen(output: RememberedMask) -> bool:
    return output.visible and bool(output.mask.any())


def _remembered(item: SegmentedObject, object_score: float) -> RememberedObject:
    fields = {name: getattr(item, name) for name in SegmentedObject.__dataclass_fields__}
    return RememberedObject(**fields, object_score=object_score)


def _match(
    named: Iterable[SegmentedObject], seen: Iterable[SegmentedObject]
) -> tuple[dict[int, tuple[SegmentedObject, float]], list[SegmentedObject]]:
    """Return which objects of an answer are those that were seen, by their numbers and with the IoU, and the others."""
    left = {item.number: item for item in seen}
    same: dict[int, tuple[SegmentedObject, float]] = {}
    others = []
    for item in named:
        ious = {number: _iou(item, other) for number, other in left.items()}
        best = max(ious, key=ious.__getitem__, default=0)
        if best and ious[best] > _SAME:
            same[best] = item, ious[best]
            del left[best]
        else:
            others.append(item)
    return same, others


def _iou(named: SegmentedObject, seen: SegmentedObject) -> float:
    """Return the IoU of two masks; 0 at once where the boxes say so."""
    return mask_iou(named.mask, seen.mask) if box_iou(named.box, seen.box) > 0 else 0.0
