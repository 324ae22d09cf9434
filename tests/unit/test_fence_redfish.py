"""The fence program `redfish`, against sushy-tools' emulator and against broken devices."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import bcrypt
import pytest
import pytest_asyncio
import trustme

from halo.adapters.fence.programs import FencePrograms
from halo.core.outcomes import FenceAction, FenceResult, PowerState
from tests.fence_helpers import bundled, free_port, wait_until

OFF, ON, STATUS = FenceAction.OFF, FenceAction.ON, FenceAction.STATUS
USER, PASSWORD = "admin", "s3cret"
UUIDS = ("a0000000-0000-4000-8000-000000000001", "a0000000-0000-4000-8000-000000000002")
EMULATOR = Path(__file__).parent.parent / "redfish_emulator.py"


class Certificates:
    """A certificate for 127.0.0.1 and the authority that signed it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        self.ca = folder / "ca.pem"
        self.cert = folder / "server.pem"
        self.key = folder / "server.key"
        authority.cert_pem.write_to_path(self.ca)
        issued.cert_chain_pems[0].write_to_path(self.cert)
        issued.private_key_pem.write_to_path(self.key)

    @property
    def fingerprint(self) -> str:
        der = ssl.PEM_cert_to_DER_cert(self.cert.read_text())
        return hashlib.sha256(der).hexdigest()


class Emulator:
    """One running emulator."""

    def __init__(self, folder: Path, *, systems: int = 1, delay_s: float = 0.1) -> None:
        folder.mkdir(exist_ok=True)
        self.certificates = Certificates(folder)
        self.port = free_port()
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        (folder / "htpasswd").write_text(f"{USER}:{hashed}\n")
        (folder / "state").mkdir(exist_ok=True)
        fake = [
            {"uuid": uuid, "name": f"node{n}", "power_state": "On", "nics": []}
            for n, uuid in enumerate(UUIDS[:systems])
        ]
        settings = {
            "SUSHY_EMULATOR_LISTEN_IP": "127.0.0.1",
            "SUSHY_EMULATOR_LISTEN_PORT": self.port,
            "SUSHY_EMULATOR_SSL_CERT": str(self.certificates.cert),
            "SUSHY_EMULATOR_SSL_KEY": str(self.certificates.key),
            "SUSHY_EMULATOR_AUTH_FILE": str(folder / "htpasswd"),
            "SUSHY_EMULATOR_FAKE_DRIVER": True,
            "SUSHY_EMULATOR_STATE_DIR": str(folder / "state"),
            "SUSHY_EMULATOR_FEATURE_SET": "minimum",
            "SUSHY_EMULATOR_FAKE_SYSTEMS": fake,
        }
        config = folder / "emulator.conf"
        config.write_text("\n".join(f"{key} = {value!r}" for key, value in settings.items()))
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(EMULATOR), "--config", str(config), str(delay_s)],
            stdout=self._log,
            stderr=self._log,
        )
        wait_until(self._listens, "the Redfish emulator", 60)

    def _listens(self) -> bool:
        assert self.process.poll() is None, Path(self._log.name).read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def parameters(self, **more: str) -> dict[str, str]:
        return {
            "ip": "127.0.0.1",
            "ipport": str(self.port),
            "username": USER,
            "password": PASSWORD,
            **more,
        }

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    made = Emulator(tmp_path_factory.mktemp("redfish"))
    yield made
    made.close()


@pytest_asyncio.fixture
async def programs() -> AsyncIterator[FencePrograms]:
    made = FencePrograms()
    yield made
    await made.close()


async def run(
    programs: FencePrograms, action: FenceAction, parameters: dict[str, str]
) -> FenceResult:
    return await programs.run(bundled("redfish", **parameters), action, 30)


async def test_off_and_on_are_done_and_seen(emulator: Emulator, programs: FencePrograms) -> None:
    parameters = emulator.parameters()
    for action, power in ((ON, PowerState.ON), (OFF, PowerState.OFF), (ON, PowerState.ON)):
        result = await run(programs, action, parameters)
        assert result.succeeded, result.message
        assert (await run(programs, STATUS, parameters)).power is power


async def test_an_unverified_device_is_warned_about(
    emulator: Emulator, programs: FencePrograms
) -> None:
    result = await run(programs, ON, emulator.parameters())
    assert result.succeeded
    assert "is not verified; set tls_ca" in result.message


async def test_a_verified_device_is_not_warned_about(
    emulator: Emulator, programs: FencePrograms
) -> None:
    certificates = emulator.certificates
    for trust in (
        {"tls_ca": str(certificates.ca)},
        {"tls_fingerprint": certificates.fingerprint},
    ):
        result = await run(programs, ON, emulator.parameters(**trust))
        assert result.succeeded, result.message
        assert "not verified" not in result.message


async def test_a_certificate_that_does_not_fit_stops_it(
    emulator: Emulator, programs: FencePrograms, tmp_path: Path
) -> None:
    stranger = Certificates(tmp_path)
    for trust in (
        {"tls_ca": str(stranger.ca)},
        {"tls_fingerprint": stranger.fingerprint},
        {"tls_ca": str(emulator.certificates.ca), "tls_server_name": "other.example"},
        {"ssl_secure": "1"},
    ):
        result = await run(programs, OFF, emulator.parameters(**trust))
        assert not result.succeeded
        assert "TLS failed" in result.message, trust
    assert (await run(programs, STATUS, emulator.parameters())).power is PowerState.ON


async def test_wrong_credentials_are_told_as_such(
    emulator: Emulator, programs: FencePrograms
) -> None:
    result = await run(programs, OFF, emulator.parameters(password="wr0ng"))
    assert "bad credentials (HTTP 401)" in result.message
    assert "wr0ng" not in result.message


async def test_a_system_is_found_by_name_through_a_redirect(
    emulator: Emulator, programs: FencePrograms
) -> None:
    parameters = emulator.parameters(systems_uri="/redfish/v1/Systems/node0")
    assert (await run(programs, OFF, parameters)).succeeded
    assert (await run(programs, STATUS, parameters)).power is PowerState.OFF
    assert (await run(programs, ON, parameters)).succeeded


async def test_among_several_systems_the_right_one_must_be_named(
    programs: FencePrograms, tmp_path: Path
) -> None:
    emulator = Emulator(tmp_path, systems=2, delay_s=0)
    try:
        result = await run(programs, OFF, emulator.parameters())
        assert not result.succeeded
        assert "has 2 systems" in result.message
        assert all(uuid in result.message for uuid in UUIDS)
        chosen = emulator.parameters(port=UUIDS[1])
        assert (await run(programs, OFF, chosen)).succeeded
        assert (await run(programs, STATUS, chosen)).power is PowerState.OFF
        other = emulator.parameters(systems_uri=f"/redfish/v1/Systems/{UUIDS[0]}")
        assert (await run(programs, STATUS, other)).power is PowerState.ON
    finally:
        emulator.close()


async def test_a_device_that_accepts_and_does_nothing_is_not_believed(
    programs: FencePrograms, tmp_path: Path
) -> None:
    emulator = Emulator(tmp_path, delay_s=-1)
    try:
        result = await run(programs, OFF, emulator.parameters(power_timeout="0.5"))
        assert not result.succeeded
        assert "still on 0.5 s after" in result.message
    finally:
        emulator.close()


async def test_a_device_that_is_away_is_told_apart(programs: FencePrograms) -> None:
    closed = str(free_port())
    away = {"username": USER, "password": PASSWORD, "ipport": closed}
    refused = await run(programs, OFF, {**away, "ip": "127.0.0.1"})
    assert "connection refused" in refused.message
    unknown = await run(programs, OFF, {**away, "ip": "bmc.invalid"})
    assert "the name is not known" in unknown.message
    with socket.socket() as hung:  # it accepts, and never says a word
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        silent = {**away, "ip": "127.0.0.1", "ipport": str(hung.getsockname()[1]), "timeout": "0.3"}
        timed_out = await run(programs, OFF, silent)
    assert "timed out" in timed_out.message


class SessionDevice(BaseHTTPRequestHandler):
    """A BMC that takes sessions alone (the emulator knows basic authorization alone)."""

    protocol_version = "HTTP/1.1"
    power: ClassVar[str] = "On"
    sessions: ClassVar[dict[str, str]] = {}
    redirect: ClassVar[str] = ""
    seen: ClassVar[list[str]] = []

    def _answer(self, status: int, document: Any = None, **headers: str) -> None:
        data = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")

    def _is_known(self) -> bool:
        return self.headers.get("X-Auth-Token") in self.sessions.values()

    def do_GET(self) -> None:
        if self.redirect and self.path != "/redfish/v1/":
            self._answer(307, Location=self.redirect + self.path)
        elif self.path == "/redfish/v1/":
            self._answer(
                200,
                {
                    "Systems": {"@odata.id": "/redfish/v1/Systems"},
                    "Links": {"Sessions": {"@odata.id": "/redfish/v1/SessionService/Sessions"}},
                },
            )
        elif not self._is_known():
            self._answer(401)
        elif self.path == "/redfish/v1/Systems":
            self._answer(200, {"Members": [{"@odata.id": "/redfish/v1/Systems/1"}]})
        else:
            self._answer(200, {"PowerState": type(self).power})

    def do_POST(self) -> None:
        body = self._body()
        self.seen.append(f"POST {self.path}")
        if self.path.endswith("/Sessions"):
            if body != {"UserName": USER, "Password": PASSWORD}:
                self._answer(401)
                return
            token, place = f"token{len(self.seen)}", f"{self.path}/{len(self.seen)}"
            self.sessions[place] = token
            self._answer(201, {}, X_Auth_Token=token, Location=place)
        elif self._is_known():
            type(self).power = "Off" if body["ResetType"] == "ForceOff" else "On"
            self._answer(204)
        else:
            self._answer(401)

    def do_DELETE(self) -> None:
        self.sessions.pop(self.path, None)
        self._answer(204)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def session_device(tmp_path: Path) -> Iterator[dict[str, str]]:
    certificates = Certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), SessionDevice)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    SessionDevice.power, SessionDevice.redirect = "On", ""
    SessionDevice.sessions.clear()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield {
        "ip": "127.0.0.1",
        "ipport": str(server.server_address[1]),
        "username": USER,
        "password": PASSWORD,
        "tls_ca": str(certificates.ca),
    }
    server.shutdown()
    server.server_close()


async def test_a_session_is_used_where_offered_and_ended_afterwards(
    session_device: dict[str, str], programs: FencePrograms
) -> None:
    result = await run(programs, OFF, session_device)
    assert result.succeeded, result.message
    assert SessionDevice.power == "Off"
    assert SessionDevice.sessions == {}
    assert (await run(programs, STATUS, session_device)).power is PowerState.OFF


async def test_wrong_credentials_for_a_session_are_told_as_such(
    session_device: dict[str, str], programs: FencePrograms
) -> None:
    result = await run(programs, OFF, {**session_device, "password": "wr0ng"})
    assert "bad credentials" in result.message
    assert SessionDevice.power == "On"


async def test_a_redirect_to_another_host_is_not_followed(
    session_device: dict[str, str], programs: FencePrograms
) -> None:
    SessionDevice.redirect = "https://192.0.2.1"
    result = await run(programs, OFF, session_device)
    assert not result.succeeded
    assert "redirects to another host, 192.0.2.1" in result.message
