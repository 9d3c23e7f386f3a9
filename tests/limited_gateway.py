"""One gateway worker whose every key has the limits that its arguments say.

usage: python -m tests.limited_gateway STATE_DIR SETTINGS LIMITS     (both as JSON; LIMITS are the tenant's)
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

from gateway.adapters.sqlite_tenants import SqliteTenants
from gateway.policy.limits import Limits, Scope
from gateway.ports import Principal
from gateway.server import run
from gateway.settings import GatewaySettings


class LimitedTenants(SqliteTenants):
    limits = Limits()

    async def principal(self, secret: str) -> Principal | None:
        found = await super().principal(secret)
        return found and replace(found, scopes=(Scope(f"tenant:{found.tenant}", self.limits),))


def main(state_dir: str, settings: str, limits: str) -> None:
    logging.basicConfig(level="WARNING")
    LimitedTenants.limits = Limits(**json.loads(limits))
    from gateway import app

    vars(app)["SqliteTenants"] = LimitedTenants
    run(GatewaySettings.model_validate_json(settings), Path(state_dir))


if __name__ == "__main__":
    main(*sys.argv[1:])
