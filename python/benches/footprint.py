"""The memory of pending futures; run as a program, it measures one contestant."""

import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

import contestants
from contestants import Contestant, UnableError
from harness import Sample, Settings, check, measure
from pools import WORKERS, entries, no_op, warm
from report import Section, Table, Target

#: The child's exit status if the contestant has no futures.
_UNABLE = 3


def footprint(settings: Settings) -> Section:
    """Measure each contestant in a process of its own."""
    count = settings.size(50_000, 10_000)

    def run(contestant: Contestant) -> Sample:
        command = [sys.executable, __file__, contestant.name, str(count)]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if child.returncode == _UNABLE:
            raise UnableError
        check(child.returncode == 0, contestant.name)
        return [float(child.stdout)]

    # It hardly differs from run to run.
    table = Table(["bytes"], measure(min(settings.rounds, 3), entries(run)))
    return Section(
        "Bytes for a pending future",
        f"The workers of a pool are held up. First {count // 5:,} no-ops without arguments are "
        f"submitted, which use up the free memory of the process. Then {count:,} more are "
        "submitted. The figure is the growth of the process's resident memory, divided by their "
        "number: the future, the task and its place in the queue. The list that the futures are "
        "kept in is there before.",
        table,
        [Target.at_most(table, 0, 400, "bytes")],
    )


def bytes_each(contestant: Contestant, count: int) -> float:
    """Return by how many bytes this process grows for each pending future."""
    gate: SimpleQueue[None] = SimpleQueue()
    running = threading.Semaphore(0)

    def hold_up() -> None:
        running.release()
        gate.get()

    with warm(contestant) as pool:
        held_up = pool.submit_all(hold_up, WORKERS)
        for _ in range(WORKERS):
            running.acquire()
        some = pool.submit_all(no_op, count // 5)
        handles: list[object] = [None] * count
        before = resident_bytes()
        for index in range(count):
            (handles[index],) = pool.submit_all(no_op, 1)
        growth = resident_bytes() - before
        for _ in range(WORKERS):
            gate.put(None)
        results = pool.take_all([*some, *handles])
        pool.take_all(held_up)
    check(all(results), contestant.name)
    return growth / count


def resident_bytes() -> int:
    """Return how much memory this process has, counted page by page."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith("Rss:"))
    return int(kibibytes) * 1024


def main() -> int:
    """Measure the contestant of the command line."""
    name, count = sys.argv[1:]
    (contestant,) = (one for one in contestants.ALL if one.name == name)
    try:
        print(bytes_each(contestant, int(count)))
    except UnableError:
        return _UNABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
