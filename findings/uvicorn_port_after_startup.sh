#!/usr/bin/env bash
# uvicorn 0.54.0: a taken port is found only after the application has started.
#
# Source: `Server._serve` in uvicorn/server.py awaits the lifespan's startup before it binds.
#
# A good engineer would guess that a second server on a port ends at once, before it loads a model for minutes.
#
# Seen:
#   on a taken port: loaded Errno 98, exit code 3
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uvicorn==0.54.0
cd "$work"

cat >application.py <<'PYTHON'
import time

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        time.sleep(3)  # loads a model
        print("loaded", flush=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
PYTHON
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
serve() { exec timeout 60 "$work/venv/bin/python" -m uvicorn application:app --port "$port" "${@:2}" >"$1.log" 2>&1; }

(serve first) &
first=$!
sleep 8

code=0
(serve second) || code=$?
order=$(grep -oE "loaded|Errno 98" second.log | tr '\n' ' ')
kill "$first"

echo "on a taken port: ${order% }, exit code $code"
if [[ $order == "loaded Errno 98 " && $code -ne 0 ]]; then
  exit 0
fi
echo "changed: uvicorn takes the port before it starts the application"
exit 1
