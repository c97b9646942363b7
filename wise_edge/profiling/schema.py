"""Checks a profile against `assets/profile.schema.json`, in the part of JSON Schema that it uses.

jsonschema does the same and the tests hold this against it; it is not among the packages that a device needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from wise_edge.files.documents import read_json

SCHEMA = Path(__file__).parents[1] / "assets" / "profile.schema.json"
_LARGEST = 1e18  # no figure of a profile comes near, and sums of squares of such stay finite
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def find_fault(document: Any) -> str | None:
    """Return the first thing that is wrong with a document, as its place and the reason; None if it is a profile.

    Keys that the schema does not name are accepted: a later version may have written them.
    """
    return next(_faults(document, _schema(), "the document"), None) or next(_unequal(document), None)


def _unequal(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what has not one energy for each source of power, which no schema can say."""
    sources = document["power"]["sources"]
    for place, run in enumerate(document["runs"]):
        for part, energies in run["energy"].items():
            if sources and len(energies) != len(sources):
                yield f"the document.runs.{place}.energy.{part} has {len(energies)} items, not one for each source"


@cache
def _schema() -> Mapping[str, Any]:
    return read_json(SCHEMA)


def _faults(value: Any, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if "$ref" in schema:
        yield from _faults(value, _schema()["$defs"][schema["$ref"].rpartition("/")[2]], where)
    if "oneOf" in schema:
        found = [list(_faults(value, each, where)) for each in schema["oneOf"]]
        yield from [] if not all(found) else found[-1]
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_is(value, name) for name in types):
            yield f"{where} is not of type {' or '.join(types)}"
            return
    known = [schema["const"]] if "const" in schema else schema.get("enum")
    if known is not None and value not in known:
        yield f"{where} is not {' or '.join(map(str, known))}"
    if isinstance(value, dict):
        yield from _faults_of_object(value, schema, where)
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{where} has {len(value)} items"
        for place, item in enumerate(value):
            yield from _faults(item, schema.get("items", {}), f"{where}.{place}")
    elif isinstance(value, (int, float)) and not abs(value) <= _LARGEST:
        yield f"{where} is larger than anything that is measured"


def _faults_of_object(value: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{where} has no {name}"
    others = schema.get("additionalProperties")
    for name, item in value.items():
        inner = schema.get("properties", {}).get(name, others)
        if isinstance(inner, Mapping):
            yield from _faults(item, inner, f"{where}.{name}")


def _is(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (not isinstance(value, bool) or name == "boolean")
