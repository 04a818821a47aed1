//! Tests of code that must not compile. Each example that does not compile has a twin that does, and that
//! differs in the forbidden line only.
//!
//! The names that it can write are listed in `tests/public_api.txt`.

/// The methods of the bound `Waitable` cannot be called: the task behind a future is the engine's.
///
/// ```
/// use concurrent_futures::{Waitable, promise, wait, ReturnWhen};
///
/// fn task<F: Waitable>(future: &F) {
///     let _ = wait([future], None, ReturnWhen::FirstCompleted);
/// }
/// # let (_promise, future) = promise::<Vec<u64>>();
/// # drop(_promise);
/// # task(&future);
/// ```
///
/// ```compile_fail,E0061
/// use concurrent_futures::{Waitable, promise, wait, ReturnWhen};
///
/// fn task<F: Waitable>(future: &F) {
///     let _ = future.task();
/// }
/// ```
///
/// A program cannot make the argument of that method.
///
/// ```compile_fail,E0277
/// use concurrent_futures::{Waitable, promise, wait, ReturnWhen};
///
/// fn task<F: Waitable>(future: &F) {
///     let _ = future.task(Default::default());
/// }
/// ```
///
/// ```compile_fail,E0308
/// use concurrent_futures::{Waitable, promise, wait, ReturnWhen};
///
/// fn task<F: Waitable>(future: &F) {
///     let _ = future.task(());
/// }
/// ```
struct TasksAreTheEngines;

/// A type of a program becomes `Waitable` only by parts that are `Waitable`.
///
/// ```
/// use concurrent_futures::{Future, Waitable, promise};
///
/// struct Mine(Future<u32>);
/// fn is_waitable(_: impl Waitable) {}
/// is_waitable(Mine(promise().1).0);
/// ```
///
/// ```compile_fail,E0277
/// use concurrent_futures::{Future, Waitable, promise};
///
/// struct Mine(Future<u32>);
/// fn is_waitable(_: impl Waitable) {}
/// is_waitable(Mine(promise().1));
/// ```
///
/// ```compile_fail,E0277
/// use concurrent_futures::{Future, Waitable, promise};
///
/// struct Mine(Future<u32>);
/// impl Waitable for Mine {}
/// ```
struct WaitableIsSealed;

/// The engine has no name without its feature.
///
/// ```
/// use concurrent_futures::wait;
/// ```
///
/// ```compile_fail,E0603
/// use concurrent_futures::engine::TaskRef;
/// ```
///
/// ```compile_fail,E0603
/// use concurrent_futures::future::wait;
/// ```
#[cfg(not(feature = "unstable-engine"))]
struct TheEngineHasNoName;

/// With the feature, functions that could break the safety of memory are unsafe.
///
/// ```
/// use concurrent_futures::engine::{Header, State};
///
/// fn look(header: &Header) -> &State {
///     header.state()
/// }
/// ```
///
/// ```compile_fail,E0133
/// use concurrent_futures::engine::{Header, State};
///
/// fn look(header: &Header) -> bool {
///     header.state().start()
/// }
/// ```
///
/// ```compile_fail,E0133
/// use concurrent_futures::engine::{Header, State};
///
/// fn look(header: &Header) -> bool {
///     header.state().claim().is_ok()
/// }
/// ```
///
/// ```compile_fail,E0133
/// use concurrent_futures::engine::{Header, State};
///
/// fn look(header: &Header) -> bool {
///     header.state().flag()
/// }
/// ```
#[cfg(feature = "unstable-engine")]
struct TheEngineIsUnsafe;
