"""A small application and a site around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.web.resource import IResource

from rasa_core_api.http.site import ApiSite
from tests.wire import Wire

MakeWire = Callable[..., Wire]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def serve(clock: Clock) -> MakeWire:
    """Serves a resource on the fake clock."""

    def make(resource: IResource, max_body: int = 1_000, **settings: Any) -> Wire:
        return Wire(ApiSite(resource, clock, max_body, **settings), clock)

    return make
