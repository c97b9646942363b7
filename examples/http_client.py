"""Ask a running service; needs httpx. Start it with `wise-edge serve`, or `--bundle DIR` for a model of your own.

python examples/http_client.py docs/scene.png "the small dotted object"
"""

import argparse
import os
from pathlib import Path
from typing import Any

import httpx


def main() -> None:
    """Answer one query."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("query")
    parser.add_argument("--url", default="http://127.0.0.1:8020")
    parser.add_argument("--overlay", type=Path, help="write the picture with the mask drawn on it, as PNG")
    given = parser.parse_args()

    token = os.environ.get("WISE_EDGE_TOKEN")  # what the service was started with, if it was
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=given.url, headers=headers, timeout=60) as client:
        image = ask(client, "/v1/frames", files={"image": given.picture.read_bytes()}).json()["frame"]
        query = f"/v1/frames/{image}/segment"
        result = ask(client, query, data={"query": given.query}).json()
        print(f"{result['status']}: {result['rationale']}")
        for item in result["objects"]:
            print(f"object {item['number']}: box {item['box']}, {item['mask_px']} px, score {item['score']}")
        for note in result["notes"]:
            print(f"note: {note}")
        if given.overlay:
            given.overlay.write_bytes(ask(client, query, data={"query": given.query, "output": "overlay"}).content)


def ask(client: httpx.Client, path: str, **body: Any) -> httpx.Response:
    """Return the answer to a request; an error ends the program with what the service says of it."""
    answer = client.post(path, **body)
    if answer.is_error:
        raise SystemExit(f"{answer.status_code}: {answer.json()['error']}")
    return answer


if __name__ == "__main__":
    main()
