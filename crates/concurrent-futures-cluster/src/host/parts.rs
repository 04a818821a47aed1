//! Parts of results, of tasks that still run.
//!
//! The outcome of a task has all parts. Yet a program may wait for a part before it lets the task go on. So the host reports
//! each part until there is a receipt, or the task has ended.

#![forbid(unsafe_code)]

use super::report::confirm_part;
use super::state::{Host, Key};
use crate::log;
use crate::waits::Part;
use crate::wire::TaskPart;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// The pause before a part is reported again.
const PAUSE: Duration = Duration::from_secs(1);

/// The token of a call, which ends with it.
pub(super) struct Token {
    host: Arc<Host>,
    pub(super) number: u64,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.host.lock().calls.remove(&self.number);
    }
}

impl Host {
    /// Draws a token for the call of a task.
    pub(super) fn token(self: &Arc<Self>, key: Key) -> Token {
        let mut state = self.lock();
        state.last_call += 1;
        let number = state.last_call;
        state.calls.insert(number, key);
        drop(state);
        Token {
            host: Arc::clone(self),
            number,
        }
    }

    fn holds(&self, key: Key) -> bool {
        self.lock().held.contains_key(&key)
    }

    /// Takes a part of the result of a call, and reports it.
    pub(super) fn take_part(self: &Arc<Self>, part: Part) {
        let call = self.lock().calls.get(&part.token).copied();
        // The call has ended if it is not there.
        if let Some(key) = call {
            self.spawn(report(Arc::clone(self), key, part));
        }
    }
}

async fn report(host: Arc<Host>, key: Key, part: Part) {
    let (session, number) = key;
    let kept = host.lock().held.get(&key).and_then(|held| held.kept);
    let payload = match host.stored(kept, session, part.bytes).await {
        Ok(payload) => payload,
        Err(error) => return log::trouble("a part of a result could not be stored", &error),
    };
    let part = TaskPart {
        number,
        first: part.first,
        payload,
    };
    while host.holds(key) && !confirm_part(&host, session, part.clone()).await {
        sleep(PAUSE).await;
    }
}
