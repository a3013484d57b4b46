"""What is answered, for the description of the API: schemas of JSON by name."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Json, **optional: Any) -> Json:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "integer"}
_YES_NO: Json = {"type": "boolean"}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_HEAD: Json = {"id": _TEXT, "object": _TEXT, "created": _NUMBER, "model": _TEXT}
_ENDS: Json = {"type": "string", "enum": ["stop", "length", "tool_calls"]}
ANSWERS: Json = {
    "Error": _object(
        {"error": _object({"message": _TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT})}
    ),
    "Receipt": _object(
        {
            "prefix": _TEXT_OR_NULL,
            "version": _TEXT_OR_NULL,
            "digest": _TEXT_OR_NULL,
            "length": _NUMBER,
            "arm": _TEXT_OR_NULL,
            "base": _TEXT,
            "release_seq": _NUMBER,
            "fallback": {"type": ["object", "null"]},
        }
    ),
    "Usage": _object(
        {
            "prompt_tokens": _NUMBER,
            "completion_tokens": _NUMBER,
            "total_tokens": _NUMBER,
            "prompt_tokens_details": _object({"cached_tokens": _NUMBER}),
        }
    ),
    "ChatAnswer": _object(
        {
            **_HEAD,
            "choices": _list(
                _object(
                    {
                        "index": _NUMBER,
                        "message": _object({"role": _TEXT, "content": _TEXT_OR_NULL}),
                        "finish_reason": _ENDS,
                        "logprobs": {"type": ["object", "null"]},
                    }
                )
            ),
            "usage": ref("Usage"),
            "foreword": ref("Receipt"),
        }
    ),
    "TextAnswer": _object(
        {
            **_HEAD,
            "choices": _list(
                _object(
                    {
                        "index": _NUMBER,
                        "text": _TEXT,
                        "finish_reason": _ENDS,
                        "logprobs": {"type": ["object", "null"]},
                    }
                )
            ),
            "usage": ref("Usage"),
            "foreword": ref("Receipt"),
        }
    ),
    "Model": _object(
        {
            "id": _TEXT,
            "object": _TEXT,
            "created": _NUMBER,
            "owned_by": _TEXT,
            "root": _TEXT,
            "parent": _TEXT_OR_NULL,
        },
        foreword=ref("Receipt"),
    ),
    "ModelList": _object({"object": _TEXT, "data": _list(ref("Model"))}),
    "Event": {
        **_object({"data": _TEXT}, event=_TEXT),
        "description": "One of many. `data` is a piece of the answer as JSON, and at the end [DONE]; "
        "of an event `error` it is an Error.",
    },
    "Live": _object({"live": _YES_NO}),
    "Ready": _object({"ready": _YES_NO, "draining": _YES_NO, "missing": _list(_TEXT)}),
    "Document": {"type": "object"},
}
