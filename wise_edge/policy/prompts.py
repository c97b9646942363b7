"""Prompt variants: the wording around a query, as data that a bundle carries.

The order is fixed: the system message (the same for all images), the image (the same for all queries on it), the query,
and the variant's wording last. A further query on an image therefore costs only its own tokens. A policy is only ever
used with the prompt set that it was trained with.

The chat markup is Qwen2.5-VL's (https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct, chat_template).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from wise_edge.arguments import describe
from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json
from wise_edge.mapping import from_mapping
from wise_edge.ranges import Checked, Name, Text

VARIANTS = ("verbose", "wise", "wise-infer", "wise-s", "answer")
MAX_QUERY_CHARACTERS = 1000
IMAGE_TOKEN = "<|image_pad|>"
TURN_END = "<|im_end|>"
MARKUP = ("<|im_start|>", TURN_END, "<|vision_start|>", IMAGE_TOKEN, "<|vision_end|>")
"""Tokens of the chat markup; each must be one token of a policy's tokenizer."""

_PLACE = re.compile(r"\{\w*\}")
_WRITE_DEFAULT = (
    'python -c "import json; from wise_edge.policy.prompts import DEFAULT; print(json.dumps(DEFAULT.to_dict()))"'
)
_ANSWER_FORM = '<answer>{"bbox": [x1, y1, x2, y2], "points_1": [x, y], "points_2": [x, y]}</answer>'


@dataclass(frozen=True)
class PromptSet(Checked):
    """The wording that a policy was trained with.

    Attributes:
        name: identifies the set in a bundle and in messages.
        system: the constant instruction of the system message.
        variants: for each of `VARIANTS`, the wording that follows the query.
    """

    name: Name
    system: Text
    variants: Mapping[str, Text]

    def __post_init__(self) -> None:
        super().__post_init__()
        if missing := [variant for variant in VARIANTS if variant not in self.variants]:
            raise UsageError(f"prompt set '{self.name}' lacks the variants {', '.join(missing)}; add them")
        object.__setattr__(self, "variants", MappingProxyType(dict(self.variants)))

    def user_text(self, query: str, variant: str) -> str:
        """Return the text of the user message: the query, then the variant's wording.

        Raises:
            UsageError: the variant is unknown.
        """
        check_variant(variant, self.variants)
        return f"{query} {self.variants[variant]}"

    def prefix(self, image_tokens: int) -> str:
        """Return the part of the prompt that does not depend on the query: system message and image."""
        image = IMAGE_TOKEN * image_tokens
        return f"<|im_start|>system\n{self.system}<|im_end|>\n<|im_start|>user\n<|vision_start|>{image}<|vision_end|>"

    def suffix(self, query: str, variant: str) -> str:
        """Return the part of the prompt that follows the image, up to where the policy begins to write."""
        return f"{self.user_text(query, variant)}<|im_end|>\n<|im_start|>assistant\n"

    def render(self, query: str, variant: str, image_tokens: int) -> str:
        """Return the complete prompt, `prefix` and `suffix` joined."""
        return self.prefix(image_tokens) + self.suffix(query, variant)

    def to_dict(self) -> dict[str, object]:
        """Return the set as JSON-ready data."""
        return {"name": self.name, "system": self.system, "variants": dict(self.variants)}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> PromptSet:
        """Build a set from `to_dict`'s data; raises `UsageError` if it has another form."""
        return from_mapping(cls, data, "prompt set: ")


def check_variant(variant: str, known: Collection[str]) -> None:
    """Raise `UsageError` for anything but the name of one of a policy's prompt variants."""
    if not isinstance(variant, str) or variant not in known:
        raise UsageError(f"unknown variant {variant!r}; choose one of {', '.join(known)}")


def read_prompts(folder: Path) -> PromptSet:
    """Read the prompt set of a checkpoint folder, `prompts.json`.

    Raises:
        UsageError: the file is missing or malformed, or its wording leaves a place for the query inside of it.
    """
    file = folder / "prompts.json"
    if not file.is_file():
        raise UsageError(
            f"{file} is missing: it names the wording that the policy was trained with; for a published checkpoint "
            f"write the default wording: {_WRITE_DEFAULT} > {file}"
        )
    data = read_json(file)
    try:
        prompts = PromptSet.from_dict(data)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    for name, words in prompts.variants.items():
        if place := _PLACE.search(words):
            raise UsageError(
                f"{file}: the wording of {name!r} has the place {place.group()}, but a query always stands before the "
                "wording and never inside of it"
            )
    return prompts


def normalize_query(query: str) -> str:
    """Return a user's query with each run of white space replaced by one space.

    Raises:
        UsageError: the query is no text, empty, longer than `MAX_QUERY_CHARACTERS`, not valid UTF-8, or contains chat
            markup.
    """
    if not isinstance(query, str):
        raise UsageError(f"the query must be text, got {describe(query)}")
    folded = " ".join(query.split())
    if not folded:
        raise UsageError("the query is empty; say what to find, for example 'the red ring'")
    if len(folded) > MAX_QUERY_CHARACTERS:
        raise UsageError(f"the query has {len(folded)} characters; shorten it to {MAX_QUERY_CHARACTERS}")
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
"""The wording of the embedded policy, short because that policy is small and was trained from scratch."""

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
"""The wording for a Qwen-VL checkpoint of the published sizes."""
