"""A member that keeps keys in memory, for answers that a real member gives only in rare moments."""

from __future__ import annotations

import base64

from aiohttp import web

from halo.adapters.etcd.values import Json
from tests.etcd.stand_ins import error, header

NO_SPACE = error(8, "etcdserver: mvcc: database space exceeded", 429)


class OneMember:
    """Give :meth:`answer` to a gateway. It knows ranges of one key, transactions and leases.

    `overflows`: the next transaction is carried out, and then found to be over the quota. etcd does
    this, because it looks at the size of its database before and after (quotaApplierV3.Txn). From
    then on it is `full`: no key can be written."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.created: dict[str, int] = {}
        self.revision = 1
        self.term = 2
        self.term_of_renewals: int | None = None  # as a member says it that was deposed
        self.overflows = False
        self.full = False
        self.silent_ranges = self.silent_txns = 0
        self.asked: list[str] = []

    def answer(self, path: str, body: Json, _token: str | None) -> web.StreamResponse | Json:
        name = path.removeprefix("/v3/")
        self.asked.append(name)
        match name:
            case "kv/range":
                if self.silent_ranges:
                    self.silent_ranges -= 1
                    return error(14, "etcdserver: request timed out", 503)
                return {"header": self._header(), **self._range(body)}
            case "kv/txn":
                return self._txn(body)
            case "lease/grant":
                return {"header": self._header(), "ID": "5", "TTL": body["TTL"]}
            case "lease/keepalive":
                said = self._header(self.term_of_renewals)
                return {"result": {"header": said, "ID": "5", "TTL": "60"}}
            case "watch":
                return web.Response(status=200)
        return {"header": self._header()}

    def _header(self, term: int | None = None) -> Json:
        return {**header(self.revision), "raft_term": str(self.term if term is None else term)}

    def _range(self, body: Json) -> Json:
        value = self.keys.get(body["key"])
        if value is None:
            return {}
        of = {"create_revision": str(self.created[body["key"]]), "mod_revision": str(self.revision)}
        return {"kvs": [{"key": body["key"], "value": value, **of}], "count": "1"}

    def _txn(self, body: Json) -> web.StreamResponse | Json:
        if self.silent_txns:
            self.silent_txns -= 1
            return error(14, "etcdserver: request timed out", 503)
        holds = all(map(self._holds, body["compare"]))
        steps = body["success" if holds else "failure"]
        writes = any("request_put" in step for step in body["success"] + body["failure"])
        if self.full and writes:
            return NO_SPACE
        responses = []
        for step in steps:
            if (put := step.get("request_put")) is not None:
                self._put(put["key"], put["value"])
            if (get := step.get("request_range")) is not None:
                found = {"header": self._header(), **self._range(get)}
                responses.append({"response_range": found})
        if self.overflows and writes:
            self.overflows, self.full = False, True
            return NO_SPACE
        return {"header": self._header(), "succeeded": holds, "responses": responses}

    def _holds(self, condition: Json) -> bool:
        value = self.keys.get(condition["key"])
        return value is None if condition["target"] == "CREATE" else value == condition["value"]

    @staticmethod
    def name(key: str) -> str:
        """A key as requests hold it."""
        return base64.b64encode(key.encode()).decode()

    def value(self, key: str) -> bytes:
        """The value of a key."""
        return base64.b64decode(self.keys[self.name(key)])

    def write(self, key: str, value: bytes) -> None:
        """Write a key, with nothing of ours in between."""
        self._put(self.name(key), base64.b64encode(value).decode())

    def _put(self, key: str, value: str) -> None:
        self.revision += 1
        if key not in self.keys:
            self.created[key] = self.revision
        self.keys[key] = value
