"""What it means for the source of an environment that the program which builds it ends with an error."""

from __future__ import annotations

import re

from mlipcluster.environments.complaints import cause, missing

#: What managers say of requirements alone, and what that means; ``{0}`` is what the group matched.
_REQUIREMENTS = (
    (
        r"Because only (\S+?)[=<>!~ ].*? (?:is|are) available",
        "there is no version of {0} as it is required; correct that requirement in the source",
    ),
    (
        r"Failed to build `?([^`\n]+?)`?(?:\n|$)",
        "{0} could not be built from its source; ask for a version that has a wheel",
    ),
    (
        r"[Nn]o solution found|Cannot solve the request|LibMambaUnsatisfiableError|UnsatisfiableError",
        "the requirements contradict each other; relax one in the source",
    ),
)
_CAUSES = {
    "disk": "the disk is full; make room, then build again",
    "network": "there is no way to the package index from here, or it is switched off; see to that, then build again",
    "hash": "what was fetched is not what was locked; build again with --upgrade",
    "package": "there is no {0}, for this Python and platform, in the index; correct that requirement in the source",
}


def meaning(words: str) -> str:
    """What it means that a program ended with these *words*, with the remedy; empty where that is not known."""
    words = f"{words}\n{' '.join(words.split())}"  # uv breaks long lines
    found = cause(words)
    if found in ("disk", "network", "hash"):
        return _CAUSES[found]
    for pattern, means in _REQUIREMENTS[:2]:
        if match := re.search(pattern, words):
            return means.format(repr(match.group(1)))
    if found:
        return _CAUSES[found].format(", ".join(map(repr, missing(words)[:5])))
    pattern, means = _REQUIREMENTS[2]
    return means if re.search(pattern, words) else ""
