#!/usr/bin/env bash
# Datumaro 1.13.12 writes every mask as a crowd into COCO JSON, which COCO's own evaluation then ignores.
#
# COCO (https://cocodataset.org/#format-data): iscrowd is 1 for a group of objects, and the evaluation matches detections
# with it without counting them (https://github.com/cocodataset/cocoapi, PythonAPI/pycocotools/cocoeval.py). Datumaro sets
# it for what is written as run lengths (https://github.com/open-edge-platform/datumaro, plugins/data_formats/coco/
# exporter.py, `is_crowd = mask is not None`), and that is every mask of a label that was painted rather than drawn as a
# polygon, whatever its attributes say. CVAT exports through it. A polygon of the same object is no crowd.
#
# Seen on 2026-11-30, Python 3.11: iscrowd 0 for the polygon, 1 for the mask. Answers that equal the truth have the
# average precision 1.0 on the polygon and -1.0 (nothing to find) on the mask.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datumaro==1.13.12 pycocotools==2.0.11
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import json

import datumaro
import numpy as np
from datumaro.components.annotation import Mask, Polygon
from datumaro.components.media import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

square = np.zeros((40, 60), bool)
square[5:25, 6:30] = True
picture = Image.from_numpy(np.full((40, 60, 3), 128, np.uint8))
found = {}
for name, drawn in (
    ("polygon", Polygon([6, 5, 30, 5, 30, 25, 6, 25], label=0, id=1, group=1, attributes={"is_crowd": False})),
    ("mask", Mask(square, label=0, id=1, group=1, attributes={"occluded": False})),
):
    item = datumaro.DatasetItem(id="a", subset="default", media=picture, annotations=[drawn])
    datumaro.Dataset.from_iterable([item], categories=["mug"]).export(name, "coco_instances")
    file = f"{name}/annotations/instances_default.json"
    (annotation,) = json.load(open(file))["annotations"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(file)
        answer = {"image_id": 1, "category_id": 1, "segmentation": truth.annToRLE(annotation), "score": 1}
        answers = truth.loadRes([answer])
        evaluation = COCOeval(truth, answers, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    found[name] = annotation["iscrowd"], round(float(evaluation.stats[0]), 3)
print(", ".join(f"{name}: iscrowd {crowd}, average precision {precision}" for name, (crowd, precision) in found.items()))
if found != {"polygon": (0, 1.0), "mask": (1, -1.0)}:
    raise SystemExit("changed: Datumaro writes masks that are no crowds")
PYTHON
