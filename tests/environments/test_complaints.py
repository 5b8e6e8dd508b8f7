"""What the managers print, as it was seen (uv 0.13, pip 23) or is documented (conda, mamba, pixi)."""

from __future__ import annotations

import pytest

from mlipcluster.environments.complaints import explain, last_words, missing

UV_GONE = """error: No solution found when resolving dependencies
  cause: Because no-such-thing was not found in the package registry and you require no-such-thing==3.1, we can conclude
"""
UV_OLDER_GONE = """  × No solution found when resolving dependencies:
  ╰─▶ Because no-such-thing was not found in the package registry and you require no-such-thing==3.1, we can conclude
"""
UV_VERSION = """error: No solution found when resolving dependencies
  cause: Because there is no version of numpy==99.1 and you require numpy==99.1, we can conclude that your requirements
"""
UV_OFFLINE = """error: No solution found when resolving dependencies
  cause: Because numpy was not found in the cache and you require numpy==99.1, we can conclude that

hint: Packages were unavailable because the network was disabled. When the network is disabled, registry packages may
"""
UV_DEAD = """error: Failed to fetch: https://nowhere.invalid/simple/numpy/
  cause: error sending request for url (https://nowhere.invalid/simple/numpy/)
  cause: client error (Connect)
  cause: dns error
"""
UV_HASH = """error: Failed to download `numpy==2.4.6`
  cause: Hash mismatch for `numpy==2.4.6`

         Expected:
           sha256:0000
"""
PIP_GONE = """Looking in links: /wheels
ERROR: Could not find a version that satisfies the requirement no-such-thing==3.1 (from versions: none)
ERROR: No matching distribution found for no-such-thing==3.1
"""
PIP_DEAD = """Collecting tiny@ https://nowhere.invalid/tiny-1.0-py3-none-any.whl (from -r url.txt (line 1))
ERROR: Could not install packages due to an OSError: HTTPSConnectionPool(host='nowhere.invalid', port=443): Max \
retries exceeded with url: /tiny-1.0-py3-none-any.whl (Caused by NewConnectionError('<urllib3.connection.\
HTTPSConnection object at 0x7f>: Failed to establish a new connection: [Errno -2] Name or service not known'))
"""
PIP_HASH = """Processing /wheels/numpy-2.4.6-cp311-cp311-linux_x86_64.whl (from -r hash.txt (line 1))
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package versions,
    numpy==2.4.6 from file:///wheels/numpy-2.4.6-cp311-cp311-linux_x86_64.whl#sha256=89cd (from -r hash.txt (line 1)):
        Expected sha256 0000
"""
CONDA_GONE = """
PackagesNotFoundError: The following packages are not available from current channels:

  - no-such-thing=3.1
  - other=2

Current channels:

  - https://conda.anaconda.org/conda-forge/linux-64
"""
CONDA_OLDER_GONE = """Solving environment: failed

ResolvePackageNotFound:
  - no-such-thing=3.1=h1
"""
CONDA_FILE_GONE = (
    "CondaHTTPError: HTTP 404 NOT FOUND for url <https://example.org/linux-64/tiny-1.0-0.conda>\nElapsed: 1\n"
)
CONDA_DEAD = "CondaHTTPError: HTTP 000 CONNECTION FAILED for url <https://example.org/linux-64/tiny-1.0-0.conda>\n"
CONDA_HASH = (
    "ChecksumMismatchError: Conda detected a mismatch between the expected content and downloaded content\n"
    "for url 'https://example.org/linux-64/tiny-1.0-0.conda'.\n"
)
MAMBA_GONE = """error    libmamba Could not solve for environment specs
    The following package could not be installed
    └─ no-such-thing =3.1 * does not exist (perhaps a typo or a missing channel).
critical libmamba Could not solve for environment specs
"""
MAMBA_OLDER_GONE = "Encountered problems while solving:\n  - nothing provides requested no-such-thing 3.1**\n"
PIXI_GONE = """Error:   × failed to solve the conda requirements of 'default' 'linux-64'
  ╰─▶ Cannot solve the request because of: No candidates were found for no-such-thing ==3.1.
"""
PIXI_DEAD = """Error:   × failed to fetch tiny-1.0-0.conda
  ╰─▶ error sending request for url (https://example.org/linux-64/tiny-1.0-0.conda)
"""

GONE, NETWORK, HASH = "is not to be had", "there is no way to the package index", "is not the file that was recorded"


@pytest.mark.parametrize(
    ("tail", "package", "why"),
    [
        (UV_GONE, "no-such-thing", GONE),
        (UV_OLDER_GONE, "no-such-thing", GONE),
        (UV_VERSION, "numpy==99.1", GONE),
        (UV_OFFLINE, "numpy", NETWORK),
        (UV_DEAD, "numpy", NETWORK),
        (UV_HASH, "numpy==2.4.6", HASH),
        (PIP_GONE, "no-such-thing==3.1", GONE),
        (PIP_DEAD, "tiny-1.0-py3-none-any.whl", NETWORK),
        (PIP_HASH, "numpy==2.4.6", HASH),
        (CONDA_GONE, "no-such-thing=3.1, other=2", GONE),
        (CONDA_OLDER_GONE, "no-such-thing=3.1=h1", GONE),
        (CONDA_FILE_GONE, "tiny-1.0-0.conda", GONE),
        (CONDA_DEAD, "tiny-1.0-0.conda", NETWORK),
        (CONDA_HASH, "https://example.org/linux-64/tiny-1.0-0.conda", HASH),
        (MAMBA_GONE, "no-such-thing =3.1 *", GONE),
        (MAMBA_OLDER_GONE, "no-such-thing 3.1**", GONE),
        (PIXI_GONE, "no-such-thing ==3.1", GONE),
        (PIXI_DEAD, "tiny-1.0-0.conda", NETWORK),
    ],
)
def test_what_a_manager_says(tail, package, why):
    for text in (tail, tail.replace("error", "\x1b[1;31merror\x1b[0m"), f"Resolved 3 packages\n{tail}"):
        said = explain(text)
        assert said.startswith(package + " "), said
        assert why in said


@pytest.mark.parametrize(
    "tail",
    [
        "error: failed to write to file `/x`: No space left on device (os error 28)",
        "OSError: [Errno 28] No space left on device",
        "NoSpaceLeftError: No space left on devices.",
        "Disk quota exceeded",
    ],
)
def test_a_full_disk(tail):
    assert explain(f"{UV_GONE}{tail}\n").startswith("the disk is full; make room")


@pytest.mark.parametrize("tail", ["", "Installed 3 packages", "Traceback (most recent call last):\nKeyError: 'x'"])
def test_nothing_is_made_up(tail):
    assert explain(tail) == ""
    assert missing(tail) == []


def test_last_words():
    assert last_words("a\n\n b \nc\n", 2) == " b\nc"


def test_long_output_takes_no_long_time():
    """Patterns that look at text of strangers must not blow up."""
    for text in ("no-such " * 500, "=" * 4000, "- a\n" * 1000, "PackagesNotFoundError\n" + "\n " * 2000, "a==1" * 1000):
        assert explain(text) is not None
