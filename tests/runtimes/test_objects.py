"""A query that means several objects gets each one's mask, from a real segmenter."""

from __future__ import annotations

import numpy as np
import pytest

from fake_session import FakePolicy, list_boxes
from wise_edge.datasets.base import mask_points
from wise_edge.metrics import mask_iou
from wise_edge.policy.answers.form import BOX_LABEL_LIST
from wise_edge.runtimes.session import Session
from wise_edge.scenes import sample_group


@pytest.fixture(scope="module")
def embedded() -> Session:
    return Session.from_bundle(mask_backend="onnx", threads=1)


def test_each_object_has_the_mask_of_its_own_box(embedded: Session) -> None:
    found = next(each for each in (sample_group("test", index) for index in range(30)) if len(each.targets) > 2)
    image = found.scene.image
    size = image.shape[1], image.shape[0]
    text = list_boxes([item.box for item in found.targets], size)
    session = Session(FakePolicy(lambda *_: text, form=BOX_LABEL_LIST), embedded.mask, {})

    result = session.segment(image, found.request)

    assert (result.status, len(result.objects)) == ("found", len(found.targets))
    for number, (item, truth) in enumerate(zip(result.objects, found.masks, strict=True), start=1):
        assert (item.number, item.label) == (number, "thing")
        assert mask_iou(item.mask, truth) > 0.75  # by a box alone
        np.testing.assert_array_equal(item.mask, session.find_mask(image, item.box, ()).mask)
    assert result.mask is not None
    assert mask_iou(result.mask, found.masks.any(axis=0)) > 0.75
    gray = result.mask_image()
    assert {*np.unique(gray)} == {0, *(256 - item.number for item in result.objects)}
    np.testing.assert_array_equal(gray > 0, result.mask)
    for item, truth in zip(result.objects, found.masks, strict=True):
        x, y = mask_points(truth)[0]
        assert gray[y, x] == 256 - item.number
