"""Certificates for TLS: an authority made for the occasion, and one certificate each for scheduler, worker and client.

The authority's key signs these three and is forgotten: nobody can add a fourth later. Each certificate says what it is
for, so that a client's does not pass for a scheduler's.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose
from cryptography.x509.oid import NameOID

from mlipcluster.errors import InputError

ROLES = {
    "scheduler": (Purpose.SERVER_AUTH, Purpose.CLIENT_AUTH),
    "worker": (Purpose.SERVER_AUTH, Purpose.CLIENT_AUTH),
    "client": (Purpose.CLIENT_AUTH,),
}
"""Who takes part, and what each certificate is good for: Dask's scheduler and workers both listen and connect."""
DAYS = 365
LONGEST_DAYS = 36500
LEEWAY = dt.timedelta(days=1)
"""How long before now certificates begin: clocks of other machines may be behind."""


@dataclass(frozen=True)
class Credentials:
    """Everything that TLS needs, as PEM text.

    Attributes
    ----------
    authority : str
        Certificate that the others are signed by.
    certificates, keys : dict of str to str
        By role: ``"scheduler"``, ``"worker"``, ``"client"``.
    """

    authority: str
    certificates: dict[str, str]
    keys: dict[str, str]

    def __repr__(self) -> str:
        return "Credentials(…)"  # no key may come into a log


def issue(
    *,
    days: float = DAYS,
    name: str = "mlipcluster",
    dns: Iterable[str] = (),
    addresses: Iterable[str] = (),
    start: dt.datetime | None = None,
) -> Credentials:
    """Make a fresh authority, and certificates and keys for each role.

    Parameters
    ----------
    days : float
        How long they are valid.
    name : str
        Common name in the certificates, 1 to 50 characters.
    dns, addresses : iterable of str
        Host names and IP addresses that they are for, beside *name*. Dask compares neither with what it connects to;
        other programs may.
    start : dt.datetime, optional
        When they begin to be valid (with a time zone); default: a day ago.

    Raises
    ------
    InputError
        A value that no certificate can have.
    """
    _check(days, name)
    alternatives = x509.SubjectAlternativeName([*map(_host, dns), *map(_address, addresses)])
    begin = start or dt.datetime.now(dt.timezone.utc) - LEEWAY
    end = begin + (LEEWAY if start is None else dt.timedelta()) + dt.timedelta(days=days)
    authority = Authority(name, begin, end)
    made = {role: authority.certify(role, begin, end, alternatives) for role in ROLES}
    return Credentials(
        authority.certificate,
        {role: certificate for role, (certificate, _) in made.items()},
        {role: key for role, (_, key) in made.items()},
    )


class Authority:
    """Who signs certificates; its key is in this object alone.

    Parameters
    ----------
    name : str
        Begins its own name, which also says at random which it is.
    begin, end : datetime.datetime
        When its certificate is valid.
    """

    def __init__(self, name: str, begin: dt.datetime, end: dt.datetime) -> None:
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issuer = _named(f"{name} {secrets.token_hex(4)}")
        public = self._key.public_key()
        builder = (
            _builder(self._issuer, self._issuer, public, (begin, end))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        self.certificate = _pem(builder.sign(self._key, hashes.SHA256()))

    def certify(
        self, role: str, begin: dt.datetime, end: dt.datetime, alternatives: x509.SubjectAlternativeName | None = None
    ) -> tuple[str, str]:
        """A certificate and a key for a role, as PEM text."""
        key = ec.generate_private_key(ec.SECP256R1())
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(self._issuer, _named(f"{self._name} {role}"), key.public_key(), (begin, end))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(ROLES[role]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(above, critical=False)
        )
        if alternatives is not None and list(alternatives):
            builder = builder.add_extension(alternatives, critical=False)
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return _pem(builder.sign(self._key, hashes.SHA256())), text.decode()


def _check(days: float, name: str) -> None:
    if isinstance(days, bool) or not isinstance(days, (int, float)) or not 0 < days <= LONGEST_DAYS:
        raise InputError(f"days={days!r}: give how many days the certificates are valid, at most {LONGEST_DAYS}.")
    if not isinstance(name, str) or not 0 < len(name) <= 50 or not name.isprintable():
        raise InputError(f"name {name!r:.80} of the certificates: give 1 to 50 printable characters.")


def _host(text: str) -> x509.DNSName:
    try:
        return x509.DNSName(text)
    except (TypeError, ValueError):
        raise InputError(f"{text!r:.80} is no host name; write others than ASCII as IDNA, such as xn--….") from None


def _address(text: str) -> x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        raise InputError(f"{text!r:.80} is no IP address; give one such as 10.0.0.7, or a host name as dns.") from None


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    valid: tuple[dt.datetime, dt.datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
