"""The wording around a query, as data that a bundle carries: a prompt set holds one template for each variant.

A policy is only ever used with the prompt set that it was trained with. A template is the text of the user's message
with a place for the query, `{query}`, and one for the picture, `{image}`; other braces are ordinary text. What precedes
the query is the same for every query, so that runtimes keep its keys and values. A set is version 2 of `prompts.json`;
in version 1 a variant was only the words that follow picture and query.

The chat markup is that of Qwen2-VL to Qwen3.5 (https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct, chat_template).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from wise_edge.arguments import describe, is_count
from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json
from wise_edge.mapping import from_mapping
from wise_edge.policy.answers.form import BOX_POINTS, FORMS, AnswerForm
from wise_edge.policy.answers.frame import PER_MILLE, PIXELS, PIXELS_XY, XY, YX, Coordinates
from wise_edge.ranges import Checked, Name, OneOf, Range, Text, label, shorten

VARIANTS = ("verbose", "wise", "wise-infer", "wise-s", "answer")
"""The variants of the shipped sets, which training knows; a set may have others."""
VERSION = 2
MAX_QUERY_CHARACTERS = 1000
IMAGE_TOKEN = "<|image_pad|>"
TURN_END = "<|im_end|>"
_IMAGE_START, _IMAGE_END = "<|vision_start|>", "<|vision_end|>"
MARKUP = ("<|im_start|>", TURN_END, _IMAGE_START, IMAGE_TOKEN, _IMAGE_END)
"""Tokens of the chat markup; each must be one token of a policy's tokenizer."""

_QUERY, _IMAGE = "{query}", "{image}"
_PLACE = re.compile(r"\{\w*\}")
_VARIANT_NAME = re.compile(r"[\w.-]{1,100}")
_STYLES = ("as-is", "lower-case")
_WRITE_DEFAULT = (
    'python -c "import json; from wise_edge.policy.prompts import DEFAULT; print(json.dumps(DEFAULT.to_dict()))"'
)
_ORDERS = {XY: ("x1 y1 x2 y2", "x y"), YX: ("y1 x1 y2 x2", "y x")}
_COUNTS = {1: "a point", 2: "two points"}
_UNITS = {PIXELS: "in pixels of the picture", PER_MILLE: "from 0 to 1000 of the picture's width and height"}


@dataclass(frozen=True)
class Template(Checked):
    """The wording of one variant.

    Attributes:
        user: the user's message; `{query}` stands in it once and `{image}` at most once, without it the picture first.
        prefill: the beginning of the assistant's turn, which the policy continues.
        stop: texts that end a completion, beside the end of the answer and the end tokens.
        rationale: whether the policy writes `<think>…</think>` before the answer.
    """

    user: Text
    prefill: Text = ""
    stop: Annotated[tuple[Name, ...], Range(0, 100)] = ()
    rationale: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if (count := self.user.count(_QUERY)) != 1:
            raise ValueError(
                f"user: has {_QUERY} {count} times; write it once, where the query stands{_other(self.user)}"
            )
        if (count := self.user.count(_IMAGE)) > 1:
            raise ValueError(f"user: has {_IMAGE} {count} times; a prompt has one picture")
        for name, text in (("user", self.user), ("prefill", self.prefill), *(("stop", text) for text in self.stop)):
            _refuse_markup(name, text)
        _refuse_places("prefill", self.prefill)

    def around_image(self) -> tuple[str, str]:
        """Return the texts of the user's message before and after the picture, one of them with `{query}`."""
        before, mark, after = self.user.partition(_IMAGE)
        return (before, after) if mark else ("", before)

    def describe(self) -> str:
        """Return the template for people: the user's message, then a line for each other thing that it asks for."""
        stop = f"stop: {' '.join(map(repr, self.stop))}" if self.stop else ""
        prefill = f"prefill: {self.prefill!r}" if self.prefill else ""
        return "\n".join(filter(None, (self.user, prefill, stop, "" if self.rationale else "no rationale")))


@dataclass(frozen=True)
class PromptParts:
    """A prompt around its picture.

    Attributes:
        before_image: what precedes the picture and its markup.
        between: what stands between the picture with its markup and the query; "" if the query precedes the picture.
        rest: from the query, or the picture if that is later, to where the policy begins to write.
    """

    before_image: str
    between: str
    rest: str

    def prefix(self, image_tokens: int) -> str:
        """Return the part up to the query, or up to the end of the picture if the query precedes it."""
        return f"{self.before_image}{_IMAGE_START}{IMAGE_TOKEN * image_tokens}{_IMAGE_END}{self.between}"


@dataclass(frozen=True)
class PromptSet(Checked):
    """The wording that a policy was trained with.

    Attributes:
        name: identifies the set in a bundle and in messages.
        system: the text of the system message; empty for none.
        variants: the templates by name; the first is the default unless there is a `wise-s`.
        query_style: "as-is" or "lower-case".
        query_strip: the characters that are taken off both ends of a query; None: full stops in lower case, else none.
    """

    name: Name
    system: Text
    variants: Annotated[Mapping[str, Template], Range(1, 100)]
    query_style: Annotated[str, OneOf(_STYLES)] = "as-is"
    query_strip: Annotated[str, Range(0, 100)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_markup("system", self.system)
        _refuse_places("system", self.system)
        for name in self.variants:
            if not _VARIANT_NAME.fullmatch(name):
                raise ValueError(
                    f"variants: {label(name)!r} is not a valid name; use letters, digits, '-', '_' and '.'"
                )
        object.__setattr__(self, "variants", MappingProxyType(dict(self.variants)))

    @property
    def default_variant(self) -> str:
        """The variant that is used unless another is requested."""
        return "wise-s" if "wise-s" in self.variants else next(iter(self.variants))

    def template(self, variant: str) -> Template:
        """Return the template of a variant; raises `UsageError` if there is none."""
        check_variant(variant, self.variants)
        return self.variants[variant]

    def user_text(self, query: str, variant: str) -> tuple[str, str]:
        """Return the texts of the user's message before and after the picture.

        Args:
            query: normalized, see `normalize_query`.
            variant: one of the set's.

        Raises:
            UsageError: the variant is unknown, or the query has only characters that are taken off.
        """
        words = self._styled(query)
        before, after = (text.replace(_QUERY, words) for text in self.template(variant).around_image())
        return before, after

    def messages(self, query: str, variant: str, image: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the prompt as chat messages, without its prefill.

        Args:
            query: normalized, see `normalize_query`.
            variant: one of the set's.
            image: the entry of the picture in the user's content, such as {"type": "image"}.

        Raises:
            UsageError: as `user_text`.
        """
        before, after = ([{"type": "text", "text": text}] if text else [] for text in self.user_text(query, variant))
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": [*before, dict(image), *after]}]

    def parts(self, query: str, variant: str) -> PromptParts:
        """Return the prompt around its picture; see `user_text` for arguments and errors."""
        template = self.template(variant)
        before, after = self.user_text(query, variant)
        opening = f"<|im_start|>system\n{self.system}{TURN_END}\n" if self.system else ""
        opening += f"<|im_start|>user\n{before}"
        closing = f"{TURN_END}\n<|im_start|>assistant\n{template.prefill}"
        between, in_this, _ = template.around_image()[1].partition(_QUERY)
        if not in_this:
            between = ""
        return PromptParts(opening, between, after.removeprefix(between) + closing)

    def render(self, query: str, variant: str, image_tokens: int) -> str:
        """Return the complete prompt; see `user_text` for arguments and errors."""
        parts = self.parts(query, variant)
        return parts.prefix(image_tokens) + parts.rest

    def to_dict(self) -> dict[str, object]:
        """Return the set as JSON-ready data."""
        return {
            "version": VERSION,
            "name": self.name,
            "system": self.system,
            "query_style": self.query_style,
            "query_strip": self.query_strip,
            "variants": {name: asdict(template) for name, template in self.variants.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> PromptSet:
        """Build a set from `to_dict`'s data, or from that of version 1; raises `UsageError` if it has another form."""
        return from_mapping(cls, data, "prompt set: ")

    @classmethod
    def upgrade(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the entries of a set of any version; see `from_mapping`."""
        if "version" not in data:
            variants = data.get("variants")
            return {**data, "variants": _upgraded(variants)} if isinstance(variants, Mapping) else data
        version = data["version"]
        if not is_count(version) or version == 1:
            raise ValueError(f"version: is {shorten(version)}; write {VERSION}, or no version for words alone")
        if version > VERSION:
            raise ValueError(f"version: {version} is newer than {VERSION}; update wise-edge")
        variants = data.get("variants")
        for name, template in variants.items() if isinstance(variants, Mapping) else ():
            if isinstance(template, str):
                raise ValueError(f'variants.{label(name)}: is text; write {{"user": "… {_QUERY} …"}}')
        return {key: value for key, value in data.items() if key != "version"}

    def _styled(self, query: str) -> str:
        lower = self.query_style == "lower-case"
        strip = ("." if lower else "") if self.query_strip is None else self.query_strip
        words = (query.lower() if lower else query).strip(strip)
        if query and not words:
            raise UsageError(f"the query {query!r} has no words; say what to find, for example 'the red ring'")
        return words


def _upgraded(variants: Mapping[str, Any]) -> dict[str, Template]:
    """Return the variants of a set of version 1 as templates."""
    templates: dict[str, Template] = {}
    for name, words in variants.items():
        where = f"variants.{label(name)}"
        if isinstance(words, Mapping):
            raise ValueError(f'{where}: is a template; add "version": {VERSION} to the set')
        if not isinstance(words, str):
            raise ValueError(f"{where}: {shorten(words)} is not text")
        if place := _PLACE.search(words):
            raise ValueError(
                f"{where}: has the place {place.group()}, but without a version a query stands before the words; write "
                f'"version": {VERSION} and for each variant {{"user": "… {_QUERY} …"}}'
            )
        try:
            templates |= following_words({name: words})
        except ValueError as error:
            raise ValueError(f"{where}.{error}") from error
    return templates


def following_words(variants: Mapping[str, str]) -> dict[str, Template]:
    """Return templates of words that follow picture and query; only "answer" then has no rationale."""
    return {name: Template(f"{_IMAGE}{_QUERY} {words}", rationale=name != "answer") for name, words in variants.items()}


def _other(text: str) -> str:
    places = [place for place in _PLACE.findall(text) if place not in (_QUERY, _IMAGE)]
    return f" (it has {places[0]})" if places else ""


def _refuse_markup(name: str, text: str) -> None:
    if "<|" in text:
        raise ValueError(
            f"{name}: has '<|', which is reserved for the chat markup; remove the markup, it is added automatically"
        )


def _refuse_places(name: str, text: str) -> None:
    if place := next((place for place in (_QUERY, _IMAGE) if place in text), None):
        raise ValueError(f"{name}: has {place}, whose place is in the user's message")


def check_variant(variant: str, known: Collection[str]) -> None:
    """Raise `UsageError` for anything but the name of one of a policy's prompt variants."""
    if not isinstance(variant, str) or variant not in known:
        raise UsageError(f"unknown variant {variant!r}; choose one of {', '.join(known)}")


def read_prompts(folder: Path) -> PromptSet:
    """Read the prompt set of a checkpoint folder, `prompts.json`.

    Raises:
        UsageError: the file is missing or malformed.
    """
    file = folder / "prompts.json"
    if not file.is_file():
        raise UsageError(
            f"{file} is missing: it names the wording that the policy was trained with; for a published checkpoint "
            f"add --default-wording to 'wise-edge setup', or write it: {_WRITE_DEFAULT} > {file}"
        )
    return read_prompt_file(file)


def read_prompt_file(file: Path) -> PromptSet:
    """Read a prompt set; raises `UsageError` that names the file if it is missing or malformed."""
    data = read_json(file)
    try:
        return PromptSet.from_dict(data)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error


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
    variants=following_words(
        {
            "verbose": "Think step by step.",
            "wise": "Think, answer, explain.",
            "wise-infer": "Think, answer.",
            "wise-s": "Think briefly, answer.",
            "answer": "Answer only.",
        }
    ),
)
"""The wording of the embedded policy, short because that policy is small and was trained from scratch."""


def _default_system(coordinates: Coordinates, form: AnswerForm) -> str:
    box, point = (names.split() for names in _ORDERS[coordinates.order])
    points = len(form.point_keys)
    asked = ["its bounding box"]
    if points:
        asked.append(f"{_COUNTS.get(points, f'{points} points')} inside it")
    if form.label_key:
        asked.append("its name")
    task, none = ("every object", ", an empty list if there is none") if form.many else ("the one object", "")
    return (
        f"You locate {task} in a picture that a query asks for. {'For each, give' if form.many else 'Give'} "
        f"{' and '.join(asked)}, {_UNITS[coordinates.unit]}, in this form{none}: {form.outline(box, point, 'name')}"
    )


DEFAULT = PromptSet(
    name="default-1",
    system=_default_system(PIXELS_XY, BOX_POINTS),
    variants=following_words(
        {
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
        }
    ),
)
"""The wording for a Qwen-VL checkpoint of the published sizes that answers in pixels with a box and two points; see
`fit_wording`."""


def fit_wording(prompts: PromptSet, coordinates: Coordinates, form: AnswerForm = BOX_POINTS) -> PromptSet:
    """Return prompts that name a policy's coordinates and form: the default wording for them, others as they are."""
    ours = {_default_system(Coordinates(*each), known) for each in product(_UNITS, _ORDERS) for known in FORMS.values()}
    return replace(prompts, system=_default_system(coordinates, form)) if prompts.system in ours else prompts
