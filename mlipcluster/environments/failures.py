"""What it means when a program that installs packages ends with an error."""

from __future__ import annotations

import re

#: What programs say, and what that means for who reads it; ``{0}`` is what the group matched.
_MEANINGS = (
    (
        r"No space left on device|os error 28\b|Disk quota exceeded|os error 122\b",
        "the disk is full; make room, then build again",
    ),
    (
        r"network was disabled",
        "the network is switched off, and the cache does not have all; switch it on (UV_OFFLINE), then build again",
    ),
    (
        r"Because (\S+) was not found in the (?:package registry|cache|provided)",
        "the requirement {0} does not exist in the package index; correct it in the source",
    ),
    (
        r"Because there (?:is|are) no versions? of (.+?) and",
        "there is no {0}; correct that requirement in the source",
    ),
    (
        r"Because only (\S+?)[=<>!~ ].*? (?:is|are) available",
        "there is no version of {0} as it is required; correct that requirement in the source",
    ),
    (
        r"PackagesNotFoundError|ResolvePackageNotFound",
        "a requirement does not exist in the channels; correct it in the source",
    ),
    (
        (
            r"Network connectivity is disabled|Could not connect|error sending request|dns error|Failed to fetch"
            r"|Connection refused|CondaHTTPError|Temporary failure in name resolution"
        ),
        "the network, or the package index, cannot be reached; see to that, then build again",
    ),
    (
        r"Hash mismatch for `?([^`\n]+)`?",
        "what was fetched for {0} is not what was locked; build again with --upgrade",
    ),
    (
        r"[Nn]o solution found|LibMambaUnsatisfiableError|UnsatisfiableError",
        "the requirements contradict each other; relax one in the source",
    ),
    (
        r"(?m)Failed to build `?([^`\n]+?)`?$",
        "{0} could not be built from its source; ask for a version that has a wheel",
    ),
)


def meaning(words: str) -> str:
    """What it means that a program ended with these *words*, with the remedy; empty where that is not known."""
    words = re.sub(r"\s+", " ", words) + "\n" + words  # uv breaks long lines
    for pattern, means in _MEANINGS:
        if match := re.search(pattern, words):
            return means.format(repr(match.group(1)) if match.groups() else "")
    return ""
