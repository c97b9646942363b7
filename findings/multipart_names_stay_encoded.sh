#!/usr/bin/env bash
# httpx 0.28.1, Starlette 1.10.0: a quote in the name of an uploaded file arrives as %22.
#
# Source: https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data (names are written with
# %22 for a quote; nothing is said of "%", so %22 in a name looks the same) and
# https://github.com/encode/httpx/blob/0.28.1/httpx/_multipart.py (_format_form_param).
#
# A good engineer would expect a name that a client sends to be the name that the server reads. Clients write a quote as the
# HTML standard says, browsers and curl too, and the server does not take it back, because it cannot know. curl before 7.81,
# and later with --form-escape, writes \" for the same name, which the server does read. So `my "best" photo.png` has two
# names on the server, by its client: do not compare or match by such names. httpx writes control characters in this way as
# well, where the standard does so for line ends only.
#
# Seen:
#   httpx                my %22best%22 photo.png   field a%09b
#   curl --form-escape   my "best" photo.png
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check httpx==0.28.1 starlette==1.10.0 python-multipart==0.0.34

cat > "$work/show.py" <<'PY'
import asyncio

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse


async def app(scope, receive, send):
    form = await Request(scope, receive).form()
    names = [getattr(value, "filename", None) or name for name, value in form.multi_items()]
    await JSONResponse(names)(scope, receive, send)


async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        sent = await client.post("/", files={"image": ('my "best" photo.png', b"x")}, data={"a\tb": "1"})
        print("httpx", sorted(sent.json()))
        head = 'Content-Disposition: form-data; name="image"; filename="my \\"best\\" photo.png"'  # as curl --form-escape writes it
        body = f"--b\r\n{head}\r\n\r\nx\r\n--b--\r\n"
        kind = {"content-type": "multipart/form-data; boundary=b"}
        print("curl --form-escape", (await client.post("/", content=body, headers=kind)).json())


asyncio.run(main())
PY
seen=$("$work/venv/bin/python" "$work/show.py")
echo "$seen"
[ "$seen" = "httpx ['a%09b', 'my %22best%22 photo.png']
curl --form-escape ['my \"best\" photo.png']" ] || { echo 'changed: names are read as they were sent'; exit 1; }
