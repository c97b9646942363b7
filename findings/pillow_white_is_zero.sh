#!/usr/bin/env bash
# Pillow 13.0.0 reads a 16-bit TIFF whose zero is white as its own negative, and refuses it in big-endian order.
#
# TIFF 6.0 (https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf, PhotometricInterpretation 0): 0 is imaged as
# white, the largest value as black. Pillow inverts such images of 1 to 8 bits (its unpackings "1;I", "L;I" ...), so the
# same picture of 16 bits is expected to be inverted too. Its values come back as they are stored, and the mode, "I;16",
# does not tell. A big-endian one is "cannot identify image file".
#
# Seen on 2026-11-30, Python 3.11: 8 bits [255, 155, 0], 16 bits [0, 25700, 65535], big-endian: UnidentifiedImageError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check Pillow==13.0.0 tifffile==2026.3.3 numpy
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

stored = np.array([[0, 100, 255]], np.uint8)
tifffile.imwrite("8.tif", stored, photometric="miniswhite")
tifffile.imwrite("16.tif", stored.astype(np.uint16) * 257, photometric="miniswhite", byteorder="<")
tifffile.imwrite("big.tif", stored.astype(np.uint16) * 257, photometric="miniswhite", byteorder=">")
eight, sixteen = (np.asarray(Image.open(name))[0].tolist() for name in ("8.tif", "16.tif"))
try:
    big = Image.open("big.tif").mode
except UnidentifiedImageError:
    big = "UnidentifiedImageError"
print(f"8 bits {eight}, 16 bits {sixteen}, big-endian: {big}")
if (eight, sixteen, big) != ([255, 155, 0], [0, 25700, 65535], "UnidentifiedImageError"):
    raise SystemExit("changed: Pillow reads white as zero otherwise")
PYTHON
