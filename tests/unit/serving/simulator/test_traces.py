"""Traces of real services are read in both formats, and what is wrong with one is told with its line and what to do."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.simulator.traces import TracedCall, UnreadableTrace, read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
BURST_GPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,276,693,API log
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return path


def problem(folder: Path, text: str) -> str:
    with pytest.raises(UnreadableTrace) as caught:
        read_trace(written(folder, text))
    message = str(caught.value)
    assert message.startswith(str(folder / "trace.csv"))
    assert message.endswith(".")
    assert "\n" not in message
    return message.removeprefix(str(folder / "trace.csv"))


def test_azures_format_is_read_from_its_first_call_on(tmp_path: Path) -> None:
    calls = read_trace(written(tmp_path, AZURE))
    assert [(call.prompt_tokens, call.output_tokens) for call in calls] == [(374, 44), (396, 109), (879, 55)]
    assert [call.at for call in calls] == pytest.approx([0.0, 4.314579, 4.541877], abs=2e-6)


def test_azures_later_traces_have_a_zone(tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01.5+00:00,7,9\n"
    assert [call.at for call in read_trace(written(tmp_path, text))] == pytest.approx([0.0, 1.49007])


def test_burst_gpts_format_is_read_with_its_models(tmp_path: Path) -> None:
    assert read_trace(written(tmp_path, BURST_GPT)) == (
        TracedCall(0.0, 472, 18, "ChatGPT"),
        TracedCall(40.0, 1087, 230, "ChatGPT"),
        TracedCall(113.0, 417, 276, "GPT-4"),
    )


def test_burst_gpts_later_columns_stand_elsewhere(tmp_path: Path) -> None:
    text = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5.5,,2.75,GPT-4,472,18,490,API log\n"
    )
    assert read_trace(written(tmp_path, text)) == (TracedCall(0.0, 472, 18, "GPT-4"),)


def test_line_ends_of_windows_a_byte_order_mark_and_empty_lines_at_the_end_do_no_harm(tmp_path: Path) -> None:
    plain = read_trace(written(tmp_path, AZURE))
    assert read_trace(written(tmp_path, "\ufeff" + AZURE.replace("\n", "\r\n") + "\r\n\r\n")) == plain


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("396,109", "396,", ", line 3: has no GeneratedTokens; fill it in or leave the line out."),
        ("396,109", "", ", line 3: has no ContextTokens; fill it in or leave the line out."),
        (",396,109", "", ", line 3: has no ContextTokens; fill it in or leave the line out."),
        ("2023-11-16 18:15:50.9951690", " ", ", line 3: has no TIMESTAMP; fill it in or leave the line out."),
        ("396,109", "-396,109", ", line 3: ContextTokens is '-396', not a number of tokens; mend it or leave the line out."),
        ("396,109", "396,1e3", ", line 3: GeneratedTokens is '1e3', not a number of tokens; mend it or leave the line out."),
        ("396,109", "0,109", ", line 3: ContextTokens is 0; leave the line out."),
        ("18:15:50", "18:15:77", ", line 3: TIMESTAMP is '2023-11-16 18:15:77.9951690', which is no time; "),
        ("18:15:50", "18:15:40", ", line 3: is 5.68542 s before the line above it; sort the trace by TIMESTAMP."),
        ("2023-11-16 18:15:50.9951690,396,109", "", ", line 3: is empty; leave it out."),
        ("396,109", '396,"109', " is not CSV (unexpected end of data); mend or leave out that line."),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_the_remedy(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert told in problem(tmp_path, AZURE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("1087,230", "1087,0", ", line 3: Response tokens is 0; such a call failed: take BurstGPT's file without_fails, or "),
        ("45,", "nan,", ", line 3: Timestamp is 'nan', which is no time; mend it or leave the line out."),
        ("45,", "2,", ", line 3: is 3 s before the line above it; sort the trace by Timestamp."),
        ("45,ChatGPT", "45,", ", line 3: has no Model; fill it in or leave the line out."),
    ],
)
def test_what_is_wrong_with_burst_gpt_is_told_in_its_words(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert told in problem(tmp_path, BURST_GPT.replace(old, new))


def test_a_header_of_neither_format_is_told_with_those_that_are_known(tmp_path: Path) -> None:
    message = problem(tmp_path, "time,tokens\n1,2\n")
    assert message.startswith(", line 1: the header is time, tokens; it must have the columns TIMESTAMP, ContextTokens, Gen")
    assert "Timestamp, Model, Request tokens, Response tokens (BurstGPT)" in message


@pytest.mark.parametrize("text", ["", "\n"])
def test_a_file_of_nothing_has_no_header(tmp_path: Path, text: str) -> None:
    assert "line 1: the header is nothing" in problem(tmp_path, text)


def test_a_header_alone_is_no_trace(tmp_path: Path) -> None:
    assert "holds no call" in problem(tmp_path, AZURE.splitlines()[0] + "\n")


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTrace, match="cannot be read: No such file"):
        read_trace(tmp_path / "absent.csv")
    with pytest.raises(UnreadableTrace, match="cannot be read: Is a directory"):
        read_trace(tmp_path)
    (tmp_path / "trace.csv").write_bytes(b"TIMESTAMP\xff\xfe")
    with pytest.raises(UnreadableTrace, match="not text in UTF-8"):
        read_trace(tmp_path / "trace.csv")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.text(max_size=8), max_size=5), max_size=5), st.sampled_from([AZURE, BURST_GPT]))
def test_nothing_but_a_trace_or_one_sentence_comes_out(tmp_path: Path, cells: list[list[str]], head: str) -> None:
    lines = head.splitlines()[:2] + [",".join(line) for line in cells]
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    try:
        calls = read_trace(path)
    except UnreadableTrace as told:
        message = str(told)
    else:
        message = str(path)
        assert calls[0].at == 0.0
        assert all(call.prompt_tokens > 0 and call.output_tokens > 0 for call in calls)
    assert message.startswith(str(path))
