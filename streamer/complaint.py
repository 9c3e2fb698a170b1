"""A failed validation of settings as one sentence: the key, what is wrong, and the nearest key that exists."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def complaint(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for all that is wrong with what ``model`` was given. Values never appear in it: they may be secret."""
    errors = error.errors(include_url=False, include_input=False)
    places = [details["loc"] for details in errors]
    # A list whose items are wrong is also reported as too short: only the item is the user's to mend.
    kept = [e for e in errors if not any(len(p) > len(e["loc"]) and p[: len(e["loc"])] == e["loc"] for p in places)]
    return "; ".join(_sentence(details, model) for details in kept or errors)


def _sentence(details: ErrorDetails, model: type[BaseModel]) -> str:
    location = details["loc"]
    key = dotted(location)
    if details["type"] == "extra_forbidden":
        return f"unknown key `{key}`; {_nearest(str(location[-1]), section_at(model, location[:-1]))}"
    if details["type"] == "missing":
        return f"the key `{key}` is missing"
    if details["type"] == "string_pattern_mismatch":
        return f"key `{key}`: not of the form wanted. {_description(location, model)}"
    message = details["msg"].removeprefix("Value error, ")
    return f"key `{key}`: {message[:1].lower()}{message[1:]}" if key else message


def _nearest(key: str, section: type[BaseModel] | None) -> str:
    known = list(section.model_fields) if section is not None else []
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(key.lower(), list(by_lower), n=1, cutoff=0.5)
    return f"did you mean `{by_lower[close[0]]}`?" if close else f"known keys here: {', '.join(known)}"


def _description(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """The description of the field at ``location``, or at the list that holds it."""
    while location and isinstance(location[-1], int):
        location = location[:-1]
    section = section_at(model, location[:-1])
    field = section.model_fields.get(str(location[-1])) if section is not None else None
    return (field.description or "") if field is not None else ""


def dotted(location: tuple[int | str, ...]) -> str:
    """``("seedlink", 0, "port")`` as ``seedlink[0].port``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def section_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model whose keys live at ``location``, or None where there is none."""
    section: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int):
            continue
        field = section.model_fields.get(part) if section is not None else None
        section = _model_in(field.annotation) if field is not None else None
    return section


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The settings model inside ``X``, ``tuple[X, ...]`` or ``X | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model_in(argument))), None)
