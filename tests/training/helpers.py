"""What the training tests share: reading stories and domains out of texts, and where the recordings are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from rasa_core_api.domain import Domain
from rasa_core_api.releases import BY_NAME
from rasa_core_api.training.generator import Settings, TrainingData, generate
from rasa_core_api.training.story_reader import StoryReader
from rasa_core_api.training.structures import StoryFiles

CONFORMANCE = Path(os.environ.get("RASA_CORE_CONFORMANCE", Path(__file__).parents[3] / "shared" / "conformance"))

needs_recordings = pytest.mark.skipif(not CONFORMANCE.is_dir(), reason=f"no recordings at {CONFORMANCE}")

DOMAIN = """
intents: [a, b, c, d]
entities: [e]
slots:
  e: {type: text}
  t: {type: bool}
actions: [u1, u2, u3, u4]
forms: [f]
"""

_INTENT = re.compile(r"/?([^{]+)(\{.*\})?")


def parse(text: str) -> Mapping[str, Any]:
    """Parse data of an intent line."""
    match = _INTENT.fullmatch(text)
    if match is None:
        raise ValueError("no intent")
    values = json.loads(match[2]) if match[2] else {}
    entities = [{"entity": name, "value": value, "start": 0, "end": 0} for name, value in values.items()]
    return {"intent": {"name": match[1].strip(), "confidence": 1.0}, "entities": entities, "text": text}


def domain_of(text: str = DOMAIN, release: str = "0.14") -> Domain:
    yaml = YAML(typ="safe", pure=True)
    return Domain.from_json(yaml.load(text), BY_NAME[release])


def read(text: str, release: str = "0.14", *, e2e: bool = False) -> StoryFiles:
    reader = StoryReader(BY_NAME[release], parse, e2e=e2e)
    reader.read_text(text, "stories.md")
    return reader.files


def generated(
    stories: str,
    release: str = "0.14",
    *,
    domain: str = DOMAIN,
    factor: int = 0,
    history: int | None = 3,
    **options: Any,
) -> TrainingData:
    settings = Settings(augmentation_factor=factor, unique_last_num_states=history, **options)
    return generate(read(stories, release).steps, domain_of(domain, release), settings)
