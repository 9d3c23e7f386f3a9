"""Lets nothing through to the admin API, not even to be found wrong, without its token; only its description is for everybody."""

from __future__ import annotations

import hmac

from gateway.errors import InvalidApiKey
from gateway.protocol import credential
from gateway.protocol.asgi import App, Receive, Scope, Send, header

_FOR_ALL = frozenset({"/docs", "/openapi.json"})


class InvalidAdminToken(InvalidApiKey):
    code = "invalid_admin_token"
    en = "No valid admin token: send 'Authorization: Bearer TOKEN'; it is in the file admin-token in state_dir."
    ko = "관리자 토큰이 유효하지 않습니다. state_dir의 admin-token 파일의 토큰을 'Authorization: Bearer 토큰'으로 보내세요."


class AdminGuard:
    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _FOR_ALL:
            presented = credential.presented(header(scope, b"authorization"), "")
            if not hmac.compare_digest(presented.encode(), self._token):
                raise InvalidAdminToken
        await self._app(scope, receive, send)
