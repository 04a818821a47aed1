//! Functions with names: a host runs them for programs of other builds.
//!
//! A place in the executable means nothing to another build. So a program gives a function a name, by [`register!`](crate::register).
//! The task has the name, and the types of the argument and of the result, as the client knows them. The host compares them.

#![forbid(unsafe_code)]

use concurrent_futures::engine::RemoteFunction;
use concurrent_futures::{Function, Value};
use std::any::type_name;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The environment of hosts that run functions by their names.
pub(crate) const BY_NAME: &str = "rust-by-name";

/// A function with a name.
struct Registered {
    /// None if the function is not in the executable.
    entry: Option<u64>,
    types: String,
}

/// The functions of this program.
static FUNCTIONS: Mutex<BTreeMap<&'static str, Registered>> = Mutex::new(BTreeMap::new());

fn lock() -> MutexGuard<'static, BTreeMap<&'static str, Registered>> {
    FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the types of a function as a text.
pub(crate) fn types_of<A, T>() -> String {
    format!("{} -> {}", type_name::<A>(), type_name::<T>())
}

/// Gives a function a name. The macro [`register!`](crate::register) calls it.
pub fn register<F, A, T>(name: &'static str, function: F)
where
    F: Fn(A) -> T + Function,
    A: Value,
    T: Value,
{
    let registered = Registered {
        entry: RemoteFunction::plain(function).entry(),
        types: types_of::<A, T>(),
    };
    lock().insert(name, registered);
}

/// Returns the entry of a function, by its name and its types.
///
/// # Errors
/// The reason why there is none.
pub(crate) fn find(name: &str, types: &str) -> Result<u64, String> {
    let functions = lock();
    let Some(found) = functions.get(name) else {
        let names: Vec<&str> = functions.keys().copied().collect();
        let names = if names.is_empty() {
            String::from("none")
        } else {
            names.join(", ")
        };
        return Err(format!(
            "no function is registered as {name}; registered are: {names}"
        ));
    };
    if found.types != types {
        return Err(format!(
            "{name} is registered with the types {}, and not {types}",
            found.types
        ));
    }
    let missing = || format!("{name} is in a shared library, or the system has no table of calls");
    found.entry.ok_or_else(missing)
}

/// Gives a function a name, so that programs of other builds can call it on this program's hosts.
///
/// Write it at the beginning of `main`, before [`init`](crate::init). A host runs functions by their names if it was made
/// with [`by_name`](crate::ClusterBuilder::by_name), or is started with `CONCURRENT_FUTURES_BY_NAME=1`. Clients call
/// [`submit_named`](crate::ClusterExecutor::submit_named). A name that is registered again stands for the newer
/// function.
///
/// # Examples
/// ```
/// fn area((width, height): (u32, u32)) -> u32 {
///     width * height
/// }
///
/// concurrent_futures_cluster::register!("area", area);
/// concurrent_futures_cluster::init();
/// ```
#[macro_export]
macro_rules! register {
    ($name:expr, $function:expr) => {
        $crate::__private::register($name, $function)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_by_its_name_and_its_types() {
        register("twice", |n: u32| 2 * n);
        let types = types_of::<u32, u32>();
        assert_eq!(types, "u32 -> u32");
        assert!(find("twice", &types).is_ok());
        let wrong = find("twice", &types_of::<u64, u32>()).unwrap_err();
        assert!(wrong.contains("u32 -> u32, and not u64 -> u32"), "{wrong}");
        let unknown = find("thrice", &types).unwrap_err();
        assert!(unknown.contains("registered are: twice"), "{unknown}");
    }
}
