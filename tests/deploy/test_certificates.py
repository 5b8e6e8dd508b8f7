from __future__ import annotations

import datetime as dt
import ipaddress

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose
from cryptography.x509.verification import PolicyBuilder, Store

from mlipcluster.deploy.certificates import ROLES, issue
from mlipcluster.errors import InputError


def load(text):
    return x509.load_pem_x509_certificate(text.encode())


def test_each_role_has_a_certificate_and_a_key_of_its_own():
    made = issue()
    assert set(made.certificates) == set(made.keys) == set(ROLES)
    assert len(set(made.keys.values())) == len(ROLES)
    for text in made.certificates.values():
        load(text).verify_directly_issued_by(load(made.authority))


def test_two_authorities_do_not_vouch_for_each_other():
    one, other = issue(), issue()
    with pytest.raises((InvalidSignature, ValueError)):
        load(one.certificates["worker"]).verify_directly_issued_by(load(other.authority))
    assert load(one.authority).subject != load(other.authority).subject


def test_strict_verifiers_take_them():
    """As web browsers and Python 3.13 verify, who are stricter than Dask."""
    made = issue(dns=["node.example.org"], addresses=["127.0.0.1"])
    store = Store([load(made.authority)])
    worker = load(made.certificates["worker"])
    policy = PolicyBuilder().store(store)
    assert policy.build_server_verifier(x509.DNSName("node.example.org")).verify(worker, [])
    assert policy.build_server_verifier(x509.IPAddress(ipaddress.ip_address("127.0.0.1"))).verify(worker, [])
    with pytest.raises(x509.verification.VerificationError):
        policy.build_server_verifier(x509.DNSName("other.example.org")).verify(worker, [])


def test_a_client_s_certificate_does_not_pass_for_a_server_s():
    def purposes(role):
        return set(load(made.certificates[role]).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)

    made = issue()
    assert purposes("client") == {Purpose.CLIENT_AUTH}
    assert purposes("scheduler") == purposes("worker") == {Purpose.CLIENT_AUTH, Purpose.SERVER_AUTH}


def test_they_are_valid_from_a_day_ago_for_as_long_as_was_said():
    worker = load(issue(days=2).certificates["worker"])
    now = dt.datetime.now(dt.timezone.utc)
    assert abs(worker.not_valid_before_utc - (now - dt.timedelta(days=1))) < dt.timedelta(minutes=5)
    assert abs(worker.not_valid_after_utc - (now + dt.timedelta(days=2))) < dt.timedelta(minutes=5)


def test_no_key_comes_into_a_log():
    made = issue()
    assert "PRIVATE" not in repr(made)
    assert "PRIVATE" not in f"{made}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"days": 0}, "days=0"),
        ({"days": True}, "days=True"),
        ({"days": 10**6}, "at most 36500"),
        ({"name": ""}, "1 to 50"),
        ({"name": "a\nb"}, "printable"),
        ({"dns": ["bücher.example"]}, "IDNA"),
        ({"addresses": ["node7"]}, "no IP address"),
    ],
)
def test_what_no_certificate_can_have_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        issue(**options)
