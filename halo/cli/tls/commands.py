"""The commands of `halo tls`. Code that makes certificates is loaded only when it is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from halo.cli.context import Context
from halo.cli.errors import CliError
from halo.cli.options import complete_hosts, expand_hosts

if TYPE_CHECKING:
    from halo.cli.tls.authority import Role
    from halo.cli.tls.store import Place

DEFAULT_FOLDER = "/etc/halo/tls"
FOLDER_VARIABLE = "HALO_TLS_DIR"
CA_DAYS = 3650
DAYS = 730
RENEW_WITHIN_DAYS = 60

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _folder_option(command: Decorated) -> Decorated:
    return click.option(
        "--dir",
        "folder",
        envvar=FOLDER_VARIABLE,
        default=DEFAULT_FOLDER,
        show_default=True,
        show_envvar=True,
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Folder of the CA.",
    )(command)


def _days_option(default: int) -> Callable[[Decorated], Decorated]:
    return click.option(
        "--days",
        default=default,
        show_default=True,
        type=click.IntRange(1, 36500),
        help="Lifetime in days.",
    )


_also_option = click.option(
    "--also",
    "others",
    multiple=True,
    metavar="NAME",
    help="An additional name or address in each certificate.",
)
_force_option = click.option("--force", is_flag=True, help="Replace files that exist.")


@click.group()
def tls() -> None:
    """Make, renew and show the certificates of mutual TLS.

    The site's own CA is kept in one folder, on one machine. It makes a certificate for each host
    and one for the manager. A host's certificate can only serve as that host's agent. The manager's
    certificate can only command agents. If there are several managers, each also gets a peer
    certificate, which is for managers only. docs/security.md says where to copy each file.
    """


@tls.command()
@click.argument("given", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--name", default="HALO CA", show_default=True, help="Name of the CA.")
@_days_option(CA_DAYS)
@_folder_option
@_force_option
@click.pass_context
def init(
    ctx: click.Context, given: Path | None, name: str, days: int, folder: Path, force: bool
) -> None:
    """Make a CA in DIR, which may also be named as for the other commands: with --dir.

    Keep its key, ca.key, in this folder. Anyone who has the key can make a manager's certificate.
    """
    from halo.cli.tls.authority import make_ca
    from halo.cli.tls.store import Store

    if given is not None and ctx.get_parameter_source("folder") is ParameterSource.COMMANDLINE:
        raise click.UsageError("Give the folder once: as DIR, or with --dir.")
    folder = given or folder
    store = Store(folder)
    _refuse_to_replace([store.ca_key, store.ca_certificate], force)
    ca = make_ca(name, days, _now())
    store.save_ca(ca)
    usual = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    here = "" if folder == usual else f" --dir {folder}"
    click.echo(f'Made the CA "{name}" in {folder}; it expires on {ca.expires_at:%Y-%m-%d}.')
    click.echo(f"Keep {store.ca_key} on this machine: with it, anyone can make certificates.")
    click.echo(f"Next: halo tls host{here} --from-config, and halo tls manager{here} NAME")


@tls.command()
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_hosts)
@click.option("--from-config", is_flag=True, help="All hosts of the config (see --config).")
@_also_option
@_days_option(DAYS)
@_folder_option
@_force_option
@click.pass_obj
def host(
    context: Context,
    names: tuple[str, ...],
    from_config: bool,
    others: tuple[str, ...],
    days: int,
    folder: Path,
    force: bool,
) -> None:
    """Make certificates for hosts. Give their names (or nodesets) as they stand in the config.

    If HALO_SERVER_DOMAIN_NAME is set here, each certificate also gets that name.
    """
    wanted = expand_hosts(names)
    if from_config:
        from halo.config import load

        known = (found.address for found in load(context.config).hosts.values())
        wanted = list(dict.fromkeys([*wanted, *known]))
    if not wanted:
        raise click.UsageError("Give the names of hosts, or --from-config.")
    from halo.cli.tls.authority import Role

    expected = _expected_of_all()
    made = _make(folder, Role.HOST, wanted, [*others, *expected], days, force)
    example = f"scp -p {made[0].folder}/* {made[0].name}:/etc/halo/"
    click.echo(f"Copy each folder's files to its host, as root: {example}")
    click.echo(
        "On every host, set in /etc/default/halo: HALO_REMOTE_OPTIONS=--mtls, and "
        "HALO_MANAGER_NAME= with the manager's name."
    )


@tls.command()
@click.argument("name")
@_also_option
@_days_option(DAYS)
@_folder_option
@_force_option
def manager(name: str, others: tuple[str, ...], days: int, folder: Path, force: bool) -> None:
    """Make the manager's certificate. The hosts recognise the manager by NAME.

    Set HALO_MANAGER_NAME to NAME on every host. NAME need not exist in DNS, and must not be the
    name of a cluster host.
    """
    from halo.cli.tls.authority import Role

    (made,) = _make(folder, Role.MANAGER, [name], others, days, force)
    click.echo(f"Copy its files on the management node, as root: cp -p {made.folder}/* /etc/halo/")
    click.echo(
        f"On every host, set in /etc/default/halo: HALO_MANAGER_NAME={made.name}. "
        "On the management node, add --mtls to HALO_MANAGER_OPTIONS."
    )


@tls.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_also_option
@_days_option(DAYS)
@_folder_option
@_force_option
def peer(
    names: tuple[str, ...], others: tuple[str, ...], days: int, folder: Path, force: bool
) -> None:
    """Make certificates for managers among themselves. Give the names of the managers' machines.

    Several managers with their journal in etcd send requests on to the one that leads. NAME must be
    the name of the machine, as the other managers reach it. This certificate commands no agent.
    """
    from halo.cli.tls.authority import Role

    made = _make(folder, Role.PEER, expand_hosts(names), others, days, force)
    example = f"scp -p {made[0].folder}/* {made[0].name}:/etc/halo/"
    click.echo(f"Copy each folder's files to its machine, as root: {example}")
    click.echo("There, add --peer-listen ADDRESS:PORT to HALO_MANAGER_OPTIONS.")


@tls.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option(
    "--within",
    default=RENEW_WITHIN_DAYS,
    show_default=True,
    metavar="DAYS",
    type=click.IntRange(0),
    help="Without NAME: renew all certificates that expire within DAYS days.",
)
@click.option(
    "--ca",
    "with_ca",
    is_flag=True,
    help="First renew the CA's certificate; its key stays the same.",
)
@_days_option(DAYS)
@click.option(
    "--ca-days",
    default=CA_DAYS,
    show_default=True,
    type=click.IntRange(1, 36500),
    help="Lifetime in days of a renewed CA (with --ca).",
)
@_folder_option
def renew(
    names: tuple[str, ...], within: int, with_ca: bool, days: int, ca_days: int, folder: Path
) -> None:
    """Renew the certificates NAME (or nodesets), or all that expire soon.

    Each certificate keeps its names and its role, and gets a new key. Copy it over the old one: the
    programs then use it without a restart.
    """
    from halo.cli.tls.authority import Pair, renew_ca
    from halo.cli.tls.inspect import names_of
    from halo.cli.tls.store import Store

    store = Store(folder)
    ca = store.load_ca()
    places = list(store.places())
    if with_ca:
        try:
            ca = renew_ca(ca, ca_days, _now())
        except ValueError as error:
            raise CliError(f"Cannot renew {store.ca_certificate}: {error}.") from error
        store.save_ca(ca)
        for place in places:
            store.save_ca_of(place, ca)
        click.echo(
            f"Renewed the CA: it expires on {ca.expires_at:%Y-%m-%d}. Copy ca.crt everywhere."
        )
    pairs = {place: store.load(place) for place in places}
    until = _now() + timedelta(days=within)
    chosen = _named(names, places) if names else [p for p in places if pairs[p].expires_at <= until]
    nameless = []
    for place in chosen:
        found = names_of(pairs[place].certificate)
        if not found:
            nameless.append(str(place.certificate))
            continue
        renewed: Pair = _issue(ca, found, place.role, days)
        store.save(place, renewed, ca)
        click.echo(f"Renewed {place.certificate}: it expires on {renewed.expires_at:%Y-%m-%d}.")
    if len(chosen) > len(nameless):
        click.echo("Copy each to /etc/halo on its machine. The programs use it without a restart.")
    elif not chosen and not with_ca:
        first = min((pairs[p].expires_at for p in places), default=None)
        ends = f"; the first expires on {first:%Y-%m-%d}" if first else ""
        click.echo(f"No certificate expires within {within} days{ends}.")
    if ca.expires_at <= until:
        click.echo(
            f"The CA itself expires on {ca.expires_at:%Y-%m-%d}; renew it: halo tls renew --ca",
            err=True,
        )
    if nameless:
        raise CliError(
            f"Not renewed, because they hold no name (subjectAltName): {', '.join(nameless)}. Make "
            "each again: `halo tls host NAME --force`, or `halo tls manager NAME --force`."
        )


@tls.command(name="list")
@_folder_option
def list_made(folder: Path) -> None:
    """List the CA and the certificates that it made. The one that expires first comes first."""
    from halo.cli.tls.store import Store

    store = Store(folder)
    now = _now()
    rows = [(store.load_ca().expires_at, "CA", str(store.ca_certificate))]
    for place in store.places():
        kind = {"server": "host", "client": "manager"}.get(place.role.value, "peer")
        rows.append((store.load(place).expires_at, kind, place.name))
    for end, kind, name in sorted(rows):
        left = f"in {(end - now).days} days" if end > now else "EXPIRED"
        click.echo(f"{end:%Y-%m-%d}  {left:<13}  {kind:<7}  {name}")


@tls.command()
@click.argument("files", nargs=-1, metavar="[FILE...]", type=click.Path(path_type=Path))
@click.pass_context
def show(ctx: click.Context, files: tuple[Path, ...]) -> None:
    """Show what a set of certificates and keys may do, and what is wrong with it.

    Without FILE, the command shows the files that this machine's agent and manager use
    (HALO_SERVER_CERT and so on, else those in /etc/halo). A folder stands for its *.crt, *.pem and
    *.key files. The exit status is 1 if something is wrong, or expires within 30 days.
    """
    from halo.cli.tls.inspect import inspect

    report = inspect(files, datetime.now(UTC))  # not rounded, or one day too many would be left
    click.echo("\n".join(report.lines))
    ctx.exit(1 if report.has_problems else 0)


def _make(
    folder: Path, role: Role, names: Sequence[str], others: Iterable[str], days: int, force: bool
) -> list[Place]:
    """Make one certificate for each name. If some exist already, make none."""
    from halo.cli.tls.store import Store

    store = Store(folder)
    ca = store.load_ca()
    places = [store.place(role, name) for name in names]
    # Report an invalid name before anything is made.
    further = [store.place(role, other).name for other in others]
    _refuse_to_replace([path for p in places for path in (p.key, p.certificate)], force)
    for place in places:
        made = _issue(ca, list(dict.fromkeys([place.name, *further])), role, days)
        store.save(place, made, ca)
        click.echo(f"Made {place.certificate}: it expires on {made.expires_at:%Y-%m-%d}.")
    return places


def _issue(ca: Any, names: Sequence[str], role: Role, days: int) -> Any:
    from halo.cli.tls.authority import issue

    try:
        return issue(ca, names, role.usages, days, _now())
    except ValueError as error:
        raise CliError(f"No certificate for {names[0]}: {error}.") from error


def _named(names: Sequence[str], places: Sequence[Place]) -> list[Place]:
    from halo.cli.tls.store import as_stored

    wanted = {as_stored(name) for name in expand_hosts(tuple(names))}
    missing = wanted - {place.name for place in places}
    if missing:
        raise CliError(f"There is no certificate to renew for {', '.join(sorted(missing))}.")
    return [place for place in places if place.name in wanted]


def _refuse_to_replace(paths: Sequence[Path], force: bool) -> None:
    there = [] if force else [str(path) for path in paths if path.exists()]
    if there:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise CliError(
            f"{', '.join(there[:3])}{more} would be replaced; nothing was made. "
            "Give --force to replace them, or renew certificates with `halo tls renew`."
        )


def _expected_of_all() -> list[str]:
    from halo.adapters.tls.files import TlsNameError, expected_name

    try:
        name = expected_name()
    except TlsNameError as error:
        raise CliError(f"{error}.") from error
    return [name] if name else []


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
