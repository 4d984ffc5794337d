"""Records of values that are known to be valid: on the decision tick, validation would cost as much as the decision."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)
# A frozen model refuses assignments; these are the slots behind its four attributes.
_set_fields, _set_names, _set_extra, _set_private = (
    vars(BaseModel)[name].__set__
    for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)
_names: dict[type[BaseModel], set[str]] = {}


def build(model: type[M], **fields: Any) -> M:
    """``model(**fields)`` without validation, conversion or defaults: every field must be given, in its final type.

    A third of the time, which pydantic's own ``model_construct`` does not save. Only for values from validated
    records and from counting.
    """
    built = object.__new__(model)
    names = _names.get(model)
    if names is None:
        names = _names[model] = set(model.model_fields)
    _set_fields(built, fields)
    _set_names(built, names)  # shared: copies of a model copy it
    _set_extra(built, None)
    _set_private(built, None)
    return built
