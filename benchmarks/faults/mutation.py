"""Changes bytes as damage, mistakes and malice do: any bytes, and the documents and containers that the loaders read.

Each function takes a valid content and a `random.Random`, and returns another content: the same seed gives the same.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import PurePath
from random import Random
from typing import Any

Mutator = Callable[[bytes, Random], bytes]

_PLACE = '"\x7f a place \x7f"'
_NUMBERS = (
    "0", "1", "-1", "2", "3", "7",
    "255", "65535", "65536", "2147483647", "2147483648", "-2147483649",
    "4294967296", "9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551616", "1e10",
    "1e17", "1e30", "1e308", "1e400", "-1e400", "NaN",
    "Infinity", "-Infinity", "0.5", "1e-320", "-0.0", "0.1",
    "9" * 400,
    "-" + "9" * 400,
    "9" * 5000,  # more digits than Python turns into a number
    "1" + "0" * 100_000,
)  # fmt: skip
_TEXTS = (
    *('""', '" "', '"x"', '"0"', '"-1"', '"nan"', '"null"', '"true"', '"\\u0000"', '"a\\u0000b"', '"\\ud800"'),
    *(
        '"a\\nb"',
        '"\\u2028"',
        '"\\u001b[31m"',
        '"<|im_end|>"',
        '"{}"',
        '"%s%n"',
        '"é"',
        '"😀"',
        '"\\\\"',
        '"."',
        '".."',
    ),
    *('"../../../etc/passwd"', '"/etc/passwd"', '"/dev/zero"', '"file:///etc/passwd"', '"a/../../b"', '"C:\\\\x"'),
    '"' + "x" * 5000 + '"',
    '"' + "a/" * 3000 + 'b"',
    '"' + "é" * 200_000 + '"',
)
_OTHERS = (
    *("null", "true", "false", "[]", "{}", "[[]]", "[null]", "[0]", '[""]', '{"a": 1}', '{"": null}', "[1, 2, 3]"),
    "[" * 100 + "]" * 100,
    "[" * 2000 + "]" * 2000,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 900 + "1" + "}" * 900,
    '{"a":' * 50_000 + "1" + "}" * 50_000,
    "[" + ",".join(["0"] * 50_000) + "]",
    "{" + ",".join(f'"k{number}": {number}' for number in range(20_000)) + "}",
)
"""What a value of a document is replaced by, as JSON spells it (and more, as Python's reader accepts it)."""
_YAML = (
    *("*unknown", "&a [*a]", "!!python/object/apply:os.system [id]", "!!binary aGk=", "2001-01-01", "1:30:00", "0x10"),
    *(
        "1_000",
        ".nan",
        ".inf",
        "-.inf",
        "~",
        "{<<: 1}",
        "{? [1]: 2}",
        "{1: 2}",
        "!!set {a}",
        "!x y",
        "'",
        "@",
        "%",
        "|",
    ),
    "{a: &a [1,1,1,1,1,1,1,1,1], b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b], "
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c], e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d], f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e], "
    "g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f], h: [*g,*g,*g,*g,*g,*g,*g,*g,*g]}",
)
_CELLS = (
    *(
        "",
        " ",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "-1",
        "0",
        "1e400",
        "1,5",
        '"',
        '"a',
        "x",
        "\0",
        "2026-13-45",
        "0001-01-01",
    ),
    *("9999-12-31T23:59:59", "2026-01-01T00:00:00+99:99", "9" * 400, "-" * 50, "=1+1", "é", "12.3 W", "1e17", "5 kW"),
)
_EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)
_EXTREMES += ((1 << 63), (1 << 64) - 1)


def mutate(name: str, data: bytes, random: Random) -> bytes:
    """Return another content for a file, by the kind that its name tells."""
    changed = _BY_SUFFIX.get(PurePath(name).suffix, mutate_bytes)(data, random)
    return mutate_bytes(changed, random) if random.random() < 0.05 else changed


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Flip, cut, insert, repeat or splice bytes, or set a length to an extreme; small files are hit near the start."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        size = len(found)
        place = random.randrange(min(size, random.choice((64, 1024, 1 << 30)))) if size else 0
        if random.random() < 0.15:
            place = max(0, size - 1 - place)  # footers
        length = random.choice((1, 2, 4, 8, 64, 1024))
        match random.randrange(10):
            case 0 | 1 if size:
                found[place] ^= 1 << random.randrange(8)
            case 2 if size:
                found[place] = random.randrange(256)
            case 3 | 4:
                width = random.choice((1, 2, 4, 4, 8, 8))
                value = random.choice(_EXTREMES) & ((1 << 8 * width) - 1)
                found[place : place + width] = value.to_bytes(width, random.choice(("little", "big")))
            case 5:
                del found[place : place + length]
            case 6:
                found[place:place] = random.randbytes(length)
            case 7:
                found[place:place] = found[place : place + length] * random.choice((1, 2, 50))
            case 8 if size:
                other = random.randrange(size)
                found[place : place + length] = found[other : other + length]
            case _:
                cut = random.choice((place, random.randrange(size + 1)))
                del found[cut:]
    return bytes(found)


def mutate_json(data: bytes, random: Random) -> bytes:
    """Replace, remove, repeat, rename or exchange values of a JSON document; now and then change its bytes."""
    if random.random() < 0.1:
        return mutate_bytes(data, random)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, random)
    text = ""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        text = _change_value(document, random)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            break
    return text.encode("utf-8", "surrogatepass")


def mutate_lines(data: bytes, random: Random) -> bytes:
    """Change a line of a JSONL file, or remove, repeat, exchange or cut lines."""
    lines = data.splitlines(keepends=True)
    if len(lines) < 2 or random.random() < 0.1:
        return mutate_bytes(data, random)
    place, other = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(8):
        case 0:
            del lines[place]
        case 1:
            lines.insert(other, lines[place])
        case 2:
            lines[place], lines[other] = lines[other], lines[place]
        case 3:
            lines[place] = lines[place][: random.randrange(len(lines[place]) + 1)]
        case _:
            lines[place] = mutate_json(lines[place], random) + b"\n"
    return b"".join(lines)


def mutate_yaml(data: bytes, random: Random) -> bytes:
    """Change values of a YAML document, or put YAML's own notations in their place."""
    import yaml

    if random.random() < 0.15:
        return mutate_bytes(data, random)
    try:
        document = json.loads(json.dumps(yaml.safe_load(data)))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return mutate_bytes(data, random)
    values = _YAML if random.random() < 0.4 else None
    return _change_value(document, random, values).encode("utf-8", "surrogatepass")


def mutate_table(data: bytes, random: Random) -> bytes:
    """Change a field of a table with separators, its heading, or its lines."""
    lines = data.decode("utf-8", "replace").splitlines()
    if len(lines) < 2 or random.random() < 0.2:
        return mutate_bytes(data, random)
    place = random.choice((0, 1, len(lines) - 1, random.randrange(len(lines))))
    cells = lines[place].split(",")
    match random.randrange(6):
        case 0:
            lines.insert(place, lines[random.randrange(len(lines))])
        case 1:
            del lines[place]
        case 2:
            lines[place] = random.choice((";", "\t", ", ", ",,", "|")).join(cells)
        case _:
            cells[random.randrange(len(cells))] = random.choice(_CELLS)
            lines[place] = ",".join(cells)
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def mutate_text(data: bytes, random: Random) -> bytes:
    """Put a value, or a mark of the text itself, somewhere into a text."""
    if random.random() < 0.3:
        return mutate_bytes(data, random)
    text = data.decode("utf-8", "surrogateescape")
    start = random.randrange(len(text) + 1)
    end = random.choice((start, start + 1, start + random.randrange(40)))
    found = text[:start] + random.choice((_value(random), random.choice("<>{}[]\"':,/\\.-e\n\0"))) + text[end:]
    return found.encode("utf-8", "surrogatepass" if not any("\udc80" <= c <= "\udcff" for c in found) else "replace")


def _framed(unpack: Callable[[bytes], tuple[bytes, Callable[[bytes], bytes]]], inner: Mutator) -> Mutator:
    """Return a mutator that changes the inside of a container whose lengths and checksums stay right."""

    def mutator(data: bytes, random: Random) -> bytes:
        if random.random() < 0.5:
            return mutate_bytes(data, random)
        try:
            content, pack = unpack(data)
        except (ValueError, IndexError, struct.error, zipfile.BadZipFile):
            return mutate_bytes(data, random)
        return pack(inner(content, random))

    return mutator


def _unpack_safetensors(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], lambda head: len(head).to_bytes(8, "little") + head + data[end:]


def _unpack_npy(data: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    end = 10 + int.from_bytes(data[8:10], "little")
    return data[10:end], lambda head: data[:8] + (len(head) & 0xFFFF).to_bytes(2, "little") + head + data[end:]


def mutate_zip(data: bytes, random: Random) -> bytes:
    """Change one file in an archive, with its checksum made right again; now and then change the archive's bytes."""
    if random.random() < 0.3:
        return mutate_bytes(data, random)
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(packed, "w") as target:
            names = source.namelist()
            chosen = random.choice([name for name in names if name.endswith(".pkl")] or names)
            if random.random() < 0.2:
                chosen = random.choice(names)
            for name in names:
                content = source.read(name)
                target.writestr(name, mutate_pickle(content, random) if name == chosen else content)
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, ValueError, IndexError, NotImplementedError, RuntimeError):
        return mutate_bytes(data, random)
    return packed.getvalue()


def mutate_pickle(data: bytes, random: Random) -> bytes:
    """Change bytes of a pickle, or put instructions into it."""
    if random.random() < 0.5 or len(data) < 3:
        return mutate_bytes(data, random)
    instructions = (
        b"N", b"0", b"(", b"]", b"}", b")", b"t", b"R", b"b", b"2", b"a", b"e", b"s", b"u", b"\x85", b"\x86", b"Q",
        b"h\x00", b"j\xff\xff\xff\x7f", b"q\x00", b"r\xff\xff\xff\xff", b"J\xff\xff\xff\x7f", b"M\xff\xff",
        b"\x8b\x04\x00\x00\x00\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"T\xff\xff\xff\xff",
        b"X\xff\xff\xff\xff", b"\x8e\xff\xff\xff\xff\x00\x00\x00\x00", b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"cos\nsystem\n", b"cbuiltins\nlist\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"I" + b"9" * 4000 + b"\n",
        b"F1e400\n", b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"G\x7f\xf8\x00\x00\x00\x00\x00\x00", b"." ,
        b"(" * 1000, b"](e" * 30, b"2\x86" * 30,
    )  # fmt: skip
    place = random.randrange(2, len(data))
    end = random.choice((place, place, place + 1, place + 3))
    return data[:place] + random.choice(instructions) + data[end:]


def mutate_png(data: bytes, random: Random) -> bytes:
    """Change the content of one of a PNG's chunks, with its checksum made right again."""
    if random.random() < 0.4 or not data.startswith(b"\x89PNG"):
        return mutate_bytes(data, random)
    chunks, place = [], 8
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    chosen = random.choice((0, random.randrange(len(chunks))))
    if random.random() < 0.2:
        chunks.insert(random.randrange(len(chunks) + 1), random.choice(chunks))
    kind, content = chunks[chosen]
    chunks[chosen] = (kind, mutate_bytes(content, random))
    if random.random() < 0.15:
        bomb = zlib.compress(b"\0" * 50_000_000, 9) if random.random() < 0.2 else b"\xff" * 100
        chunks.insert(1, random.choice(((b"zTXt", b"a\0\0" + bomb), (b"iCCP", b"a\0\0" + bomb), (b"tRNS", b""))))
    packed = (
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big") for name, body in chunks
    )
    return data[:8] + b"".join(packed)


def _value(random: Random) -> str:
    return random.choice(random.choice((_NUMBERS, _NUMBERS, _TEXTS, _OTHERS)))


def _places(node: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return every container in a document with every key or index of it."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        found.append((node, key))
        _places(value, found)
    return found


def _change_value(document: Any, random: Random, values: tuple[str, ...] | None = None) -> str:
    """Change one value of a document in place, and return its text, which may be no valid JSON."""
    places = _places(document, [])
    if not places or random.random() < 0.02:
        return random.choice(values) if values else _value(random)
    # Long lists would otherwise take nearly all of it.
    depths = [place for place in places if not isinstance(place[0], list)] or places
    node, key = random.choice(depths if random.random() < 0.7 else places)
    fresh, old = random.choice(values) if values else _value(random), node[key]
    match random.randrange(12):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[random.choice(("unknown", "", "a\nb", "__class__", key.upper(), key + " "))] = node.pop(key)
        case 2 if isinstance(node, dict):
            node["\x7fagain"] = old
            text = json.dumps(document)
            return text.replace('"\\u007fagain"', json.dumps(key))
        case 3:
            other, place = random.choice(places)
            if not isinstance(old, (dict, list)) and not isinstance(other[place], (dict, list)):
                node[key], other[place] = other[place], old
        case 4 if isinstance(node, list):
            node.insert(random.randrange(len(node) + 1), json.loads(json.dumps(old)))
        case 5 if isinstance(old, (int, float)) and not isinstance(old, bool) and abs(old) < 1e30:
            node[key] = random.choice((-old, old + 1, old - 1, old * 1000, old * 10**9, old / 3, float(old), str(old)))
        case 6 if isinstance(old, str):
            node[key] = random.choice((old[:-1], old + "x", old * 2, old.upper(), f"../{old}", f"{old}\0", [old]))
        case _:
            node[key] = json.loads(_PLACE)
            return json.dumps(document).replace(json.dumps(json.loads(_PLACE)), fresh)
    return json.dumps(document)


_BY_SUFFIX: dict[str, Mutator] = {
    ".json": mutate_json,
    ".jsonl": mutate_lines,
    ".yaml": mutate_yaml,
    ".csv": mutate_table,
    ".txt": mutate_text,
    ".p": mutate_pickle,
    ".png": mutate_png,
    ".npy": _framed(_unpack_npy, mutate_text),
    ".safetensors": _framed(_unpack_safetensors, mutate_json),
    ".bin": mutate_zip,
    ".pt": mutate_zip,
    ".pth": mutate_zip,
}
