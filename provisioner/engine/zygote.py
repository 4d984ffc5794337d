"""The fork server: one small process with ansible_runner imported that forks a child per job.

Importing ansible_runner costs about 80 ms of CPU, more than everything else between webhook and ``ansible-playbook``
together. The service cannot fork itself (it has threads); this process is single-threaded, so its forks are safe.

It ends with the service: at end of file on its socket, or by the signal that the kernel sends when its parent dies,
it stops its children, waits for them, and sweeps.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from provisioner.engine import child, marks
from provisioner.engine.spec import MAX_MESSAGE, Spec

_FAREWELL_SECONDS = 15.0
# The next spare child is made when the job that took the last one has got going.
_NEXT_SPARE_SECONDS = 0.25


@dataclass(frozen=True)
class Spare:
    """A child that was forked ahead and waits for a job: a fork costs milliseconds, and now is a good time."""

    pid: int
    channel: socket.socket


@dataclass
class Server:
    """State of the fork server: its socket and its children by job."""

    channel: socket.socket
    jobs: dict[str, int] = field(default_factory=dict)
    ending: bool = False
    spare: Spare | None = None
    spare_due: float = 0.0

    def serve(self) -> None:
        """Answer requests and reap children until the service is gone."""
        wakeup, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        channel = self.channel.fileno()
        while not self.ending:
            wait = None if self.spare is not None else max(0.0, self.spare_due - time.monotonic())
            ready, _, _ = select.select([channel, wakeup], [], [], wait)
            if not ready and self.spare is None:
                self._fork_spare()
            if wakeup in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wakeup, 4096)
                self._reap()
            if channel in ready:
                self._receive()
        self._farewell()

    def _on_term(self, *_: object) -> None:
        self.ending = True

    def _receive(self) -> None:
        data, ancillary, _, _ = self.channel.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(4))
        if not data:
            self.ending = True
            return
        descriptors = array.array("i")
        for _, _, payload in ancillary:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        request: dict[str, Any] = json.loads(data)
        job: str = request["job"]
        try:
            if request["do"] == "run":
                self._run(Spec(**request["spec"]), descriptors[0])
            elif job in self.jobs:
                os.kill(self.jobs[job], signal.SIGKILL if request["do"] == "kill" else signal.SIGTERM)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _run(self, spec: Spec, events: int) -> None:
        pid = self._hand_over(spec, events) or self._fork(spec, events)
        self.jobs[spec.job] = pid
        self._say({"job": spec.job, "started": pid})

    def _hand_over(self, spec: Spec, events: int) -> int | None:
        """Give the job to the spare child; None if there is none, or it has died."""
        spare, self.spare = self.spare, None
        self.spare_due = time.monotonic() + _NEXT_SPARE_SECONDS
        if spare is None:
            return None
        with spare.channel:
            try:
                socket.send_fds(spare.channel, [json.dumps(asdict(spec)).encode()], [events])
            except OSError:
                os.waitpid(spare.pid, 0)
                return None
        return spare.pid

    def _fork(self, spec: Spec, events: int) -> int:
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_child()
            child.detach(me)
            child.run(spec, events)
        return pid

    def _fork_spare(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_child()
            ours.close()
            child.wait_for_job(theirs, me)
        theirs.close()
        self.spare = Spare(pid, ours)

    def _become_child(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.channel.close()

    def _reap(self) -> None:
        if self.spare is not None and os.waitpid(self.spare.pid, os.WNOHANG)[0]:
            self.spare.channel.close()
            self.spare, self.spare_due = None, time.monotonic() + _NEXT_SPARE_SECONDS
        for job, pid in list(self.jobs.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended == 0:
                continue
            code = os.waitstatus_to_exitcode(status)
            if code != 0:
                marks.sweep(job)
            del self.jobs[job]
            self._say({"job": job, "ended": code})

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self.channel.sendall(json.dumps(message).encode())
        except OSError:
            self.ending = True

    def _farewell(self) -> None:
        spare, self.spare = self.spare, None
        if spare is not None:
            spare.channel.close()  # it reads the end and ends
            os.waitpid(spare.pid, 0)
        for pid in self.jobs.values():
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while self.jobs and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.02)
        for job, pid in self.jobs.items():
            os.kill(pid, signal.SIGKILL)
            marks.sweep(job)


def main() -> None:
    """``python -m provisioner.engine.zygote FD PARENT [PRESENCE]``.

    FD is our end of a SOCK_SEQPACKET pair, PARENT the service's pid, PRESENCE the open file of `presence`: it stays
    open here and in every fork, and in no program that one starts.
    """
    channel = socket.socket(fileno=int(sys.argv[1]))
    for descriptor in (channel.fileno(), *(int(held) for held in sys.argv[3:])):
        os.set_inheritable(descriptor, False)
    child.die_with_parent(int(sys.argv[2]))
    # A session of its own: Ctrl-C at the terminal stops the service, which then ends its jobs in order.
    os.setsid()
    gc.collect()
    gc.freeze()
    Server(channel).serve()


if __name__ == "__main__":
    main()
