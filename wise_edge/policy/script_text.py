"""Texts that a Python script would put together, found in its syntax tree; nothing of it is run.

A text may have several readings: a name that is assigned in several branches has one for each of them. What the script
itself would only know when it runs is a `Hole`.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from string import Formatter
from typing import Any

_MOST = 100
"""Readings of one expression."""
_LONGEST = 100_000
"""Characters of a text."""
_MOST_HOLES = 20
_MOST_WORK = 2_000_000
"""Characters of all texts of a script."""
_DEEPEST = 60
"""Expressions and names within one another."""
_PERCENT = re.compile(r"%(?:\((?P<name>[^)]*)\))?(?P<kind>[sdrif%])")
_SEAL = "\ue000"  # of private use: stands for a hole while indentation is removed


@dataclass(frozen=True)
class Hole:
    """A place in a text that a script fills when it runs.

    Attributes:
        name: what it is called there: a keyword of `format`, a variable, a key.
        value: the expression that fills it; None if the script does not say.
    """

    name: str
    value: ast.expr | None = None


@dataclass(frozen=True)
class Text:
    """A text with holes.

    Attributes:
        pieces: its parts in order.
        line: of the script, where its longest constant begins.
        constants: numbers (`id`) of the nodes of the constants that it was made from.
    """

    pieces: tuple[str | Hole, ...]
    line: int
    constants: frozenset[int]

    @property
    def holes(self) -> list[Hole]:
        """The holes, in order."""
        return [piece for piece in self.pieces if isinstance(piece, Hole)]

    @property
    def constant(self) -> str | None:
        """The whole text, if it has no holes."""
        return None if self.holes else "".join(map(str, self.pieces))


@dataclass(frozen=True)
class _Value:
    node: ast.expr
    function: ast.AST | None


class Script:
    """The texts of a script.

    Args:
        tree: its syntax tree.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self._values: dict[str, list[_Value]] = defaultdict(list)
        for node in in_order(tree):
            self._learn(node)
        self._work = 0
        self._readings: dict[int, list[Text]] = {}

    def _learn(self, node: ast.AST) -> None:
        """Note what a statement assigns to a name, to an attribute of anything, or to a parameter by default."""
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._note(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value) | ast.NamedExpr(target=target, value=value):
                self._note(target, value)
            case ast.AugAssign(target=ast.Name(id=name) | ast.Attribute(attr=name), op=ast.Add(), value=value):
                if known := self._values[name]:
                    longer = ast.copy_location(ast.BinOp(known[-1].node, ast.Add(), value), known[-1].node)
                    known[-1] = replace(known[-1], node=longer)
            case ast.FunctionDef(args=args) | ast.AsyncFunctionDef(args=args):
                named = [*args.posonlyargs, *args.args]
                for parameter, value in zip(named[len(named) - len(args.defaults) :], args.defaults, strict=True):
                    self._values[parameter.arg].append(_Value(value, node))

    def _note(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, (ast.Name, ast.Attribute)):
            self._values[name_of(target)].append(_Value(value, self.function(value)))

    def function(self, node: ast.AST) -> ast.AST | None:
        """Return the function that a node stands in; None outside of all."""
        while (parent := self.parents.get(node)) is not None:
            if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                return parent
            node = parent
        return None

    def values(self, node: ast.expr) -> list[ast.expr]:
        """Return what is assigned to a name or attribute: in its function if anything is, else anywhere."""
        if not isinstance(node, (ast.Name, ast.Attribute)):
            return []
        found, function = self._values.get(name_of(node), []), self.function(node)
        near = [value for value in found if value.function is function]
        return [value.node for value in near or found]

    def read(self, node: ast.expr | None, depth: int = 0) -> list[Text]:
        """Return the readings of an expression as a text; none if it is no text."""
        if node is None or depth > _DEEPEST:
            return []
        if id(node) not in self._readings:
            self._readings[id(node)] = []  # of a text that is made from itself
            self._readings[id(node)] = list(islice(self._read(node, depth + 1), _MOST))
        return self._readings[id(node)]

    def _read(self, node: ast.expr, depth: int) -> Iterator[Text]:
        match node:
            case ast.Constant(value=str() as value):
                yield Text((value,) if value else (), node.lineno, frozenset({id(node)}))
            case ast.JoinedStr(values=parts):
                yield from self._joined([self._part(part, depth) for part in parts], node)
            case ast.BinOp(op=ast.Add()):
                found = [(part, self.read(part, depth)) for part in summands(node)]
                if any(texts for _, texts in found):
                    yield from self._joined([texts or [_hole(part)] for part, texts in found], node)
            case ast.BinOp(left=left, op=ast.Mod(), right=right):
                for text in self.read(left, depth):
                    yield from self._fill_percent(text, right, depth)
            case ast.Call(func=ast.Attribute(value=base, attr=method), args=arguments, keywords=keywords):
                yield from self._called(base, method, arguments, keywords, depth)
            case ast.Call(func=ast.Name(id="dedent"), args=[argument]):
                yield from map(_dedented, self.read(argument, depth))
            case ast.Subscript(value=base, slice=key):
                for known in self.values(base):
                    if isinstance(known, ast.Dict):
                        yield from self._entries(known, key, depth)
            case ast.IfExp(body=first, orelse=second):
                yield from (*self.read(first, depth), *self.read(second, depth))
            case ast.BoolOp(values=parts):
                for part in parts:
                    yield from self.read(part, depth)
            case ast.Name() | ast.Attribute():
                for known in self.values(node):
                    yield from self.read(known, depth)

    def _part(self, part: ast.expr, depth: int) -> list[Text]:
        if not isinstance(part, ast.FormattedValue):
            return self.read(part, depth)
        found = [text for text in self.read(part.value, depth) if text.constant is not None]
        return found or [_hole(part.value)]

    def _joined(self, parts: Sequence[list[Text]], node: ast.expr) -> Iterator[Text]:
        for combined in islice(product(*parts), _MOST):
            if self._work > _MOST_WORK:
                return
            length = sum(map(_length, combined))
            self._work += length
            if length > _LONGEST or sum(len(text.holes) for text in combined) > _MOST_HOLES:
                continue
            longest = max(combined, key=lambda text: _length(text), default=None)
            line = longest.line if longest and longest.constants else node.lineno
            pieces = tuple(piece for text in combined for piece in text.pieces)
            yield Text(pieces, line, frozenset().union(*(text.constants for text in combined)))

    def _called(
        self, base: ast.expr, method: str, arguments: list[ast.expr], keywords: list[ast.keyword], depth: int
    ) -> Iterator[Text]:
        match method, arguments:
            case "format", _:
                for text in self.read(base, depth):
                    yield from self._fill_braces(text, arguments, keywords, depth)
            case "replace", [ast.Constant(value=str() as old), new, *_] if old:
                fill = [text for text in self.read(new, depth) if text.constant is not None] or [_hole(new)]
                for text, other in product(self.read(base, depth), fill):
                    yield _replaced(text, old, other)
            case (("strip" | "lstrip" | "rstrip"), []):
                for text in self.read(base, depth):
                    yield _stripped(text, method)
            case "dedent", [argument]:
                yield from map(_dedented, self.read(argument, depth))
            case "join", [ast.List(elts=parts) | ast.Tuple(elts=parts)] if isinstance(base, ast.Constant):
                separator = self.read(base, depth)
                between = [[self.read(part, depth) or [_hole(part)], separator] for part in parts]
                if separator and parts:
                    yield from self._joined([side for pair in between for side in pair][:-1], base)

    def _entries(self, value: ast.Dict, key: ast.expr, depth: int) -> Iterator[Text]:
        """Yield the texts of a dictionary: that of a key, or all if the key is only known when the script runs."""
        for name, entry in zip(value.keys, value.values, strict=True):
            if not isinstance(key, ast.Constant) or (isinstance(name, ast.Constant) and name.value == key.value):
                yield from self.read(entry, depth)

    def _fill_braces(
        self, text: Text, arguments: list[ast.expr], keywords: list[ast.keyword], depth: int
    ) -> Iterator[Text]:
        """Yield what `format` makes of a text."""
        given: dict[str, ast.expr] = {str(place): argument for place, argument in enumerate(arguments)}
        given |= {keyword.arg: keyword.value for keyword in keywords if keyword.arg is not None}
        if (fields := split_fields(text)) is None:
            return
        parts: list[list[Text]] = []
        for field in fields:
            if isinstance(field, Hole) and field.value is None:
                value = given.get(field.name)
                known = [found for found in self.read(value, depth) if found.constant is not None]
                named = field.name if not field.name.isdigit() or value is None else name_of(value)
                parts.append(known or [Text((Hole(named, value),), text.line, frozenset())])
            else:
                parts.append([Text((field,), text.line, frozenset())])
        for found in self._joined(parts, ast.Constant("", lineno=text.line, col_offset=0)):
            yield replace(found, line=text.line, constants=text.constants | found.constants)

    def _fill_percent(self, text: Text, right: ast.expr, depth: int) -> Iterator[Text]:
        """Yield what `%` makes of a text."""
        values = list(right.elts) if isinstance(right, ast.Tuple) else [right]
        named = {}
        if isinstance(right, ast.Dict):
            pairs = zip(right.keys, right.values, strict=True)
            named = {key.value: value for key, value in pairs if isinstance(key, ast.Constant)}
        parts: list[list[Text]] = []
        for piece in text.pieces:
            if isinstance(piece, Hole):
                parts.append([Text((piece,), text.line, frozenset())])
                continue
            end = 0
            for match in _PERCENT.finditer(piece):
                parts.append([Text((piece[end : match.start()],), text.line, frozenset())])
                end = match.end()
                if match["kind"] == "%":
                    parts.append([Text(("%",), text.line, frozenset())])
                    continue
                value = named.get(match["name"]) if match["name"] else values.pop(0) if values else None
                known = [found for found in self.read(value, depth) if found.constant is not None]
                hole = Hole(match["name"] or (name_of(value) if value else ""), value)
                parts.append(known or [Text((hole,), text.line, frozenset())])
            parts.append([Text((piece[end:],), text.line, frozenset())])
        for found in self._joined(parts, right):
            yield replace(found, line=text.line, constants=text.constants | found.constants)


def in_order(tree: ast.AST) -> list[Any]:
    """Return the nodes below a node in the order of the source."""
    placed: list[Any] = [node for node in ast.walk(tree) if hasattr(node, "lineno")]
    return sorted(placed, key=lambda node: (node.lineno, node.col_offset))


def split_fields(text: Text) -> list[str | Hole] | None:
    """Return a text with the fields of `format` as holes; None if it is no such text, for want of a name or brace."""
    found: list[str | Hole] = []
    number = 0
    for piece in text.pieces:
        if isinstance(piece, Hole):
            found.append(piece)
            continue
        try:
            fields = list(Formatter().parse(piece))
        except ValueError:
            return None
        for literal, name, _, _ in fields:
            found.append(literal)
            if name is None:
                continue
            name = re.split(r"[.\[]", name)[0] or str(number)
            number += name.isdigit()
            if not name.isidentifier() and not name.isdigit():
                return None
            found.append(Hole(name))
    return [piece for piece in found if piece]


def name_of(node: ast.expr) -> str:
    """Return the last name in an expression: "text" for `text`, `args.text`, `item["text"].lower()`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str() as name)):
            return name
        case ast.Subscript(value=inner) | ast.Await(value=inner) | ast.FormattedValue(value=inner):
            return name_of(inner)
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str() as name), *_]):
            return name
        case ast.Call(func=ast.Attribute(value=inner)) | ast.Call(func=ast.Name(), args=[inner, *_]):
            return name_of(inner)
        case _:
            return ""


def _hole(node: ast.expr) -> Text:
    return Text((Hole(name_of(node), node),), node.lineno, frozenset())


def _length(text: Text) -> int:
    """Return the characters of a text; a hole counts as one."""
    return sum(len(piece) if isinstance(piece, str) else 1 for piece in text.pieces)


def summands(node: ast.expr) -> list[ast.expr]:
    """Return the parts of a sum, however many there are."""
    parts: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts.insert(0, node.right)
        node = node.left
    return [node, *parts]


def _replaced(text: Text, old: str, new: Text) -> Text:
    pieces: list[str | Hole] = []
    for piece in text.pieces:
        if isinstance(piece, Hole):
            pieces.append(piece)
            continue
        first, *rest = piece.split(old)
        pieces.append(first)
        for part in rest:
            pieces += [*new.pieces, part]
    return replace(text, pieces=tuple(piece for piece in pieces if piece))


def _stripped(text: Text, method: str) -> Text:
    pieces = list(text.pieces)
    if pieces and isinstance(pieces[0], str) and method != "rstrip":
        pieces[0] = pieces[0].lstrip()
    if pieces and isinstance(pieces[-1], str) and method != "lstrip":
        pieces[-1] = pieces[-1].rstrip()
    return replace(text, pieces=tuple(piece for piece in pieces if piece))


def _dedented(text: Text) -> Text:
    whole = "".join(_SEAL if isinstance(piece, Hole) else piece for piece in text.pieces)
    first, *rest = textwrap.dedent(whole).split(_SEAL)
    pieces: list[str | Hole] = [first]
    for hole, part in zip(text.holes, rest, strict=False):
        pieces += [hole, part]
    return replace(text, pieces=tuple(piece for piece in pieces if piece))
