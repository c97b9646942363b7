#!/usr/bin/env bash
# rosbags 0.11.9: a topic whose QoS profiles differ between metadata.yaml and the storage file yields no messages, without
# an error, while the reader's counts say that they are there.
#
# Source: rosbags/rosbag2/reader.py, DirectoryReader.messages, takes a topic of a file only if its `ext`, which includes
# offered_qos_profiles, equals that of metadata.yaml. Tools that rewrite MCAP files without the profiles of their channels
# leave such folders: https://github.com/facontidavide/cloudini/issues/29 (metadata.yaml kept, files rewritten).
#
# A good engineer would guess that QoS profiles, which concern publishers, do not decide which messages are read, and that
# a reader whose connection has msgcount 3 yields three messages.
#
# Seen, for a folder as it was written, and with "transient_local" made "volatile" in metadata.yaml:
#   mcap as written         msgcount 3, messages 3
#   mcap other QoS          msgcount 3, messages 0
#   sqlite3 as written      msgcount 3, messages 3
#   sqlite3 other QoS       msgcount 3, messages 0
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check rosbags==0.11.9

cat > "$work/show.py" <<'PYTHON'
import sys
from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

store, now = get_typestore(Stores.ROS2_HUMBLE), QosTime(0, 0)
latched = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, now, now, QosLiveliness.AUTOMATIC,
    now, False,
)


def read(folder: Path) -> tuple[int, int]:
    with AnyReader([folder]) as reader:
        return reader.connections[0].msgcount, len(list(reader.messages()))


for plugin in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
    folder = Path(sys.argv[1]) / plugin.name.lower()
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        name = "std_msgs/msg/String"
        topic = writer.add_connection("/map", name, typestore=store, offered_qos_profiles=[latched])
        for time_ns in range(3):
            writer.write(topic, time_ns, store.serialize_cdr(store.types[name](data="x"), name))
    for case, expected in (("as written", (3, 3)), ("other QoS", (3, 0))):
        found = read(folder)
        print(f"{folder.name} {case}".ljust(24) + f"msgcount {found[0]}, messages {found[1]}")
        if found != expected:
            sys.exit(f"changed: expected msgcount {expected[0]}, messages {expected[1]}")
        metadata = folder / "metadata.yaml"
        metadata.write_text(metadata.read_text().replace("transient_local", "volatile"))
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work"
