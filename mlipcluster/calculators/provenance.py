"""What a calculator's process said of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Weight:
    """A file that the calculator read its parameters, or its own code, from.

    Attributes
    ----------
    path : str
        Where it lies.
    size : int
        Bytes, when it was opened.
    sha256 : str
        Hash of its bytes; empty if the file was changed or removed before it could be read again.
    """

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """What a calculator's process said of itself. Survives a round trip through JSON.

    Attributes
    ----------
    python, executable, prefix : str
        Version of its Python, the interpreter, and the environment's folder.
    versions : mapping
        Versions of the packages that it has imported.
    implemented_properties : tuple of str
        What the calculator says it can compute.
    weights : tuple of Weight
        Files that it read its parameters from, so far.
    code : tuple of Weight
        Modules that it imported from outside the standard library and the installed packages: they belong to no
        environment.
    scratch : tuple of str
        Files that were among the weights until the process wrote something else into them.
    threads : mapping
        Thread variables of its environment, and torch's own count.
    devices : tuple of str
        Where it computes.
    build_seconds : float
        Seconds that importing and building the calculator took; plays no part in comparisons.
    """

    python: str
    executable: str
    prefix: str
    versions: Mapping[str, str] = field(default_factory=dict)
    implemented_properties: tuple[str, ...] = ()
    weights: tuple[Weight, ...] = ()
    code: tuple[Weight, ...] = ()
    scratch: tuple[str, ...] = ()
    threads: Mapping[str, Any] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    build_seconds: float = field(default=0.0, compare=False)

    def to_json(self, timing: bool = True) -> dict[str, Any]:
        """This provenance as a JSON object; without *timing*, what another start of the process would say again."""
        stated = asdict(self)
        if not timing:
            del stated["build_seconds"]
        stated["weights"] = [asdict(weight) for weight in self.weights]
        stated["code"] = [asdict(module) for module in self.code]
        for name in ("implemented_properties", "scratch", "devices"):
            stated[name] = list(getattr(self, name))
        return stated

    @classmethod
    def from_json(cls, stated: Mapping[str, Any]) -> Provenance:
        """The provenance that :meth:`to_json` described."""
        return cls(
            **{
                **stated,
                "weights": tuple(Weight(**weight) for weight in stated.get("weights", ())),
                "code": tuple(Weight(**module) for module in stated.get("code", ())),
                **{name: tuple(stated.get(name, ())) for name in ("implemented_properties", "scratch", "devices")},
            }
        )
