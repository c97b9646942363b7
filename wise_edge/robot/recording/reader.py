"""Opens a recording: a file, or the folder of a rosbag2.

A folder's files are read as they are; its metadata.yaml may be missing or wrong, since the files hold all that it says.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from wise_edge.errors import UsageError, WiseEdgeError
from wise_edge.extras import require
from wise_edge.files.documents import check_values, read_text
from wise_edge.files.inputs import refuse_lfs_pointer, refuse_special
from wise_edge.files.temporary import temporary_folder
from wise_edge.robot.recording.channels import CDR, Channel, Message, RecordingFile
from wise_edge.robot.recording.mcap_reader import McapFile
from wise_edge.robot.recording.qos import to_yaml
from wise_edge.robot.recording.ros1_reader import Ros1File
from wise_edge.robot.recording.sqlite_reader import SqliteFile
from wise_edge.robot.recording.unpacking import unpack_file, unpack_zstd

_ZSTD = b"\x28\xb5\x2f\xfd"
"""Start of a Zstandard frame (RFC 8878); a message of CDR starts with 0."""
_READERS: dict[bytes, type[McapFile] | type[SqliteFile] | type[Ros1File]] = {
    b"\x89MCAP0\r\n": McapFile,
    b"SQLite format 3\0": SqliteFile,
    b"#ROSBAG V2.0\n": Ros1File,
}
"""Start of a file to what reads it."""
_METADATA_BYTES = 16_000_000
_METADATA_USED = ("relative_file_paths", "topics_with_message_count")
_STORAGE = re.compile(r"\.(mcap|db3)(\.zstd)?$")
"""Names of a rosbag2's files."""


class Recording:
    """The files of a recording as one stream.

    Attributes:
        channels: of all files; each belongs to one of them.
        paths: the files as they were found, perhaps compressed.
        qos: from topics to their QoS profiles in metadata.yaml, for files that hold none.
    """

    def __init__(
        self, files: list[RecordingFile], paths: Sequence[Path], qos: Mapping[str, str], notes: list[str]
    ) -> None:
        self._files = files
        self.paths = paths
        self.channels = [channel for file in files for channel in file.channels]
        self.qos = qos
        self._notes = notes

    @property
    def notes(self) -> list[str]:
        """What is wrong with it although it can be read, for people; it grows while messages are read."""
        return [*self._notes, *(note for file in self._files for note in file.notes)]

    def messages(self, channels: Collection[Channel]) -> Iterator[Message]:
        """Yield the messages of some channels in the order of time; a damaged file up to its damage, with a note."""
        wanted = set(channels)
        parts = ([channel for channel in file.channels if channel in wanted] for file in self._files)
        streams = [self._read(file, part) for file, part in zip(self._files, parts, strict=True) if part]
        for time_ns, channel, data in heapq.merge(*streams, key=lambda message: message[0]):
            packed = channel.encoding == CDR and data.startswith(_ZSTD)  # rosbag2's compression mode "message"
            yield time_ns, channel, _unpack(data) if packed else data

    def _read(self, file: RecordingFile, channels: list[Channel]) -> Iterator[Message]:
        try:
            yield from file.messages(channels)
        except UsageError as error:
            note = f"{error}; without that, what follows in it is left out"
            self._notes += [note] if note not in self._notes else []


@contextmanager
def open_recording(path: Path) -> Iterator[Recording]:
    """Open a recording for reading.

    Args:
        path: a rosbag2 folder, with or without metadata.yaml, or a file of MCAP, SQLite or ROS 1, each possibly
            compressed with Zstandard.

    Raises:
        UsageError: there is no such recording, or nothing of it can be read.
        MissingExtraError: the extra `ros` is not installed.
    """
    files = _find_files(path)
    opened, refused = [], []
    with ExitStack() as stack:
        for file in files:
            try:
                opened.append(_open(file, stack))
            except UsageError as error:
                refused.append(error)
        if not opened:
            raise refused[0]
        notes = [f"left out: {error}" for error in refused]
        metadata = _read_metadata(path)
        listed = metadata.get("relative_file_paths")
        names = {Path(name).name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
        if len(files) < len(names):
            missing = sorted(names - {file.name for file in files})
            notes.append(f"{path} lacks files that its metadata.yaml names: {', '.join(missing)}")
        yield Recording(opened, files, _read_qos(metadata), notes)


def _find_files(path: Path) -> list[Path]:
    refuse_special(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path} does not exist; pass a rosbag2 folder, an .mcap file or a ROS 1 .bag")
    files = sorted(file for file in path.iterdir() if _STORAGE.search(file.name) and not file.name.startswith("."))
    # A recorder that was killed while it compressed a file leaves both.
    whole = [file for file in files if file.suffix != ".zstd" or file.with_suffix("") not in files]
    if not whole:
        raise UsageError(f"{path} has no .mcap or .db3 file; pass the folder of a rosbag2, or a ROS 1 .bag file itself")
    return whole


def _read_metadata(path: Path) -> dict[str, Any]:
    """Return what a folder's metadata.yaml says; nothing if there is none that can be read."""
    try:
        text = read_text(path / "metadata.yaml", _METADATA_BYTES)
    except UsageError:
        return {}
    try:
        found: dict[str, Any] = require("ruamel.yaml", "ros").YAML(typ="safe").load(text)["rosbag2_bagfile_information"]
        used = {key: found[key] for key in _METADATA_USED if key in found}
        check_values(used)  # the rest, such as a user's own dates, may be anything
        return used
    except WiseEdgeError:
        raise
    except Exception:  # the YAML reader raises many kinds, and the file may hold anything
        return {}


def _read_qos(metadata: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    with suppress(KeyError, TypeError):
        for topic in metadata["topics_with_message_count"]:
            profiles = topic["topic_metadata"]["offered_qos_profiles"]  # text before version 9
            found[str(topic["topic_metadata"]["name"])] = profiles if isinstance(profiles, str) else to_yaml(profiles)
    return found


def _unpack(data: bytes) -> bytes:
    """Return a message's content; a damaged one stays as it is, and who reads it says so."""
    try:
        return unpack_zstd(data)
    except require("zstandard", "ros").ZstdError:
        return data


def _open(file: Path, stack: ExitStack) -> RecordingFile:
    refuse_lfs_pointer(file)
    try:
        with file.open("rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    if start.startswith(_ZSTD):
        folder = stack.enter_context(temporary_folder())
        return _open(unpack_file(file, folder), stack)
    if not start.strip(b"\0"):
        raise UsageError(f"{file} is empty, as if its recorder was killed at the start")
    reader = next((reader for magic, reader in _READERS.items() if start.startswith(magic)), None)
    if reader is None:
        raise UsageError(f"{file} cannot be read as a bag: it is neither MCAP, SQLite nor a ROS 1 bag")
    opened = reader(file)
    stack.callback(opened.close)
    return opened
