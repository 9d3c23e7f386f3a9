"""One plan in, as JSON, and one report out."""

from __future__ import annotations

import asyncio
import sys

import msgspec
import uvloop

from benchmarks.gateway.load import churn, crowd, rate, streams

Plan = streams.StreamsPlan | rate.RatePlan | crowd.CrowdPlan | churn.ChurnPlan


async def run(plan: Plan) -> msgspec.Struct:
    match plan:
        case streams.StreamsPlan():
            return await streams.run(plan)
        case rate.RatePlan():
            return await rate.run(plan)
        case crowd.CrowdPlan():
            return await crowd.run(plan)
        case churn.ChurnPlan():
            return await churn.run(plan)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(run(msgspec.json.decode(sys.argv[1], type=Plan)))
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
