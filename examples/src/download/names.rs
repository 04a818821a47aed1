//! File names made of URLs: safe for any file system, and each name once.

use percent_encoding::percent_decode_str;
use sanitize_filename::{Options, sanitize_with_options};
use std::collections::HashSet;
use url::Url;

/// Maximum length of a name in bytes. File systems allow 255, some that encrypt names fewer; the rest is for
/// the number that makes a name unique.
const MAX_LENGTH: usize = 120;

/// Maximum length of an extension in bytes, more than any real extension has.
const MAX_EXTENSION: usize = 16;

/// Gives each URL a file name that no other URL has got before.
#[derive(Debug, Default)]
pub struct Names {
    /// The names in use, in lower case, as some file systems do not distinguish cases.
    taken: HashSet<String>,
}

impl Names {
    /// Returns the name for a URL's file: `picture.jpg`, and `picture-2.jpg` for the next file of that name.
    pub fn name(&mut self, url: &Url) -> String {
        let name = safe_name(url);
        let (stem, extension) = split(&name);
        let numbered = (2..).map(|number| format!("{stem}-{number}{extension}"));
        std::iter::once(name.clone())
            .chain(numbered)
            .find(|name| self.taken.insert(name.to_lowercase()))
            .unwrap_or(name)
    }
}

/// Returns the last part of the URL's path, and its query, as a name that is only a name. The name has no
/// folders, nothing that a system has reserved, is not hidden, and is not too long.
fn safe_name(url: &Url) -> String {
    let last = url.path_segments().and_then(|mut parts| parts.next_back());
    let mut name = percent_decode_str(last.unwrap_or_default())
        .decode_utf8_lossy()
        .into_owned();
    if name.is_empty() {
        name.push_str("index.html");
    }
    if let Some(query) = url.query() {
        name.push('?');
        name.push_str(&percent_decode_str(query).decode_utf8_lossy());
    }
    let name = sanitize(&name, false);
    let name = shorten(name.trim_start_matches('.'));
    // Windows has reserved `CON`, `con.txt` and the like, but not `_CON`.
    let safe = sanitize(&name, true);
    if safe == name {
        name
    } else {
        sanitize(&format!("_{name}"), true)
    }
}

fn sanitize(name: &str, windows: bool) -> String {
    let options = Options {
        windows,
        truncate: false,
        replacement: "_",
    };
    sanitize_with_options(name, options)
}

/// Cuts the stem of a name that is too long, and keeps its extension.
fn shorten(name: &str) -> String {
    let (stem, extension) = split(name);
    let end = stem.floor_char_boundary(MAX_LENGTH.saturating_sub(extension.len()));
    format!("{}{extension}", &stem[..end])
}

/// Splits a name into stem and extension: `picture.tar.gz` is `picture.tar` and `.gz`.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= MAX_EXTENSION => name.split_at(dot),
        _ => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(url: &str) -> String {
        Names::default().name(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_plain_name_stays() {
        assert_eq!(name("http://h/a/picture-07.jpg"), "picture-07.jpg");
        assert_eq!(name("http://h/caf%C3%A9.png#top"), "café.png");
    }

    #[test]
    fn a_url_without_a_name_is_an_index() {
        assert_eq!(name("http://h"), "index.html");
        assert_eq!(name("http://h/a/"), "index.html");
    }

    #[test]
    fn a_query_is_part_of_the_name() {
        assert_eq!(name("http://h/a/b?c=d"), "b_c=d");
        assert_eq!(name("http://h/b?file=../../x"), "b_file=.._.._x");
    }

    #[test]
    fn no_name_leaves_the_folder() {
        assert_eq!(name("http://h/../../etc/passwd"), "passwd");
        assert_eq!(name("http://h/..%2F..%2Fetc%2Fpasswd"), "_.._etc_passwd");
        assert_eq!(name("http://h/%2Fetc%2Fpasswd"), "_etc_passwd");
        assert_eq!(name("http://h/..%5C..%5Cx"), "_.._x");
        assert_eq!(name("http://h/a%00b%0Ac"), "a_b_c");
        for dots in ["%2E", "..", "..."] {
            let name = name(&format!("http://h/a/{dots}"));
            assert!(!name.starts_with('.') && !name.is_empty(), "{name:?}");
        }
    }

    #[test]
    fn no_name_is_hidden_or_reserved() {
        assert_eq!(name("http://h/.bashrc"), "bashrc");
        assert_eq!(name("http://h/CON"), "_CON");
        assert_eq!(name("http://h/con.txt"), "_con.txt");
        assert_eq!(name("http://h/LPT1.tar.gz"), "_LPT1.tar.gz");
        assert_eq!(name("http://h/connect"), "connect");
        assert_eq!(name("http://h/end%20.%20"), "_end_");
    }

    #[test]
    fn a_long_name_is_cut_before_its_extension() {
        let long = name(&format!("http://h/{}.jpeg", "ä".repeat(300)));
        assert!(long.len() <= MAX_LENGTH && long.len() > MAX_LENGTH - 3);
        assert!(long.ends_with("ä.jpeg"));
        assert_eq!(name(&format!("http://h/{}", "x".repeat(300))).len(), 120);
    }

    #[test]
    fn each_name_is_given_once() {
        let mut names = Names::default();
        let urls = ["http://h/a.jpg", "http://i/a.jpg", "http://i/A.jpg"];
        let urls = urls.map(|url| Url::parse(url).unwrap());
        let names = urls.map(|url| names.name(&url));
        assert_eq!(names, ["a.jpg", "a-2.jpg", "A-3.jpg"]);
    }
}
