//! The report: markdown, and its place in BENCHMARKS.md.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use crate::command_line::Settings;
use crate::harness::{Figure, Role, Row};
use crate::machine;
use crate::section::{Section, Table};

const BEGIN: &str = "<!-- rust:begin -->";
const END: &str = "<!-- rust:end -->";

/// Writes the report between its markers, and leaves the rest of the file to its owners.
pub(crate) fn write_into(path: &Path, report: &str) -> io::Result<()> {
    let existing = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => "# Benchmarks\n".to_owned(),
        Err(error) => return Err(error),
    };
    fs::write(path, splice(&existing, report))
}

/// Puts the report in the place of the previous one, or at the end of a file which has none.
fn splice(existing: &str, report: &str) -> String {
    let found = existing.find(BEGIN).and_then(|begin| {
        let end = begin + existing[begin..].find(END)? + END.len();
        Some((&existing[..begin], &existing[end..]))
    });
    let (before, after) = match found {
        Some((before, after)) => (before.to_owned(), after),
        None => (format!("{}\n\n", existing.trim_end()), "\n"),
    };
    format!("{before}{BEGIN}\n{}\n{END}{after}", report.trim_end())
}

/// The whole report.
pub(crate) fn render(sections: &[Section], settings: &Settings, disturbance: f64) -> String {
    let mut text = introduction(settings, disturbance);
    text += &targets(sections);
    for section in sections {
        text += &render_section(section);
    }
    text
}

/// Share of the processors that other programs may use before the figures are not to be trusted.
const DISTURBED: f64 = 0.05;

fn introduction(settings: &Settings, disturbance: f64) -> String {
    let size = if settings.quick {
        "**A quick run: the sizes are too small to compare.** "
    } else {
        ""
    };
    let disturbed = if disturbance > DISTURBED {
        "**The machine was busy with something else: measure again before you believe a figure or a verdict.** "
    } else {
        ""
    };
    let percent = figure(disturbance * 100.0);
    format!(
        "## Threads, in Rust\n\n\
         {size}{disturbed}{} · {} · Linux {} · {} · other programs took {percent} % of the processors meanwhile\n\n\
         Written by `cargo run --release -p benchmarks`. Contestants are interleaved: each of {} rounds runs all of \
         them once, in an order that changes from round to round. Each contestant has a fresh pool of 4 workers \
         (unless said otherwise) that has already run a thousand tasks. A cell shows the median over the rounds, and \
         in parentheses the lowest and the highest. The ratio is a row's median divided by ours: above 1, ours is \
         faster. Lower is better everywhere. A dash: cannot do it, or not in reasonable time. Rows in *italics* are \
         there for context and do something else, as the text above the table says: targets leave them out.\n\n",
        machine::today(),
        machine::processor(),
        machine::kernel(),
        machine::compiler(),
        settings.rounds,
    )
}

fn targets(sections: &[Section]) -> String {
    let all = || {
        sections
            .iter()
            .flat_map(|section| section.targets.iter().map(move |target| (section, target)))
    };
    if all().next().is_none() {
        return String::new();
    }
    let met = all().filter(|(_, target)| target.met).count();
    let mut text = format!(
        "### Targets: {met} of {} met\n\n| | target | measured | |\n|---|---|---|---|\n",
        all().count()
    );
    for (section, target) in all() {
        let verdict = if target.met { "met" } else { "**not met**" };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {verdict} |",
            section.letter, target.promise, target.measured
        );
    }
    text + "\n"
}

fn render_section(section: &Section) -> String {
    let mut text = format!(
        "### {}. {}\n\n{}\n\n",
        section.letter, section.title, section.text
    );
    for table in &section.tables {
        text += &render_table(table);
    }
    text
}

fn render_table(table: &Table) -> String {
    let mut text = String::new();
    if !table.caption.is_empty() {
        let _ = writeln!(text, "{}\n", table.caption);
    }
    let mut headings = table.columns.clone();
    let mut ours = None;
    if let Some(column) = table.ratio {
        headings.push(if table.columns.len() == 1 {
            "ratio to ours".to_owned()
        } else {
            format!("ratio to ours ({})", table.columns[column])
        });
        ours = Some((column, table.ours(column).median));
    }
    let _ = writeln!(
        text,
        "| | {} |\n|---|{}",
        headings.join(" | "),
        "---:|".repeat(headings.len())
    );
    for row in &table.rows {
        let _ = writeln!(
            text,
            "| {} | {} |",
            name(row),
            cells(row, headings.len(), ours).join(" | ")
        );
    }
    text + "\n"
}

fn name(row: &Row) -> String {
    match row.role {
        Role::Ours => format!("**{}**", row.name),
        Role::Peer => row.name.clone(),
        Role::Shown => format!("*{}*", row.name),
    }
}

fn cells(row: &Row, count: usize, ours: Option<(usize, f64)>) -> Vec<String> {
    if row.figures.is_empty() {
        return vec!["–".to_owned(); count];
    }
    let mut cells: Vec<_> = row.figures.iter().map(cell).collect();
    if let Some((column, ours)) = ours {
        cells.push(format!("{:.2}", row.figures[column].median / ours));
    }
    cells
}

fn cell(value: &Figure) -> String {
    let (median, lowest, highest) = (
        figure(value.median),
        figure(value.lowest),
        figure(value.highest),
    );
    if lowest == highest {
        median
    } else {
        format!("{median} ({lowest}–{highest})")
    }
}

/// A number of three digits, as long as there are not more before the point.
pub(crate) fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        99.95.. => 0,
        _ if (value - value.round()).abs() < 0.005 => 0,
        9.995.. => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    let whole = text.find('.').unwrap_or(text.len());
    let mut grouped = String::new();
    for (index, digit) in text.char_indices() {
        if index > 0 && index < whole && (whole - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, figure, splice};

    #[test]
    fn figures_have_three_digits_and_grouped_thousands() {
        let cases = [
            (0.0, "0"),
            (0.5, "0.50"),
            (16.0, "16"),
            (15.999, "16"),
            (9.994, "9.99"),
            (12.34, "12.3"),
            (99.96, "100"),
            (1_234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
        ];
        for (value, text) in cases {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn a_report_is_appended_to_a_file_without_one() {
        assert_eq!(
            splice("# Benchmarks\n", "new\n"),
            format!("# Benchmarks\n\n{BEGIN}\nnew\n{END}\n")
        );
    }

    #[test]
    fn a_report_replaces_the_previous_one_and_nothing_else() {
        let existing = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        assert_eq!(
            splice(&existing, "new"),
            format!("before\n{BEGIN}\nnew\n{END}\nafter\n")
        );
    }
}
