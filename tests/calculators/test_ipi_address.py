from __future__ import annotations

import pytest

from mlipcluster.calculators.ipi_address import IPIAddress
from mlipcluster.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:driver", IPIAddress(unixsocket="driver")),
        ("unix:a:1", IPIAddress(unixsocket="a:1")),
        ("localhost:31415", IPIAddress(host="localhost", port=31415)),
        ("node7.example.org:65535", IPIAddress(host="node7.example.org", port=65535)),
        ("[::1]:31415", IPIAddress(host="::1", port=31415)),
    ],
)
def test_means_an_address(text, expected):
    assert IPIAddress.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "unix:", "unix:/tmp/ipi_driver", "unix:a\0b", "driver", ":31415", "localhost:", "localhost:0", "localhost:-1",
     "localhost:65536", "localhost:1000000", "localhost:²", "tls://localhost:31415", "localhost:31415/"],
)  # fmt: skip
def test_means_none(text):
    with pytest.raises(InputError, match=r"give|shorter"):
        IPIAddress.parse(text)


def test_the_longest_name_that_the_kernel_takes():
    longest = "n" * (107 - len("/tmp/ipi_"))
    with IPIAddress(longest).bound(), pytest.raises(InputError, match=f"remove /tmp/ipi_{longest}"):
        IPIAddress(longest).bound().__enter__()
    with pytest.raises(InputError, match=r"108 bytes.*shorter name"):
        IPIAddress(longest + "n")
    with pytest.raises(InputError, match="108 bytes"):
        IPIAddress("é" + longest[1:])


@pytest.mark.parametrize("given", [{}, {"unixsocket": "a", "port": 1}])
def test_both_or_neither(given):
    with pytest.raises(InputError, match=r"both|neither"):
        IPIAddress(**given)


@pytest.mark.parametrize("port", [-1, 65536, 1.5, True, "31415"])
def test_no_port(port):
    with pytest.raises(InputError, match="whole number"):
        IPIAddress(port=port)
