from __future__ import annotations

import dask
from distributed import Client

from mlipcluster.deploy import calm
from mlipcluster.deploy.local import local_cluster


def test_dask_knows_every_setting():
    import distributed  # noqa: F401 - brings its defaults

    for name in calm.SETTINGS:
        assert dask.config.get(name) is not None


def test_workers_and_scheduler_keep_to_them():
    before = dask.config.get("distributed.admin.tick.interval")
    with local_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=180)
        told = client.run(lambda: [dask.config.get(name) for name in calm.SETTINGS])
        assert list(told.values()) == [list(calm.SETTINGS.values())]
        assert cluster.scheduler.periodic_callbacks["tick"].callback_time == 1000
    assert dask.config.get("distributed.admin.tick.interval") == before


def test_a_user_s_own_setting_goes_first(monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED", "True")
    with local_cluster(1) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=180)
        told = client.run(lambda: dask.config.get("distributed.worker.profile.enabled"))
        assert list(told.values()) == [True]
