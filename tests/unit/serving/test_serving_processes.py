"""Ending processes, tried on real small ones. Each test runs in a process of its own, because a subreaper ends all it has."""

import signal
import socket
import subprocess
import sys
import textwrap

import psutil

from serving.processes import port_in_use

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def supervisor(body: str) -> subprocess.Popen[str]:
    """A Python process of its own that runs `body`."""
    head = f"import signal, subprocess, sys, psutil\nfrom serving.processes import *\nSTUBBORN = {STUBBORN!r}\n"
    return subprocess.Popen([sys.executable, "-c", head + textwrap.dedent(body)], stdout=subprocess.PIPE, text=True)


def output(body: str) -> list[str]:
    """What such a process printed, word by word."""
    text, _ = supervisor(body).communicate(timeout=30)
    return text.split()


def test_children_that_obey_are_ended_without_force() -> None:
    assert output("""
        children = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
        print(end_descendants(5), len(psutil.Process().children()))
    """) == ["[]", "0"]


def test_child_that_ignores_sigterm_is_killed() -> None:
    assert output("""
        child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
        child.stdout.readline()
        print(end_descendants(0.3) == [child.pid], psutil.pid_exists(child.pid))
    """) == ["True", "False"]


def test_without_grace_everything_is_killed_at_once() -> None:
    assert output("""
        child = subprocess.Popen(["sleep", "60"])
        print(end_descendants(0) == [child.pid], psutil.pid_exists(child.pid))
    """) == ["True", "False"]


def test_subreaper_finds_and_ends_the_grandchildren_of_a_dead_child() -> None:
    assert output("""
        become_subreaper()
        shell = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE, text=True)
        orphan = int(shell.stdout.readline())
        shell.wait()
        print([process.pid for process in descendants()] == [orphan])
        print(end_descendants(5), psutil.pid_exists(orphan))
    """) == ["True", "[]", "False"]


def test_one_that_vanishes_while_we_look_hides_no_other() -> None:
    """It was listed, and its own parent has collected it before we asked how it is."""
    assert output("""
        gone = psutil.Process(subprocess.Popen(["sleep", "60"]).pid)
        gone.kill(); gone.wait()
        living = subprocess.Popen(["sleep", "60"])
        listed = psutil.Process.children
        psutil.Process.children = lambda self, recursive=False: [gone, *listed(self, recursive)]
        print([process.pid for process in descendants()] == [living.pid])
        print(end_descendants(0) == [living.pid], psutil.pid_exists(living.pid))
    """) == ["True", "True", "False"]


def test_one_look_that_finds_nothing_is_not_the_end() -> None:
    """What lies below a parent that just vanished is seen at the next look only."""
    assert output("""
        living = subprocess.Popen(["sleep", "60"])
        listed, looks = psutil.Process.children, iter([[]])
        psutil.Process.children = lambda self, recursive=False: next(looks, listed(self, recursive))
        print(end_descendants(0) == [living.pid], psutil.pid_exists(living.pid))
    """) == ["True", "False"]


def test_process_below_a_stubborn_parent_is_ended_too() -> None:
    assert output("""
        become_subreaper()
        code = f"import subprocess, sys; subprocess.Popen(['sleep', '60']);" + STUBBORN
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        print(len(descendants()), end_descendants(0.3) == [child.pid], len(psutil.Process().children()))
    """) == ["2", "True", "0"]


def test_nothing_to_end_is_fine() -> None:
    assert output("print(end_descendants(0))") == ["[]"]


def test_child_dies_with_a_parent_that_was_killed() -> None:
    parent = supervisor("""
        child = subprocess.Popen(["sleep", "60"], preexec_fn=die_with_parent)
        print(child.pid, flush=True)
        child.wait()
    """)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_port_is_in_use_while_somebody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port_in_use("127.0.0.1", port)
    assert not port_in_use("127.0.0.1", port)


def test_port_that_only_lingers_after_a_connection_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # our side closes first and has to linger
        client.close()
    assert not port_in_use("127.0.0.1", port)
