from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

import mlipcluster


def test_loading_the_command_line_loads_nothing_heavy():
    code = "import sys, mlipcluster.cli.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "ase", "dask", "distributed", "pandas", "git", "cloudpickle"} & set(loaded)


@pytest.mark.parametrize("command", [[], ["run"], ["reproduce"], ["show"], ["quickstart"], ["env"]])
def test_every_command_explains_itself(cli, command):
    result = cli(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: mlipcluster" in result.stdout


def test_the_version(cli):
    assert cli("--version").stdout == f"mlipcluster {mlipcluster.__version__}\n"


def test_a_command_that_is_not_there(cli):
    result = cli("relax")
    assert result.exit_code == 2
    assert "relax" in result.stderr


def test_python_dash_m_is_the_same_program():
    result = subprocess.run(
        [sys.executable, "-m", "mlipcluster", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"mlipcluster {mlipcluster.__version__}\n"


def test_ctrl_c_is_told_and_has_its_own_status(tmp_path):
    flag = tmp_path / "started"
    protocol = tmp_path / "sleeper.py"
    protocol.write_text(
        f"import time\ndef sleeper(atoms):\n    open({str(flag)!r}, 'w').close()\n    time.sleep(600)\n"
    )
    (tmp_path / "H.xyz").write_text("1\n\nH 0 0 0\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlipcluster", "run", f"{protocol}:sleeper", "H.xyz", "-j", "1", "-o", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not flag.exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "mlipcluster: interrupted" in errors
    assert "Traceback" not in errors
