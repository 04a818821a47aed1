"""A program with joblib, which has a start method of its own."""

import joblib
from joblib.externals.loky import get_reusable_executor
from stopwatch import WORKERS, run, task


def once(method: str) -> object:
    """Make a pool, take its first result, and end it."""
    with joblib.Parallel(n_jobs=WORKERS) as parallel:
        results = parallel([joblib.delayed(task)()])
    # Its workers would stay for the next loop, which is not what is measured.
    get_reusable_executor().shutdown(wait=True)
    return results[0]


if __name__ == "__main__":
    run(once)
