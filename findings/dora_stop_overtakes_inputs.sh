#!/usr/bin/env bash
# dora 1.1.0: STOP comes before inputs that were sent earlier and still wait; a timeout is an ERROR event, not None.
#
# Source: the documentation of the Rust scheduler (apis/rust/node/src/event_stream/scheduler.rs: "Non-input events are
# prioritized ... the stream might return more events after a Stop event"). The Python API says only of next(timeout=):
# "You can use timeout in seconds to return if no input is available. It will return `None` when all senders has been
# dropped."
#
# A good engineer would guess that events come in the order in which they were sent, so that a node may leave its loop at
# STOP; and that next(timeout=) returns None when nothing came. Whoever does the first loses the end of every recording;
# whoever does the second takes each idle moment for an error.
#
# Seen, of a node that takes 0.3 s for an input, after a source that sends 4 and ends:
#   INPUT 0, INPUT_CLOSED, STOP, INPUT 1, INPUT 2, INPUT 3, None
#   next(timeout=0.01) before the first input: ERROR "Timeout event stream error: Receiver timed out"
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check dora-rs==1.1.0 dora-rs-cli==1.1.0
cd "$work"

cat > source.py <<'EOF'
import time
import pyarrow
from dora import Node

node = Node()
time.sleep(1)
for number in range(4):
    node.send_output("number", pyarrow.array([number]))
EOF
cat > slow.py <<'EOF'
import time
from dora import Node

node, seen = Node(), []
while True:
    event = node.next(timeout=0.01)
    if event is None:
        break
    if event["type"] == "ERROR":
        if not seen:
            print("RESULT", event["error"].splitlines()[0], flush=True)
            seen.append("ERROR")
        continue
    seen.append(event["type"])
    if event["type"] == "INPUT":
        seen[-1] += f" {event['value'][0].as_py()}"
        time.sleep(0.3)
print("RESULT", ", ".join([*seen[1:], "None"]), flush=True)
EOF
cat > flow.yml <<'EOF'
nodes:
  - id: source
    path: source.py
    outputs: [number]
  - id: slow
    path: slow.py
    inputs:
      number: source/number
EOF

PATH="$work/venv/bin:$PATH" timeout 60 dora run flow.yml > log 2>&1 || { tail -5 log; exit 1; }
seen=$(grep -o 'RESULT .*' log)
echo "$seen"
expected='RESULT Timeout event stream error: Receiver timed out
RESULT INPUT 0, INPUT_CLOSED, STOP, INPUT 1, INPUT 2, INPUT 3, None'
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
