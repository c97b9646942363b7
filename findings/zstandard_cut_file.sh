#!/usr/bin/env bash
# zstandard 0.25.0: a compressed file that was cut short is read as a shorter file, without an error or a way to ask.
#
# Source: zstandard's ZstdDecompressionReader (of zstandard.open and stream_reader) and copy_stream end where their input
# ends; only ZstdDecompressionObj says with `eof` whether the frame did. urllib3 had to check that itself
# (https://github.com/urllib3/urllib3/pull/2624).
#
# A good engineer would guess that `zstandard.open`, as `gzip.open` of Python and `backports.zstd.open` (in Python itself
# from 3.14 on) do, raises EOFError where a download, a copy or a recorder stopped early.
#
# Seen, of 300000 bytes whose compressed file was cut in the middle:
#   gzip.open             EOFError
#   backports.zstd.open   EOFError
#   zstandard.open        149994 bytes
#   copy_stream           149994 bytes
#   decompressobj         149994 bytes, eof False
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check zstandard==0.25.0 \
    "backports.zstd==1.8.0; python_version < '3.14'"

cat > "$work/show.py" <<'PYTHON'
import gzip
import io
import random
import sys
from collections.abc import Callable
from pathlib import Path

import zstandard

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

content, file = random.Random(0).randbytes(300_000), Path(sys.argv[1]) / "cut"


def read(open_file: Callable[..., io.IOBase]) -> str:
    try:
        with open_file(file, "rb") as stream:
            return f"{len(stream.read())} bytes"
    except EOFError:
        return "EOFError"


def copy() -> str:
    unpacked = io.BytesIO()
    zstandard.ZstdDecompressor().copy_stream(io.BytesIO(file.read_bytes()), unpacked)
    return f"{len(unpacked.getvalue())} bytes"


def ask() -> str:
    frame = zstandard.ZstdDecompressor().decompressobj()
    return f"{len(frame.decompress(file.read_bytes()))} bytes, eof {frame.eof}"


def show(name: str, found: str, expected: str) -> None:
    print(f"{name:22}{found}")
    if found != expected:
        sys.exit(f"changed: expected {expected}")


packed = gzip.compress(content)
file.write_bytes(packed[: len(packed) // 2])
show("gzip.open", read(gzip.open), "EOFError")
packed = zstandard.compress(content)
file.write_bytes(packed[: len(packed) // 2])
show("backports.zstd.open", read(zstd.open), "EOFError")
show("zstandard.open", read(zstandard.open), "149994 bytes")
show("copy_stream", copy(), "149994 bytes")
show("decompressobj", ask(), "149994 bytes, eof False")
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work"
