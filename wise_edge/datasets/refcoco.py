"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO, each in its published files.

Those of the first three are of the refer API (https://github.com/lichengunc/refer), those of gRefCOCO of
https://github.com/henghuiding/gRefCOCO: `refs(unc).p` (or umd, google) maps sentences to annotations,
`instances.json` holds the annotations, and the images are those of COCO's train2014. Each sentence is one example.

In `grefs(unc).json`, `ann_id` is a list: one annotation for each object that the sentences mean, or [-1] if nothing in
the image is meant; `no_target` says the latter, too. Crowds in the list are passed over, as in the published readers.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wise_edge.arguments import check_size
from wise_edge.datasets.base import Example, RowDataset, count_kind, masked_objects, read_image
from wise_edge.datasets.coco_masks import MOST_MASKED_PIXELS, Segmentation, read_segmentation
from wise_edge.datasets.plain_pickle import load_plain_pickle
from wise_edge.errors import UsageError
from wise_edge.extras import require
from wise_edge.files.documents import read_json, read_json_list
from wise_edge.geometry import Size, unite

GENERALIZED = "grefcoco"
"""The data set whose sentences mean any number of objects."""
REFS = {
    "refcoco": ("refs(unc).p", "refs(google).p"),
    "refcoco+": ("refs(unc).p",),
    "refcocog": ("refs(umd).p", "refs(google).p"),
    GENERALIZED: ("grefs(unc).json", "grefs(unc).p"),
}
"""Data set to its files of refs, each with a division into splits; the first is the one that papers report."""

IMAGE_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014", "coco/train2014")
"""Where images are searched for, below the data folder."""
_MOST_BYTES = 1_000_000_000
"""Of instances.json and grefs(unc).json; COCO's largest has 450 MB."""
_NOTHING = -1
"""gRefCOCO's annotation of a sentence that means nothing in the image."""


@dataclass(frozen=True)
class _Target:
    """What the sentences of one ref refer to: an image's file, its size, and the objects in it."""

    image: Path
    size: Size
    segmentations: tuple[Segmentation, ...]


@dataclass(frozen=True)
class _Row:
    id: str
    sentence: str
    target: _Target


class RefCocoDataset(RowDataset[_Row]):
    """One split of a data set; ids are "REF-PLACE": the ref's id and the sentence's place in it.

    The kinds of gRefCOCO are "one", "several" and "none", by the number of objects; the others have no kinds.

    Args:
        name: a key of `REFS`.
        data: a folder with NAME/refs(...).p and NAME/instances.json, or with these files themselves.
        split: name in the refs: train, val, testA, testB or test.

    Raises:
        UsageError: a file or the images' folder is missing or damaged, the pickle holds more than plain data, or no
            ref of the split is usable.
        MissingExtraError: pycocotools is not installed.
    """

    def __init__(self, name: str, data: Path, split: str) -> None:
        require("pycocotools.mask", extra="data")  # fails now and not at the first example
        refs_file = _find_refs(name, data)
        refs = _refs_of_split(refs_file, split)
        instances_file = refs_file.with_name("instances.json")
        index = _Index(instances_file, refs, _find_images(data))
        rows: list[_Row] = []
        problems: list[str] = []
        seen: set[int] = set()
        for place, ref in enumerate(refs):
            try:
                rows += _read_ref(ref, index, seen, name == GENERALIZED)
            except (ValueError, UsageError) as error:
                named = reprlib.repr(ref.get("ref_id", f"at place {place}"))
                problems.append(f"{refs_file.name}, {split} ref {named}: {error}")
        files = (refs_file, instances_file)
        super().__init__(name, split, refs_file, rows, (row.id for row in rows), problems, files)

    def __getitem__(self, index: int) -> Example:
        """Read one example."""
        row = self._rows[index]
        image = read_image(row.target.image, row.id)
        size = (image.shape[1], image.shape[0])
        if size != row.target.size:
            expected = " x ".join(map(str, row.target.size))
            raise UsageError(f"{row.id}: {row.target.image} has {size[0]} x {size[1]} pixels, not {expected}")
        masks = [segmentation.paint() for segmentation in row.target.segmentations]
        objects = masked_objects(masks)
        if self.name == GENERALIZED and masks and not objects:
            raise UsageError(f"{row.id}: its annotations cover no pixel")
        kind = count_kind(len(objects)) if self.name == GENERALIZED else None
        return Example(row.id, row.sentence, image, objects, unite(masks, size), None, kind)

    def _files_of(self, row: _Row) -> Sequence[Path]:
        return (row.target.image,)


class _Index:
    """The annotations and images that the refs name."""

    def __init__(self, path: Path, refs: list[dict[Any, Any]], image_folder: Path) -> None:
        content = read_json(path, _MOST_BYTES, "it belongs next to the refs; download it again")
        wanted = {number for ref in refs for number in _read_ids(ref)}
        annotations = ((_read_id(item, "id"), item) for item in _dicts(content, "annotations", path))
        self._annotations = {number: item for number, item in annotations if number is not None and number in wanted}
        self._images = {_read_id(item, "id"): item for item in _dicts(content, "images", path)}
        self._images.pop(None, None)
        self._image_folder = image_folder
        self._present = {entry.name for entry in image_folder.iterdir()}

    def target(self, ref: dict[Any, Any]) -> _Target:
        """Return the target of a ref that means one object.

        Raises:
            ValueError, UsageError: the annotation or its image is missing or malformed.
        """
        found, number = _read_id(ref, "ann_id"), reprlib.repr(ref.get("ann_id"))
        annotation = None if found is None else self._annotations.get(found)
        if annotation is None:
            raise ValueError(f"annotation {number} is not in instances.json")
        image, size = self._image(annotation, f"annotation {number}")
        return _Target(image, size, (read_segmentation(annotation.get("segmentation"), size),))

    def targets(self, ref: dict[Any, Any]) -> _Target:
        """Return the target of a ref that means any number of objects.

        Raises:
            ValueError, UsageError: an annotation or the image is missing or malformed, or they contradict one another.
        """
        numbers = _read_ids(ref)
        if not numbers:
            raise ValueError(f"ann_id {reprlib.repr(ref.get('ann_id'))} is not a list of annotations")
        image, size = self._image(ref, "the ref")
        nothing = numbers == [_NOTHING]
        if "no_target" in ref and ref["no_target"] is not nothing:
            raise ValueError(f"no_target is {ref['no_target']!r:.20} and ann_id {reprlib.repr(numbers)}")
        if nothing:
            return _Target(image, size, ())
        if len(numbers) * size[0] * size[1] > MOST_MASKED_PIXELS:
            raise ValueError(f"the masks of its {len(numbers)} objects have more than {MOST_MASKED_PIXELS:,} pixels")
        segmentations = []
        for number in numbers:
            annotation = self._annotations.get(number)
            if annotation is None:
                raise ValueError(f"annotation {number!r:.40} is not in instances.json")
            if _read_id(annotation, "image_id") != _read_id(ref, "image_id"):
                raise ValueError(f"annotation {number!r:.40} is of another image")
            if not annotation.get("iscrowd"):
                segmentations.append(read_segmentation(annotation.get("segmentation"), size))
        if not segmentations:
            raise ValueError("all its annotations are crowds")
        return _Target(image, size, tuple(segmentations))

    def _image(self, item: dict[Any, Any], what: str) -> tuple[Path, Size]:
        image = self._images.get(_read_id(item, "image_id"))
        if image is None:
            raise ValueError(f"the image of {what} is not in instances.json")
        size = (_read_side(image, "width"), _read_side(image, "height"))
        check_size(size, f"the image of {what}")
        name = image.get("file_name")
        if not isinstance(name, str) or name not in self._present:
            raise ValueError(f"image {name!r:.80} is not in {self._image_folder}")
        return self._image_folder / name, size


def _read_id(item: dict[Any, Any], key: str) -> int | str | None:
    """Return an id; None for anything else, which may not be hashable or may hold itself."""
    value = item.get(key)
    return value if isinstance(value, int | str) else None


def _read_ids(ref: dict[Any, Any]) -> list[int | str]:
    """Return the ids of a ref's annotations, each once; none if one is not an id."""
    value = ref.get("ann_id")
    numbers = value if isinstance(value, list) else [value]
    if not all(isinstance(number, int | str) for number in numbers):
        return []
    return list(dict.fromkeys(numbers))


def _read_side(image: dict[str, Any], key: str) -> int:
    side = image.get(key)
    if not isinstance(side, int) or side <= 0:
        raise ValueError(f"image {reprlib.repr(image.get('id'))} has no valid {key} in instances.json")
    return side


def _read_ref(ref: dict[Any, Any], index: _Index, seen: set[int], generalized: bool) -> list[_Row]:
    if not isinstance(ref.get("split"), str):
        raise ValueError("it has no split")
    number, sentences = ref.get("ref_id"), ref.get("sentences")
    if not isinstance(number, int) or number in seen:
        raise ValueError("its ref_id is not a number or is repeated")
    seen.add(number)
    if not isinstance(sentences, list) or not sentences:
        raise ValueError("it has no sentences")
    texts = [item.get("sent") if isinstance(item, dict) else None for item in sentences]
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"sentence {place} has no text")
    target = index.targets(ref) if generalized else index.target(ref)
    return [_Row(f"{number}-{place}", text.strip(), target) for place, text in enumerate(texts) if text]


def _find_refs(name: str, data: Path) -> Path:
    for folder in (data / name, data):
        for file in REFS[name]:
            if (folder / file).is_file():
                return folder / file
    source = "https://github.com/henghuiding/gRefCOCO" if name == GENERALIZED else f"{name} of the refer API"
    files = " or ".join(REFS[name])
    raise UsageError(f"found no {files} in {data / name} or {data}; unpack {source} there")


def _find_images(data: Path) -> Path:
    for folder in IMAGE_FOLDERS:
        # The data folder may be that of the annotations; the images are next to it.
        for base in (data, data.parent):
            if (base / folder).is_dir():
                return base / folder
    raise UsageError(f"found no images below {data}; looked for {', '.join(IMAGE_FOLDERS)}; unpack COCO's train2014")


def _refs_of_split(path: Path, split: str) -> list[dict[Any, Any]]:
    refs = load_plain_pickle(path) if path.suffix == ".p" else read_json_list(path, _MOST_BYTES, "download it again")
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise UsageError(f"{path} is not a list of refs; download it again")
    splits = sorted({str(_read_id(ref, "split"))[:40] for ref in refs})
    if split not in splits:
        raise UsageError(f"{path} has no split '{split}'; choose one of {', '.join(splits[:10])}")
    # A ref without a split may belong to this one: it is returned, and listed among the problems.
    return [ref for ref in refs if ref.get("split") == split or not isinstance(ref.get("split"), str)]


def _dicts(content: Any, key: str, path: Path) -> Iterator[dict[str, Any]]:
    items = content.get(key) if isinstance(content, dict) else None
    if not isinstance(items, list):
        raise UsageError(f"{path} has no list '{key}'; download it again")
    return (item for item in items if isinstance(item, dict))
