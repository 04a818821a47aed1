"""Makes random programs of the whole public interface whose outcome no scheduler decides.

A model of the pools runs along with the generator: which tasks run, which are pending, which
futures are done. The outcome of a call may depend on time, for example on whether a task that was
just submitted is still pending. Then the program first waits until nothing moves any more.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

#: Tasks that end by themselves: the function's name, and its arguments as text.
QUICK = [
    ("value", "{n}"),
    ("value", "None"),
    ("value", "'text'"),
    ("value", "b'bytes' * {n}"),
    ("value", "[{n}, {{'a': ({n},)}}]"),
    ("value", "{n} / 7"),
    ("square", "{n}"),
    ("fail", ""),
    ("fail", "'text', {n}"),
    ("fail_from", "'text'"),
    ("fail_during", "'text'"),
    ("odd_fails", "{n}"),
    ("stop", "{n}"),
    ("both", "{n}, key=[{n}]"),
    ("both", "1, 2, 3, *range({n}), key=None"),
    ("both", ""),
    ("both", "1, unknown=2"),
    ("touch", "{box}, {n}"),
    ("touch", "{box}"),
    ("value", "{box}"),
    ("depth", ""),
    ("locals_kept", ""),
    ("context_kept", ""),
    ("is_main", ""),
]
THREADS_ONLY = [
    ("is_same", "{box}, {box}"),
    ("rude", ""),
    ("leave", ""),
    ("unpicklable", ""),
    ("picky", ""),
]
PROCESSES_ONLY = [
    ("value", "lambda: None"),
    ("value", "S.NoReduce()"),
    ("value", "(1, S.NoReduce())"),
    ("unpicklable", ""),
]

#: Calls that fail on their way to a worker, perhaps before one is free.
FAIL_BEFORE_THEY_START = PROCESSES_ONLY[:3]

ITEMS = [
    "range({n})",
    "[{n}, 3, 1, 4]",
    "[]",
    "iter(range({n}))",
    "(i for i in range({n}))",
    "{{1: 2, 3: 4}}",
    "'ab'",
    "S.failing_after({n})",
    "S.failing_after(0)",
    "S.FailsToIterate()",
    "{n}",
    "[0, 2, 4, 1, 3]",
    "range(30)",
]
MAPPED = ["value", "square", "odd_fails", "value", "fail", "stop", "both"]

CONSUMERS = [
    "all",
    "some",
    "close",
    "close at once",
    "drop",
    "raise in loop",
    "divide in list",
    "throw",
    "throw outer",
    "each",
    "hint",
    "break",
    "zip",
    "in generator",
]


@dataclass
class Task:
    """A future, as the model knows it."""

    name: str
    gate: str = ""
    state: str = "pending"
    callbacks: int = 0
    #: Cancelled, but no worker has come across it: its waiters may not know.
    unseen: bool = False
    fails: bool = False


@dataclass
class Pool:
    """An executor, as the model knows it."""

    name: str
    is_process: bool
    workers: int
    queue: list[Task] = field(default_factory=list)
    running: list[Task] = field(default_factory=list)
    closed: bool = False
    #: Broken by the end of a worker: what runs and what is pending has failed.
    broken: bool = False
    #: Its initializer fails, so that its first task breaks it.
    breaks: bool = False

    def advance(self) -> None:
        """Let the workers run as many tasks as they can."""
        if self.breaks and self.queue:
            self.fail()
        while self.queue and len(self.running) < self.workers:
            task = self.queue.pop(0)
            if task.state == "cancelled":
                task.unseen = False
            elif task.gate:
                task.state = "running"
                self.running.append(task)
            else:
                task.state = "done"

    def fail(self) -> None:
        """Let all tasks fail, as the pool is broken."""
        for task in self.running + self.queue:
            if task.state != "cancelled":
                task.state = "done"
        self.running.clear()
        self.queue.clear()
        self.closed = self.broken = True

    @property
    def free(self) -> int:
        """Return the number of idle workers."""
        return self.workers - len(self.running)

    def is_surely_pending(self, task: Task) -> bool:
        """Return whether no worker has the task, nor has it in its queue."""
        if task not in self.queue:
            return False
        # The standard library hands as many calls ahead as there are workers, and one more.
        ahead = self.workers + 3 if self.is_process else 0
        return self.queue.index(task) >= ahead


class Generator:
    """Writes one program."""

    def __init__(self, seed: int, kind: str) -> None:
        self.random = random.Random(f"{kind} {seed}")
        self.kind = kind
        self.statements: list[str] = []
        self.pools: list[Pool] = []
        self.tasks: list[Task] = []
        self.boxes = 0
        self.names = 0
        self.noting: list[str] = []

    def name(self, prefix: str) -> str:
        """Return a new name."""
        self.names += 1
        return f"{prefix}{self.names}"

    def emit(self, statement: str) -> None:
        """Add a statement."""
        self.statements.append(statement)

    def settle(self) -> None:
        """Wait until all workers are idle or held."""
        for pool in self.pools:
            pool.advance()
        gates = [task.gate for task in self.tasks if task.gate and task.state == "running"]
        done = [task.name for task in self.tasks if task.state == "done"]
        self.emit(f"stage.settle({gates}, [{', '.join(done)}])")

    def number(self) -> int:
        """Return a small number."""
        return self.random.choice([0, 1, 1, 2, 3, 4, 5, 8])

    def box(self) -> str:
        """Return the name of a mutable object, a new one or one that others have."""
        if self.boxes == 0 or self.random.random() < 0.3:
            self.boxes += 1
            self.emit(f"box{self.boxes} = {self.random.choice(['S.Box()', '[]'])}")
        return f"box{self.random.randint(1, self.boxes)}"

    def call(self, is_process: bool) -> tuple[str, str]:
        """Return a task's function and its arguments."""
        others = PROCESSES_ONLY if is_process else THREADS_ONLY
        fn, arguments = self.random.choice(QUICK + (others if self.random.random() < 0.3 else []))
        needs_box = "{box}" in arguments
        text = arguments.format(n=self.number(), box=self.box() if needs_box else "")
        return fn, text

    # The steps of a program.

    def make_pool(self) -> None:
        """Make an executor."""
        if len(self.pools) >= 2:
            return
        is_process = self.kind == "process" and (not self.pools or self.random.random() < 0.5)
        workers = self.random.choice([1, 1, 2, 3])
        pool = Pool(self.name("pool"), is_process, workers)
        more = ""
        if is_process:
            # Without max_tasks_per_child: the standard library's pools stand still with it now and
            # then, when a worker ends while another is still needed.
            more = ", mp_context=context"
        elif self.random.random() < 0.3:
            more = ", thread_name_prefix='named'"
        if self.random.random() < 0.2:
            more += ", initializer=S.value, initargs=(1,)"
        elif self.random.random() < 0.1 and not is_process:
            more += ", initializer=S.fail, initargs=('initializer',)"
            pool.breaks = True
        cls = "cf.ProcessPoolExecutor" if is_process else "cf.ThreadPoolExecutor"
        if self.random.random() < 0.2:
            cls = f"S.noting({cls})"
            self.noting.append(pool.name)
        self.emit(f"{pool.name} = {cls}({workers}{more})")
        self.pools.append(pool)

    def pool(self) -> Pool:
        """Return one of the pools."""
        return self.random.choice(self.pools)

    def submit(self) -> None:
        """Submit a task that ends by itself."""
        pool = self.pool()
        fn, arguments = self.call(pool.is_process)
        if (fn, arguments) in FAIL_BEFORE_THEY_START and (pool.queue or pool.free < 1):
            return
        task = Task(self.name("f"))
        call = f"{pool.name}.submit(S.{fn}{', ' if arguments else ''}{arguments})"
        self.emit(f"{task.name} = stage.do('submit {task.name}', lambda: {call})")
        if not pool.closed:
            pool.queue.append(task)
            self.tasks.append(task)
        # Tasks of several threads that change one object would take turns as the scheduler decides.
        if pool.breaks or ("box" in arguments and not pool.is_process):
            self.settle()

    def submit_gated(self) -> None:
        """Submit a task that the program holds until it opens a gate."""
        pool = self.pool()
        if pool.closed or pool.breaks:
            return
        gate = self.name("gate")
        task = Task(self.name("f"), gate, fails=self.random.random() < 0.3)
        fn = "S.gated_fail" if task.fails else "S.gated"
        self.emit(f"{task.name} = {pool.name}.submit({fn}, {gate!r}, {self.number()})")
        pool.queue.append(task)
        self.tasks.append(task)

    def change(self) -> None:
        """Change the argument of a call for which its pool of processes has no room yet."""
        pool = self.pool()
        self.settle()
        if not pool.is_process or pool.closed or pool.breaks or pool.free > 0:
            return
        self.boxes += 1
        box = f"box{self.boxes}"
        self.emit(f"{box} = {self.random.choice(['S.Box()', '[]', '[[1], (2, 3)]'])}")
        while True:
            task = Task(self.name("f"))
            call = self.random.choice([f"S.value, {box}", f"S.both, 1, key={box}"])
            self.emit(f"{task.name} = {pool.name}.submit({call})")
            pool.queue.append(task)
            self.tasks.append(task)
            if pool.is_surely_pending(task):
                break
            self.boxes += 1
            box = f"box{self.boxes}"
            self.emit(f"{box} = []")
        self.emit(f"S.touch({box}, {self.number()})")

    def open(self) -> None:
        """Let a held task go on."""
        held = [(pool, task) for pool in self.pools for task in pool.running]
        if held:
            pool, task = self.random.choice(held)
            pool.running.remove(task)
            task.state = "done"
            self.emit(f"stage.open({task.gate!r})")
            self.settle()

    def cancel(self) -> None:
        """Cancel a task whose state is known."""
        self.settle()
        known = [
            task
            for task in self.tasks
            if task.state in ("done", "running", "cancelled")
            or any(pool.is_surely_pending(task) for pool in self.pools)
        ]
        if known:
            task = self.random.choice(known)
            self.emit(f"stage.rec('cancel {task.name}', {task.name}.cancel)")
            if task.state == "pending":
                task.state, task.unseen = "cancelled", True

    def is_known(self, task: Task) -> bool:
        """Return whether a task's state is certain, whatever is in the queue of a worker."""
        if task.state != "pending":
            return True
        return any(
            pool.is_surely_pending(task) or not pool.is_process
            for pool in self.pools
            if task in pool.queue
        )

    def known(self) -> list[Task]:
        """Return the tasks whose state is certain."""
        return [task for task in self.tasks if self.is_known(task)]

    def look(self) -> None:
        """Record the states of futures."""
        self.settle()
        pairs = ", ".join(f"'{task.name}': {task.name}" for task in self.known() if not task.unseen)
        self.emit(f"stage.states({{{pairs}}})")

    def result(self) -> None:
        """Record a result, an exception, or the absence of both."""
        self.settle()
        if not self.tasks:
            return
        task = self.random.choice(self.tasks)
        method = self.random.choice(["result", "result", "exception"])
        timeout = self.random.choice(["0", "0.0", "0.001", "-1", "timeout=0"])
        if task.state in ("done", "cancelled"):
            timeout = self.random.choice(["", timeout, "None", "True", "5"])
        self.emit(f"stage.rec('{method} {task.name}', lambda: {task.name}.{method}({timeout}))")
        if task.state == "done" and self.random.random() < 0.2:
            self.emit(
                f"stage.rec('same', lambda: {task.name}.exception(0) is {task.name}.exception(0))"
            )

    def callback(self) -> None:
        """Add a callback to a future, and record its calls if it is done."""
        self.settle()
        candidates = [task for task in self.known() if not task.unseen]
        if not candidates:
            return
        task = self.random.choice(candidates)
        kind = self.random.choice(["plain", "plain", "raises", "adds", "result"])
        other = "None"
        usable = [each for each in self.pools if not each.closed and each.free >= 2]
        if self.random.random() < 0.2 and usable and task.state == "done":
            kind, other = "submits", self.random.choice(usable).name
        self.emit(
            f"{task.name}.add_done_callback(stage.callback('{task.name}', '{kind}', {other}))"
        )
        task.callbacks += 2 if kind in ("adds", "result", "submits") else 1

    def wait(self) -> None:
        """Record what `wait` returns."""
        self.settle()
        candidates = [task for task in self.tasks if not task.unseen]
        chosen = self.random.sample(candidates, min(len(candidates), self.random.randint(0, 5)))
        when = self.random.choice(["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"])
        timeout = self.random.choice(["0", "0.001", "0.0"])
        if all(task.state in ("done", "cancelled") for task in chosen):
            timeout = "None"
        pairs = ", ".join(f"'{task.name}': {task.name}" for task in chosen)
        if chosen and self.random.random() < 0.2:
            names = ", ".join(task.name for task in chosen)
            twice = f"[{names}, {chosen[0].name}]"
            given = self.random.choice([twice, f"iter({twice})", f"dict.fromkeys({twice})"])
            self.emit(
                f"stage.rec('counts', lambda: [len(each) for each in "
                f"cf.wait({given}, {timeout}, cf.{when})])"
            )
        self.emit(f"stage.wait('wait', {{{pairs}}}, {timeout}, cf.{when})")

    def as_completed(self) -> None:
        """Record what `as_completed` yields."""
        self.settle()
        candidates = [task for task in self.tasks if not task.unseen]
        chosen = self.random.sample(candidates, min(len(candidates), self.random.randint(0, 4)))
        ended = all(task.state in ("done", "cancelled") for task in chosen)
        timeout = "None" if ended else self.random.choice(["0", "0.001"])
        twice = f" + [{chosen[0].name}]" if chosen and self.random.random() < 0.2 else ""
        names = ", ".join(task.name for task in chosen)
        take = self.random.choice(["all", "each", "drop", "hint", "close"])
        # The order among those that are done is that of a set.
        collect = "sorted(S.describe_outcome(f) for f in taken)"
        self.emit(
            f"taken = []\ndef consume():\n"
            f"    for f in cf.as_completed([{names}]{twice}, {timeout}):\n"
            f"        taken.append(f)\n    return len(taken)\n"
            f"stage.rec('as_completed', consume)\nstage.rec('taken', lambda: {collect})"
        )
        if take != "all" and ended and len(chosen) < 2:
            call = f"cf.as_completed([{names}])"
            self.emit(f"stage.rec('completed', lambda: [S.describe_outcome(f) for f in {call}])")

    def map(self) -> None:
        """Map over some items, and consume the results."""
        pool = self.pool()
        self.settle()
        if (pool.free < 1 and not pool.closed) or pool.breaks:
            return
        fn = self.random.choice(MAPPED)
        count = self.random.choice([1, 1, 1, 2, 3]) if fn == "both" else 1
        items = [self.random.choice(ITEMS).format(n=self.number()) for _ in range(count)]
        # Threads that change one object take turns as the scheduler decides.
        if self.random.random() < 0.25 and (pool.is_process or pool.workers == 1):
            box = self.box()
            fn, items = "touch", [f"[{box}] * {self.number()}"]
            if self.random.random() < 0.5:
                items = [f"itertools.repeat({box})", f"range({self.number()})"]
        if self.random.random() < 0.05 and not pool.closed and not pool.is_process:
            fn, items = "square", [f"S.submitted({pool.name}, {self.number()})"]
        if self.random.random() < 0.05:
            fn, items = "value", []
        more = ""
        if pool.is_process and self.random.random() < 0.5:
            more += f", chunksize={self.random.choice([1, 2, 3, 100, 0])}"
        elif self.random.random() < 0.2:
            more += f", chunksize={self.number()}"
        if self.random.random() < 0.2:
            more += f", timeout={self.random.choice(['None', '60', '60.0'])}"
        take = self.random.choice(CONSUMERS)
        if fn == "touch" and not pool.is_process:
            take = self.random.choice(["all", "hint", "each"])
        arguments = "".join(f", {each}" for each in items)
        call = f"{pool.name}.map(S.{fn}{arguments}{more})"
        self.emit(f"stage.consume('map', lambda: {call}, {take!r})")
        if take not in ("all", "hint", "each") and not pool.closed:
            # Tasks that were not cancelled are still running, perhaps.
            self.emit(
                f"stage.do('behind', lambda: [f.result() for f in "
                f"[{pool.name}.submit(S.value) for _ in range(1)]])"
            )
        if fn == "touch" and not pool.is_process:
            self.emit("stage.rec('touched', lambda: [box1])")

    def nest(self) -> None:
        """Let a task wait for another task of the same pool, or of another pool."""
        pool = self.pool()
        self.settle()
        if pool.is_process or pool.closed:
            return
        usable = [each for each in self.pools if not each.closed and not each.breaks]
        if pool.breaks or not usable:
            return
        inner = self.random.choice(usable)
        needed = 3 if inner is pool else 2
        if inner.free < needed or pool.free < 1:
            return
        fn, arguments = self.random.choice(
            [
                ("value", "1"),
                ("fail", ""),
                ("locals_kept", ""),
                ("context_kept", ""),
                ("depth", ""),
                ("is_main", ""),
                ("square", "3"),
            ]
        )
        comma = ", " if arguments else ""
        outer = self.random.choice(["nest", "nest_forever", "nest_map", "nest_first", "completed"])
        if inner.is_process:
            outer = self.random.choice(["nest", "nest_map", "completed"])
        call = {
            "nest": f"S.nest, {inner.name}, S.{fn}{comma}{arguments}",
            "nest_forever": f"S.nest_forever, {inner.name}, S.{fn}{comma}{arguments}",
            "nest_map": f"S.nest_map, {inner.name}, S.odd_fails, [0, 2, {self.number()}]",
            "nest_first": f"S.nest_first, cf, {inner.name}, S.{fn}{comma}{arguments}",
            "completed": f"S.nest_completed, cf, {inner.name}, S.square, [1, 2, 3]",
        }[outer]
        self.emit(f"stage.rec('{outer}', lambda: {pool.name}.submit({call}).result())")

    def release(self) -> None:
        """Check that arguments and results are freed when they are not needed."""
        pool = self.pool()
        self.settle()
        if pool.closed or pool.free < 1 or pool.is_process or pool.breaks:
            return
        name = self.name("g")
        self.emit(
            f"thing = S.Box(1); reference = weakref.ref(thing)\n"
            f"{name} = {pool.name}.submit(S.both, 0, thing); {name}.result(); del thing, {name}\n"
            f"{pool.name}.submit(S.value).result()\n"
            f"stage.released('argument', reference)"
        )

    def by_hand(self) -> None:
        """Use a future of the program's own."""
        name = self.name("own")
        self.emit(f"{name} = cf.Future()")
        methods = [
            "cancel",
            "cancelled",
            "running",
            "done",
            "set_running_or_notify_cancel",
            "set_result",
            "set_exception",
            "result",
            "exception",
            "add_done_callback",
            "state",
        ]
        for _ in range(self.random.randint(1, 6)):
            method = self.random.choice(methods)
            arguments = {
                "set_result": "42",
                "set_exception": self.random.choice(
                    ["S.OopsError('own', 1)", "None", "S.OopsError"]
                ),
                "result": "0",
                "exception": "0",
                "add_done_callback": f"stage.callback('{name}', 'plain')",
            }.get(method, "")
            if method == "state":
                self.emit(f"stage.rec('{name}', lambda: repr({name}).partition(' ')[2])")
            else:
                self.emit(f"stage.rec('{name} {method}', lambda: {name}.{method}({arguments}))")
        self.emit(f"stage.called('{name}', 0)")

    def bad_input(self) -> None:
        """Call functions with invalid arguments."""
        chosen = self.pool()
        pool = chosen.name
        # That of a process pool behaves as a generator, and is none.
        mapped = f"list({pool}.map(S.value))" if chosen.is_process else f"{pool}.map(S.value)"
        call = self.random.choice(
            [
                f"{pool}.submit()",
                f"{pool}.submit(fn=S.value)",
                f"{pool}.map()",
                mapped,
                f"{pool}.map(S.value, 3)",
                f"list({pool}.map(S.value, [1], timeout='x'))",
                f"{pool}.shutdown(1, 2)",
                "cf.ThreadPoolExecutor(0)",
                "cf.ThreadPoolExecutor(-1)",
                "cf.ThreadPoolExecutor('2')",
                "cf.ThreadPoolExecutor(1, initializer=3)",
                "cf.ProcessPoolExecutor(0)",
                "cf.ProcessPoolExecutor(1, initializer=3)",
                "cf.ProcessPoolExecutor(1, max_tasks_per_child='x')",
                "cf.ProcessPoolExecutor(1, max_tasks_per_child=0)",
                "cf.wait([1])",
                "cf.wait(None)",
                "cf.wait([], return_when='x')",
                "cf.wait([cf.Future()], 0, 'x')",
                "list(cf.as_completed([1]))",
                "list(cf.as_completed(3))",
                "cf.Future().result('x')",
                "cf.Future().result([])",
                "cf.Future().exception(timeout=0.0)",
                "cf.Future().set_result()",
                "cf.Future().add_done_callback()",
                "cf.Future().add_done_callback(3)",
                "cf.Future(1)",
                "cf.Executor().submit(S.value)",
                "cf.Executor().map(S.value, [1])",
                "cf.Executor().shutdown()",
            ]
        )
        self.emit(f"stage.rec({call!r}, lambda: {call})")

    def crash(self) -> None:
        """End a worker process."""
        pool = self.pool()
        self.settle()
        if not pool.is_process or pool.closed or pool.queue or pool.free < 1:
            return
        name = self.name("f")
        self.emit(f"{name} = {pool.name}.submit(S.crash, {self.number()})")
        task = Task(name)
        self.tasks.append(task)
        pool.queue.append(task)
        pool.fail()
        self.settle()
        # A task that was held reads its gate in a process that is gone.
        self.emit(f"stage.rec('broken', lambda: {pool.name}.submit(S.value, 1))")

    def leave(self) -> None:
        """Leave the block of an executor."""
        pool = self.pool()
        self.settle()
        if pool.running or pool.queue:
            return
        error = self.random.choice(["None", "S.OopsError('block', 1)", "KeyboardInterrupt()"])
        self.emit(f"stage.leave('leave', {pool.name}, {error})")
        pool.closed = True

    def shut_down(self) -> None:
        """Shut a pool down, waiting or not."""
        pool = self.pool()
        self.settle()
        if pool.breaks or (pool.running and self.random.random() > 0.3):
            return
        cancel = self.random.choice(["", ", cancel_futures=True", ", cancel_futures=False"])
        if pool.is_process and pool.queue and "True" in cancel:
            return
        wait = not pool.running and self.random.random() < 0.7
        self.emit(f"stage.rec('shutdown', lambda: {pool.name}.shutdown({wait}{cancel}))")
        pool.closed = True
        if "True" in cancel:
            for task in pool.queue:
                task.state, task.unseen = "cancelled", True
            pool.queue.clear()
        self.settle()

    def finish(self) -> None:
        """Open all gates, shut all down, and record all outcomes."""
        while any(pool.running or pool.queue for pool in self.pools):
            if not any(pool.running for pool in self.pools):
                self.settle()
                continue
            self.open()
        self.settle()
        for pool in self.pools:
            self.emit(f"stage.rec('end', lambda: {pool.name}.shutdown())")
        for name in self.noting:
            self.emit(f"stage.rec('noted', lambda: getattr({name}, 'noted', None))")
        for task in self.tasks:
            if not task.unseen:
                self.emit(f"stage.called('{task.name}', {task.callbacks})")
            self.emit(f"stage.rec('{task.name}', lambda: S.describe_outcome({task.name}))")
        self.emit("stage.called('log', 0)")

    def write(self) -> list[str]:
        """Return the statements of the program."""
        self.make_pool()
        actions = [
            (self.make_pool, 1),
            (self.submit, 8),
            (self.submit_gated, 4),
            (self.open, 3),
            (self.change, 2),
            (self.cancel, 3),
            (self.look, 2),
            (self.result, 5),
            (self.callback, 3),
            (self.wait, 3),
            (self.as_completed, 3),
            (self.map, 6),
            (self.nest, 3),
            (self.release, 1),
            (self.by_hand, 1),
            (self.bad_input, 1),
            (self.shut_down, 0.4),
            (self.leave, 0.2),
            (self.crash, 0.2),
        ]
        functions, weights = zip(*actions, strict=True)
        for _ in range(self.random.randint(3, 25)):
            self.random.choices(functions, weights)[0]()
        self.finish()
        return self.statements


def program(seed: int, kind: str) -> list[str]:
    """Return the statements of the program with a seed; `kind` is thread or process."""
    return Generator(seed, kind).write()
