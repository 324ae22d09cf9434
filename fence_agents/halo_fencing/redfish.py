"""redfish: a baseboard management controller over Redfish (DMTF DSP0266).

requests and sushy were the other candidates: they double the start-up time, and the questions asked
here are few.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import ssl
import sys
from urllib.parse import urlsplit

from .common import (
    COMMON_PARAMETERS,
    TYPE_CHECKING,
    Agent,
    AgentError,
    Device,
    NoAnswer,
    Parameter,
    Parameters,
    explain,
    is_true,
    main,
    port_number,
    seconds,
)

if TYPE_CHECKING:
    from typing import Any

_ROOT = "/redfish/v1/"
_MAX_BODY = 4 << 20
_MAX_REDIRECTS = 3
_CA_KEYS = ("tls_ca", "ca", "ca_cert", "ssl_ca")


class Unauthorized(AgentError):
    """The device does not accept who we are."""


class _Connection:
    """HTTPS to one BMC: one connection, redirects on the same host alone."""

    def __init__(self, parameters: Parameters) -> None:
        self._ip = parameters["ip"].strip("[]")
        self._port = port_number(parameters, 443)
        self.where = f"BMC at {self._ip}:{self._port}"
        self._fingerprint = parameters.get("tls_fingerprint", "").replace(":", "").lower()
        self._server_name = parameters.get("tls_server_name") or self._ip
        self._timeout_s = seconds(parameters, "timeout", 10.0)
        self._context = self._tls(parameters)
        self._http: http.client.HTTPSConnection | None = None
        self.headers: dict[str, str] = {"Accept": "application/json", "OData-Version": "4.0"}

    def _tls(self, parameters: Parameters) -> ssl.SSLContext:
        ca = next((parameters[key] for key in _CA_KEYS if parameters.get(key)), None)
        try:
            context = ssl.create_default_context(cafile=ca)
            certificate = parameters.get("tls_cert")
            if certificate:
                context.load_cert_chain(certificate, parameters.get("tls_key") or None)
        except (OSError, ssl.SSLError) as error:
            raise AgentError(f"cannot use the TLS files: {error.strerror or error}") from None
        insecure = is_true(parameters, "ssl_insecure")
        if not ca and (insecure or not is_true(parameters, "ssl_secure")):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            if not self._fingerprint:
                sys.stderr.write(
                    f"redfish: warning: {self.where} is not verified; set tls_ca (or "
                    "tls_fingerprint, ssl_secure=1) in its parameters\n"
                )
        return context

    def _open(self) -> http.client.HTTPSConnection:
        if self._http is None:
            # Connected to the address, verified under the name that its certificate bears.
            connection = _NamedConnection(
                self._ip,
                self._port,
                timeout=self._timeout_s,
                context=self._context,
                server_name=self._server_name,
            )
            connection.connect()
            if self._fingerprint:
                certificate = connection.sock.getpeercert(binary_form=True)
                found = hashlib.sha256(certificate or b"").hexdigest()
                if found != self._fingerprint:
                    connection.close()
                    raise AgentError(
                        f"{self.where}: TLS failed: its certificate has the SHA-256 fingerprint "
                        f"{found}, not that of tls_fingerprint"
                    )
            self._http = connection
        return self._http

    def ask(
        self, method: str, path: str, body: Any = None, *, plain: bool = False
    ) -> tuple[int, dict[str, Any], Any]:
        """Status, document and headers of one request; raises for 400 and above."""
        status, data, headers = self._follow(method, path, body, plain=plain)
        try:
            document = json.loads(data) if data.strip() else {}
        except ValueError:
            document = {}
        if not isinstance(document, dict):
            document = {}
        if status == 401:
            raise Unauthorized(f"{self.where}: bad credentials (HTTP 401)")
        if status == 403:
            raise AgentError(f"{self.where}: refused, the user may not do this (HTTP 403)")
        if status >= 300:
            raise AgentError(
                f"{self.where}: refused {method} {path} (HTTP {status}{_message_of(document)})"
            )
        return status, document, headers

    def _follow(
        self, method: str, path: str, body: Any, *, plain: bool
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        for _ in range(_MAX_REDIRECTS):
            status, data, headers = self._send(method, path, body, plain=plain)
            if status not in (301, 302, 307, 308):
                return status, data, headers
            target = urlsplit(headers.get("Location", ""))
            same = target.hostname in (None, self._ip.lower(), self._server_name.lower())
            port = target.port or (443 if target.netloc else self._port)
            if not same or (target.netloc and port != self._port):
                raise AgentError(f"{self.where}: redirects to another host, {target.netloc}")
            path = target.path + (f"?{target.query}" if target.query else "")
        raise AgentError(f"{self.where}: too many redirects")

    def _send(
        self, method: str, path: str, body: Any, *, plain: bool
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        headers = dict(self.headers)
        if plain:
            headers.pop("Authorization", None)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        fresh = self._http is None
        try:
            return self._exchange(method, path, data, headers)
        except ssl.SSLCertVerificationError as error:
            raise AgentError(f"{self.where}: TLS failed: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise AgentError(f"{self.where}: TLS failed: {error.reason or error}") from None
        except (http.client.HTTPException, ConnectionResetError, BrokenPipeError) as error:
            self.close()
            if not fresh and method == "GET":
                return self._send(method, path, body, plain=plain)  # it had closed an idle one
            if isinstance(error, OSError) and not isinstance(error, http.client.HTTPException):
                raise NoAnswer(explain(error, self.where)) from None
            raise AgentError(f"{self.where}: does not speak HTTP: {error!r}") from None
        except OSError as error:
            self.close()
            raise NoAnswer(explain(error, self.where)) from None

    def _exchange(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = self._open()
        connection.request(method, path, body=data, headers=headers)
        response = connection.getresponse()
        content = response.read(_MAX_BODY)
        if response.will_close:
            self.close()
        return response.status, content, response.headers

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None


class _NamedConnection(http.client.HTTPSConnection):
    """HTTPS to an address under another server name."""

    def __init__(
        self, host: str, port: int, *, timeout: float, context: ssl.SSLContext, server_name: str
    ) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._tls_context = context
        self._server_name = server_name

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        try:
            self.sock = self._tls_context.wrap_socket(self.sock, server_hostname=self._server_name)
        except BaseException:
            self.sock.close()
            raise


class Redfish(Device):
    """One system behind one BMC."""

    def __init__(self, parameters: Parameters) -> None:
        self._connection = _Connection(parameters)
        self._session: str | None = None
        try:
            _, root, _ = self._connection.ask("GET", _ROOT, plain=True)
            self._log_in(parameters, root)
            self._system = self._find_system(parameters, root)
        except BaseException:
            self.close()
            raise

    def _log_in(self, parameters: Parameters, root: dict[str, Any]) -> None:
        """A session where the service offers one, else basic authorization."""
        user, password = parameters.get("username", ""), parameters.get("password", "")
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        links = root.get("Links")
        sessions = _link(links, "Sessions") if isinstance(links, dict) else None
        if sessions and parameters.get("auth") != "basic":
            body = {"UserName": user, "Password": password}
            try:
                _, _, headers = self._connection.ask("POST", sessions, body, plain=True)
            except Unauthorized:
                raise
            except AgentError:
                pass  # no place for one more session, as a rule: basic needs none
            else:
                token = headers.get("X-Auth-Token")
                if token:
                    self._connection.headers["X-Auth-Token"] = token
                    self._session = urlsplit(headers.get("Location", "")).path or None
                    return
        self._connection.headers["Authorization"] = f"Basic {credentials}"

    def _find_system(self, parameters: Parameters, root: dict[str, Any]) -> str:
        path = parameters.get("systems_uri") or _link(root, "Systems") or _ROOT + "Systems"
        _, document, _ = self._connection.ask("GET", path)
        if "Members" not in document:
            return path
        members = [_link({"m": member}, "m") for member in document["Members"]]
        paths = [member for member in members if member]
        plug = parameters.get("port")
        if plug:
            chosen = [p for p in paths if p.rstrip("/").rpartition("/")[2] == plug]
            if len(chosen) == 1:
                return chosen[0]
            raise AgentError(f'no system "{plug}"; there are: {", ".join(paths) or "none"}')
        if len(paths) != 1:
            raise AgentError(
                f"{self._connection.where} has {len(paths)} systems; name the right one in "
                f"systems_uri: {', '.join(paths) or 'none found'}"
            )
        return paths[0]

    def _read(self) -> dict[str, Any]:
        return self._connection.ask("GET", self._system)[1]

    def is_on(self) -> bool:
        state = self._read().get("PowerState")
        if state == "Off":
            return False
        if state in ("On", "PoweringOn", "PoweringOff", "Paused"):
            return True
        raise AgentError(f"{self._connection.where} told no power state ({state!r})")

    def switch(self, on: bool) -> None:
        system = self._read()
        if on and system.get("PowerState") == "On":
            return
        # Off is told also to one that says off: it may be an old answer. Where a device refuses
        # what changes nothing, the caller looks once more.
        actions = system.get("Actions")
        reset = actions.get("#ComputerSystem.Reset") if isinstance(actions, dict) else None
        reset = reset if isinstance(reset, dict) else {}
        target = reset.get("target")
        path = target if isinstance(target, str) else ""
        path = urlsplit(path).path or self._system.rstrip("/") + "/Actions/ComputerSystem.Reset"
        allowed = reset.get("ResetType@Redfish.AllowableValues")
        self._connection.ask("POST", path, {"ResetType": _reset_type(on, allowed)})

    def close(self) -> None:
        if self._session:
            with contextlib.suppress(AgentError):  # it expires by itself
                self._connection.ask("DELETE", self._session)
            self._session = None
        self._connection.close()


def _reset_type(on: bool, allowed: object) -> str:
    """Power is cut hard: a graceful shutdown asks the very system that does not answer."""
    wanted = ("On", "ForceOn") if on else ("ForceOff",)
    if not isinstance(allowed, list) or not allowed:
        return wanted[0]
    for name in wanted:
        if name in allowed:
            return name
    raise AgentError(f"the device offers no {wanted[0]}, but: {', '.join(map(str, allowed))}")


def _link(document: object, name: str) -> str | None:
    value = document.get(name) if isinstance(document, dict) else None
    path = value.get("@odata.id") if isinstance(value, dict) else None
    return path if isinstance(path, str) and path.startswith("/") else None


def _message_of(document: dict[str, Any]) -> str:
    error = document.get("error")
    text = error.get("message") if isinstance(error, dict) else None
    return f": {text}" if isinstance(text, str) and text else ""


AGENT = Agent(
    "redfish",
    "Power control through Redfish",
    "Switches a host through its baseboard management controller with Redfish over HTTPS.",
    [
        *COMMON_PARAMETERS,
        Parameter("ip", "Address of the BMC", required=True, obsoletes="ipaddr"),
        Parameter("ipport", "Port of the BMC", kind="integer", default="443"),
        Parameter("username", "Name of the user", obsoletes="login"),
        Parameter("password", "Password of the user", obsoletes="passwd"),
        Parameter("password_script", "Program that prints the password, instead"),
        Parameter("systems_uri", "Path of the system, where the BMC has several"),
        Parameter("port", "Last part of that path, instead", obsoletes="plug"),
        Parameter("auth", "basic: no session even where the device offers them"),
        Parameter("tls_ca", "File of the authority to verify the BMC with"),
        Parameter("tls_fingerprint", "SHA-256 of the BMC's certificate, instead of an authority"),
        Parameter("tls_server_name", "Name in the BMC's certificate; default its address"),
        Parameter("tls_cert", "File of our own certificate, where the BMC asks for one"),
        Parameter("tls_key", "File of its key"),
        Parameter("ssl_secure", "Verify with the system's authorities", kind="boolean"),
        Parameter("ssl_insecure", "Do not verify (the default)", kind="boolean"),
        Parameter("timeout", "Seconds for each answer", kind="second", default="10"),
    ],
    Redfish,
)


def run() -> None:
    """Entry point of the program `redfish`."""
    main(AGENT)
