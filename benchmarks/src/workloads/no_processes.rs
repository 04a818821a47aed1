//! (l) Worker processes, where there are none.

use crate::command_line::Settings;
use crate::section::Section;

pub(crate) fn run(_: &Settings) -> Section {
    Section::shown("Worker processes", "They need Linux.", Vec::new())
}

/// The child's part of a floor: there is no child.
pub(crate) fn floor(_: &str) {}
