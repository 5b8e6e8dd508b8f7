from __future__ import annotations

import datetime as dt
import os
import ssl
import warnings

import dask
import pytest
from distributed.security import Security

from mlipcluster.deploy import tls
from mlipcluster.deploy.certificates import ROLES, issue
from mlipcluster.deploy.credentials_folder import write_folder
from mlipcluster.deploy.given import Given
from mlipcluster.deploy.local import Local
from mlipcluster.errors import InputError, RunError


def test_on_when_workers_are_elsewhere_and_off_here(place):
    made = tls.choose(None, place, remote=True)
    assert made.require_encryption
    assert len({getattr(made, f"tls_{role}_key") for role in ROLES}) == len(ROLES)
    assert tls.choose(None, place, remote=False) is None


def test_on_by_wish_too(place):
    assert tls.choose(True, place, remote=False).require_encryption


def test_each_run_has_its_own(place):
    assert tls.choose(True, place, remote=True).tls_ca_file != tls.choose(True, place, remote=True).tls_ca_file


def test_off_with_a_warning(place):
    with pytest.warns(UserWarning, match=r"security=False: .*plain text"):
        assert tls.choose(False, place, remote=True) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tls.choose(False, place, remote=False) is None


def test_a_folder(place, tmp_path):
    folder = write_folder(tmp_path / "tls", issue())
    for given in (folder, str(folder)):
        assert tls.choose(given, place, remote=True).tls_ca_file == str(folder / "ca.pem")
    (folder / "worker.key").chmod(0o644)
    with pytest.raises(InputError, match="read by others"):
        tls.choose(folder, place, remote=True)


def test_one_s_own(place):
    own = Security.temporary()
    assert tls.choose(own, place, remote=True) is own
    with pytest.raises(InputError, match="require_encryption"):
        tls.choose(Security(), place, remote=True)


def test_who_joins_a_scheduler_needs_the_client_s_alone(place, tmp_path):
    folder = write_folder(tmp_path / "tls", issue())
    own = tls.from_credentials(issue())
    for role in ("scheduler", "worker"):
        (folder / f"{role}.key").unlink()
        setattr(own, f"tls_{role}_cert", None)
    for given in (own, folder):
        assert tls.choose(given, place, remote=False, roles=Given.roles).require_encryption
        with pytest.raises(InputError, match=r"scheduler's .* (is missing|No such file)"):
            tls.choose(given, place, remote=False, roles=Local.roles)


@pytest.mark.parametrize("given", ["", 3, [True], b"x"])
def test_anything_else_is_refused(place, given):
    with pytest.raises(InputError):
        tls.choose(given, place, remote=True)


def test_what_a_killed_driver_left_is_removed(place):
    tls.make_private(place.private)
    (place.private / "worker.key").write_text("old")
    tls.choose(True, place, remote=True)
    assert not place.private.parent.exists()
    assert place.logs.is_dir()


def test_another_deployment_s_stays(place):
    other = tls.make_private(place.private.with_name("1"))
    tls.make_private(place.private)
    tls.remove_private(place)
    assert other.is_dir()
    assert not place.private.exists()


def test_worker_files_are_private_and_alone_hold_the_key(place, modes):
    before = os.umask(0o000)
    try:
        variables = tls.worker_variables(from_fresh := tls.choose(True, place, remote=True), place.private)
    finally:
        os.umask(before)
    assert modes(place.private.parent) == {"0": 0o700, "ca.pem": 0o600, "worker.key": 0o600, "worker.pem": 0o600}
    assert place.private.parent.stat().st_mode & 0o777 == 0o700
    assert not any("PRIVATE" in value for value in variables.values())
    assert (place.private / "worker.key").read_text() == from_fresh.tls_worker_key
    others = {from_fresh.tls_client_key, from_fresh.tls_scheduler_key}
    assert not others & {path.read_text() for path in place.private.iterdir()}


def test_dask_understands_the_variables(place):
    own = tls.from_credentials(issue())
    own.tls_min_version, own.tls_ciphers = ssl.TLSVersion.TLSv1_3, "ECDHE+AESGCM"
    variables = tls.worker_variables(own, place.private)
    with dask.config.set(dask.config.merge(dask.config.config, dask.config.collect_env(variables))):
        read = Security()
    assert read.require_encryption is True
    assert (read.tls_min_version, read.tls_ciphers) == (ssl.TLSVersion.TLSv1_3, "ECDHE+AESGCM")
    assert read.tls_worker_key == str(place.private / "worker.key")
    assert read.get_connection_args("worker")["ssl_context"].minimum_version == ssl.TLSVersion.TLSv1_3


def test_the_user_s_own_files_are_brought_to_where_nodes_see_them(place, tmp_path):
    folder = write_folder(tmp_path / "tls", issue())
    tls.worker_variables(tls.choose(folder, place, remote=True), place.private)
    assert (place.private / "worker.key").read_text() == (folder / "worker.key").read_text()
    assert not (place.private / "client.key").exists()


def test_without_tls_nothing_is_written(place):
    assert tls.worker_variables(None, place.private) == {}
    assert not place.private.exists()


def test_a_file_system_without_modes_is_refused(place, monkeypatch):
    def careless(path, text, **options):
        path.write_text(text)
        path.chmod(0o644)
        return path

    monkeypatch.setattr(tls, "write_atomic", careless)
    with pytest.raises(RunError, match="does not keep the mode 0600"):
        tls.worker_variables(tls.from_credentials(issue()), place.private)


def test_a_folder_that_cannot_be_made(place):
    place.private.parent.touch()
    with pytest.raises(RunError, match="where the workers' key belongs"):
        tls.worker_variables(tls.from_credentials(issue()), place.private)


def test_a_node_that_does_not_see_the_folder(place):
    variables = tls.worker_variables(tls.from_credentials(issue()), place.private)
    tls.check_here(variables)
    tls.remove_private(place)
    with pytest.raises(InputError, match=r"ca.pem.*does not see the run folder"):
        tls.check_here(variables)


def test_a_node_whose_clock_is_wrong(place):
    now = dt.datetime.now(dt.timezone.utc)
    future = tls.from_credentials(issue(start=now + dt.timedelta(days=400)))
    with pytest.raises(InputError, match="this machine's clock says"):
        tls.check_here(tls.worker_variables(future, place.private))


def test_without_tls_there_is_nothing_to_check():
    tls.check_here({})
