"""What `daemun up` says when all is ready: the address, a key, and two ways to try it that work as printed."""

from __future__ import annotations

import os

from rich.console import Console

from daemun.keys import make_if_new
from daemun.settings import Settings
from gateway.tenant_admin import TenantAdmin

TENANT, PROJECT = "first-tenant", "daemun-up"
QUESTION = "대문이 뭐예요?"


def base_url(settings: Settings) -> str:
    host = settings.gateway.host
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{settings.gateway.port}/v1"  # noqa: S104 (compared, not bound)


async def new_key(admin: TenantAdmin) -> str:
    """A key for this run. Since keys are stored as hashes only, the last run's cannot be shown again; it is revoked instead."""
    await make_if_new(admin, TENANT, PROJECT)
    for key in await admin.keys(TENANT, PROJECT):
        if key.revoked_at is None:
            await admin.revoke_key(key.id)
    secret, _ = await admin.create_key(TENANT, PROJECT, {})
    return secret


def set_environment(url: str, secret: str) -> None:
    """For the command behind `--`: the variables that OpenAI's own clients read."""
    os.environ["OPENAI_BASE_URL"] = url
    os.environ["OPENAI_API_KEY"] = secret


def show(console: Console, url: str, secret: str, model: str, elapsed_s: float) -> None:
    console.print(f"\nReady after {elapsed_s:.0f} s. / {elapsed_s:.0f}초 만에 준비되었습니다.", style="bold green")
    console.print(
        f"""
  address / 주소   {url}
  key / 키         {secret}
                   (until the next 'daemun up'; lasting ones: daemun keys create / 다음 실행 전까지 유효)

With curl:

curl -s {url}/chat/completions -H 'Authorization: Bearer {secret}' -H 'Content-Type: application/json' """
        f"""-d '{{"model":"{model}","messages":[{{"role":"user","content":"{QUESTION}"}}]}}'

With the openai client (pip install openai):

from openai import OpenAI
client = OpenAI(base_url="{url}", api_key="{secret}")
for chunk in client.chat.completions.create(
    model="{model}", messages=[{{"role": "user", "content": "{QUESTION}"}}], stream=True
):
    print(chunk.choices[0].delta.content or "", end="", flush=True)

Ctrl-C ends everything. / Ctrl-C를 누르면 모두 끝납니다.
""",
        markup=False,
    )
