"""What a manager's last words mean: which package is not to be had, and whether it is the network's fault.

The patterns are those of uv 0.13 and pip 23 as they were seen, and of conda, mamba and pixi as they are documented.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = r"[A-Za-z0-9][\w.-]*"
_PACKAGE = rf"{_NAME}(?:\[[^\]]*\])?(?:\s*[=<>!~]=?[^\s,;`'\")]+)*"
_GONE = (  # each with the package
    rf"[Bb]ecause ({_NAME}) was not found in the (?:package registry|provided package locations|cache)",
    rf"[Bb]ecause there (?:is|are) no versions? of ({_PACKAGE})",
    rf"[Bb]ecause ({_PACKAGE}) (?:has no|could not be|needs to be|was not) [^,]*?(?:wheel|downloaded|found|fetched)",
    rf"(?:Failed to (?:download|fetch|prepare|build)(?: and build)?:?) `({_PACKAGE})",
    rf"Package `({_NAME})` (?:was not found|can't be installed)",
    rf"Distribution `({_PACKAGE})[^`]*` can't be installed",
    rf"No matching distribution found for ({_PACKAGE})",
    rf"Could not find a version that satisfies the requirement ({_PACKAGE})",
    rf"Failed building wheel for ({_PACKAGE})",
    rf"Failed to build installable wheels for some pyproject\.toml based projects \(({_PACKAGE})",
    rf"[Nn]o candidates were found for ({_NAME}(?: [^\s,]+)?)",
    rf"nothing provides (?:requested )?({_NAME}(?: [^\s,]+)?)",
    rf"[└├]─ ({_NAME}(?: [^\s,]+){{0,2}}) does not exist",
    rf"failed to (?:fetch|download|link|install) ({_NAME})",
)
_LISTED = r"(?:PackagesNotFound(?:InChannels)?Error|ResolvePackageNotFound)[^\n]*\n\s*((?:[ \t]*- [^\n]+\n?)+)"
_ADDRESSES = (  # where only the address of a file or of an index's page is named
    r"Failed to fetch:? `?(https?://[^\s`]+)",
    r"Max retries exceeded with url: (\S+)",
    r"HTTP (?:000|40[0-9]|410|5\d\d) [^\n<]*<([^\s>]+)>",
    r"for url \((https?://[^\s)]+)\)",
)
_HASH = (
    rf"Hash mismatch for `({_PACKAGE})",
    rf"DO NOT MATCH THE HASHES[\s\S]*?^\s+({_PACKAGE}) from",
    r"mismatch between the expected content and downloaded content\s+for url '([^']+)'",
)
_NETWORK = (
    r"dns error|failed to lookup address|name resolution|Name or service not known|getaddrinfo|No address associated|"
    r"Network connectivity is disabled|network was disabled|offline|NewConnectionError|Connection refused|"
    r"Connection (?:to \S+ )?timed out|ConnectTimeout|ReadTimeout|operation timed out|Network is unreachable|"
    r"CONNECTION FAILED|[Cc]ould not (?:connect|resolve)|tcp connect error|error sending request|Max retries exceeded|"
    r"OfflineError|ProxyError"
)  # fmt: skip
_FULL = r"No space left on device|os error 28|Disk quota exceeded|os error 122|NoSpaceLeftError|ENOSPC"


def explain(tail: str) -> str:
    """One clause that says what stood in the way and what to do; empty where nothing is known about it.

    Parameters
    ----------
    tail
        The last of what a manager printed.
    """
    tail = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", tail)
    if re.search(_FULL, tail):
        return "the disk is full; make room, there or in the manager's cache"
    packages = ", ".join(missing(tail)[:10])
    if re.search(_NETWORK, tail):
        what = f"{packages} could not be fetched" if packages else "something could not be fetched"
        return f"{what}: there is no way to the package index from here; try where there is a network, or a mirror"
    wrong = _first(_HASH, tail)
    if wrong:
        return f"{wrong} is not the file that was recorded (its hash differs); get it from where it was, or a mirror"
    if packages:
        return (
            f"{packages} is not to be had: gone from the index, of another index (see the lock file), or not for this "
            "Python and platform; bring it back by an index or a folder that has it"
        )
    return ""


def cause(tail: str) -> str:
    """What stood in the way: ``"disk"``, ``"network"``, ``"hash"``, ``"package"``; empty where it is none of these."""
    for name, found in (
        ("disk", re.search(_FULL, tail)),
        ("network", re.search(_NETWORK, tail)),
        ("hash", _first(_HASH, tail)),
        ("package", missing(tail)),
    ):
        if found:
            return name
    return ""


def missing(tail: str) -> list[str]:
    """The packages that a manager says it could not get, as it calls them."""
    found = [match.group(1) for pattern in _GONE for match in re.finditer(pattern, tail)]
    for match in re.finditer(_LISTED, tail):
        found += re.findall(r"(?m)^\s*- (.+?)\s*$", match.group(1))
    if not found:
        addresses = [match.group(1) for pattern in _ADDRESSES for match in re.finditer(pattern, tail)]
        found = [address.partition("#")[0].rstrip("/").rpartition("/")[2] for address in addresses]
    return list(dict.fromkeys(name.rstrip(".:,") for name in found))


def last_words(tail: str, count: int = 8) -> str:
    """The last few lines that say something."""
    lines = [line.rstrip() for line in tail.splitlines() if line.strip()]
    return "\n".join(lines[-count:])


def _first(patterns: Iterable[str], text: str) -> str:
    for pattern in patterns:
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            return match.group(1)
    return ""
