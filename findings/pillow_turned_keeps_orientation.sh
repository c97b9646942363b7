#!/usr/bin/env bash
# Pillow 13.0.0 keeps the EXIF orientation in an image that was turned by hand, so that exif_transpose turns it again.
#
# ImageOps.exif_transpose (https://pillow.readthedocs.io/en/stable/reference/ImageOps.html#PIL.ImageOps.exif_transpose)
# turns an image "if an image has an EXIF Orientation tag, other than 1" and removes the tag. One would expect
# Image.transpose and Image.rotate to leave no tag that is wrong now. Every copy keeps it: after transpose, rotate, resize,
# crop and convert, getexif() still says 6, and code that honors the orientation of what it is given turns the picture a
# second time.
#
# Seen on 2026-11-30, Python 3.11: a 4 x 2 image of orientation 6 is 2 x 4 after transpose(ROTATE_270), tag 6, and 4 x 2
# again after exif_transpose; after exif_transpose alone it is 2 x 4, without the tag.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check Pillow==13.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from PIL import ExifTags, Image, ImageOps

ORIENTATION = ExifTags.Base.Orientation
image = Image.new("RGB", (4, 2))
exif = image.getexif()
exif[ORIENTATION] = 6
image.save("photo.jpg", exif=exif)


def tell(turned):
    return turned.size, turned.getexif().get(ORIENTATION), ImageOps.exif_transpose(turned).size


by_hand = tell(Image.open("photo.jpg").transpose(Image.Transpose.ROTATE_270))
rotated = tell(Image.open("photo.jpg").rotate(-90, expand=True))
by_tag = tell(ImageOps.exif_transpose(Image.open("photo.jpg")))
print(f"size, orientation, size after exif_transpose: by hand {by_hand}, rotated {rotated}, by tag {by_tag}")
if by_hand != ((2, 4), 6, (4, 2)) or rotated != by_hand or by_tag != ((2, 4), None, (2, 4)):
    raise SystemExit("changed: an image that was turned by hand has another orientation")
PYTHON
