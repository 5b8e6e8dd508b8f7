"""TLS between driver, scheduler and workers: on wherever a worker may be on another machine.

What a run makes for itself stays in the driver's memory, save for the worker's own certificate and key: these lie in
the run's ``private`` folder, mode 0700, for as long as the run lasts, and are named to the workers by paths. So
nothing secret is in a job script, a command line or an environment variable.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import stat
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from distributed.security import Security

from mlipcluster.deploy.certificates import ROLES, Credentials, issue
from mlipcluster.deploy.credentials_folder import read_folder
from mlipcluster.deploy.deployment import Place
from mlipcluster.deploy.vetting import OTHERS, check, check_time, field
from mlipcluster.errors import InputError, RunError
from mlipcluster.files import write_atomic

PREFIX = "DASK_DISTRIBUTED__COMM__TLS__"
FILES = {"CA_FILE": "ca.pem", "WORKER__CERT": "worker.pem", "WORKER__KEY": "worker.key"}
"""What a worker needs: the end of Dask's name for it as an environment variable, and our name for its file."""
_VERSIONS = {ssl.TLSVersion.TLSv1_2: "1.2", ssl.TLSVersion.TLSv1_3: "1.3"}


def choose(security: Any, place: Place, *, remote: bool, roles: Sequence[str] = tuple(ROLES)) -> Security | None:
    """The credentials of a deployment that is about to start.

    Parameters
    ----------
    security : bool, path, distributed.Security or None
        What the user said. None: on if *remote*. True: on, with fresh credentials. False: off. A folder that
        ``mlipcluster tls new`` made; credentials of the user's own.
    place : Place
        Its ``private`` folder is cleared of what a driver that was killed has left there.
    remote : bool
        Whether workers may be on other machines.
    roles : sequence of str
        Whose certificates are needed here: a scheduler that runs already has its own.

    Returns
    -------
    distributed.Security or None
        None: without TLS.

    Raises
    ------
    InputError
        The credentials cannot be used; see `mlipcluster.deploy.vetting.check`.

    Warns
    -----
    UserWarning
        TLS is off although workers are on other machines.
    """
    remove_private(place)
    if security is None:
        security = remote
    if security is False:
        if remote:
            warnings.warn(
                "security=False: structures, and functions that workers will run, go over the network in plain text, "
                "and whoever reaches the scheduler's port can run programs as you. Leave security= out to have TLS.",
                stacklevel=2,
            )
        return None
    if security is True:
        return from_credentials(issue())
    if isinstance(security, (str, os.PathLike)):
        return read_folder(security, roles)
    if not isinstance(security, Security):
        raise InputError(
            f"security={security!r:.80}: give True, False, a folder that `mlipcluster tls new DIR` made, or a "
            "distributed.Security."
        )
    check(security, roles)
    return security


def from_credentials(credentials: Credentials) -> Security:
    """Dask's form of them, in memory alone."""
    roles = {f"tls_{role}_cert": text for role, text in credentials.certificates.items()}
    roles |= {f"tls_{role}_key": text for role, text in credentials.keys.items()}
    return Security(require_encryption=True, tls_ca_file=credentials.authority, **roles)


def worker_variables(security: Security | None, folder: Path) -> dict[str, str]:
    """Write what a worker needs into a private folder, and name it in Dask's environment variables.

    Parameters
    ----------
    security : distributed.Security or None
        None: without TLS; nothing is written.
    folder : pathlib.Path
        Made with mode 0700; the workers see it under the same name.

    Raises
    ------
    RunError
        The folder cannot be made or written, or its file system does not keep modes.
    """
    if security is None:
        return {}
    variables = settings(security)
    try:
        make_private(folder)
        for name, text in worker_texts(security).items():
            path = write_atomic(folder / FILES[name], text, mode=0o600)
            if path.stat().st_mode & OTHERS:
                raise RunError(
                    f"{str(path)!r}: this file system does not keep the mode 0600, so others could read the key; "
                    "choose an output_path on one that does."
                )
            variables[PREFIX + name] = os.fspath(path)
    except OSError as error:
        raise RunError(
            f"{str(folder)!r}, where the workers' key belongs: {error.strerror}; choose an output_path that can be "
            "written, with free space."
        ) from error
    return variables


def worker_texts(security: Security) -> dict[str, str]:
    """PEM text of authority, worker's certificate and worker's key, by the names in `FILES`."""
    given = security.get_tls_config_for_role("worker")
    found = {"CA_FILE": given["ca_file"], "WORKER__CERT": given["cert"], "WORKER__KEY": given["key"] or given["cert"]}
    return {name: text if "\n" in text else Path(text).read_text() for name, text in found.items()}


def settings(security: Security) -> dict[str, str]:
    """What is not secret: Dask's environment variables that make a worker insist on TLS, of these versions."""
    variables = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    for name in ("min_version", "max_version"):
        if (version := field(security, f"tls_{name}")) is not None:
            variables[PREFIX + name.upper()] = _VERSIONS[version]
    if ciphers := field(security, "tls_ciphers"):
        variables[PREFIX + "CIPHERS"] = ciphers
    return variables


def check_here(variables: Mapping[str, str] | None = None) -> None:
    """Check, on a node and before its workers start, that the credentials are there, and valid by the clock here.

    Parameters
    ----------
    variables : mapping, optional
        As `worker_variables` gave them; default: this process's environment.

    Raises
    ------
    InputError
        A file is not there (the folder is not shared with this machine), or the clock is wrong.
    """
    told = os.environ if variables is None else variables
    for name, file in FILES.items():
        path = told.get(PREFIX + name)
        if path is None:
            continue
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise InputError(
                f"{os.uname().nodename}: {path!r}: {error.strerror}. This machine does not see the run folder as the "
                "driver does; choose an output_path on a file system that both share."
            ) from None
        if not name.endswith("KEY"):
            what = f"on {os.uname().nodename}: {file} of this run"
            for certificate in x509.load_pem_x509_certificates(text):
                check_time(what, certificate)


def make_private(folder: Path) -> Path:
    """A folder, and the one above it where it is new, that only this user can look into."""
    for one in (folder.parent, folder):
        with contextlib.suppress(FileExistsError):
            one.mkdir(mode=0o700)
            one.chmod(0o700)  # a umask may take more away, a default list of access rights give more
    if stat.S_IMODE(folder.stat().st_mode) & OTHERS:
        folder.chmod(0o700)
    return folder


def remove_private(place: Place) -> None:
    """Remove a deployment's private folder, and the one above it when nothing else is in it."""
    shutil.rmtree(place.private, ignore_errors=True)
    with contextlib.suppress(OSError):
        place.private.parent.rmdir()  # which is the run's, and not empty while others have theirs in it
