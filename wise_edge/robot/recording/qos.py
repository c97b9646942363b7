"""Profiles of the publishers' quality of service, in the YAML of rosbag2."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from wise_edge.extras import require


def join_qos(texts: Iterable[str]) -> str:
    """Return the profiles of several channels of a topic as one text, each once."""
    profiles = [profile for text in dict.fromkeys(texts) for profile in normalize_qos(text)]
    different = [profile for place, profile in enumerate(profiles) if profile not in profiles[:place]]
    return to_yaml(different) if different else ""


def normalize_qos(text: str) -> list[dict[str, Any]]:
    """Return QoS profiles, which older versions of rosbag2 write with numbers, with today's names; [] if unreadable."""
    metadata = require("rosbags.rosbag2.metadata", "ros")
    try:
        profiles: list[dict[str, Any]] = metadata.dump_qos_v9(metadata.parse_qos(text))
    except Exception:  # rosbags raises what its YAML reader and dictionaries raise
        return []
    return profiles


def to_yaml(data: Any) -> str:
    """Return data as YAML in blocks, in which people and rosbag2 read it."""
    yaml = require("ruamel.yaml", "ros").YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.representer.ignore_aliases = lambda _: True
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue().strip()
