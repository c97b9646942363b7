#!/usr/bin/env bash
# uvicorn 0.54.0: a taken port is found only after the application has started, and two servers with --workers that start
# together both say that they run on the port.
#
# Source: `Server._serve` in uvicorn/server.py awaits the lifespan's startup before it binds; `Config.bind_socket` in
# uvicorn/config.py, which --workers and --reload use, sets SO_REUSEADDR and binds without listening. Linux lets sockets
# with SO_REUSEADDR share a port until one of them listens: https://man7.org/linux/man-pages/man7/socket.7.html.
#
# A good engineer would guess that a second server on a port ends at once, before it loads a model for minutes, and that
# "Uvicorn running on" is said by the one that has the port.
#
# Seen:
#   one process, the port is taken: the application starts, then "[Errno 98] ... address already in use", exit code 3
#   two with --workers 2 within a second: both print "Uvicorn running on http://127.0.0.1:PORT", and the first alone
#   answers; the second goes on, starting worker after worker, each of which loads the application before it fails
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uvicorn==0.54.0
cd "$work"

cat >application.py <<'PYTHON'
import os, time

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
        await send({"type": "http.response.body", "body": os.environ["NAME"].encode()})
PYTHON
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
serve() { NAME=$1 exec timeout 60 "$work/venv/bin/python" -m uvicorn application:app --port "$port" "${@:2}" >"$1.log" 2>&1; }

(serve first --workers 2) &
first=$!
sleep 1
(serve second --workers 2) &
second=$!
sleep 12
both=$(cat first.log second.log | grep -c "Uvicorn running on http://127.0.0.1:$port" || true)
answers=$(python3 -c "
import urllib.request
asked = (urllib.request.urlopen('http://127.0.0.1:$port', timeout=5).read().decode() for _ in range(8))
print(*sorted(set(asked)))")
loads=$(grep -c loaded second.log || true)
kill -0 "$second" && goes_on=yes || goes_on=no
kill "$second"
wait "$second" || true

code=0
(serve third) || code=$?
order=$(grep -oE "loaded|Errno 98" third.log | tr '\n' ' ')
kill "$first"

echo "two with --workers: $both say that they run, answers from: $answers; the second goes on: $goes_on, loaded $loads times"
echo "one process on a taken port: $order, exit code $code"
if [[ $both == 2 && $answers == first && $goes_on == yes && $loads -gt 2 && $order == "loaded Errno 98 " && $code -ne 0 ]]; then
  exit 0
fi
echo "changed: uvicorn takes the port before it starts the application, or two no longer say that they have it"
exit 1
