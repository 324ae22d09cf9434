"""The routes of our half, below `/v1/`, and the fields of their bodies.

The application and the OpenAPI document use the same table, so that they cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from halo.manager.api.body import Field

PREFIX = "/v1"

HOST_COMMANDS = (
    "activate",
    "cancel-fence",
    "confirm-off",
    "deactivate",
    "failback",
    "fence",
    "reset",
)
GROUP_COMMANDS = ("cleanup", "move", "start", "stop")
CLUSTER_COMMANDS = ("freeze", "thaw")
MANAGERS_COMMANDS = ("step-down",)

COMMENT = Field("comment", "text")
FORCE = Field("force", "flag")
MANAGED = Field("managed", "flag", required=True)

HOST_BODY = (Field("command", "text", choices=HOST_COMMANDS), FORCE, COMMENT)
GROUP_BODY = (
    Field("command", "text", choices=GROUP_COMMANDS),
    Field("to", "text"),
    Field("stopped_on", "text"),
    COMMENT,
)
CLUSTER_BODY = (Field("command", "text", choices=CLUSTER_COMMANDS), COMMENT)
MANAGERS_BODY = (Field("command", "text", choices=MANAGERS_COMMANDS), COMMENT)
MANAGED_BODY = (MANAGED, COMMENT)
CLEAR_BODY = (COMMENT,)


@dataclass(frozen=True)
class Route:
    """One route: its name in our code and in the document, its body and its answer.

    `body` is None if no body is read. `answer` names a schema of the document.
    """

    name: str
    method: str
    path: str
    summary: str
    answer: str = "Message"
    body: tuple[Field, ...] | None = None
    body_may_be_empty: bool = False


ROUTES = (
    Route("status", "GET", "/v1/status", "Everything there is to know.", "Status"),
    Route("version", "GET", "/v1/version", "The manager's version.", "Version"),
    Route(
        "managers", "GET", "/v1/managers", "Which managers there are, and which leads.", "Managers"
    ),
    Route("debug", "GET", "/v1/debug", "How the manager itself fares.", "Debug"),
    Route("openapi", "GET", "/v1/openapi.json", "This document.", "Document"),
    Route(
        "set_managed",
        "PATCH",
        "/v1/resources/{id}",
        "Manage a group, or leave it alone; `id` is the group's.",
        body=MANAGED_BODY,
    ),
    Route("host", "POST", "/v1/hosts/{id}", "A command on a host.", body=HOST_BODY),
    Route("group", "POST", "/v1/groups/{id}", "A command on a group.", body=GROUP_BODY),
    Route(
        "why_group",
        "GET",
        "/v1/groups/{id}/why",
        "Why a group runs where it runs, or why it does not run.",
        "Why",
    ),
    Route(
        "why_host", "GET", "/v1/hosts/{id}/why", "Why a host was fenced, or why it is not.", "Why"
    ),
    Route("cluster", "POST", "/v1/cluster", "A command on the cluster.", body=CLUSTER_BODY),
    Route(
        "managers_command",
        "POST",
        "/v1/managers",
        "A command on the managers themselves.",
        body=MANAGERS_BODY,
    ),
    Route(
        "validate",
        "POST",
        "/v1/validate/{id}",
        "Have a host's agent run `validate-all` of every resource that may run there.",
        "Validation",
        body=(),
        body_may_be_empty=True,
    ),
    Route(
        "clear_events",
        "POST",
        "/v1/clear_events",
        "Leave the events so far out of what `halo status` shows.",
        body=CLEAR_BODY,
        body_may_be_empty=True,
    ),
)
