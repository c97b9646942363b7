"""Prompt variants: the words around a query, as data that a bundle carries.

The order is fixed: the system message (constant for the life of the process), the picture (constant for the life
of the frame), the query, and the variant's own words last. A further query on a frame therefore costs its own
words only. A policy is only ever paired with the prompt set it was trained with.

The chat markup is Qwen2.5-VL's (https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct, chat_template).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from wise_edge.errors import UsageError

VARIANTS = ("verbose", "wise", "wise-infer", "wise-s", "answer")
MAX_QUERY_CHARACTERS = 1000

_ANSWER_FORM = '<answer>{"bbox": [x1, y1, x2, y2], "points_1": [x, y], "points_2": [x, y]}</answer>'


@dataclass(frozen=True)
class PromptSet:
    """The wording a policy was trained with.

    Attributes:
        name: identifies the set in a bundle and in messages.
        system: the constant instruction of the system message.
        variants: for each of `VARIANTS`, the words that follow the query.
    """

    name: str
    system: str
    variants: Mapping[str, str]

    def __post_init__(self) -> None:
        if missing := [variant for variant in VARIANTS if variant not in self.variants]:
            raise UsageError(f"prompt set '{self.name}' lacks the variants {', '.join(missing)}")
        object.__setattr__(self, "variants", MappingProxyType(dict(self.variants)))

    def user_text(self, query: str, variant: str) -> str:
        """Return the text of the user message: the query, then the variant's own words."""
        if variant not in self.variants:
            raise UsageError(f"unknown variant '{variant}'; choose one of {', '.join(VARIANTS)}")
        return f"{query} {self.variants[variant]}"

    def prefix(self, image_tokens: int) -> str:
        """Return the part of the prompt that does not depend on the query: system message and image."""
        picture = "<|image_pad|>" * image_tokens
        return f"<|im_start|>system\n{self.system}<|im_end|>\n<|im_start|>user\n<|vision_start|>{picture}<|vision_end|>"

    def suffix(self, query: str, variant: str) -> str:
        """Return the part of the prompt that follows the image, up to where the policy begins to write."""
        return f"{self.user_text(query, variant)}<|im_end|>\n<|im_start|>assistant\n"

    def render(self, query: str, variant: str, image_tokens: int) -> str:
        """Return the whole prompt; `prefix` and `suffix` joined."""
        return self.prefix(image_tokens) + self.suffix(query, variant)

    def to_dict(self) -> dict[str, object]:
        """Return the set as JSON-ready data."""
        return {"name": self.name, "system": self.system, "variants": dict(self.variants)}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> PromptSet:
        """Build a set from `to_dict`'s data; raises `UsageError` where it is not of that form."""
        match data:
            case {"name": str(name), "system": str(system), "variants": dict(variants)}:
                return cls(name, system, {str(key): str(value) for key, value in variants.items()})
        raise UsageError("a prompt set needs 'name', 'system' and 'variants'")


def normalize_query(query: str) -> str:
    """Fold white space in a user's query; raises `UsageError` when it is empty, over-long or no text."""
    folded = " ".join(query.split())
    if not folded:
        raise UsageError("the query is empty; say what to find, for example 'the red ring'")
    if len(folded) > MAX_QUERY_CHARACTERS:
        raise UsageError(f"the query has {len(folded)} characters; at most {MAX_QUERY_CHARACTERS} are accepted")
    if not folded.isascii() and any("\ud800" <= character <= "\udfff" for character in folded):
        raise UsageError("the query is not valid UTF-8 text; check the terminal's encoding")
    if "<|" in folded:
        raise UsageError("the query contains '<|', which is reserved for the chat markup; remove it")
    return folded


EMBEDDED = PromptSet(
    name="embedded-1",
    system="Find the object.",
    variants={
        "verbose": "Think step by step.",
        "wise": "Think, answer, explain.",
        "wise-infer": "Think, answer.",
        "wise-s": "Think briefly, answer.",
        "answer": "Answer only.",
    },
)
"""The wording of the embedded policy: few words, since it is small and was trained from scratch on them."""

DEFAULT = PromptSet(
    name="default-1",
    system=(
        "You locate the one object in a picture that a query asks for. Give its bounding box and two points "
        f"inside it, in pixels of the picture, in this form: {_ANSWER_FORM}"
    ),
    variants={
        "verbose": "First reason at length about the candidates inside <think> </think>, then give the answer.",
        "wise": (
            "First state the key reason concisely inside <think> </think>, then give the answer, then explain in "
            "detail inside <d_think> </d_think> how the candidates compare."
        ),
        "wise-infer": "First state the key reason concisely inside <think> </think>, then give the answer.",
        "wise-s": (
            "First state the key reason inside <think> </think> in as few words as possible, then give the answer."
        ),
        "answer": "Give the answer alone.",
    },
)
"""The wording for a Qwen-VL checkpoint of ordinary size."""
