"""Unsafe parts of a project's files: calls in the clear, open webhooks; and what is told when a server starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rasa_core_api.constants import JSON, UTTER_PREFIX
from rasa_core_api.domain import Domain
from rasa_core_api.endpoints import SERVERS, Endpoints, unused_keys
from rasa_core_api.training.findings import DomainText, Finding, check_domain, check_templates
from rasa_core_api.training.structures import Place

#: Channels whose webhooks anybody can post to unless these keys are set.
_CHANNEL_SECRETS: Mapping[str, str] = {"facebook": "secret", "slack": "slack_signing_secret", "botframework": "app_id"}


def check_endpoints(endpoints: Endpoints, file: str) -> list[Finding]:
    """Addresses that send conversations in the clear, and parts that are not built."""
    found = []
    for key in ("nlg", "nlu", "action_endpoint", "model"):
        endpoint = getattr(endpoints, key)
        if endpoint is None or not endpoint.url:
            continue
        host = endpoint.url.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0]
        if endpoint.url.startswith("http://") and host not in ("localhost", "127.0.0.1", "[", "::1"):
            place = line_of(file, key)
            message = f"{key}: {host} is called without encryption"
            found.append(Finding("warning", "plain-http", place, message, "use https:// unless the network is trusted"))
    return found


def check_keys(endpoints: Endpoints, file: str) -> list[Finding]:
    """Keys of entries that mean nothing; reading the file logs them too."""
    found = []
    for name in SERVERS:
        endpoint = getattr(endpoints, name)
        for key, hint in () if endpoint is None else unused_keys(name, endpoint):
            path = f"{endpoint.where.rpartition(': ')[2]}.{key}"
            message = f"{path}: nothing uses this key"
            found.append(Finding("warning", "unused-key", line_of(file, path.partition(".")[0]), message, hint))
    return found


def check_credentials(data: JSON, file: str) -> list[Finding]:
    """Webhooks that anybody can post to."""
    found = []
    for channel, key in _CHANNEL_SECRETS.items():
        section = data.get(channel) if isinstance(data, Mapping) else None
        if isinstance(section, Mapping) and not section.get(key):
            message = f"the webhook of {channel!r} is open: anybody can post to it"
            found.append(Finding("error", "open-webhook", line_of(file, channel), message, f"set {channel}.{key}"))
    return found


def line_of(file: str, key: str) -> Place:
    """The line of a YAML file where a key of its first level stands."""
    try:
        lines = Path(file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return Place(file)
    return next((Place(file, n) for n, line in enumerate(lines, 1) if line.lstrip("\"'").startswith(key)), Place(file))


def check_action_server(domain: Domain, endpoints: Endpoints, file: str, text: DomainText) -> list[Finding]:
    """Actions that run on an action server, where the endpoints `file` names none."""
    needed = [name for name in (*domain.user_actions, *domain.forms) if not name.startswith(UTTER_PREFIX)]
    if not needed or endpoints.action_endpoint is not None:
        return []
    place = text.place("actions", needed[0])
    message = f"{needed[0]!r} runs on an action server, and {file} names none"
    return [Finding("error", "no-action-server", place, message, "add action_endpoint: {url: ...} there")]


def check_at_start(domain: Domain | None, model: str, endpoints: Endpoints) -> list[Finding]:
    """What a server tells about its endpoints and about the domain of `model`, where it has one already.

    Lines of the domain are not looked for.
    """
    found = [] if not endpoints.source else check_endpoints(endpoints, endpoints.source)
    if domain is None:
        return found
    text = DomainText(model)
    found += check_domain(domain, None, text, nlg_server=endpoints.nlg is not None)
    found += check_templates(domain, text)
    return found + check_action_server(domain, endpoints, endpoints.source or "no endpoints file", text)
