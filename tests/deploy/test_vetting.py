"""Wrong credentials, refused before anything is started; what a live scheduler does is in test_tls_matrix.py."""

from __future__ import annotations

import datetime as dt
import subprocess

import pytest
from distributed.security import Security

from mlipcluster.deploy.certificates import issue
from mlipcluster.deploy.credentials_folder import read_folder, write_folder
from mlipcluster.deploy.tls import from_credentials
from mlipcluster.deploy.vetting import check
from mlipcluster.errors import InputError

NOW = dt.datetime.now(dt.timezone.utc)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "tls", issue())


def missing(folder):
    (folder / "worker.key").unlink()


def readable_key(folder):
    (folder / "client.key").chmod(0o640)


def readable_folder(folder):
    folder.chmod(0o755)


def no_pem(folder):
    (folder / "scheduler.pem").write_text("not a certificate\n")


def no_pem_key(folder):
    (folder / "scheduler.key").write_text("not a key\n")


def empty(folder):
    (folder / "ca.pem").write_text("")


def swapped_keys(folder):
    (folder / "client.key").write_text((folder / "worker.key").read_text())


def swapped_roles(folder):
    for end in ("pem", "key"):
        (folder / f"scheduler.{end}").write_text((folder / f"client.{end}").read_text())


def passphrase(folder):
    subprocess.run(
        ["openssl", "pkey", "-in", folder / "worker.key", "-aes256", "-passout", "pass:x", "-out", folder / "new"],
        check=True,
    )
    (folder / "worker.key").write_text((folder / "new").read_text())


def replaced(**options):
    def replace(folder):
        write_folder(folder, issue(**options), overwrite=True)

    return replace


def other_authority(folder):
    (folder / "ca.pem").write_text(issue().authority)


WRONG = {
    missing: r"worker's key .*No such file.*mlipcluster tls new",
    readable_key: r"client's key .*read by others.*0640.*chmod 600",
    readable_folder: r"others may look into .*0755.*chmod 700",
    no_pem: r"scheduler's certificate .*no certificate as PEM",
    no_pem_key: r"scheduler's key .*no key as PEM",
    empty: r"authority's certificate .*no certificate as PEM",
    swapped_keys: r"client's key .*does not belong",
    swapped_roles: r"scheduler's certificate .*not made for a scheduler.*serverAuth",
    passphrase: r"worker's key .*passphrase",
    other_authority: r"scheduler's certificate .*signed by 'mlipcluster \w+', which is not the authority",
    replaced(days=1, start=NOW - dt.timedelta(days=3)): r"expired at .* clock says",
    replaced(
        days=1, start=NOW + dt.timedelta(days=2)
    ): r"valid from .* on, but this machine's clock says .*set the clock",
}


@pytest.mark.parametrize(("harm", "says"), WRONG.items(), ids=[f"{h.__name__}-{s[:12]}" for h, s in WRONG.items()])
def test_what_is_wrong_with_a_folder_is_said(folder, harm, says):
    assert read_folder(folder).require_encryption
    harm(folder)
    with pytest.raises(InputError, match=says):
        read_folder(folder)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no folder"):
        read_folder(tmp_path / "file")


def test_dask_s_own_temporary_ones_are_good():
    check(Security.temporary())


def test_keys_may_lie_in_the_certificate_s_file(tmp_path):
    made = issue()
    both = tmp_path / "worker.pem"
    both.touch(mode=0o600)
    both.write_text(made.certificates["worker"] + made.keys["worker"])
    security = from_credentials(made)
    security.tls_worker_cert, security.tls_worker_key = str(both), None
    check(security)
    both.chmod(0o644)
    with pytest.raises(InputError, match="read by others"):
        check(security)


def test_an_authority_in_between_is_followed(tmp_path):
    """As an institute's: its root vouches for a department's authority, which vouches for the machines."""
    ask = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout"]
    for name in ("root", "department", "machine"):
        subprocess.run(
            [*ask, f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
    (tmp_path / "ca.cnf").write_text("basicConstraints=critical,CA:TRUE\n")
    sign = ["openssl", "x509", "-req", "-days", "2"]
    chain = [("root", ["-signkey", "root.key", "-extfile", "ca.cnf"])]
    chain += [("department", ["-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-extfile", "ca.cnf"])]
    chain += [("machine", ["-CA", "department.pem", "-CAkey", "department.key", "-CAcreateserial"])]
    for name, how in chain:
        subprocess.run(
            [*sign, "-in", f"{name}.csr", "-out", f"{name}.pem", *how], cwd=tmp_path, check=True, capture_output=True
        )
    texts = {name: (tmp_path / f"{name}.pem").read_text() for name in ("root", "department", "machine")}
    key = (tmp_path / "machine.key").read_text()
    together = texts["machine"] + texts["department"]
    roles = {f"tls_{role}_cert": together for role in ("scheduler", "worker", "client")}
    roles |= {f"tls_{role}_key": key for role in ("scheduler", "worker", "client")}
    check(Security(require_encryption=True, tls_ca_file=texts["root"], **roles))
    with pytest.raises(InputError, match="not the authority"):
        check(
            Security(
                require_encryption=True, tls_ca_file=texts["root"], **{**roles, "tls_worker_cert": texts["machine"]}
            )
        )


def test_encryption_has_to_be_asked_for():
    with pytest.raises(InputError, match="require_encryption=True"):
        check(Security())


def test_what_is_missing_is_named():
    made = from_credentials(issue())
    made.tls_worker_cert = None
    with pytest.raises(InputError, match=r"worker's certificate \(tls_worker_cert\) is missing"):
        check(made)
