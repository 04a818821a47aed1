//! Interned strings for attributes and methods.
//!
//! The strings are made with the module, and not at their first use (as `pyo3::intern` does). Otherwise one thread
//! could be in the middle of making a string while another forks, and the child would wait for that string
//! forever.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

/// Makes an accessor for each of these strings.
macro_rules! names {
    ($($name:ident = $text:literal;)*) => {
        struct Names {
            $($name: Py<PyString>,)*
        }

        fn names(py: Python<'_>) -> &Names {
            NAMES.get_or_init(py, || Names {
                $($name: PyString::intern(py, $text).unbind(),)*
            })
        }

        $(
            pub(crate) fn $name(py: Python<'_>) -> &Bound<'_, PyString> {
                names(py).$name.bind(py)
            }
        )*
    };
}

static NAMES: PyOnceLock<Names> = PyOnceLock::new();

names! {
    after_fork = "_after_fork";
    refuse_script = "_refuse_script";
    call = "call";
    id = "id";
    interp = "interp";
    finalize = "finalize";
    initialize = "initialize";
    begin = "_begin";
    buffers = "buffers";
    exit_of = "exit_of";
    let_go = "let_go";
    self_ = "__self__";
    module = "__module__";
    qualname = "__qualname__";
    traceback = "__traceback__";
    raw = "raw";
    reducer_override = "reducer_override";
    forking_pickler = "ForkingPickler";
    extra_reducers = "_extra_reducers";
    func = "func";
    keywords = "keywords";
    dump = "dump";
    dumps = "dumps";
    init = "__init__";
    loads = "loads";
    persistent_id = "persistent_id";
    getvalue = "getvalue";
    acquire = "acquire";
    allocate_lock = "_allocate_lock";
    append = "append";
    original = "_original";
    args = "args";
    invoke_callbacks = "_invoke_callbacks";
    run = "run";
    set_exception = "set_exception";
    set_result = "set_result";
    set_running = "set_running_or_notify_cancel";
    submit_in_python = "_submit_in_python";
    submit_standard = "_submit_standard";
    add_cancelled = "add_cancelled";
    add_thread = "add_thread";
    add_exception = "add_exception";
    add_result = "add_result";
    cancel = "cancel";
    critical = "critical";
    dict = "__dict__";
    error = "error";
    exc_info = "exc_info";
    exception_in_callback = "exception calling callback for %r";
    exception_in_initializer = "Exception in initializer:";
    exception_in_worker = "Exception in worker";
    keep = "keep";
    name = "name";
    no_jobs_thread = "no thread for pickling: it delays its pool";
    no_callbacks_thread = "no thread for callbacks: they delay their pool";
    notify_all = "notify_all";
    release = "release";
    result = "result";
    start = "start";
    start_callbacks = "start_callbacks";
    start_jobs = "start_jobs";
    submit = "submit";
    supervise = "_supervise";
    target = "target";
    thread = "Thread";
    threading = "threading";
    thread_name = "%s_%d";
    pickler_thread = "ProcessPoolExecutor-pickler";
    unpickler = "ProcessPoolExecutor-unpickler";
    unexpected_state = "Future %s in unexpected state: %s";
}

/// Makes the strings.
pub(crate) fn make(py: Python<'_>) {
    names(py);
}
