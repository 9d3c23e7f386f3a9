"""What can go wrong with a call: all of it, each with its status, its code and what the client reads in English and Korean.

    CallError
    ├── InvalidRequest             400  invalid_request
    │   ├── MalformedJson               the body is no JSON object
    │   ├── InvalidField                a field has the wrong type
    │   ├── OperatorField               a field that only the operator may set
    │   ├── NothingIsKept               a field that needs answers to be kept between calls
    │   ├── NotOfferedByModel           another kind of model has this address
    │   ├── EngineRefused               the engine looked at it and said no
    │   ├── PromptOverLimit             it has more tokens than a limit allows at all
    │   └── MalformedHttp               not even HTTP
    ├── InvalidApiKey              401  invalid_api_key
    ├── ModelNotAllowed            403  model_not_allowed
    ├── ModelNotFound              404  model_not_found
    ├── RequestTimeout             408  request_timeout: the request did not come in time
    ├── RequestTooLarge            413  request_too_large
    ├── OverLimit                  429  with x-ratelimit-* headers
    │   ├── RateLimitExceeded           rate_limit_exceeded, with a Retry-After that is true
    │   └── InsufficientQuota           insufficient_quota: a month's budget, which no retry brings back
    ├── HeadTooLarge               431  headers_too_large
    ├── Busy                       503  with Retry-After
    │   ├── ServerOverloaded            server_overloaded: rejected before the queue
    │   ├── QueueTimeout                queue_timeout: evicted from it
    │   ├── TooManyConnections          server_overloaded: of this process
    │   ├── LedgerStuck                 ledger_stuck: what is used cannot be recorded
    │   ├── UsageUnavailable            usage_unavailable: what was used cannot be looked up
    │   ├── LimitsUnavailable           limits_unavailable: the store of limits cannot be asked
    │   ├── ServerStopping              server_stopping: this process ends, others go on
    │   └── StoreUnavailable            store_unavailable: nobody can say whose key this is
    ├── NotFound, MethodNotAllowed 404, 405  not_found, method_not_allowed: no such address
    ├── ResponseNotKept            404  not_found: an answer of the past
    ├── InternalError              500  internal_error: a fault of ours
    └── UpstreamError
        ├── UpstreamUnreachable    502  upstream_unreachable
        ├── UpstreamFailed         502  upstream_failed: it answered, with an error of its own
        └── UpstreamTimeout        504  upstream_timeout

Those of the admin API are beside what they are about, in `gateway.policy.tenancy`.

A new one is a class here and a line above; messages say what to do. How it becomes an answer is in `gateway.call_error`.
"""

from __future__ import annotations

from gateway.call_error import CallError

QUEUE_POSITION = b"x-daemun-queue-position"
HANDED_BACK = "handed back"  # the message of a cancellation that ends a call because this process stops


class InvalidRequest(CallError):
    status, code, type = 400, "invalid_request", "invalid_request_error"
    en = ko = "{detail}"


class MalformedJson(InvalidRequest):
    en = "The request body is not a JSON object ({detail}). Send one with Content-Type: application/json."
    ko = "요청 본문이 JSON 객체가 아닙니다({detail}). Content-Type: application/json으로 JSON 객체를 보내 주세요."


class InvalidField(InvalidRequest):
    en = "'{param}' is not valid: {detail}. Correct it and send the request again."
    ko = "'{param}' 값이 올바르지 않습니다: {detail}. 고쳐서 다시 보내 주세요."


class OperatorField(InvalidRequest):
    en = "'{param}' is not for requests: leave it out; the operator sets it."
    ko = "'{param}' 필드는 요청에 넣을 수 없습니다. 운영자가 정하는 값이니 빼고 보내 주세요."


class NothingIsKept(InvalidRequest):
    en = "'{param}' cannot be used: nothing is kept between calls. Leave it out and send the whole conversation in 'input'."
    ko = "'{param}' 필드는 쓸 수 없습니다. 호출 사이에 응답을 저장하지 않으니, 빼고 전체 대화를 'input'에 넣어 주세요."


class NotOfferedByModel(InvalidRequest):
    en = "The model '{model}' does not offer {path}. Ask the operator which model does."
    ko = "'{model}' 모델은 {path}를 지원하지 않습니다. 어느 모델이 지원하는지는 운영자에게 문의해 주세요."


class EngineRefused(InvalidRequest):
    en = "The model cannot take this request: {detail}"
    ko = "모델이 이 요청을 받을 수 없습니다: {detail}"


class PromptOverLimit(InvalidRequest):
    en = "The prompt has {tokens} tokens, more than the {level}'s limit of {limit} {per} allows at all. Send a shorter one."
    ko = "프롬프트가 {tokens}토큰으로, {level_ko}의 {per_ko} 한도 {limit}토큰보다 많습니다. 더 짧게 보내 주세요."


class MalformedHttp(InvalidRequest):
    en = "This is not a valid HTTP/1.1 request. Use an HTTP client, such as OpenAI's, with an http:// address."
    ko = "올바른 HTTP/1.1 요청이 아닙니다. OpenAI 클라이언트 같은 HTTP 클라이언트를 http:// 주소로 사용해 주세요."


class InvalidApiKey(CallError):
    status, code, type = 401, "invalid_api_key", "authentication_error"
    en = "No valid API key: send 'Authorization: Bearer KEY' or 'x-api-key: KEY'. 'daemun keys create' makes one."
    ko = "유효한 API 키가 없습니다. 'Authorization: Bearer 키'나 'x-api-key: 키'로 보내세요('daemun keys create')."

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"www-authenticate", b"Bearer")]


class ModelNotAllowed(CallError):
    status, code, type = 403, "model_not_allowed", "permission_error"
    en = "This key may not use the model '{model}'. Models it may use: {models}."
    ko = "이 키로는 '{model}' 모델을 쓸 수 없습니다. 쓸 수 있는 모델: {models}."


class ModelNotFound(CallError):
    status, code, type = 404, "model_not_found", "not_found_error"
    en = "There is no model '{model}' here. Models this key may use: {models}."
    ko = "'{model}' 모델이 없습니다. 이 키로 쓸 수 있는 모델: {models}."


class RequestTooLarge(CallError):
    status, code, type = 413, "request_too_large", "invalid_request_error"
    en = "The request body is larger than {limit_bytes} bytes. Send less, or ask the operator for gateway.max_body_bytes."
    ko = "요청 본문이 {limit_bytes}바이트를 넘습니다. 줄여서 보내거나 운영자에게 gateway.max_body_bytes를 문의해 주세요."


class RequestTimeout(CallError):
    status, code, type = 408, "request_timeout", "invalid_request_error"
    en = "The request did not come in whole in time. Send it again over a connection that is not slowed down."
    ko = "요청이 제시간에 모두 도착하지 않았습니다. 연결 상태를 확인하고 다시 보내 주세요."


class HeadTooLarge(CallError):
    status, code, type = 431, "headers_too_large", "invalid_request_error"
    en = "The request's headers are larger than {limit_bytes} bytes. Send fewer or shorter ones; data belongs in the body."
    ko = "요청 헤더가 {limit_bytes}바이트를 넘습니다. 헤더를 줄이고 데이터는 본문에 넣어 주세요."


class OverLimit(CallError):
    """One of the caller's own limits, as `named`. `limit_headers` say how all of them stand."""

    status, type = 429, "rate_limit_error"

    def __init__(
        self, *, named: dict[str, object], limit_headers: tuple[tuple[bytes, bytes], ...] = (), retry_after_s: float | None = None
    ) -> None:
        super().__init__(param=None, retry_after_s=retry_after_s, **named)
        self.limit_headers = limit_headers

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), *self.limit_headers]


class RateLimitExceeded(OverLimit):
    code = "rate_limit_exceeded"
    en = "The {level}'s limit of {limit} {per} is used up. Try again in {retry_after_s} s."
    ko = "{level_ko}의 한도({per_ko} {limit})를 모두 썼습니다. {retry_after_s}초 뒤에 다시 시도해 주세요."


class InsufficientQuota(OverLimit):
    code = "insufficient_quota"
    en = "The {level}'s budget of {limit} {per} is used up. Ask the operator for more, or wait for next month."
    ko = "{level_ko}의 예산({per_ko} {limit})을 모두 썼습니다. 운영자에게 문의하거나 다음 달까지 기다려 주세요."


class Busy(CallError):
    """We are full; the fault is ours. `retry_after_s` is computed, never a constant.

    `position` is where in the queue the call is that ends with this, where that is known.
    """

    status, type = 503, "overloaded_error"

    def __init__(self, *, retry_after_s: float, position: int = 0, param: str | None = None, **fields: object) -> None:
        super().__init__(param=param, retry_after_s=retry_after_s, **fields)
        self.position = position

    def headers(self) -> list[tuple[bytes, bytes]]:
        known = [(QUEUE_POSITION, b"%d" % self.position)] if self.position else []
        return [*super().headers(), *known]


class ServerOverloaded(Busy):
    code = "server_overloaded"
    en = "All places for '{model}' are taken and too many calls wait already. Try again in {retry_after_s} s."
    ko = "'{model}'의 자리가 모두 찼고 기다리는 요청도 너무 많습니다. {retry_after_s}초 뒤에 다시 시도해 주세요."


class QueueTimeout(Busy):
    code = "queue_timeout"
    en = "No place for '{model}' came free in {waited_s:.0f} s of waiting. Try again in {retry_after_s} s."
    ko = "{waited_s:.0f}초를 기다렸지만 '{model}'의 자리가 나지 않았습니다. {retry_after_s}초 뒤에 다시 시도해 주세요."


class TooManyConnections(Busy):
    code = "server_overloaded"
    en = "This server has as many connections as it can hold. Try again in {retry_after_s} s."
    ko = "이 서버의 연결 수가 한계에 이르렀습니다. {retry_after_s}초 뒤에 다시 시도해 주세요."

    def __init__(self) -> None:
        super().__init__(retry_after_s=1.0)


class LedgerStuck(Busy):
    code = "ledger_stuck"
    en = "This server cannot record what is used, so it takes no calls now. Try again in {retry_after_s} s."
    ko = "이 서버가 사용량을 기록할 수 없어 지금은 요청을 받지 않습니다. {retry_after_s}초 뒤에 다시 시도해 주세요."

    def __init__(self) -> None:
        super().__init__(retry_after_s=2.0)


class UsageUnavailable(Busy):
    code = "usage_unavailable"
    en = "The ledger's store does not answer; nothing of it is lost. Try again in {retry_after_s} s."
    ko = "사용량 저장소가 응답하지 않습니다. 기록은 사라지지 않으니 {retry_after_s}초 뒤에 다시 시도해 주세요."

    def __init__(self) -> None:
        super().__init__(retry_after_s=2.0)


class LimitsUnavailable(Busy):
    code = "limits_unavailable"
    en = "Your limits cannot be checked right now, and what was set aside is used up. Try again in {retry_after_s} s."
    ko = "지금은 사용 한도를 확인할 수 없고 미리 받아 둔 몫도 모두 썼습니다. {retry_after_s}초 뒤에 다시 시도해 주세요."


class ServerStopping(Busy):
    code = "server_stopping"
    en = "This server is being stopped and could not finish your call. Send it again: another one takes it."
    ko = "이 서버가 종료되어 요청을 끝내지 못했습니다. 다시 보내 주시면 다른 서버가 처리합니다."

    def __init__(self) -> None:
        super().__init__(retry_after_s=1.0)


class StoreUnavailable(Busy):
    code = "store_unavailable"
    en = "The store of keys does not answer, so this request cannot be checked. Try again in {retry_after_s} s."
    ko = "키 저장소가 응답하지 않아 요청을 확인할 수 없습니다. {retry_after_s}초 뒤에 다시 시도해 주세요."

    def __init__(self) -> None:
        super().__init__(retry_after_s=1.0)


class NotFound(CallError):
    status, code, type = 404, "not_found", "not_found_error"
    en = "There is nothing at {path}. The API is under /v1; /docs lists all of it."
    ko = "{path}에는 아무것도 없습니다. API는 /v1 아래에 있고, 전체 목록은 /docs에 있습니다."


class MethodNotAllowed(CallError):
    status, code, type = 405, "method_not_allowed", "invalid_request_error"
    en = "{path} does not take {method}. /docs lists what it takes."
    ko = "{path}는 {method} 요청을 받지 않습니다. 받는 방식은 /docs에 있습니다."


class ResponseNotKept(CallError):
    status, code, type = 404, "not_found", "not_found_error"
    en = "Responses are not kept, so there is nothing to fetch, cancel or delete. Each call answers whole or as a stream."
    ko = "응답을 저장하지 않으므로 조회, 취소, 삭제할 것이 없습니다. 호출할 때 전체 응답이나 스트림으로 받아 주세요."


class InternalError(CallError):
    status, code, type = 500, "internal_error", "server_error"
    en = "The gateway failed; your request is fine. Send it again, and if this stays, tell the operator {request_id}."
    ko = "게이트웨이 오류이며 요청에는 문제가 없습니다. 다시 보내 보고, 계속되면 운영자에게 {request_id}를 알려 주세요."


class UpstreamError(CallError):
    """The replica's fault."""

    type = "upstream_error"


class UpstreamUnreachable(UpstreamError):
    status, code = 502, "upstream_unreachable"
    en = "The model's server broke the connection. Nothing is wrong with your request: send it again."
    ko = "모델 서버와의 연결이 끊어졌습니다. 요청에는 문제가 없으니 다시 보내 주세요."


class UpstreamFailed(UpstreamError):
    status, code = 502, "upstream_failed"
    en = "The model's server failed with status {upstream_status}. Send the request again; tell the operator if it stays."
    ko = "모델 서버가 상태 {upstream_status}로 실패했습니다. 다시 보내 보고, 계속되면 운영자에게 알려 주세요."


class UpstreamTimeout(UpstreamError):
    status, code = 504, "upstream_timeout"
    en = "The model's server sent nothing for {timeout_s:.0f} s. Send the request again, or ask for fewer tokens."
    ko = "모델 서버가 {timeout_s:.0f}초 동안 아무것도 보내지 않았습니다. 다시 보내거나 토큰 수를 줄여 주세요."
