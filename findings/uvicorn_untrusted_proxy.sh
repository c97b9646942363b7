#!/usr/bin/env bash
# uvicorn 0.54.0: a proxy in --forwarded-allow-ips that is a name, or a network whose address has host bits, is accepted
# and never trusted, so every client has the proxy's address.
#
# Source: `_TrustedHosts` in uvicorn/middleware/proxy_headers.py, whose comments say that what is no address is kept as a
# literal and that this may be hard to debug.
#
# A good engineer would guess that "localhost" trusts a proxy on this machine, and that "127.0.0.1/8", which `ip` prints
# of the loopback device, is either the network around the address, as for nginx, or an error at the start.
#
# Seen, the client that the application is told of a request from 127.0.0.1 with "X-Forwarded-For: 192.0.2.7":
#   127.0.0.1     192.0.2.7
#   127.0.0.0/8   192.0.2.7
#   127.0.0.1/8   127.0.0.1
#   localhost     127.0.0.1
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uvicorn==0.54.0

cat >"$work/ask.py" <<'PYTHON'
import socket, sys, threading, time, urllib.request
import uvicorn

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["client"][0].encode()})

listener = socket.create_server(("127.0.0.1", 0))
config = uvicorn.Config(app, lifespan="off", log_level="warning", forwarded_allow_ips=sys.argv[1])
server = uvicorn.Server(config)
thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
thread.start()
while not server.started:
    time.sleep(0.05)
url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
print(urllib.request.urlopen(urllib.request.Request(url, headers={"X-Forwarded-For": "192.0.2.7"})).read().decode())
server.should_exit = True
thread.join()
PYTHON

expect() {
    seen=$("$work/venv/bin/python" "$work/ask.py" "$1")
    printf '%-13s %s\n' "$1" "$seen"
    [[ $seen == "$2" ]] || { echo "changed: expected $2"; exit 1; }
}

expect 127.0.0.1 192.0.2.7
expect 127.0.0.0/8 192.0.2.7
expect 127.0.0.1/8 127.0.0.1
expect localhost 127.0.0.1
