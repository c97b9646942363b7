"""One reader and one writer of documents: nothing else parses or writes JSON or YAML, or reads a file whole."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("wise_edge", "export", "runtimes", "training")
PARSERS = {"json.load", "json.loads", "json.dump", "json.dumps", "yaml.load", "yaml.safe_load", "yaml.dump"}
WHOLE = {"read_text", "read_bytes"}
ALLOWED = {
    "wise_edge/files/documents.py": "it is the reader and the writer",
    "wise_edge/policy/answers/lenient.py": "a policy's text, of bounded length",
    "training/wise/reading.py": "a policy's text, whose faults cost reward",
    "wise_edge/robot/recording/qos.py": "writes YAML in the form of rosbag2",
    "runtimes/graphs/tensorrt_engine.py": "a binary cache, which TensorRT judges",
    "export/to_tensorrt/build.py": "a binary cache, which TensorRT judges",
    "training/common/checkpoints.py": "a hash of ours, or whatever differs from it",
    "wise_edge/files/locks.py": "/proc",
    "wise_edge/profiling/document.py": "/proc",
    "wise_edge/profiling/conditions.py": "/sys",
    "wise_edge/profiling/footprint.py": "/proc",
    "wise_edge/power/sysfs.py": "/sys and /proc",
    "wise_edge/cli/common/version.py": "metadata of the installed package",
    "wise_edge/doctor.py": "/proc and files of the system",
    "wise_edge/service/pages.py": "a page of the package",
}


def _calls(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if f"{owner}.{name}" in PARSERS or name in WHOLE:
                yield node.lineno, f"{owner}.{name}"


def test_documents_are_read_and_written_in_one_place() -> None:
    found: dict[str, list[tuple[int, str]]] = {}
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            place = file.relative_to(ROOT)
            linked = any((ROOT / parent).is_symlink() for parent in place.parents)
            if not linked and (calls := list(_calls(file))):
                found[place.as_posix()] = calls
    strange = {place: calls for place, calls in found.items() if place not in ALLOWED}
    assert not strange, "use wise_edge.files.documents, or say in ALLOWED why not"
    assert not ALLOWED.keys() - found.keys(), "remove what no longer needs to be allowed"


def test_the_check_sees_a_call(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("import json\njson.loads(open('a').read())\nPath('a').read_text()\n")
    assert list(_calls(file)) == [(2, "json.loads"), (3, ".read_text")]
