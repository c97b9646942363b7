#!/usr/bin/env bash
# rosbags 0.11.9 on SQLite bags as rosbag2 leaves them: messages in the write-ahead log of a killed recorder are not read,
# without an error, and a type whose definition the recorder did not find makes the whole bag unreadable (KeyError).
#
# Source: rosbags/rosbag2/storage_sqlite3.py opens files with `immutable=1`, with which SQLite does not look for a log
# (https://www.sqlite.org/uri.html#uriimmutable), and knows the encodings "ros2msg" and "ros2idl" only. rosbag2's storage
# preset "resilient" (rosbag2_storage_sqlite3/README.md) sets `PRAGMA journal_mode=WAL` (its sqlite_pragmas.hpp). Where
# rosbag2 does not find a definition, it stores an empty one with an empty encoding (empty_message_definition_for in
# rosbag2_storage/message_definition.hpp).
#
# A good engineer would guess that a reader sees every message that SQLite sees, and that a topic of an unknown type costs
# that topic alone.
#
# Seen:
#   committed to the log    SQLite 4 messages, rosbags 3
#   log written back        SQLite 4 messages, rosbags 4
#   no definition           KeyError ''
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check rosbags==0.11.9

cat > "$work/show.py" <<'PYTHON'
import shutil
import sqlite3
import sys
from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

whole, killed = Path(sys.argv[1]) / "whole", Path(sys.argv[1]) / "killed"
store, name = get_typestore(Stores.ROS2_HUMBLE), "std_msgs/msg/String"
with Writer(whole, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
    topic = writer.add_connection("/words", name, typestore=store)
    for time_ns in range(3):
        writer.write(topic, time_ns, store.serialize_cdr(store.types[name](data="x"), name))


def read(case: str, expected: str) -> None:
    try:
        with AnyReader([killed]) as reader:
            found = f"rosbags {len(list(reader.messages()))}"
    except KeyError as error:
        found = f"KeyError {error}"
    print(f"{case:24}{found if found.startswith('KeyError') else f'SQLite 4 messages, {found}'}")
    if found != expected:
        sys.exit(f"changed: expected {expected}")


recorder = sqlite3.connect(whole / "whole.db3")
recorder.execute("PRAGMA journal_mode=WAL")
recorder.execute("INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, 3, data FROM messages LIMIT 1")
recorder.commit()
shutil.copytree(whole, killed)  # what a kill leaves at this moment
recorder.close()
read("committed to the log", "rosbags 3")

again = sqlite3.connect(killed / "whole.db3")
assert again.execute("SELECT COUNT(*) FROM messages").fetchone() == (4,)
again.execute("PRAGMA wal_checkpoint(TRUNCATE)")
read("log written back", "rosbags 4")

again.execute("UPDATE message_definitions SET encoding = '', encoded_message_definition = ''")
again.commit()
again.execute("PRAGMA wal_checkpoint(TRUNCATE)")
read("no definition", "KeyError ''")
PYTHON
"$work/venv/bin/python" "$work/show.py" "$work"
