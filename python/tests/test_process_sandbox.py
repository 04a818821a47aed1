"""Tests of process pools in sandboxes and under limits, where the system refuses its best
facilities."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("seccomp is Linux's", allow_module_level=True)

from support import LIMIT

pytestmark = pytest.mark.once

# Makes system calls fail in this process and all that it starts from now on.
REFUSE = """
    import ctypes, errno, os, platform, struct

    # The number of each call, and the place, the mask and the value of an argument.
    CALLS = {
        "x86_64": {
            "eventfd2": (290,),
            "fallocate": (285,),
            "futex wait": (202, 1, 0xFFFFFFFF, 0),
            "futex wake": (202, 1, 0xFFFFFFFF, 1),
            "F_ADD_SEALS": (72, 1, 0xFFFFFFFF, 1033),
            "F_SETSIG": (72, 1, 0xFFFFFFFF, 10),
            "memfd_create": (319,),
            "shmget": (29,),
            "SOCK_SEQPACKET": (53, 1, 0xF, 5),
        },
        "aarch64": {
            "eventfd2": (19,),
            "fallocate": (47,),
            "futex wait": (98, 1, 0xFFFFFFFF, 0),
            "futex wake": (98, 1, 0xFFFFFFFF, 1),
            "F_ADD_SEALS": (25, 1, 0xFFFFFFFF, 1033),
            "F_SETSIG": (25, 1, 0xFFFFFFFF, 10),
            "memfd_create": (279,),
            "shmget": (194,),
            "SOCK_SEQPACKET": (199, 1, 0xF, 5),
        },
    }[platform.machine()]
    CALLS |= {"pidfd_open": (434,), "pidfd_send_signal": (424,), "pidfd_getfd": (438,)}

    def refuse(code, *names):
        lines = []
        for name in names:
            number, *argument = CALLS[name]
            lines += [(0x20, 0, 0, 0), (0x15, 0, 4 if argument else 1, number)]
            if argument:
                place, mask, value = argument
                lines += [(0x20, 0, 0, 16 + 8 * place), (0x54, 0, 0, mask), (0x15, 0, 1, value)]
            lines.append((0x06, 0, 0, 0x00050000 | code))
        lines.append((0x06, 0, 0, 0x7FFF0000))
        text = b"".join(struct.pack("HBBI", *line) for line in lines)
        text = ctypes.create_string_buffer(text)
        program = struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(text))
        program = ctypes.create_string_buffer(program)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())
"""

WORKS = """
    import logging, multiprocessing, os, sys
    from concurrent_futures import ProcessPoolExecutor

    LINES = []

    class Lines(logging.Handler):
        def emit(self, record):
            LINES.append(f"{record.levelname} {record.getMessage()}")

    logging.getLogger("concurrent.futures").addHandler(Lines())
    logging.getLogger("concurrent.futures").setLevel(logging.INFO)

    def square(n):
        return n * n

    def works():
        for method in multiprocessing.get_all_start_methods():
            context = multiprocessing.get_context(method)
            with ProcessPoolExecutor(2, context, on_worker_death="isolate") as pool:
                assert list(pool.map(square, range(100))) == [n * n for n in range(100)]
                assert pool.submit(bytes, 3_000_000).result() == bytes(3_000_000)
                assert pool.submit(len, bytes(3_000_000)).result() == 3_000_000
                died = pool.submit(os._exit, 7).exception()
                assert died.exitcode == 7, died
                assert pool.submit(square, 3).result() == 9
                pids = list(pool._processes)
            for pid in pids:
                assert not os.path.exists(f"/proc/{pid}"), method
        print("works")
"""


def run_file(tmp_path: Path, program: str, *command: str, **variables: str) -> str:
    """Return the output of a program, which must succeed. Workers can import it again."""
    path = tmp_path / "program.py"
    text = "\n".join(map(textwrap.dedent, (REFUSE, WORKS)))
    main = textwrap.indent(textwrap.dedent(program), "    ")
    path.write_text(f'{text}\nif __name__ == "__main__":\n{main}\n')
    done = subprocess.run(
        [*command, sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=4 * LIMIT,
        env={**os.environ, "CONCURRENT_FUTURES_BACKEND": "auto", **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PIPE = "supervisors are woken through a pipe"
BYTES = "channels have sockets of bytes, and workers use portable calls"
STREAMS = "long buffers go through the streams"
UNSEALED = "channels have shared memory that is not sealed"
LOOKS = "pools look for dead workers every 50 ms"
THREAD = "a thread of each worker watches the parent"
NO_NAPS = "waits for other processes end by a socket only"

PIDFDS = ("pidfd_open", "pidfd_send_signal", "pidfd_getfd")
ALL = (
    *("memfd_create", "F_ADD_SEALS", "fallocate", "eventfd2", "F_SETSIG", "SOCK_SEQPACKET"),
    *("futex wait", "futex wake", *PIDFDS),
)


@pytest.mark.parametrize("code", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize(
    ("names", "ways"),
    [
        (("memfd_create",), {UNSEALED, STREAMS}),
        (("F_ADD_SEALS",), {UNSEALED, STREAMS}),
        (("fallocate",), {STREAMS}),
        (PIDFDS, {LOOKS}),
        (("pidfd_send_signal",), set()),
        (("eventfd2",), {PIPE}),
        (("F_SETSIG",), {THREAD}),
        (("SOCK_SEQPACKET",), {BYTES}),
        (("futex wait", "futex wake"), {NO_NAPS}),
        (ALL, {UNSEALED, LOOKS, PIPE, BYTES}),
    ],
    ids=lambda names: "all" if names == ALL else "-".join(names).replace(" ", "-"),
)
def test_a_pool_works_where_calls_are_refused_and_the_log_says_so(
    tmp_path: Path, names: tuple[str, ...], ways: set[str], code: str
) -> None:
    program = f"refuse(errno.{code}, *{names!r})\nworks()\nprint(*LINES, sep='\\n')"
    works, *lines = run_file(tmp_path, program).split("\n")
    assert works == "works"
    told = [line for line in lines if line]
    # Each slower way is told once, below the level that is printed by default.
    assert all(line.startswith("INFO ") for line in told), told
    for way in ways:
        assert len([line for line in told if way in line]) == 1, (way, told)
    if names != ALL:
        assert len(told) == len(ways), told


def test_a_pool_works_by_portable_calls_alone_and_says_so_once(tmp_path: Path) -> None:
    program = f"refuse(errno.EPERM, *{ALL!r})\nworks()\nprint(*LINES, sep='\\n')"
    output = run_file(tmp_path, program, CONCURRENT_FUTURES_BACKEND="portable")
    way = "process pools use the portable backend: CONCURRENT_FUTURES_BACKEND asks for it"
    assert output == f"works\nINFO {way}\n"


def test_a_pool_works_on_when_calls_are_refused_after_its_start(tmp_path: Path) -> None:
    program = f"""
        pools = [
            ProcessPoolExecutor(2, multiprocessing.get_context(method), on_worker_death="isolate")
            for method in multiprocessing.get_all_start_methods()
        ]
        for pool in pools:
            assert pool.submit(square, 3).result() == 9
        refuse(errno.EPERM, *{ALL!r})
        for pool in pools:
            with pool:
                assert list(pool.map(square, range(100))) == [n * n for n in range(100)]
                assert pool.submit(bytes, 3_000_000).result() == bytes(3_000_000)
                died = pool.submit(os._exit, 7).exception()
                assert died.exitcode == 7, died
                assert pool.submit(square, 3).result() == 9
        print("works")
    """
    assert run_file(tmp_path, program) == "works\n"


def test_workers_that_are_refused_calls_go_on(tmp_path: Path) -> None:
    program = f"""
        for method in multiprocessing.get_all_start_methods():
            context = multiprocessing.get_context(method)
            with ProcessPoolExecutor(2, context, refuse, (errno.EPERM, *{ALL!r})) as pool:
                assert list(pool.map(square, range(100))) == [n * n for n in range(100)]
                assert pool.submit(bytes, 3_000_000).result() == bytes(3_000_000)
                assert pool.submit(len, bytes(3_000_000)).result() == 3_000_000
        print("works")
    """
    assert run_file(tmp_path, program) == "works\n"


def test_an_unknown_backend_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    program = """
        try:
            ProcessPoolExecutor(1)
        except ValueError as error:
            print(error)
    """
    output = run_file(tmp_path, program, CONCURRENT_FUTURES_BACKEND="fast")
    for word in ("CONCURRENT_FUTURES_BACKEND", '"fast"', '"portable"', '"auto"'):
        assert word in output


@pytest.mark.parametrize("backend", ["auto", "portable"])
def test_pools_work_with_64_descriptors(tmp_path: Path, backend: str) -> None:
    program = """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        works()
    """
    output = run_file(tmp_path, program, CONCURRENT_FUTURES_BACKEND=backend)
    assert output == "works\n"


@pytest.mark.parametrize("backend", ["auto", "portable"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_user_who_may_have_no_more_processes_gets_an_error(tmp_path: Path, backend: str) -> None:
    program = """
        # Another user may not read them.
        import multiprocessing.popen_fork, resource
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
        os.setuid(65534)
        try:
            pool.submit(square, 1).result()
        except (OSError, RuntimeError) as error:
            print("refused")
    """
    output = run_file(tmp_path, program, CONCURRENT_FUTURES_BACKEND=backend)
    assert output == "refused\n"


def test_a_pool_works_in_a_process_that_may_write_short_files_only(tmp_path: Path) -> None:
    program = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        works()
    """
    assert run_file(tmp_path, program) == "works\n"


def can_hide_proc() -> bool:
    hide = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /proc"]
    try:
        return subprocess.run(hide, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def test_a_pool_works_without_proc(tmp_path: Path) -> None:
    if not can_hide_proc():
        pytest.skip("it takes the right to mount")
    program = """
        for method in multiprocessing.get_all_start_methods():
            with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
                assert list(pool.map(square, range(10))) == [n * n for n in range(10)]
        print("works")
    """
    command = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
    assert run_file(tmp_path, program, *command) == "works\n"


# A read-only root, no shared memory, processes of its own, and a folder for temporary files.
CONTAINER = """
    mount --make-rprivate / && mount --bind / / && mount -t proc proc /proc &&
    mount -o remount,bind,ro / && mount -t tmpfs -o ro none /dev/shm &&
    mount -t tmpfs none /var/tmp && exec "$@"
"""


@pytest.mark.parametrize("backend", ["auto", "portable"])
def test_a_pool_works_in_a_container(tmp_path: Path, backend: str) -> None:
    command = ("unshare", "-m", "-p", "-f", "sh", "-c", textwrap.dedent(CONTAINER), "sh")
    try:
        can_contain = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        can_contain = False
    if not can_contain:
        pytest.skip("it takes the right to mount")
    program = """
        assert os.getpid() == 1
        assert not os.access("/dev/shm", os.W_OK) and not os.access("/", os.W_OK)
        works()
    """
    variables = {"CONCURRENT_FUTURES_BACKEND": backend, "TMPDIR": "/var/tmp"}
    assert run_file(tmp_path, program, *command, **variables) == "works\n"


def test_a_pool_has_more_workers_than_a_fifth_of_the_descriptors(tmp_path: Path) -> None:
    program = """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
        with ProcessPoolExecutor(50, multiprocessing.get_context("fork")) as pool:
            assert sorted(pool.map(square, range(200))) == [n * n for n in range(200)]
            assert len(pool._processes) == 50
            assert len(os.listdir("/proc/self/fd")) < 180
            # Long buffers have no descriptors of their own.
            assert pool.submit(bytes, 3_000_000).result() == bytes(3_000_000)
            assert pool.submit(len, bytes(3_000_000)).result() == 3_000_000
        print("works")
    """
    assert run_file(tmp_path, program) == "works\n"


def test_a_pool_works_after_the_program_has_closed_unknown_descriptors(tmp_path: Path) -> None:
    program = """
        for _ in range(3):
            with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
                assert list(pool.map(square, range(10))) == [n * n for n in range(10)]
                assert pool.submit(bytes, 3_000_000).result() == bytes(3_000_000)
            os.closerange(3, 256)
            own = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
        # None of them was closed by what came before.
        for fd in own:
            os.fstat(fd)
        print("works")
    """
    assert run_file(tmp_path, program) == "works\n"


def test_an_error_of_the_system_keeps_its_errno(tmp_path: Path) -> None:
    program = """
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
        held = []
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            held and os.close(held.pop())
        try:
            pool.submit(square, 1)
        except OSError as error:
            assert error.errno == errno.EMFILE, error
            print("refused")
    """
    assert run_file(tmp_path, program) == "refused\n"


def test_a_memory_limit_above_the_hard_limit_is_the_hard_limit(tmp_path: Path) -> None:
    program = """
        import resource
        hard = 1 << 34
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        with ProcessPoolExecutor(1, memory_limit=2 * hard) as pool:
            limits = pool.submit(resource.getrlimit, resource.RLIMIT_DATA).result()
        print(limits == (hard, hard))
    """
    assert run_file(tmp_path, program) == "True\n"


def test_a_pool_that_was_not_used_before_a_fork_works_on_both_sides(tmp_path: Path) -> None:
    program = """
        pool = ProcessPoolExecutor(2)
        pid = os.fork()
        if pid == 0:
            assert list(pool.map(square, range(3))) == [0, 1, 4]
            pool.shutdown()
            try:
                pool.submit(square, 1)
            except RuntimeError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        print(pool.submit(square, 3).result())
        pool.shutdown()
    """
    assert run_file(tmp_path, program) == "9\n"
