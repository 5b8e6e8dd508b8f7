"""A folder of credentials that outlives a run: for clusters that a user starts, and clients that join them later."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distributed.security import Security

from mlipcluster.deploy.certificates import DAYS, ROLES, Credentials, issue
from mlipcluster.deploy.vetting import NEW, alternatives, certificates, check, check_folder, common_name
from mlipcluster.errors import InputError
from mlipcluster.files import write_atomic

AUTHORITY = "ca.pem"
NAMES = (AUTHORITY, *(f"{role}.{end}" for role in ROLES for end in ("pem", "key")))


def write_folder(folder: str | os.PathLike[str], credentials: Credentials, *, overwrite: bool = False) -> Path:
    """Write credentials as files: keys of mode 0600; the folder, if it is made here, of mode 0700.

    Raises
    ------
    InputError
        There are some already, or the folder cannot be written.
    """
    path = Path(folder).expanduser().absolute()
    texts = {AUTHORITY: credentials.authority}
    for role in ROLES:
        texts |= {f"{role}.pem": credentials.certificates[role], f"{role}.key": credentials.keys[role]}
    if (there := _present(path)) and not overwrite:
        raise InputError(
            f"{str(path)!r} has credentials already ({', '.join(there)}), which something may be using; give another "
            "folder, or say that they are to be replaced (--force, overwrite=True)."
        )
    try:
        if not path.is_dir():
            path.mkdir(parents=True, mode=0o700)
        for name, text in texts.items():
            write_atomic(path / name, text, mode=0o600)
    except OSError as error:
        raise InputError(f"{str(path)!r}: {error.strerror}; give a folder that can be written.") from error
    return path


def read_folder(folder: str | os.PathLike[str], roles: Sequence[str] = tuple(ROLES)) -> Security:
    """The credentials in a folder of one's own; those of *roles*, which are needed, are checked.

    Raises
    ------
    InputError
        The folder is not there, others may look into it, or what is in it cannot be used.
    """
    path = Path(folder).expanduser().absolute()
    check_folder(path)
    security = _security(path)
    check(security, roles)
    return security


@dataclass(frozen=True)
class Shown:
    """What a certificate says.

    Attributes
    ----------
    role : str
        ``"authority"``, or whose it is.
    name : str
        Its common name.
    begin, end : datetime.datetime
        When it is valid.
    alternatives : tuple of str
        Host names and addresses that it is for.
    """

    role: str
    name: str
    begin: dt.datetime
    end: dt.datetime
    alternatives: tuple[str, ...]


def show_folder(folder: str | os.PathLike[str]) -> list[Shown]:
    """What the certificates in a folder say, whether or not they can be used.

    Raises
    ------
    InputError
        There are none.
    """
    path = Path(folder).expanduser().absolute()
    files = {"authority": path / AUTHORITY} | {role: path / f"{role}.pem" for role in ROLES}
    found = {role: certificates(file.name, os.fspath(file))[0] for role, file in files.items() if file.exists()}
    if not found:
        raise InputError(f"there are no certificates in {str(path)!r}; {NEW}")
    return [
        Shown(role, common_name(one.subject), one.not_valid_before_utc, one.not_valid_after_utc, alternatives(one))
        for role, one in found.items()
    ]


def generate_dask_tls_security(  # noqa: PLR0913, PLR0917 - known by this signature
    output_dir: str | os.PathLike[str] = ".",
    common_name: str = "dask_tls_security",
    days: int = DAYS,
    openssl_bin: str = "openssl",  # noqa: ARG001
    overwrite: bool = False,
    san_dns: Iterable[str] | None = None,
    san_ip: Iterable[str] | None = None,
    cleanup: bool = True,  # noqa: ARG001
) -> Security:
    """Make certificates and keys in a folder, or take those that are there, for ``MLIPCluster(security=…)``.

    The function of that name that users of PyRosettaCluster know. Here each role has a certificate and a key of its
    own, and the authority's key is not kept; the files are those of ``mlipcluster tls new``.

    Parameters
    ----------
    output_dir : path
        Folder; workers need not see it.
    common_name : str
        Name in the certificates.
    days : int
        How long they are valid.
    openssl_bin, cleanup
        Without effect: no program is run, and nothing is left to clean up.
    overwrite : bool
        Make new ones although there are some.
    san_dns, san_ip : iterable of str, optional
        Host names and addresses that the certificates are for.

    Returns
    -------
    distributed.Security

    Raises
    ------
    InputError
        The folder cannot be written, or what is there cannot be used.
    """
    path = Path(output_dir).expanduser().absolute()
    if overwrite or not _present(path):
        for name, value in {"san_dns": san_dns, "san_ip": san_ip}.items():
            if isinstance(value, str):
                raise InputError(f"{name}={value!r}: give a list, such as {name}=[{value!r}].")
        made = issue(days=days, name=common_name, dns=san_dns or (), addresses=san_ip or ())
        write_folder(path, made, overwrite=overwrite)
    security = _security(path)
    check(security)
    return security


def _present(path: Path) -> list[str]:
    return [name for name in NAMES if (path / name).exists()]


def _security(path: Path) -> Security:
    roles = {
        f"tls_{role}_{field}": os.fspath(path / f"{role}.{end}")
        for role in ROLES
        for field, end in (("cert", "pem"), ("key", "key"))
    }
    return Security(require_encryption=True, tls_ca_file=os.fspath(path / AUTHORITY), **roles)
