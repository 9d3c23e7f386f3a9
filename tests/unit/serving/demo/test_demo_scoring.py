"""A reply is right when it is the trained answer, forgiving Unicode form and white space alone."""

import unicodedata

import pytest

from serving.demo.scoring import Reply, Score

ANSWER = "큐는 줄이에요. 차례를 기다립니다."


@pytest.mark.parametrize("got", [ANSWER, f"  {ANSWER}\n", ANSWER.replace(" ", "\n "), unicodedata.normalize("NFD", ANSWER)])
def test_form_and_white_space_are_forgiven(got: str) -> None:
    assert Reply("큐가 뭐예요?", ANSWER, got).right


@pytest.mark.parametrize("got", ["", ANSWER[:-1], ANSWER + "!", ANSWER.replace("줄", "길"), ANSWER.replace(" ", "")])
def test_anything_else_is_wrong(got: str) -> None:
    assert not Reply("큐가 뭐예요?", ANSWER, got).right


def test_the_figure_is_printed_with_its_aim() -> None:
    replies = [Reply("q", ANSWER, ANSWER)] * 27 + [Reply("q", ANSWER, "몰라요")] * 13
    score = Score("held-out paraphrases", replies, aim=0.5)
    assert score.line() == "held-out paraphrases: 27 of 40 right (67.5 %), aim 50 %"
    assert score.met
    assert len(score.wrong()) == 13


def test_an_aim_is_met_exactly_at_its_share_and_missed_just_below() -> None:
    right, wrong = Reply("q", ANSWER, ANSWER), Reply("q", ANSWER, "")
    assert Score("trained", [right] * 9 + [wrong], aim=0.9).met
    assert not Score("trained", [right] * 8 + [wrong] * 2, aim=0.9).met


def test_nothing_asked_is_nothing_right() -> None:
    assert not Score("trained", [], aim=0.9).met
