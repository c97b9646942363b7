"""The wording in an evaluation or training script of a policy, found without running the script.

People have a checkpoint and the script that its authors evaluated it with. The script's syntax tree tells which words
it puts around a query, how it writes the query, where the picture stands, and what the system message says.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError
from wise_edge.files.documents import MOST_BYTES, read_text
from wise_edge.policy.prompts import PromptSet, Template
from wise_edge.policy.script_text import Hole, Script, Text, in_order, name_of, split_fields, summands

_QUERY_NAMES = (
    "question", "query", "problem", "instruction", "expression", "phrase", "sentence", "utterance", "referring",
    "text", "prompt", "request", "command", "description", "caption", "object", "target", "obj", "label", "class_name",
    "category", "entity", "noun", "ref", "sent", "input", "q",
)  # fmt: skip
"""What scripts call a query, the likeliest first."""
_SILENT = {
    "print", "debug", "info", "warning", "warn", "error", "exception", "critical", "log", "write", "add_argument",
    "ArgumentParser", "compile", "search", "match", "fullmatch", "findall", "finditer", "sub", "split",
}  # fmt: skip
"""Calls whose texts are no prompts."""
_ABOUT_TEXT = {"replace", "startswith", "endswith", "count", "index", "find", "partition", "strip", "lstrip", "rstrip"}
"""Methods whose arguments are parts of a text."""
_TEMPLATE, _TURN = "apply_chat_template", "<|im_start|>assistant\n"
_THINK = "<think>"
_PICTURE = re.compile(r"<\|vision_start\|>(?:<\|image_pad\|>)+<\|vision_end\|>|<image>|<IMG>|<ImageHere>")


@dataclass(frozen=True)
class QueryWriting:
    """How a script writes a query.

    Attributes:
        lower: in lower case.
        strip: the characters that are taken off.
        other: a change that a prompt set cannot say, as the script says it; empty for none.
    """

    lower: bool = False
    strip: str = ""
    other: str = ""


@dataclass(frozen=True)
class ScriptTemplate:
    """A text with a place for a query.

    Attributes:
        line: of the script, where it begins.
        condition: under which the script takes it; empty for always.
        user: the text of the user's message as in `Template`.
        writing: how the query is written into it.
        open_places: names of places that only the running script fills.
    """

    line: int
    condition: str
    user: str
    writing: QueryWriting
    open_places: tuple[str, ...]

    @property
    def rationale(self) -> bool:
        """Whether the text asks for a rationale."""
        return _THINK in self.user


@dataclass(frozen=True)
class ScriptWording:
    """What was found in a script.

    Attributes:
        templates: texts with a place for a query, in the order of the script.
        system: the text of the system message; None if the script writes none, or only knows it when it runs.
        open_system: whether there is a system message that only the running script knows.
        prefill: the text behind the chat template's, with which the script begins the answer; empty for none.
        open_prefill: such a text that only the running script knows, as the script says it; empty for none.
    """

    templates: tuple[ScriptTemplate, ...]
    system: str | None
    open_system: bool
    prefill: str = ""
    open_prefill: str = ""

    def prompts(self, name: str, chosen: dict[str, int], system: str) -> PromptSet:
        """Return the prompt set of chosen templates.

        Args:
            name: of the set.
            chosen: for each variant the place of its template, from 0 on.
            system: the text of the system message.

        Raises:
            UsageError: a template cannot be one of a prompt set, or two write a query in different ways.
        """
        if self.open_prefill:
            raise UsageError(
                f"the script begins the answer with {self.open_prefill}, which only the running script knows; write it "
                "into a copy of the script"
            )
        templates = {variant: self.templates[place] for variant, place in chosen.items()}
        for variant, found in templates.items():
            if found.open_places:
                raise UsageError(
                    f"{variant}: the template of line {found.line} has {{{found.open_places[0]}}}, which only the "
                    "running script fills; write it into a copy of the script"
                )
            if found.writing.other:
                raise UsageError(
                    f"{variant}: the script changes a query by {found.writing.other}, which a prompt set cannot say; "
                    "change a copy of the script"
                )
        ways = {found.writing for found in templates.values()}
        if len(ways) > 1:
            raise UsageError("the chosen templates write a query in different ways; write a prompt set for each way")
        (way,) = ways
        variants = {}
        for variant, found in templates.items():
            try:
                rationale = found.rationale or _THINK in self.prefill
                variants[variant] = Template(found.user, self.prefill, rationale=rationale)
            except ValueError as error:
                raise UsageError(f"{variant}: the template of line {found.line}: {error}") from error
        try:
            return PromptSet(name, system, variants, "lower-case" if way.lower else "as-is", way.strip)
        except ValueError as error:
            raise UsageError(str(error)) from error


def read_script(file: Path) -> ScriptWording:
    """Find the wording in a Python script.

    Raises:
        UsageError: the file cannot be read, is no Python, or has no text with a place for a query.
    """
    source = read_text(file, MOST_BYTES)
    try:
        found = _Finder(Script(ast.parse(source)))
    except (RecursionError, MemoryError) as error:
        raise UsageError(f"{file}: is nested too deeply; pass a copy with only what writes the prompt") from error
    except (SyntaxError, ValueError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UsageError(
            f"{file}{where}: is not a Python script ({error}); pass the script that asks the policy"
        ) from error
    if not found.templates:
        raise UsageError(
            f"{file}: no text has a place for a query, such as {{Question}}; pass the script that writes the prompt"
        )
    return ScriptWording(
        tuple(found.templates), found.system, found.open_system, found.prefill or "", found.open_prefill
    )


class _Finder:
    """Finds templates, picture and system message of a script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        nodes = in_order(script.tree)
        self._places = {id(node): place for place, node in enumerate(nodes)}
        self._nodes = nodes
        self._calls = [  # of `format`: the line, and what is given for names
            (node.lineno, {word.arg: word.value for word in node.keywords if word.arg is not None})
            for node in nodes
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"
        ]
        self._picture_behind = False
        self.system: str | None = None
        self.open_system = False
        self.prefill: str | None = None
        self.open_prefill = ""
        for node in nodes:
            if isinstance(node, ast.Dict):
                self._read_message(node)
            if isinstance(node, ast.List):
                self._read_order(node)
            if isinstance(node, ast.BinOp) and not isinstance(script.parents[node], ast.BinOp):
                self._read_prefill(_added(node))
            if isinstance(node, ast.AugAssign):
                for known in script.values(node.target):
                    self._read_prefill(_added(known))
        self.templates = list(self._find())

    def _find(self) -> Iterator[ScriptTemplate]:
        texts = [text for node in self._maximal(self._script.tree) for text in self._script.read(node)]
        filled = [text for text in texts if self._question(text.holes) is not None]
        used = {constant for text in filled for constant in text.constants}
        plain = [text for text in texts if text.constant is not None and not text.constants & used]
        found: dict[tuple[int, str], ScriptTemplate] = {}
        for text in [*filled, *map(self._with_fields, plain)]:
            question = self._question(text.holes)
            if question is not None and self._is_prompt(text, question):
                template = self._template(text, question)
                found.setdefault((template.line, template.user), template)
        yield from sorted(found.values(), key=lambda template: template.line)

    def _maximal(self, node: ast.AST) -> Iterator[ast.expr]:
        """Yield the expressions that are texts and no parts of texts."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue  # a docstring
            called = _name_of_call(child)
            if isinstance(child, ast.Raise | ast.Assert | ast.Compare) or called in _SILENT:
                continue
            composite = ast.Constant | ast.JoinedStr | ast.BinOp | ast.Call
            if isinstance(child, composite) and not _added(child) and self._script.read(child):
                yield child
            elif called not in _ABOUT_TEXT:
                yield from self._maximal(child)

    def _with_fields(self, text: Text) -> Text:
        """Return a text that the script does not format with its places as holes, filled as those of other texts."""
        fields = split_fields(text)
        if fields is None:  # it has other braces, so its places are replaced
            parts = re.split(r"\{([A-Za-z_]\w*)\}", text.constant or "")
            fields = [Hole(part) if place % 2 else part for place, part in enumerate(parts)]
        names = {piece.name for piece in fields if isinstance(piece, Hole)}
        given = self._given(names, text.line)
        pieces: list[str | Hole] = []
        for piece in fields:
            value = given.get(piece.name) if isinstance(piece, Hole) else None
            known = [found.constant for found in self._script.read(value) if found.constant is not None]
            pieces.append(known[0] if known else Hole(piece.name, value) if isinstance(piece, Hole) else piece)
        return Text(tuple(piece for piece in pieces if piece), text.line, text.constants)

    def _given(self, names: set[str], line: int) -> dict[str, ast.expr]:
        """Return what a call of `format` gives for names: of the calls with all of them the next one, else any."""
        fitting = [given for place, given in self._calls if names <= given.keys() and place >= line]
        fitting += [given for _, given in self._calls if names & given.keys()]
        return fitting[0] if fitting else {}

    def _question(self, holes: list[Hole]) -> Hole | None:
        """Return the hole that a query fills; None without one."""
        ranked = [(self._rank(hole), place, hole) for place, hole in enumerate(holes)]
        known = [entry for entry in ranked if entry[0] < len(_QUERY_NAMES)]
        return min(known, key=lambda entry: entry[:2])[2] if known else None

    def _rank(self, hole: Hole) -> int:
        names = [hole.name.lower(), name_of(hole.value).lower() if hole.value is not None else ""]
        ranks = [_QUERY_NAMES.index(name) for name in names if name in _QUERY_NAMES]
        parts = [
            place for place, word in enumerate(_QUERY_NAMES[:12]) if any(word in name.split("_") for name in names)
        ]
        return min([*ranks, *parts], default=len(_QUERY_NAMES))

    def _is_prompt(self, text: Text, question: Hole) -> bool:
        """Return whether a text is more than a file's name or a line of a log."""
        words = "".join(piece for piece in text.pieces if isinstance(piece, str))
        explicit = question.name[:1].isupper() or (question.value is None and bool(words))
        return explicit or len(words.split()) >= 2

    def _template(self, text: Text, question: Hole) -> ScriptTemplate:
        pieces, open_places = [], []
        for piece in text.pieces:
            same = isinstance(piece, Hole) and piece.name == question.name and _dump(piece) == _dump(question)
            if isinstance(piece, str):
                pieces.append(_PICTURE.sub("{image}", piece))
            elif same:
                pieces.append("{query}")
            else:
                pieces.append(f"{{{piece.name}}}")
                open_places.append(piece.name)
        user = "".join(pieces)
        if self._picture_behind and "{image}" not in user:
            user += "{image}"
        return ScriptTemplate(
            text.line, self._condition(text), user, self._writing(question.value), tuple(dict.fromkeys(open_places))
        )

    def _condition(self, text: Text) -> str:
        """Return what an `if` around a text says."""
        first = min((self._places[each] for each in text.constants if each in self._places), default=None)
        node = None if first is None else self._nodes[first]
        while node is not None:
            parent: Any = self._script.parents.get(node)
            if isinstance(parent, ast.If) and node is not parent.test:
                test = ast.unparse(parent.test)
                return f"if {test}" if node in parent.body else f"if not ({test})"
            if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                return ""
            node = parent
        return ""

    def _writing(self, value: ast.expr | None, depth: int = 0) -> QueryWriting:
        """Return how a query is written, from the calls that its expression makes on it."""
        match value:
            case ast.Call(func=ast.Attribute(value=inner, attr="lower"), args=[]):
                before = self._writing(inner, depth)
                return QueryWriting(True, before.strip, before.other)
            case ast.Call(func=ast.Attribute(value=inner, attr="strip" | "rstrip"), args=arguments):
                before = self._writing(inner, depth)
                match arguments:
                    case []:
                        return before  # a query has no white space at its ends
                    case [ast.Constant(value=str() as characters)]:
                        return QueryWriting(before.lower, before.strip + characters, before.other)
            case ast.Call(func=ast.Name(id="str"), args=[inner]):
                return self._writing(inner, depth)
            case ast.Call(func=ast.Attribute(attr="get")) | None:
                return QueryWriting()
            case ast.Name() if depth < 5 and (known := self._script.values(value)):
                return self._writing(known[-1], depth + 1)
            case ast.Name() | ast.Attribute() | ast.Subscript():
                return QueryWriting()
        return QueryWriting(other=ast.unparse(value) if value is not None else "")

    def _read_message(self, message: ast.Dict) -> None:
        """Read the system message, if it is one."""
        entries = _entries(message)
        role, content = entries.get("role"), entries.get("content")
        if not isinstance(role, ast.Constant) or role.value != "system" or self.system is not None:
            return
        if isinstance(content, ast.List) and len(content.elts) == 1 and isinstance(content.elts[0], ast.Dict):
            content = _entries(content.elts[0]).get("text")
        known = [text.constant for text in self._script.read(content) if text.constant is not None]
        if known:
            self.system = known[0]
        else:
            self.open_system = True

    def _read_prefill(self, added: list[ast.expr]) -> None:
        """Read what a script adds to the text of a chat template."""
        if not added:
            return
        readings = [{text.constant for text in self._script.read(part)} for part in added]
        texts = [text for each in readings for text in each if len(each) == 1 and text is not None]
        prefill = "".join(texts).removeprefix(_TURN)
        if len(texts) == len(added) and self.prefill in (None, prefill):
            self.prefill = prefill
        else:
            self.open_prefill = " + ".join(map(ast.unparse, added))

    def _read_order(self, content: ast.List) -> None:
        """Note a user's content in which the picture follows the text."""
        kinds = []
        for part in content.elts:
            if isinstance(part, ast.Dict):
                entries = _entries(part)
                named = [kind for kind in ("image", "text") if kind in entries]
                kind = entries.get("type")
                kinds += named or ([str(kind.value)] if isinstance(kind, ast.Constant) else [])
        if "image" in kinds and "text" in kinds and kinds.index("text") < kinds.index("image"):
            self._picture_behind = True


def _added(node: ast.AST) -> list[ast.expr]:
    """Return what a sum adds to the text of a chat template; nothing if the node is no such sum."""
    if not isinstance(node, ast.BinOp):
        return []
    template, *added = summands(node)
    return added if _name_of_call(template) == _TEMPLATE else []


def _name_of_call(node: ast.AST) -> str:
    """Return the name of the function or method that a node calls; empty if it is no call."""
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
    return name_of(node.func) if named and isinstance(node, ast.Call) else ""


def _dump(hole: Hole) -> str:
    return ast.dump(hole.value) if hole.value is not None else ""


def _entries(node: ast.Dict) -> dict[Any, ast.expr]:
    """Return the entries of a dictionary whose keys are constants."""
    pairs = zip(node.keys, node.values, strict=True)
    return {key.value: value for key, value in pairs if isinstance(key, ast.Constant)}
