"""The shipped models over HTTP: an example that they answer, and a note where a picture is not of their kind."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gated_service import serving
from service_client import ask, png
from wise_edge.datasets.scenes import SceneDataset
from wise_edge.runtimes.session import Session
from wise_edge.scenes.recognition import OTHER_PICTURE, OTHER_QUERY
from wise_edge.service import example


def test_the_embedded_models_answer_the_queries_of_the_example() -> None:
    image, masks = example.example_scene()
    session = Session.from_bundle()
    for query, target in example.QUERIES.items():
        found = session.segment(image, query).mask
        assert found is not None
        assert (found & masks[target]).sum() / (found | masks[target]).sum() > 0.9, query


def test_the_example_is_served_and_opens_the_page_of_the_shipped_models_alone() -> None:
    for demo in (False, True):
        with serving(demo=demo, token="secret") as (client, _):
            answer = client.get(example.PATH)
            page = client.get("/").text
        assert answer.headers["content-type"] == "image/png"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), example.example_scene()[0])
        assert ('<body data-example="open">' in page) is demo


@pytest.mark.parametrize("demo", [False, True])
def test_an_answer_to_another_kind_of_picture_or_query_has_a_note(demo: bool) -> None:
    buffer = io.BytesIO()
    Image.fromarray(SceneDataset("test")[0].image).save(buffer, "PNG")
    with serving(demo=demo) as (client, _):
        assert ask(client, image=buffer.getvalue()).json()["notes"] == []
        photo = ask(client, image=png()).json()
        said = ask(client, image=buffer.getvalue(), query="赤い十字").json()
        file = ask(client, image=buffer.getvalue(), query="赤い十字", output="mask")
        stored = client.post("/v1/frames", files={"image": png()}).json()["frame"]
        again = client.post(f"/v1/frames/{stored}/segment", json={"query": "the ring"}).json()
    assert photo["notes"] == again["notes"] == ([OTHER_PICTURE] if demo else [])
    assert said["notes"] == ([OTHER_QUERY] if demo else [])
    assert file.headers.get("wise-edge-notes") == (OTHER_QUERY if demo else None)
