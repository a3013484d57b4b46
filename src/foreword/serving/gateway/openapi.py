"""GET /openapi.json: what exactly is accepted here, and what is answered. From the models that read it."""

from __future__ import annotations

from importlib.metadata import version

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from foreword.serving.gateway.openapi_answers import ANSWERS, Json, ref
from foreword.serving.wire.chat_body import ChatBody
from foreword.serving.wire.completion_body import CompletionBody

_BODIES: tuple[type[BaseModel], ...] = (ChatBody, CompletionBody)
_JSON, _EVENTS = "application/json", "text/event-stream"
_REFUSALS = {
    400: "The request is wrong: `param` names the field, the message says what was expected.",
    401: "No key, or one that is not believed, or not for this.",
    404: "There is no such model, or it is not this key's: both look the same.",
    408: "The body did not come in time.",
    409: "The version that was named cannot be used any more.",
    413: "The body is too large.",
    415: "The body is not application/json in UTF-8, or it is encoded.",
    429: "Its tenant's or key's quota is used up; Retry-After says for how long.",
    500: "Something broke here. Nothing about it gets out; the request id finds it in the log.",
    503: "The prefix or the engine cannot be had now; nothing else was answered in its place.",
    504: "It was not finished in the time it had.",
}
_EXAMPLES: dict[str, Json] = {
    "ChatBody": {"model": "base", "messages": [{"role": "user", "content": "Hello"}]},
    "CompletionBody": {"model": "base", "prompt": "Hello", "max_tokens": 8},
}
_LINK: Json = {
    "operationId": "model",
    "parameters": {"model": "$response.body#/model"},
    "description": "What answered, by the name that a request may pin it with.",
}
_NO_BODY = (400, 401, 404, 429, 500, 503)
_METHOD = "The path is there, but not with this method."


def document() -> Json:
    """The OpenAPI 3.1 document of the public port."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Foreword",
            "version": version("foreword"),
            "description": "OpenAI's API for many prefixes on one frozen model. Every answer says "
            "which version of which prefix made it.",
        },
        "security": [{"key": []}],
        "paths": {
            "/v1/chat/completions": {"post": _answering("chat", "ChatBody", "ChatAnswer")},
            "/v1/completions": {"post": _answering("text", "CompletionBody", "TextAnswer")},
            "/v1/models": {"get": _get("models", "What this key may use.", "ModelList")},
            "/v1/models/{model}": {"get": _one_model()},
            "/openapi.json": {"get": _get("openapi", "This document.", "Document")},
            "/livez": {"get": _probe("live", "Whether the process works.", "Live")},
            "/readyz": {"get": _probe("ready", "Whether to send requests here.", "Ready")},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {**_bodies(), **ANSWERS},
            "responses": {str(status): _refusal(said) for status, said in _REFUSALS.items()},
        },
    }


def _bodies() -> Json:
    _, schema = models_json_schema(
        [(body, "validation") for body in _BODIES], ref_template="#/components/schemas/{model}"
    )
    found: Json = schema["$defs"]
    return found


def _answering(name: str, body: str, answer: str) -> Json:
    told = {"description": "Which version answered.", "schema": {"type": "string"}}
    return {
        "operationId": name,
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": ref(body), "example": _EXAMPLES[body]}},
        },
        "parameters": [
            {
                "name": "X-Foreword-User",
                "in": "header",
                "description": "Whose request it is, if the body has no `user`: the same user gets "
                "the same version while a canary runs. Its first 256 characters count.",
                "schema": {"type": "string"},
            }
        ],
        "responses": {
            "200": {
                "description": "The answer, or with `stream` its pieces as events.",
                "headers": {
                    f"X-Foreword-{part}": told
                    for part in ("Prefix", "Version", "Digest", "Arm", "Base", "Fallback")
                },
                "content": {
                    _JSON: {"schema": ref(answer)},
                    _EVENTS: {"schema": ref("Event")},
                },
                "links": {"model": _LINK},
            },
            **_refusals(*_REFUSALS),
        },
    }


def _get(name: str, said: str, answer: str) -> Json:
    ok = {"description": said, "content": {_JSON: {"schema": ref(answer)}}}
    return {"operationId": name, "responses": {"200": ok, **_refusals(*_NO_BODY)}}


def _one_model() -> Json:
    found = _get("model", "One model, and what a request that names it would get now.", "Model")
    path = {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "base, tenant/prefix, tenant/prefix@1.2.3, tenant/prefix@alias or a digest; "
        "its slashes may stand as they are.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 256},
    }
    return {**found, "parameters": [path]}


def _probe(name: str, said: str, answer: str) -> Json:
    content = {_JSON: {"schema": ref(answer)}}
    return {
        "operationId": name,
        "security": [],
        "responses": {
            "200": {"description": f"{said} Yes.", "content": content},
            "503": {"description": f"{said} No.", "content": content},
            **_refusals(400),
        },
    }


def _refusal(said: str) -> Json:
    after = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
    return {
        "description": said,
        "headers": {"Retry-After": after},
        "content": {_JSON: {"schema": ref("Error")}},
    }


def _refusals(*statuses: int) -> Json:
    told = {str(each): {"$ref": f"#/components/responses/{each}"} for each in statuses}
    return {**told, "405": _refusal(_METHOD)}
