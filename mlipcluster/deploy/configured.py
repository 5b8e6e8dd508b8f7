"""Deployments out of plain values, as settings files and command lines have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mlipcluster.deploy.deployment import Deployment
from mlipcluster.deploy.table import deployment_class
from mlipcluster.errors import InputError


def deployment(name: str, told: Mapping[str, tuple[Any, str]]) -> Deployment | None:
    """The deployment of a cluster.

    Parameters
    ----------
    name : str
        The cluster's, for messages.
    told : mapping
        ``type`` and fields of that kind: the value of each, and who says so. Empty: there is no deployment.

    Raises
    ------
    InputError
        The type or a field is unknown, or cannot be meant; the message says who says so, and what is known.
    """
    if not told:
        return None
    kind, origin = told["type"]
    try:
        chosen = deployment_class(kind)
    except InputError as error:
        raise InputError(f"{origin}: clusters.{name}.type: {error}") from None
    values = {key: value for key, (value, _) in told.items() if key != "type"}
    known = field_names(chosen)
    for key in values:
        if key not in known:
            raise InputError(
                f"{told[key][1]}: clusters.{name}.{key}: nobody reads {key!r:.80} of type {kind!r}; known: "
                f"{', '.join(known)}. Correct its name or remove it."
            )
    try:
        return chosen(**values)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{_origin(str(error), told)}: clusters.{name}: {error}") from error


def field_names(chosen: type[Deployment]) -> list[str]:
    """The fields of a kind of deployment."""
    return [one.name for one in fields(chosen)]  # type: ignore[arg-type] # all are dataclasses


def _origin(message: str, told: Mapping[str, tuple[Any, str]]) -> str:
    """Who says what the message is about: it begins with the field, or names it later."""
    named = [key for key in re.findall(r"\b(\w+)=", message) if key in told]
    return told[named[0] if named else "type"][1]
