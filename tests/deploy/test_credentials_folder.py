from __future__ import annotations

import os
import pickle

import pytest
from cryptography import x509
from distributed.security import Security

import mlipcluster
from mlipcluster.deploy.certificates import issue
from mlipcluster.deploy.credentials_folder import NAMES, generate_dask_tls_security, read_folder, write_folder
from mlipcluster.errors import InputError


def test_keys_are_the_owner_s_alone(tmp_path, modes):
    before = os.umask(0o000)
    try:
        folder = write_folder(tmp_path / "new" / "tls", issue())
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes(folder) == dict.fromkeys(sorted(NAMES), 0o600)


def test_what_is_there_is_not_replaced_unasked(tmp_path):
    folder = write_folder(tmp_path / "tls", issue())
    before = (folder / "ca.pem").read_text()
    with pytest.raises(InputError, match="has credentials already"):
        write_folder(folder, issue())
    assert (folder / "ca.pem").read_text() == before
    write_folder(folder, issue(), overwrite=True)
    assert (folder / "ca.pem").read_text() != before
    read_folder(folder)


def test_the_authority_s_key_is_nowhere(tmp_path):
    folder = write_folder(tmp_path / "tls", issue())
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)


def test_known_by_its_name(tmp_path):
    assert mlipcluster.generate_dask_tls_security is generate_dask_tls_security
    made = generate_dask_tls_security(
        output_dir=str(tmp_path / "certs"), common_name="my-cluster", days=3, openssl_bin="openssl",
        san_dns=["localhost", "my-host.local"], san_ip=["127.0.0.1"], cleanup=False,
    )  # fmt: skip
    assert isinstance(made, Security)
    assert made.require_encryption
    worker = x509.load_pem_x509_certificate((tmp_path / "certs" / "worker.pem").read_bytes())
    names = worker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "my-host.local"]
    assert "my-cluster" in worker.subject.rfc4514_string()
    assert b"PRIVATE" not in pickle.dumps(made)  # names of files, which other processes read for themselves


def test_a_second_call_takes_what_is_there(tmp_path):
    generate_dask_tls_security(tmp_path)
    before = (tmp_path / "worker.key").read_text()
    generate_dask_tls_security(tmp_path)
    assert (tmp_path / "worker.key").read_text() == before
    generate_dask_tls_security(tmp_path, overwrite=True)
    assert (tmp_path / "worker.key").read_text() != before


def test_half_of_it_is_not_filled_up(tmp_path):
    generate_dask_tls_security(tmp_path)
    (tmp_path / "worker.key").unlink()
    with pytest.raises(InputError, match="worker's key"):
        generate_dask_tls_security(tmp_path)


def test_a_name_alone_is_no_list(tmp_path):
    with pytest.raises(InputError, match=r"san_dns=\['localhost'\]"):
        generate_dask_tls_security(tmp_path, san_dns="localhost")
