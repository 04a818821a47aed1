//! (l) Worker processes, where there are none.

use crate::command_line::Settings;
use crate::section::Section;

pub(crate) fn run(_: &Settings) -> Section {
    Section::shown("Worker processes", "They need Linux.", Vec::new())
}

/// Does nothing: without worker processes, a floor has no child.
pub(crate) fn floor(_: &str) {}
