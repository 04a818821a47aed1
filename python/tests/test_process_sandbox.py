"""Process pools where the system refuses what they use at its best: sandboxes and limits."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("seccomp is Linux's", allow_module_level=True)

from support import LIMIT

# Makes system calls fail in this process and all that it starts from now on.
REFUSE = """
    import ctypes, errno, os, platform, struct

    NUMBERS = {
        "x86_64": {"memfd_create": 319, "pidfd_send_signal": 424, "pidfd_open": 434},
        "aarch64": {"memfd_create": 279, "pidfd_send_signal": 424, "pidfd_open": 434},
    }[platform.machine()]
    NUMBERS["pidfd_getfd"] = 438

    def refuse(code, *names):
        lines = [(0x20, 0, 0, 0)]
        lines += [(0x15, len(names) - place, 0, NUMBERS[name]) for place, name in enumerate(names)]
        lines += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | code)]
        text = b"".join(struct.pack("HBBI", *line) for line in lines)
        text = ctypes.create_string_buffer(text)
        program = struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(text))
        program = ctypes.create_string_buffer(program)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())
"""

WORKS = """
    import multiprocessing, os, sys
    from concurrent_futures import ProcessPoolExecutor

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


def run_file(tmp_path: Path, program: str, *command: str) -> str:
    """Return what a program prints, which must succeed. Workers can import it again."""
    path = tmp_path / "program.py"
    text = "\n".join(map(textwrap.dedent, (REFUSE, WORKS)))
    main = textwrap.indent(textwrap.dedent(program), "    ")
    path.write_text(f'{text}\nif __name__ == "__main__":\n{main}\n')
    done = subprocess.run(
        [*command, sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=4 * LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize(
    "names",
    [
        ("memfd_create",),
        ("pidfd_open", "pidfd_send_signal", "pidfd_getfd"),
        ("pidfd_send_signal",),
        ("memfd_create", "pidfd_open", "pidfd_send_signal", "pidfd_getfd"),
    ],
    ids=["memory", "processes", "signals", "all"],
)
def test_a_pool_works_where_calls_are_refused(
    tmp_path: Path, names: tuple[str, ...], code: str
) -> None:
    program = f"refuse(errno.{code}, *{names!r})\nworks()"
    assert run_file(tmp_path, program) == "works\n"


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


def test_a_pool_works_after_the_program_has_closed_what_it_does_not_know(tmp_path: Path) -> None:
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


def test_what_the_system_refuses_keeps_its_number(tmp_path: Path) -> None:
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
