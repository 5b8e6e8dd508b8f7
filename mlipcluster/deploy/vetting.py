"""Credentials looked at before anything starts with them: what is wrong is said here, not by a failing handshake."""

from __future__ import annotations

import contextlib
import datetime as dt
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from distributed.security import Security

from mlipcluster.deploy.certificates import ROLES
from mlipcluster.errors import InputError

NEW = "make new ones with `mlipcluster tls new DIR`."
OTHERS = stat.S_IRWXG | stat.S_IRWXO
LONGEST_CHAIN = 10


def check(security: Security, roles: Sequence[str] = tuple(ROLES)) -> None:
    """Refuse credentials that some handshake would refuse, or that others may have read.

    Parameters
    ----------
    security : distributed.Security
        Its files, or the PEM text that it holds.
    roles : sequence of str
        Whose certificates are needed here.

    Raises
    ------
    InputError
        One is missing, cannot be read or is no PEM, was not signed by the authority, is expired or not valid yet, is
        not for this role, does not belong to its key, or the key's file may be read by others.
    """
    if not security.require_encryption:
        raise InputError(
            "the Security that was given does not ask for encryption; make it with require_encryption=True and "
            "certificates, or say security=False to go without."
        )
    authorities = certificates("the authority's certificate (tls_ca_file)", field(security, "tls_ca_file"))
    for authority in authorities:
        check_time("the authority's certificate", authority)
    for role in roles:
        _check_role(role, security, authorities)


def field(security: Security, name: str) -> Any:
    """A field of a `Security`, which Dask leaves untyped."""
    return getattr(security, name)


def _check_role(role: str, security: Security, authorities: Sequence[x509.Certificate]) -> None:
    cert, key = field(security, f"tls_{role}_cert"), field(security, f"tls_{role}_key")
    what = f"the {role}'s certificate (tls_{role}_cert)"
    leaf, *chain = certificates(what, cert)
    check_time(what, leaf)
    _check_purpose(role, what, leaf)
    if not _leads(leaf, chain, authorities):
        given = ", ".join(repr(common_name(authority.subject)) for authority in authorities)
        raise InputError(
            f"{what} was signed by {common_name(leaf.issuer)!r}, which is not the authority that was given ({given}); "
            f"take all files from one folder, or {NEW}"
        )
    keyword = f"the {role}'s key (tls_{role}_key)"
    _check_mode(keyword, cert if key is None else key)
    if _public(keyword, cert if key is None else key) != _spki(leaf):
        raise InputError(f"{keyword} does not belong to {what}; give the two that were made together, or {NEW}")


def check_time(what: str, certificate: x509.Certificate) -> None:
    """Refuse a certificate that is expired, or not valid yet, by this machine's clock.

    Raises
    ------
    InputError
        It is; the message has both times.
    """
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = dt.datetime.now(dt.timezone.utc)
    if now < begin:
        raise InputError(
            f"{what} is valid from {_told(begin)} on, but this machine's clock says {_told(now)}; set the clock "
            "(`timedatectl` shows whether it is kept right)."
        )
    if now > end:
        raise InputError(
            f"{what} expired at {_told(end)}, and this machine's clock says {_told(now)}; if the clock is right, {NEW}"
        )


def check_folder(folder: Path) -> None:
    """Refuse a folder of keys that others may look into.

    Raises
    ------
    InputError
        They may, or there is no such folder.
    """
    try:
        mode = folder.stat().st_mode
    except OSError as error:
        raise InputError(f"folder {str(folder)!r} with credentials: {error.strerror}; {NEW}") from None
    if not stat.S_ISDIR(mode):
        raise InputError(f"{str(folder)!r} is no folder; give the one that `mlipcluster tls new DIR` made.")
    if mode & OTHERS:
        raise InputError(
            f"others may look into {str(folder)!r} (mode {stat.S_IMODE(mode):04o}), where keys are. If nobody has read "
            f"them, `chmod 700 {folder}`; else {NEW}"
        )


def _pem(what: str, given: str | None) -> bytes:
    if not given:
        raise InputError(f"{what} is missing; give it, or {NEW}")
    if "\n" in given:
        return given.encode()
    try:
        return Path(given).read_bytes()
    except OSError as error:
        raise InputError(f"{what}: {given!r}: {error.strerror}; give the right file, or {NEW}") from None


def _place(given: str | None) -> str:
    return "the text that was given" if given and "\n" in given else repr(given)


def certificates(what: str, given: str | None) -> list[x509.Certificate]:
    """Read PEM text, or the file that has it.

    Raises
    ------
    InputError
        There is none; *what* names the thing.
    """
    text = _pem(what, given)
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError:
        raise InputError(
            f"{what}: there is no certificate as PEM text (-----BEGIN CERTIFICATE-----) in {_place(given)}; "
            f"give the right file, or {NEW}"
        ) from None


def _public(what: str, given: str | None) -> bytes:
    """The public half of a key."""
    text = _pem(what, given)
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except TypeError:
        raise InputError(
            f"{what} is behind a passphrase, which workers cannot be asked for; write it without one "
            "(`openssl pkey -in KEY -out NEW`) and keep its mode at 0600."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(
            f"{what}: there is no key as PEM text (-----BEGIN PRIVATE KEY-----) in {_place(given)}; "
            f"give the right file, or {NEW}"
        ) from None
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _check_mode(what: str, given: str | None) -> None:
    if given is None or "\n" in given:
        return
    try:
        mode = Path(given).stat().st_mode
    except OSError as error:
        raise InputError(f"{what}: {given!r}: {error.strerror}; give the right file, or {NEW}") from None
    if mode & OTHERS:
        raise InputError(
            f"{what} may be read by others: {given!r} has mode {stat.S_IMODE(mode):04o}. If nobody has, "
            f"`chmod 600 {given}`; else {NEW}"
        )


def _check_purpose(role: str, what: str, leaf: x509.Certificate) -> None:
    try:
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # good for everything
    if missing := [purpose for purpose in ROLES[role] if purpose not in purposes]:
        names = ", ".join(purpose._name for purpose in missing)  # noqa: SLF001 - its only readable form
        raise InputError(f"{what} is not made for a {role}: it lacks the purpose {names}; take the {role}'s own.")


def _leads(leaf: x509.Certificate, chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]) -> bool:
    """Whether the certificate leads to one of the authorities, by those that came along with it."""
    for _ in range(LONGEST_CHAIN):
        if any(_issued(leaf, authority) for authority in authorities):
            return True
        above = next((one for one in chain if one != leaf and _issued(leaf, one)), None)
        if above is None:
            return False
        leaf = above
    return False


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    with contextlib.suppress(ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        certificate.verify_directly_issued_by(issuer)
        return True
    return False


def alternatives(certificate: x509.Certificate) -> tuple[str, ...]:
    """Host names and addresses that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)


def common_name(name: x509.Name) -> str:
    """A name as people call it."""
    return name.rfc4514_string().removeprefix("CN=")


def _told(time: dt.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
