"""Find what a sentence means in a picture, and write an overlay, a mask and a COCO document.

python examples/segment.py docs/scene.png "the small dotted object"
"""

import argparse
from pathlib import Path

from wise_edge import Session


def main() -> None:
    """Answer one query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("query")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle; the embedded one if omitted")
    parser.add_argument("--out", type=Path, default=Path("build/segment"))
    given = parser.parse_args()

    session = Session.from_bundle(given.bundle)
    result = session.segment(given.picture, given.query)
    print(f"{result.status}: {result.rationale}")
    for item in result.objects:
        print(f"object {item.number}: box {item.box}, {item.mask.sum()} px, score {item.score}")
    if result.status == "unreadable":
        raise SystemExit(f"no answer: {result.reason}")

    given.out.mkdir(parents=True, exist_ok=True)
    result.save(given.out / "overlay.jpg", force=True)
    result.save(given.out / "mask.png", "mask", force=True)
    result.save(given.out / "coco.json", "coco", file_name=given.picture.name, force=True)
    print(f"wrote overlay.jpg, mask.png and coco.json to {given.out}")


if __name__ == "__main__":
    main()
