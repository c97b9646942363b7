"""The API reference and the OpenAPI document: every call, its fields, its answers, and lines that work."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image

from gated_service import serving
from service_client import ask
from service_process import process
from wise_edge.service import example, samples
from wise_edge.service.guard import OWN_HOSTS


def document() -> dict[str, Any]:
    with serving() as (client, _):
        found: dict[str, Any] = client.get("/openapi.json").json()
        return found


def test_the_interface_is_described() -> None:
    schema = document()
    assert set(schema["paths"]) >= {"/v1/segment", "/v1/frames", "/v1/frames/{frame}/segment", "/healthz"}
    assert set(schema["paths"]["/v1/segment"]["post"]["responses"]) >= {"200", "400", "413", "415", "429", "503"}
    calls = [about for path in schema["paths"].values() for about in path.values()]
    faults = [call["responses"]["422"]["content"] for call in calls if "422" in call["responses"]]
    assert faults == [{"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}}] * 4
    kinds = {"/metrics": "get", "/v1/segment": "post", "/example.png": "get"}
    received = [set(schema["paths"][path][method]["responses"]["200"]["content"]) for path, method in kinds.items()]
    assert received == [
        {"text/plain"},
        {"application/json", "text/event-stream", "image/png", "image/svg+xml"},
        {"image/png"},
    ]
    bodies = {
        path: about["post"]["requestBody"]["content"] for path, about in schema["paths"].items() if "post" in about
    }
    both = {"multipart/form-data", "application/json"}
    assert {path: set(content) for path, content in bodies.items()} == {
        "/v1/segment": both,
        "/v1/frames": both,
        "/v1/frames/{frame}/segment": both | {"application/x-www-form-urlencoded"},
    }
    for contents in bodies.values():
        for content in contents.values():
            assert content["schema"]["additionalProperties"] is False
            jsonschema.Draft202012Validator.check_schema(content["schema"])
            jsonschema.validate(
                content["example"] | ({"image": ""} if "image" in content["schema"]["properties"] else {}),
                content["schema"],
            )
    assert all(call["x-codeSamples"] and call["summary"] for call in calls)
    links = schema["paths"]["/v1/frames"]["post"]["responses"]["201"]["links"]
    assert set(links) == {"segment_stored", "delete_image"} < {call["operationId"] for call in calls}


@pytest.mark.parametrize("mask", ["rle", "png", "none"])
@pytest.mark.parametrize("query", ["the ring", "nothing"])
def test_an_answer_is_as_it_is_described(mask: str, query: str) -> None:
    with serving() as (client, _):
        schema = client.get("/openapi.json").json()
        answer = ask(client, query, mask=mask, deadline_ms=500).json()
    described = schema["components"]["schemas"]["Answer"]
    assert set(answer) == set(described["properties"]) == set(described["required"])
    assert set(answer["objects"][0]) == set(schema["components"]["schemas"]["Object"]["properties"])
    jsonschema.validate(answer, schema | {"$ref": "#/components/schemas/Answer"})
    for part in ("Answer", "Object", "Mask", "TokenCounts", "Latencies", "BackendChoice", "DeadlineChoice", "Stored"):
        about = schema["components"]["schemas"][part]
        assert all(value.get("description") for value in about["properties"].values()), part
        assert "Attributes:" not in about["description"]


def test_the_reference_shows_every_call_field_and_line_and_loads_nothing() -> None:
    schema = document()
    with serving(own_hosts=OWN_HOSTS) as (client, _):
        page = html.unescape(client.get("/docs", headers={"host": "localhost:8021"}).text)
    for path, calls in schema["paths"].items():
        for verb, call in calls.items():
            assert f'<span class="verb">{verb.upper()}</span>{path}' in page
            for sample in call["x-codeSamples"]:
                assert sample["source"].replace(samples.ADDRESS, "http://localhost:8021") in page
            for content in call.get("requestBody", {}).get("content", {}).values():
                assert all(f"<code>{name}</code>" in page for name in content["schema"]["properties"])
    assert all(f'id="{name}"' in page for name in set(re.findall(r'href="#([^"]+)"', page)))
    assert samples.ADDRESS not in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert "Authorization" not in page


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_line_of_the_reference_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WISE_EDGE_TOKEN", "secret")  # lines without a token are the same but for its header
    with process() as (_, url):
        page = subprocess.run(["curl", "-sf", f"{url}/docs"], capture_output=True, text=True, check=True).stdout
        lines = [html.unescape(line) for line in re.findall("<pre><code>(.*?)</code></pre>", page, re.DOTALL)]
        failing = 'curl() { command curl -sS --fail-with-body "$@"; }; set -e -o pipefail'
        script = "\n".join([failing, *(f"{line}\necho; echo ----" for line in lines)])
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = done.stdout.split("----\n")[:-1]
    assert len(answers) == len(lines) >= 12
    assert (tmp_path / "example.png").read_bytes() == example.example_png()
    found = [answer for answer in answers if '"status":"found"' in answer.replace('": ', '":')]
    assert len(found) == sum("/segment" in line and "-o " not in line for line in lines)
    with Image.open(tmp_path / "cutout.png") as cut:
        assert cut.mode == "RGBA"
    assert sum("Bearer $WISE_EDGE_TOKEN" in line for line in lines) == len(lines) - 3  # example, healthz, readyz
