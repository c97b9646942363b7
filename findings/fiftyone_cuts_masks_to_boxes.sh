#!/usr/bin/env bash
# FiftyOne 1.22.1 cuts the mask of a COCO annotation to its "bbox", without a word, also where the box is the smaller one.
#
# In COCO (https://cocodataset.org/#format-data) "segmentation" and "bbox" are two entries of an annotation, each in pixels
# of the image, and pycocotools takes the mask from "segmentation" alone. A model that names a box and a mask that another
# model draws may disagree by some pixels. FiftyOne keeps a detection's mask relative to its box
# (https://docs.voxel51.com/user_guide/using_datasets.html#instance-segmentations), so what lies outside is lost when the
# file is read, and the area and IoU of what is left are others.
#
# Seen on 2026-11-30, Python 3.11: a mask of 100 pixels with a box that is one pixel smaller on each side is read as 64
# pixels; with its own box as 100.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check fiftyone==1.22.1 pycocotools==2.0.11
cd "$folder"
HOME=$folder FIFTYONE_DO_NOT_TRACK=1 "$folder/venv/bin/python" - <<'PYTHON'
import json

import fiftyone.utils.coco as coco
import numpy as np
from pycocotools import mask

pixels = np.zeros((40, 60), np.uint8, order="F")
pixels[10:20, 10:20] = 1
runs = mask.encode(pixels)
runs["counts"] = runs["counts"].decode()
image = {"id": 1, "file_name": "a.png", "width": 60, "height": 40}
boxes = {1: [10, 10, 10, 10], 2: [11, 11, 8, 8]}
annotations = [
    {"id": number, "image_id": 1, "category_id": 1, "segmentation": runs, "bbox": box, "area": 100, "iscrowd": 0}
    for number, box in boxes.items()
]
document = {"images": [image], "categories": [{"id": 1, "name": "cup"}], "annotations": annotations}
with open("coco.json", "w") as file:
    json.dump(document, file)
read = coco.load_coco_detection_annotations("coco.json")[-1][1]
found = [int(each.to_detection((60, 40), {1: "cup"}, load_segmentation=True).mask.sum()) for each in read]
print(f"pixels with the mask's own box {found[0]}, with a smaller box {found[1]}, of {pixels.sum()}")
if found != [100, 64]:
    raise SystemExit("changed: FiftyOne reads masks otherwise")
PYTHON
