"""Reading a request: what decisions need to know of it, and what the gateway writes into it.

What a stream is asked for on the gateway's own account goes into most bodies; what is for the gateway alone (`models`,
`service_tier`) is taken out where it stands; `changed` puts in what the waiting room decides in times of need. Everything else
passes as the client's own bytes. Two parsers read each body, this one and the engine's: of several fields of one
name both take the last, whichever way the names are escaped (a test holds them to each other), and what either cannot read is
refused here.
"""

from __future__ import annotations

from enum import Enum

import msgspec
from msgspec import UnsetType

from gateway.errors import InvalidField, InvalidRequest, MalformedJson, NothingIsKept, OperatorField
from gateway.protocol import continuation
from gateway.protocol.chunk import NULL, Fields, is_null, number_of, to_raw
from gateway.protocol.continuation import Plan, Send
from gateway.protocol.endpoint import ENDPOINTS, Api, Endpoint
from gateway.protocol.fields import (
    FOR_THE_GATEWAY,
    HEADS,
    NEEDS_STORE,
    OPERATOR_ONLY,
    Chunked,
    Head,
    ResponsesRequest,
    Streamed,
    StreamOptions,
)


def _decoder(head: type[Head]) -> msgspec.json.Decoder[Head]:
    return msgspec.json.Decoder(head)


class UsageWish(Enum):
    """How much of the engine's counting the client asked to see in its stream."""

    NONE = 0
    FINAL = 1
    EVERY_CHUNK = 2


_NO_WISH = UsageWish.NONE


class Request:
    """A request as read.

    `body` is what the engine gets, `own_body` what the client sent less what is for the gateway alone: `models`, the fall-backs
    that it names, and `service_tier`, the word that it asks for. `prompt` is the raw JSON of all that the model will read. A
    choice has at most `max_tokens`; there are `n` a prompt; `single_choice` is whether there is one in all, `repeatable` whether
    sending it twice does no harm, `plan` how its stream would go on elsewhere, if it could. `named` is the model that its answer
    names, where that is another than `model`.
    """

    __slots__ = (
        "body",
        "endpoint",
        "max_tokens",
        "model",
        "models",
        "n",
        "named",
        "own_body",
        "plan",
        "prompt",
        "repeatable",
        "service_tier",
        "single_choice",
        "stream",
        "wish",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        body: bytes,
        prompt: bytes,
        max_tokens: int | None,
        *,
        own_body: bytes,
        stream: bool = False,
        wish: UsageWish = UsageWish.NONE,
        n: int = 1,
        single_choice: bool = True,
        repeatable: bool = True,
        plan: Plan | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.model = model
        self.body = body
        self.prompt = prompt
        self.max_tokens = max_tokens
        self.own_body = own_body
        self.stream = stream
        self.wish = wish
        self.n = n
        self.single_choice = single_choice
        self.repeatable = repeatable
        self.plan = plan
        self.models: tuple[str, ...] = ()
        self.service_tier: str | None = None
        self.named: str | None = None

    @property
    def again(self) -> Send | None:
        """This request, for when its answer breaks before it has said anything."""
        return Send(self.endpoint.engine_path, self.body) if self.repeatable else None


_decoders = {endpoint.path: _decoder(HEADS[endpoint.api]) for endpoint in ENDPOINTS}
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_COUNTED = b'{"include_usage":true,"continuous_usage_stats":true}'
_LONGEST_DETAIL = 200  # it may quote the client
_LAST_FIELD = b',"stream_options":' + _COUNTED + b"}"
_LAST_FIELDS = b',"return_token_ids":true' + _LAST_FIELD
_ASKED = frozenset({"stream_options", "return_token_ids"})
_ALLOWANCES = {  # where each API says how much output there may be: the first that is given holds, else the last is set
    Api.CHAT: ("max_completion_tokens", "max_tokens"),
    Api.COMPLETIONS: ("max_tokens",),
    Api.RESPONSES: ("max_output_tokens",),
    Api.MESSAGES: ("max_tokens",),
}
_TRUE = msgspec.Raw(b"true")


def read(body: bytes, endpoint: Endpoint) -> Request:
    """Read a request for that endpoint.

    A streaming completion's body asks the engine for its counts on every chunk, because that is how an aborted stream is
    accounted for to the token; `gateway.protocol.usage` cuts them out again where the client did not ask for them.

    Raises:
        MalformedJson: the body is no JSON object.
        InvalidField: a field that is read here has the wrong type or is missing; `param` names it.
        OperatorField, NothingIsKept: a field that may not be sent; `param` names it.
    """
    try:
        head = _decoders[endpoint.path].decode(body)
        for_the_gateway = head.models is not None or head.service_tier is not None
        if for_the_gateway:
            body = _without(body, FOR_THE_GATEWAY)
        request = _completion(head, body, endpoint) if isinstance(head, Chunked) else _other(head, body, endpoint)
        if for_the_gateway:
            request.models, request.service_tier = head.models or (), head.service_tier
        return request
    except msgspec.ValidationError as problem:
        raise _explain(problem) from problem
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise MalformedJson(detail=str(problem)) from problem


def changed(
    request: Request, *, model: str | None = None, most_tokens: int | None = None, service_tier: str | None = None
) -> Request:
    """The request read anew with these in its body: another model, a lower allowance of output, a tier in the engine's words."""
    fields = _fields.decode(request.own_body)
    if model is not None:
        fields["model"] = to_raw(model)
    if most_tokens is not None:
        _allow(most_tokens, fields, request.endpoint.api)
    other = read(msgspec.json.encode(fields), request.endpoint)
    other.models, other.service_tier, other.named = request.models, request.service_tier, request.named
    if service_tier is not None:
        fields["service_tier"] = to_raw(service_tier)
        other.body = other.own_body = msgspec.json.encode(fields)
    return other


def _allow(tokens: int, fields: Fields, api: Api) -> None:
    """At most so many tokens of output, and at least no more than that: the engine refuses what contradicts itself."""
    names = _ALLOWANCES[api]
    fields[next((name for name in names if not is_null(fields.get(name, NULL))), names[-1])] = to_raw(tokens)
    if number_of(fields.get("min_tokens", NULL)) > tokens:
        fields["min_tokens"] = to_raw(tokens)


def _without(body: bytes, names: frozenset[str]) -> bytes:
    fields = _fields.decode(body)
    return msgspec.json.encode({name: value for name, value in fields.items() if name not in names})


def _completion(head: Chunked, body: bytes, endpoint: Endpoint) -> Request:
    head.check()
    n, options = head.n or 1, head.stream_options
    single = n == 1 and not head.has_many_prompts()
    plan, own_body = None, body
    if head.stream:
        fields = _fields.decode(body)
        plan = continuation.plan(endpoint.path, fields) if single else None
        body = _asking(body, fields, ids=plan is not None)
    return Request(
        endpoint,
        head.model,
        body,
        head.prompt(),
        head.most_tokens(),
        own_body=own_body,
        stream=bool(head.stream),
        wish=_NO_WISH if isinstance(options, UnsetType) else _wish(options),
        n=n,
        single_choice=single,
        plan=plan,
    )


def _other(head: Head, body: bytes, endpoint: Endpoint) -> Request:
    if isinstance(head, ResponsesRequest) and head.background:
        raise NothingIsKept(param="background")
    head.check()
    return Request(
        endpoint,
        head.model,
        body,
        head.prompt(),
        head.most_tokens(),
        stream=isinstance(head, Streamed) and bool(head.stream),
        repeatable=not head.has_side_effects(),
        own_body=body,
    )


def _wish(options: StreamOptions | None) -> UsageWish:
    if options is None or not options.include_usage:
        return UsageWish.NONE
    return UsageWish.EVERY_CHUNK if options.continuous_usage_stats else UsageWish.FINAL


def _asking(body: bytes, fields: Fields, *, ids: bool) -> bytes:
    """The body with all that the gateway asks of a stream: put at its end, or joined with what the client asks."""
    if not fields.keys() & _ASKED:
        return body[: body.rindex(b"}")] + (_LAST_FIELDS if ids else _LAST_FIELD)
    given = fields.get("stream_options", NULL)
    options = {} if is_null(given) else _fields.decode(given)
    fields["stream_options"] = msgspec.Raw(msgspec.json.encode(options | _fields.decode(_COUNTED)))
    if ids:
        fields["return_token_ids"] = _TRUE
    return msgspec.json.encode(fields)


def _explain(problem: msgspec.ValidationError) -> InvalidRequest:
    """msgspec says `Expected `str`, got `int` - at `$.model``, or `Object missing required field `model``."""
    detail, _, path = str(problem).partition(" - at `$")
    param = path.rstrip("`").lstrip(".")
    if param in OPERATOR_ONLY:
        return OperatorField(param=param)
    if param in NEEDS_STORE:
        return NothingIsKept(param=param)
    if "missing required field" in detail:
        missing = detail.split("`")[1]
        return InvalidField(param=".".join(filter(None, (param, missing))), detail="it is required")
    if not param:
        return MalformedJson(detail=detail.replace("`", ""))
    return InvalidField(param=param, detail=detail.replace("`", "").lower()[:_LONGEST_DETAIL])
