"""What can go wrong with machines of the target `local` and with the services that ``secbeat up`` runs."""

from __future__ import annotations

from secbeat.catalogue._entry import Entry

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "MACHINE_INVALID",
        "error",
        "The description of a local machine is not acceptable",
        "A pool name, node id or directory is malformed, or the node's configuration cannot be read.",
        "Mend the named value; by hand: -e pool=default -e node_id=$(cat /proc/sys/kernel/random/uuid)",
    ),
    Entry(
        "MACHINE_DIRECTORY",
        "error",
        "The directory of a local machine cannot be used",
        "It cannot be created, read or written: a file in its place, a read-only or full disk, another owner.",
        "Make the directory above it writable for this user, or choose another: --state DIR",
    ),
    Entry(
        "MACHINE_BUSY",
        "error",
        "Another start or stop of this local machine is under way",
        "The machine's directory stayed locked for the whole waiting time.",
        "Try again when the other one has ended: fuser -v DIRECTORY names it",
    ),
    Entry(
        "MACHINE_NO_ADDRESS",
        "error",
        "No loopback address is free for another local machine",
        "Each local machine has an address of its own, 127.0.1.10 upward, and needs its ports free on it; a program "
        "that listens on all addresses (0.0.0.0) occupies a port on every one of them.",
        "Find the program that holds the port: ss -ltnp — then stop it or bind it to one address",
    ),
    Entry(
        "MACHINE_DIED",
        "error",
        "A local machine's node ended right after its start",
        "The node process exited before it listened; the last lines of its log say why.",
        "Mend what the log names; the pool tries again by itself",
    ),
    Entry(
        "MACHINE_NOT_LISTENING",
        "error",
        "A local machine's node did not listen in time",
        "The process lives, but its ports did not open before the deadline; the machine may be overloaded.",
        "Read logs/node.log in the machine's directory; raise --timeout on a slow machine",
    ),
    Entry(
        "MACHINE_STUCK",
        "error",
        "A local machine's process does not end",
        "It outlived SIGKILL: it hangs in the kernel, usually on a broken disk or network mount.",
        "Look at its state (ps -o pid,stat,wchan PID) and mend the mount; then run the teardown again",
    ),
    Entry(
        "SERVICE_DIED",
        "error",
        "A service ended while it was starting",
        "One of the programs that 'secbeat up' runs exited before it was ready; the last lines of its log say why.",
        "Mend what the log names, then start again",
    ),
    Entry(
        "SERVICE_NOT_READY",
        "error",
        "A service was not ready in time",
        "The process lives, but its readiness check did not succeed before the deadline.",
        "Read its log in the state directory under logs/; on a slow machine start again",
    ),
    Entry(
        "POOLS_NOT_EMPTY",
        "error",
        "Local nodes were still there when the services stopped",
        "The pools were retired, but not every node ended before the deadline (or Ctrl-C was pressed twice).",
        "Start again on the same state: 'secbeat up' takes them over; or end one by hand: "
        "ansible-playbook playbooks/scale_down.yml -e pool=POOL -e node_id=ID",
    ),
)
