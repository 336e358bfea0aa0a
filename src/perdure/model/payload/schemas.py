"""JSON Schema of a type, for display and for forms."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.model.payload.reading import adapter_of
from perdure.model.payload.shapes import title
from perdure.model.payload.writing import is_model


def schema_for(expected_type: Any) -> dict[str, Any]:
    if is_model(expected_type):
        return dict(expected_type.model_json_schema())
    try:
        return _composed_schema(expected_type)
    except TypeError:
        adapter = adapter_of(expected_type)
        return dict(adapter.json_schema()) if adapter else {}


def _composed_schema(expected_type: Any) -> dict[str, Any]:
    """msgspec's schema, with the definitions of nested models moved to where its references point."""
    moved: dict[str, Any] = {}

    def model_schema(kind: Any) -> dict[str, Any]:
        if not is_model(kind):
            raise TypeError(f"{title(kind)} has no JSON Schema")
        own: dict[str, Any] = kind.model_json_schema(ref_template=f"#/$defs/{kind.__name__}.{{model}}")
        definitions = own.pop("$defs", {})
        moved.update({f"{kind.__name__}.{name}": schema for name, schema in definitions.items()})
        return own

    schema: dict[str, Any] = msgspec.json.schema(expected_type, schema_hook=model_schema)
    if moved:
        schema["$defs"] = {**schema.get("$defs", {}), **moved}
    return schema
