"""Why: one sentence for each replica, in English and Korean. Reasons are facts, and become sentences when somebody asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from serving.allocation.claim import HOUSE
from serving.allocation.replica import Replica

Language = Literal["en", "ko"]


class Why(Enum):
    """By what right a place is had, or for what reason it is not."""

    FLOOR = "floor"
    RESERVED = "reserved"
    SHARE = "share"
    BORROWED = "borrowed"
    SPARE = "spare"
    ELSEWHERE = "elsewhere"
    PREEMPTED = "preempted"
    REPLACED = "replaced"
    SURPLUS = "surplus"
    DRAINING = "draining"
    NODE_LEFT = "node_left"
    DRAINED = "drained"
    NO_FLOOR = "no_floor"
    CEILING = "ceiling"
    NO_SHAPE = "no_shape"
    SCATTERED = "scattered"
    FULL = "full"
    RESERVED_AWAY = "reserved_away"


class Step(Enum):
    """What happens to a replica that has a place."""

    STAYS = "stays"
    STARTS = "starts"
    WAITS = "waits"
    MOVES = "moves"
    MOVES_LATER = "moves_later"


_SENTENCES: dict[Why, dict[Language, str]] = {
    Why.FLOOR: {
        "en": "{model} {step} as one of the at least {floor} replicas that it must always have, on a node that does not leave",
        "ko": "{model}: 항상 있어야 하는 최소 {floor}개 복제본 중 하나로, 이탈하지 않는 노드인 {step}",
    },
    Why.RESERVED: {
        "en": "{model} {step} on GPUs that {team} has reserved",
        "ko": "{model}: {team} 팀이 예약한 GPU인 {step}",
    },
    Why.SHARE: {
        "en": "{model} {step} within the fair share of {team}",
        "ko": "{model}: {team} 팀의 공정 몫 안에서 {step}",
    },
    Why.BORROWED: {
        "en": "{model} {step} beyond the fair share of {team}, on what is idle, and leaves it within {drain_s:g} s if asked",
        "ko": "{model}: {team} 팀의 공정 몫을 넘어 빌린 유휴 자원(돌려 달라고 하면 {drain_s:g}초 안에 비움)인 {step}",
    },
    Why.SPARE: {
        "en": "{model} {step} for {team} where nobody with more right fits now, and leaves within {drain_s:g} s when one does",
        "ko": "{model}: 지금 우선권자가 쓸 수 없어 {team} 팀이 빌린 자리(쓰게 되면 {drain_s:g}초 안에 비움)인 {step}",
    },
    Why.ELSEWHERE: {
        "en": "{model} {step} for {team}, which is entitled to {kind}, until somebody who is entitled to this place needs it",
        "ko": "{model}: {team} 팀의 몫은 {kind}이지만, 이 자리의 우선권자가 필요로 할 때까지 {step}",
    },
    Why.PREEMPTED: {
        "en": "{model} of {team} leaves {place} by {until:.0f} s for {by_model} of {by_team}, which has more right ({by_grade})",
        "ko": "{model}({team} 팀): {by_team} 팀의 {by_model}({by_grade})이 우선하여 {until:.0f}초까지 {place}에서 물러납니다",
    },
    Why.REPLACED: {
        "en": "{model} of {team} leaves {place} by {until:.0f} s: {by} takes over on GPUs that it has more right to",
        "ko": "{model}({team} 팀): 우선권이 더 큰 자리의 {by}이(가) 이어받으므로 {until:.0f}초까지 {place}에서 물러납니다",
    },
    Why.SURPLUS: {
        "en": "{model} of {team} leaves {place} by {until:.0f} s: nobody wants it there any more, or its ceiling is lower now",
        "ko": "{model}({team} 팀): 더 이상 요청이 없거나 상한이 낮아져 {until:.0f}초까지 {place}에서 물러납니다",
    },
    Why.DRAINING: {
        "en": "{model} of {team} still drains on {place}, until {until:.0f} s at the latest",
        "ko": "{model}({team} 팀): {place}에서 늦어도 {until:.0f}초까지 남은 호출을 마칩니다",
    },
    Why.NODE_LEFT: {
        "en": "{model} of {team} is lost: {node} has left, or the GPU in it",
        "ko": "{model}({team} 팀): {node} 노드 또는 그 GPU가 이탈하여 사라졌습니다",
    },
    Why.DRAINED: {
        "en": "{model} of {team} has left {place}: its time to drain is over, or it had not begun",
        "ko": "{model}({team} 팀): 비우는 시간이 끝났거나 아직 시작하지 않아 {place}에서 물러났습니다",
    },
    Why.NO_FLOOR: {
        "en": "{count} of the {floor} replicas that {model} must always have have no room on nodes that do not leave; add one",
        "ko": "{model}: 최소 {floor}개 중 {count}개는 이탈하지 않는 노드에 자리가 없습니다. 그런 노드를 추가해 주세요",
    },
    Why.CEILING: {
        "en": "{count} of the replicas of {model} that {team} wants are beyond its ceiling of {ceiling}",
        "ko": "{model}: {team} 팀이 요청한 {count}개는 상한 {ceiling}개를 넘습니다",
    },
    Why.NO_SHAPE: {
        "en": "{count} replicas of {model} for {team} have no place: it has no shape that fits into any node that is up",
        "ko": "{model}: {team} 팀의 {count}개는 놓을 수 없습니다. 켜져 있는 어느 노드에도 맞는 형태가 없습니다",
    },
    Why.SCATTERED: {
        "en": "{count} replicas of {model} for {team} have no place: what is free is scattered over nodes",
        "ko": "{model}: {team} 팀의 {count}개는 자리가 없습니다. 남은 자원이 흩어져 있어 한 노드에 충분히 모여 있지 않습니다",
    },
    Why.FULL: {
        "en": "{count} replicas of {model} for {team} have no place: its share is used up and nothing that suits is idle",
        "ko": "{model}: {team} 팀의 {count}개는 자리가 없습니다. 몫을 다 썼고 맞는 유휴 자원이 없습니다",
    },
    Why.RESERVED_AWAY: {
        "en": "{count} of the {gpus} GPUs of reservation {reservation} are not there: too few stable nodes are up",
        "ko": "예약 {reservation}: GPU {gpus}개 중 {count}개가 없습니다. 켜져 있는 안정 노드가 부족합니다",
    },
}

_STEPS: dict[Step, dict[Language, str]] = {
    Step.STAYS: {"en": "stays on {place}", "ko": "{place}에 그대로 있습니다"},
    Step.STARTS: {"en": "starts on {place}", "ko": "{place}에서 시작합니다"},
    Step.WAITS: {
        "en": "starts on {place} by {until:.0f} s, once that has drained",
        "ko": "{place}에서, 그곳이 비는 늦어도 {until:.0f}초에 시작합니다",
    },
    Step.MOVES: {"en": "moves from {moved} to {place}", "ko": "{moved}에서 {place}(으)로 옮깁니다"},
    Step.MOVES_LATER: {
        "en": "moves from {moved} to {place} by {until:.0f} s, once that has drained",
        "ko": "{moved}에서 {place}(으)로, 그곳이 비는 늦어도 {until:.0f}초에 옮깁니다",
    },
}

_HOUSE: dict[Language, str] = {"en": "the house", "ko": "공용"}
_GRADES: dict[str, dict[Language, str]] = {
    "floor": {"en": "its floor", "ko": "최소 복제본"},
    "reserved": {"en": "a reservation", "ko": "예약"},
    "share": {"en": "a fair share", "ko": "공정 몫"},
    "borrowed": {"en": "a larger claim to what is idle", "ko": "유휴 자원 우선순위"},
    "spare": {"en": "a larger claim to what is idle", "ko": "유휴 자원 우선순위"},
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, about which replica (if about one), what happens to it, and what else the sentence names."""

    why: Why
    replica: Replica | None = None
    step: Step | None = None
    fields: Mapping[str, object] = field(default_factory=dict)

    def sentence(self, language: Language = "en") -> str:
        facts = (_of(self.replica) if self.replica else {}) | dict(self.fields)
        fields = {key: _named(key, value, language) for key, value in facts.items()}
        if self.step:
            fields["step"] = _STEPS[self.step][language].format_map(fields)
        return _SENTENCES[self.why][language].format_map(fields) + "."


def place_of(replica: Replica) -> str:
    """As in `h100-0017 (GPU 4, 5)`."""
    return f"{replica.node} (GPU {', '.join(map(str, replica.gpus))})"


def _of(replica: Replica) -> dict[str, object]:
    names = {"model": replica.model, "team": replica.team, "node": replica.node, "kind": replica.shape.kind}
    return {**names, "place": place_of(replica), "until": replica.until}


def _named(key: str, value: object, language: Language) -> object:
    if key in ("team", "by_team") and value == HOUSE:
        return _HOUSE[language]
    if key == "by_grade":
        return _GRADES[str(value)][language]
    return value
