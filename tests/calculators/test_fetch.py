from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import threading
from urllib.request import getproxies

import numpy as np
import pytest

from mlipcluster.calculators.fetch import Fetched, fetch, share
from mlipcluster.calculators.provenance import Weight
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.stored import known_models, model_of, models_of
from mlipcluster.errors import CalculatorStartError, InputError

DOWNLOADS = """
def setup(model, device="cuda"):
    import os
    import urllib.request

    import numpy as np
    from ase.calculators.emt import EMT

    file = os.path.join(os.environ["XDG_CACHE_HOME"], "models", f"{model or 'default'}.npy")
    if not os.path.exists(file) or model == "forgetful":
        os.makedirs(os.path.dirname(file), exist_ok=True)
        urllib.request.urlretrieve(f"ADDRESS/{model}.npy", file)
    calculator = EMT()
    calculator.scale = float(np.load(file)[0])
    return calculator
"""


@pytest.fixture
def served(monkeypatch):
    """A server of weights: its address, and the paths that it was asked for."""
    for name in (*(f"{kind}_proxy" for kind in getproxies()), "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    asked = []

    class Weights(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(404 if "missing" in self.path else 200)
            self.end_headers()
            self.wfile.write(b"" if "missing" in self.path else weights(2.0))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Weights) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def weights(value: float) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([value]))
    return file.getvalue()


@pytest.fixture
def store(make_root, served):
    return make_root("the 'root'", net_env=DOWNLOADS.replace("ADDRESS", served[0]))


def test_weights_arrive_in_the_root_and_are_recorded(store, served, cu):
    data = weights(2.0)
    expected = Weight("cache/models/small.npy", len(data), hashlib.sha256(data).hexdigest())
    assert fetch(store, "net_env", ["small", "net-large"]) == [
        Fetched("net-small", (expected,)),
        Fetched("net-large", (Weight("cache/models/large.npy", expected.size, expected.sha256),)),
    ]
    assert served[1] == ["/small.npy", "/large.npy"]
    kept = json.loads(store.weights_file("net_env").read_text())
    assert kept["schema"] == 1
    assert kept["models"]["net-small"]["weights"] == [vars(expected)]
    assert kept["models"]["net-small"]["build"] == store.current("net_env").digest
    assert [one.model for one in models_of(store, "net_env")] == ["net-large", "net-small"]
    with SocketCalculator("net-small", root=store.root) as calculator:
        cu.calc = calculator
        cu.get_potential_energy()
        assert calculator.provenance().weights == (
            Weight(str(store.root / expected.path), expected.size, expected.sha256),
        )


def test_what_is_there_is_not_fetched_again(store, served):
    first = fetch(store, "net_env", ["small"])
    assert fetch(store, "net_env", ["small"]) == first
    assert served[1] == ["/small.npy"]


def test_a_model_that_fetches_every_time_is_no_model_of_a_root(store, served):
    with pytest.raises(
        CalculatorStartError, match=r"(?s)'net-forgetful' were fetched, but without a network it does not"
    ):
        fetch(store, "net_env", ["forgetful"])
    assert len(served[1]) == 1
    assert known_models(store, "net_env") == {}


def test_weights_that_do_not_exist_are_told_and_the_models_before_are_kept(store, served):
    with pytest.raises(CalculatorStartError, match="HTTP Error 404"):
        fetch(store, "net_env", ["small", "missing"])
    assert list(known_models(store, "net_env")) == ["net-small"]


def test_before_anything_is_fetched_all_is_looked_at(store, served):
    with pytest.raises(InputError, match="there are no weights '/nowhere"):
        fetch(store, "net_env", ["small", "/nowhere.pt"])
    with pytest.raises(InputError, match="no environment 'mace_env' is registered"):
        fetch(store, "mace_env", ["small"])
    store.layout.current_file("net_env").unlink()
    with pytest.raises(InputError, match="`mlipcluster env build net_env --root"):
        fetch(store, "net_env", ["small"])
    assert served[1] == []


def test_a_cache_that_cannot_be_written_is_named(store, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"/cache.? cannot be written by you; ask its owner, "):
        fetch(store, "net_env", ["small"])


def test_who_may_read_the_root_may_read_what_was_fetched(tmp_path):
    (tmp_path / "models").mkdir(mode=0o700)
    (tmp_path / "models" / "a.pt").touch(mode=0o600)
    (tmp_path / "link").symlink_to("/etc/passwd")
    tmp_path.chmod(0o2775)
    share(tmp_path)
    assert oct((tmp_path / "models").stat().st_mode)[-4:] == "2775"
    assert oct((tmp_path / "models" / "a.pt").stat().st_mode)[-4:] == "0664"
    tmp_path.chmod(0o700)


def test_arguments_for_tests_are_those_that_the_source_gives(make_root):
    text = "CHECKPOINTS = {'uma-s': 'x'}\nVERIFY_KWARGS = {'uma-s': {'task': 'omat'}}\ndef setup(model, task): pass\n"
    store = make_root(uma=text)
    (one,) = models_of(store, "uma")
    assert one == model_of(store, "uma", "uma-s")
    assert (dict(one.test_spec.kwargs), dict(one.spec.kwargs)) == ({"task": "omat"}, {})
