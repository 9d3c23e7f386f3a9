"""On what terms a call is taken: its tier, the model that it goes to, its allowance of output, and what its answer says of that.

This is the part of the overload ladder that changes a call before it asks for a place: the gate says which step we are on.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.entry import NOBODY
from gateway.policy.admission import Ask
from gateway.policy.caller import STRANGER
from gateway.policy.estimate import Habits
from gateway.policy.limits import Tier
from gateway.ports import Gate, Ports, Principal
from gateway.protocol import service_tier
from gateway.protocol.endpoint import Api
from gateway.protocol.openai import Request, changed
from gateway.protocol.renaming import renamed

Header = tuple[bytes, bytes]

MODEL_USED = b"x-daemun-model-used"
_TIER = {tier: (service_tier.HEADER, tier.value.encode()) for tier in Tier}


class Terms:
    """What becomes of a request: `request` is what goes to the engine, `headers` are for the head of whatever the answer is.

    `said` is what the client sent, whatever has become of it since, and `key_id` whose key it was.
    """

    __slots__ = ("ask", "headers", "key_id", "request", "said", "tier")

    def __init__(self, request: Request, tier: Tier, ask: Ask, headers: list[Header], *, said: bytes, key_id: str) -> None:
        self.request = request
        self.tier = tier
        self.ask = ask
        self.headers = headers
        self.said = said
        self.key_id = key_id

    def like(self) -> int:
        """The same for each try of one client, and for as good as nobody else's call: see `gateway.policy.caller`."""
        return hash((self.key_id, self.tier.value, self.said))

    def echoed(self, body: bytes) -> bytes:
        """A whole answer, with the tier in it where the client asked for one and the engine left it open, and in the name of the
        model that was asked for where that is a rollout's.
        """
        asked, named = self.request.service_tier, self.request.named
        if named is not None:
            body = renamed(body, named)
        return body if asked is None else service_tier.echoed(body, service_tier.word(self.tier, asked))


def terms(request: Request, principal: Principal, ports: Ports, *, patience_s: float | None, headers: list[Header]) -> Terms:
    """Decide, and add to `headers` what the client should know."""
    said, gate, tier = request.own_body, ports.gate, service_tier.used(request.service_tier, principal.tier)
    headers.append(_TIER[tier])
    ask = _ask(request, principal, tier, patience_s, ports.habits)
    fall_backs = request.models or principal.fallbacks
    if fall_backs and gate.prefers_fall_back(request.model, ask):
        model = _with_room(fall_backs, request.model, principal, ports)
        if model is not None:
            gate.tally(request.model).fell_back += 1
            request = changed(request, model=model)
            ask = _ask(request, principal, tier, patience_s, ports.habits)
            headers.append((MODEL_USED, model.encode()))
    cap = gate.output_cap(request.model, ask)
    if cap is not None and (request.max_tokens is None or request.max_tokens > cap):
        gate.tally(request.model).capped += 1
        request = changed(request, most_tokens=cap)
        ask = _ask(request, principal, tier, patience_s, ports.habits)
        headers.append((b"x-daemun-output-cap", b"%d" % cap))
    return Terms(_in_engines_words(request, tier), tier, ask, headers, said=said, key_id=principal.key_id)


def candidates_terms(
    request: Request, candidate: str, principal: Principal, ports: Ports, *, headers: list[Header]
) -> Terms | None:
    """On what terms a call goes to the candidate that is on trial for its model; None where it would not start there at once.

    It is weighed by what the tenant's calls of the model itself come to.
    """
    tier = service_tier.used(request.service_tier, principal.tier)
    ask = _ask(request, principal, tier, 0.0, ports.habits)
    if not starts_at_once(candidate, ask, ports.gate):
        return None
    headers.extend((_TIER[tier], (MODEL_USED, candidate.encode())))
    other = changed(request, model=candidate)
    other.named = request.model
    return Terms(_in_engines_words(other, tier), tier, ask, headers, said=request.own_body, key_id=principal.key_id)


def shadows_terms(agreed: Terms, candidate: str, gate: Gate) -> Terms | None:
    """The same for a copy of a call that was taken on these terms: nobody's, and behind everybody else."""
    said = agreed.ask
    ask = Ask(NOBODY, Tier.BATCH, said.prompt_tokens, said.output_tokens, said.weight, 0.0, STRANGER)
    if not starts_at_once(candidate, ask, gate):
        return None
    other = changed(agreed.request, model=candidate)
    other.repeatable, other.plan = False, None  # what breaks off is not gone on with
    return Terms(other, Tier.BATCH, ask, [], said=agreed.said, key_id="")


def starts_at_once(model: str, ask: Ask, gate: Gate) -> bool:
    """Whether the gate would start a call that has no patience, with nobody before it."""
    return gate.has_room(model) and not gate.prefers_fall_back(model, ask)


def _in_engines_words(request: Request, tier: Tier) -> Request:
    if request.service_tier is not None and request.endpoint.api is Api.RESPONSES:
        return changed(request, service_tier=service_tier.engines_word(tier))
    return request


def _ask(request: Request, principal: Principal, tier: Tier, patience_s: float | None, habits: Habits) -> Ask:
    """Weighed by what this tenant's calls of the model usually come to."""
    habit = habits.of(principal.tenant, request.model)
    prompt, answer = habit.prompt_mean(len(request.prompt)), habit.answer_mean(request.max_tokens, request.n)
    return Ask(principal.tenant, tier, prompt, answer, principal.weight, patience_s, STRANGER)


def _with_room(models: Iterable[str], full: str, principal: Principal, ports: Ports) -> str | None:
    """The first of these that is there, that the key may use, and that would start the call at once."""
    there = ports.fleet.models()
    return next(
        (
            model
            for model in models
            if model != full and model in there and principal.may_use(model) and ports.gate.has_room(model)
        ),
        None,
    )
