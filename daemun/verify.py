"""`daemun usage verify`: do the journal, the database and the engines say the same?

What can be compared. Every entry in the journal is to be in the database within a minute, and no line of the journal may be
damaged. The tokens that a vLLM replica has counted since a snapshot (`--snapshot`) are to be the ledger's since then.

What cannot. An engine generates on for a moment after a client has left, and reads a prompt again where it goes on with another's
answer: it counts more than the ledger, which counts what was delivered. So where calls were aborted, failed or were continued
since the snapshot, or run now, or ran when it was taken, an engine may have more, and never less. It counts a prompt once for
each choice (`n`), the ledger once. Calls that did not come through daemun are in the engine's counts alone. Engines that are not
vLLM count nothing; what started anew since the snapshot begins at 0.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from daemun.ledger import in_seoul, open_ledger
from daemun.problem import Problem
from daemun.settings import Settings
from gateway.adapters.journal import journal_folder
from gateway.adapters.journal_reader import Harm, quarantined, read
from gateway.entry import Entry
from gateway.ledger_query import Group, LedgerQuery, LedgerStore
from gateway.protocol import vllm_metrics
from gateway.protocol.vllm_metrics import Counted

SNAPSHOT = "usage-snapshot.json"
_LATE_S = 60.0
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """`differs` is that something is not as it should be."""

    subject: str
    said: str
    differs: bool = False


class Snapshot(msgspec.Struct, frozen=True):
    """What each replica had counted at a time."""

    at: float
    replicas: dict[str, Counted]


@dataclass(slots=True)
class Used:
    """Of one replica's calls in the ledger. `inexact` are those of which an engine counts more."""

    calls: int = 0
    inexact: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def verify(
    context: typer.Context,
    snapshot: Annotated[bool, typer.Option("--snapshot", help="Take the engines' counts down, to compare with later.")] = False,
) -> None:
    """Compare the journal, the database and the engines' own counts; says what differs, and ends with 1 if something does.

    What engines counted is compared since the last --snapshot. Where calls were aborted, failed or went on elsewhere, an engine
    has more than the ledger, which has what was delivered; it never has less.
    """
    settings = context.obj.settings()
    now = time.time()
    counted = asyncio.run(_ask(settings))
    file = settings.state_dir / SNAPSHOT
    if snapshot:
        try:
            file.write_bytes(msgspec.json.encode(Snapshot(now, counted)))
        except OSError as problem:
            raise Problem(f"{file} cannot be written ({problem}).") from problem
        typer.echo(f"{len(counted)} replicas' counts were taken down.")
        return
    with open_ledger(settings) as store:
        findings = [*compare_journal(settings.state_dir, store, now), *_compare(store, file, settings.state_dir, counted)]
    for finding in findings:
        typer.echo(f"{'DIFFERS' if finding.differs else 'ok':<8} {finding.subject:<10} {finding.said}")
    raise typer.Exit(1 if any(finding.differs for finding in findings) else 0)


def compare_journal(state_dir: Path, store: LedgerStore, now: float) -> Iterator[Finding]:
    folder = journal_folder(state_dir)
    waiting = missing_from(store, entries_in(folder))
    oldest = min((entry.started_at + entry.duration_s for entry in waiting), default=now)
    late = now - oldest > _LATE_S
    since = f", the oldest since {in_seoul(oldest):%Y-%m-%d %H:%M:%S}" if waiting else ""
    hint = ": is a gateway running, and its database too?" if late else ""
    yield Finding("journal", f"{len(waiting)} entries are not in the database yet{since}{hint}", late)
    harms = [harm for _, harm, _ in quarantined(folder / "damaged")]
    lost = sum(harm in (Harm.UNREADABLE, Harm.REFUSED) for harm in harms)
    if harms:
        counts = ", ".join(f"{harms.count(harm)} {harm.value}" for harm in Harm if harm in harms)
        yield Finding("journal", f"damaged lines were put aside in {folder / 'damaged'}: {counts}", lost > 0)
    (total,) = store.sums(LedgerQuery(), ())
    yield Finding("database", f"{total.calls} entries, each once; {store.count_events()} events not delivered yet")


def compare_engines(then: Snapshot, counted: Mapping[str, Counted], used: Mapping[str, Used]) -> Iterator[Finding]:
    for name, before in sorted(then.replicas.items()):
        after = counted.get(name)
        if after is None:
            yield Finding("engine", f"{name} is not there any more; what it counted since the snapshot is not known")
        elif after.since != before.since or after.generation_tokens < before.generation_tokens:
            yield Finding("engine", f"{name} was started anew since the snapshot; its counts begin at 0")
        else:
            yield from _compare_engine(name, before, after, used.get(name, Used()))
    for name in sorted(counted.keys() - then.replicas.keys()):
        yield Finding("engine", f"{name} is new since the snapshot; take another to compare it")


def _compare_engine(name: str, before: Counted, after: Counted, used: Used) -> Iterator[Finding]:
    inexact = used.inexact + before.running + after.running
    for kind, engine, ledger in (
        ("prompt", after.prompt_tokens - before.prompt_tokens, used.prompt_tokens),
        ("completion", after.generation_tokens - before.generation_tokens, used.completion_tokens),
    ):
        said = f"{name}: {engine} {kind} tokens, the ledger {ledger} in {used.calls} calls"
        if engine == ledger:
            yield Finding("engine", said)
        elif engine > ledger and inexact:
            yield Finding("engine", f"{said}; {inexact} of them aborted, failed, continued or running may be why")
        elif engine > ledger:
            yield Finding("engine", f"{said}: {engine - ledger} more, from calls past daemun or with several choices", True)
        else:
            yield Finding("engine", f"{said}: {ledger - engine} fewer than the ledger, which no call explains", True)


def _compare(store: LedgerStore, file: Path, state_dir: Path, counted: Mapping[str, Counted]) -> Iterator[Finding]:
    try:
        then = msgspec.json.decode(file.read_bytes(), type=Snapshot)
    except FileNotFoundError:
        yield Finding("engine", "no counts to compare with: 'daemun usage verify --snapshot' takes them down")
        return
    except (OSError, msgspec.DecodeError) as problem:
        raise Problem(f"{file} cannot be read ({problem}). Take another with --snapshot.") from problem
    waiting = missing_from(store, entries_in(journal_folder(state_dir)))
    yield from compare_engines(then, counted, used_since(store, waiting, then.at))


def used_since(store: LedgerStore, waiting: Iterable[Entry], since: float) -> dict[str, Used]:
    """By replica, what the ledger has of calls that came since then; what is in the journal alone included."""
    used: dict[str, Used] = {}
    for one in store.sums(LedgerQuery(since=since), (Group.REPLICA, Group.CONTINUED)):
        replica, continued = one.group
        of_replica = used.setdefault(replica, Used())
        of_replica.calls += one.calls
        of_replica.inexact += one.calls if continued != "0" else one.calls - one.completed
        of_replica.prompt_tokens += one.prompt_tokens
        of_replica.completion_tokens += one.completion_tokens
    for entry in waiting:
        if entry.started_at >= since:
            of_replica = used.setdefault(entry.replica or "", Used())
            of_replica.calls += 1
            of_replica.inexact += entry.outcome != "completed" or entry.continued > 0
            of_replica.prompt_tokens += entry.prompt_tokens
            of_replica.completion_tokens += entry.completion_tokens
    return used


def entries_in(folder: Path) -> list[Entry]:
    """All that can be read in the journal, also in files that are being written."""
    found: list[Entry] = []
    for path in sorted(folder.glob("*.journal")):
        try:
            found += [msgspec.convert(row, Entry) for row in read(path.read_bytes()).rows]
        except FileNotFoundError:
            continue  # moved meanwhile
    return found


def missing_from(store: LedgerStore, entries: Sequence[Entry]) -> list[Entry]:
    held = store.holds([entry.id for entry in entries])
    return [entry for entry in entries if entry.id not in held]


async def _ask(settings: Settings) -> dict[str, Counted]:
    """The counts of every replica that tells any."""
    import aiohttp

    from gateway.adapters.probed_fleet import ListUnreadable, Target
    from gateway.app import discovery

    async def ask(target: Target) -> Counted | None:
        try:
            async with session.get(f"{target.base_url}/metrics") as answer:
                return vllm_metrics.counted(await answer.read()) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    targets: list[Target] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_ANSWER_S)) as session:
        for fleet in settings.gateway.fleets:
            try:
                targets += (await discovery(fleet, settings.state_dir).listing(session)).targets
            except ListUnreadable as problem:
                typer.echo(f"{problem}; its replicas are not compared.", err=True)
        answers = await asyncio.gather(*(ask(target) for target in targets))
    return {target.id: answer for target, answer in zip(targets, answers, strict=True) if answer is not None}
