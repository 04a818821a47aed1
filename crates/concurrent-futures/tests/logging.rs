//! Tests of the messages in the program's log. They are alone in this file, since `tracing` remembers the
//! subscriber that listened to an event first, in whichever thread.

use concurrent_futures::promise;
use std::io::Write;
use std::sync::{Arc, Mutex};

#[test]
fn a_panicking_callback_is_logged() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let (promise, future) = promise();
    future.add_done_callback(|_| panic!("no receiver"));
    tracing::subscriber::with_default(subscriber, || promise.set_result(1).unwrap());
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("ERROR") && log.contains("a callback panicked"),
        "{log}"
    );
    assert!(log.contains("no receiver"), "{log}");
}
