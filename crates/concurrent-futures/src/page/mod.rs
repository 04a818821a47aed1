//! The page that shows a recording, as one file without network access.
//!
//! `timeline.html` is built from the folder `page/` of the repository by `make page`. It has two placeholders: the
//! address of updates, and the document, whose format `docs/recording.md` describes.

#![forbid(unsafe_code)]

use std::io::{self, Write};

/// The page with its placeholders. No other file includes it.
const TEMPLATE: &str = include_str!("timeline.html");
const EVENTS: &str = "@EVENTS@";
const DOCUMENT: &str = "@RECORDING@";

/// Writes the page with a document in it.
///
/// `document` writes the document, or nothing if the page is to wait for updates. `events` is the address of
/// updates, relative to that of the page; without an address the page asks for none.
///
/// # Errors
/// Those of `out` and of `document`.
pub fn write(
    out: &mut dyn Write,
    events: Option<&str>,
    document: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let parts = TEMPLATE.split_once(EVENTS).and_then(|(before, rest)| {
        let (between, after) = rest.split_once(DOCUMENT)?;
        Some((before, between, after))
    });
    let (before, between, after) = parts
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "page without placeholders"))?;
    out.write_all(before.as_bytes())?;
    for character in events.unwrap_or_default().chars() {
        match character {
            '&' => out.write_all(b"&amp;")?,
            '"' => out.write_all(b"&quot;")?,
            '<' => out.write_all(b"&lt;")?,
            _ => write!(out, "{character}")?,
        }
    }
    out.write_all(between.as_bytes())?;
    document(&mut InScript(out))?;
    out.write_all(after.as_bytes())
}

/// Writes JSON into a script element, which `</script` would end: each `<` becomes `\u003c`. JSON has the sign in
/// strings only.
struct InScript<'a>(&'a mut dyn Write);

impl Write for InScript<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut parts = bytes.split(|&byte| byte == b'<');
        if let Some(first) = parts.next() {
            self.0.write_all(first)?;
        }
        for part in parts {
            self.0.write_all(br"\u003c")?;
            self.0.write_all(part)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::{DOCUMENT, EVENTS, TEMPLATE, write};
    use std::io;

    fn page(events: Option<&str>, pieces: &[&str]) -> String {
        let mut out = Vec::new();
        write(&mut out, events, |document| {
            pieces
                .iter()
                .try_for_each(|piece| document.write_all(piece.as_bytes()))
        })
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_template_has_each_placeholder_once() {
        for placeholder in [EVENTS, DOCUMENT] {
            assert_eq!(TEMPLATE.matches(placeholder).count(), 1, "{placeholder}");
        }
    }

    #[test]
    fn a_document_cannot_end_the_element_that_holds_it() {
        let text = page(None, &[r#"{"strings":["","</scr"#, r#"ipt><!--"]}"#]);
        let (_, rest) = text.split_once(r#"id="recording">"#).unwrap();
        let (document, _) = rest.split_once("</script>").unwrap();
        assert_eq!(document, r#"{"strings":["","\u003c/script>\u003c!--"]}"#);
    }

    #[test]
    fn the_page_holds_the_address_of_updates_as_text() {
        let text = page(Some(r#"events?token=a"b&c<d"#), &[]);
        assert!(
            text.contains(r#"name="recording-events" content="events?token=a&quot;b&amp;c&lt;d""#)
        );
        assert!(page(None, &[]).contains(r#"name="recording-events" content="""#));
    }

    #[test]
    fn an_error_of_the_document_is_the_error_of_the_page() {
        let error = write(&mut io::sink(), None, |_| Err(io::Error::other("full"))).unwrap_err();
        assert_eq!(error.to_string(), "full");
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere() {
        for marker in ["src=\"http", "href=\"http", "@import", "url(http"] {
            assert!(!TEMPLATE.contains(marker), "{marker}");
        }
        assert!(TEMPLATE.contains("default-src 'none'"));
    }
}
