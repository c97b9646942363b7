#!/usr/bin/env bash
# rerun-sdk 0.41.0: connect_grpc() without a viewer raises nothing, and returns after 5 s, not immediately.
#
# Source: the docstring of rerun.RecordingStream.connect_grpc ("Connect to a remote Rerun Viewer on the given URL. This
# function returns immediately."), which names no failure.
#
# A good engineer would guess that connecting to a port where nothing listens raises an error, as it does for a socket,
# and would rely on try/except to find out whether a viewer runs. Only flush() with a time-out tells, or a socket of one's
# own before. At the end of the process the messages are dropped, with lines on stderr.
#
# Seen:
#   connect_grpc: no exception after 5.0 s
#   log: no exception
#   flush(timeout_sec=2): RuntimeError gRPC has been unable to connect
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check rerun-sdk==0.41.0

cat > "$work/connect.py" <<'EOF'
import socket
import time

import rerun

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]  # nothing listens there once it is closed
recording = rerun.RecordingStream("finding")


def tell(what, call):
    began = time.monotonic()
    try:
        call()
        print(f"{what}: no exception{f' after {time.monotonic() - began:.1f} s' if what == 'connect_grpc' else ''}")
    except Exception as error:
        print(f"{what}: {type(error).__name__} {str(error).split(' for ')[0]}")


tell("connect_grpc", lambda: recording.connect_grpc(f"rerun+http://127.0.0.1:{port}/proxy"))
tell("log", lambda: recording.log("value", rerun.Scalars(1.0)))
tell("flush(timeout_sec=2)", lambda: recording.flush(timeout_sec=2.0))
EOF

seen=$("$work/venv/bin/python" "$work/connect.py" 2> "$work/log")
echo "$seen"
for line in 'connect_grpc: no exception' 'log: no exception' 'flush(timeout_sec=2): RuntimeError gRPC has been unable to connect'; do
    grep -qF "$line" <<< "$seen" || { echo "changed: expected '$line'"; exit 1; }
done
