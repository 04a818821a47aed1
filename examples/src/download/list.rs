//! The list of URLs: a file with one on each line.

use super::failure::Failure;
use super::names::Names;
use url::Url;

/// One file to download.
#[derive(Clone, Debug)]
pub struct Job {
    /// Address of the file.
    pub url: Url,
    /// Name of the file in the folder.
    pub name: String,
}

/// A line that is no URL.
#[derive(Debug)]
pub struct InvalidLine {
    /// The line's number, from 1.
    pub number: usize,
    /// The text of the line.
    pub text: String,
    /// The reason why the line is no URL to download.
    pub failure: Failure,
}

/// The jobs and the invalid lines of a list.
#[derive(Debug, Default)]
pub struct UrlList {
    /// The files to download, in the order of their lines.
    pub jobs: Vec<Job>,
    /// The lines that are no URLs.
    pub invalid: Vec<InvalidLine>,
}

impl UrlList {
    /// Reads one URL from each line, except for empty lines and those that begin with `#`.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let mut list = Self::default();
        let mut names = Names::default();
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            match parse_line(line) {
                Ok(url) => {
                    let name = names.name(&url);
                    list.jobs.push(Job { url, name });
                }
                Err(failure) => list.invalid.push(InvalidLine {
                    number,
                    text: String::from_utf8_lossy(line).into_owned(),
                    failure,
                }),
            }
        }
        list
    }
}

fn parse_line(line: &[u8]) -> Result<Url, Failure> {
    let line = str::from_utf8(line).map_err(|_| Failure::NotUtf8)?;
    let url = Url::parse(line)?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(Failure::Scheme(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_jobs_and_failures() {
        let list = UrlList::parse(
            b"\xEF\xBB\xBF# pictures\r\nhttp://h/a.jpg\r\n\n  http://h/b.jpg\nh/c.jpg\n\
              ftp://h/d.jpg\nhttp://h/\xFF\nhttp://\nhttps://h/e.jpg",
        );
        let names: Vec<_> = list.jobs.iter().map(|job| job.name.as_str()).collect();
        assert_eq!(names, ["a.jpg", "b.jpg", "e.jpg"]);
        let invalid: Vec<_> = list.invalid.iter().map(|line| line.number).collect();
        assert_eq!(invalid, [5, 6, 7, 8]);
        assert!(matches!(list.invalid[0].failure, Failure::InvalidUrl(_)));
        assert!(matches!(list.invalid[1].failure, Failure::Scheme(_)));
        assert!(matches!(list.invalid[2].failure, Failure::NotUtf8));
        assert!(matches!(list.invalid[3].failure, Failure::InvalidUrl(_)));
    }

    #[test]
    fn nothing_is_a_list_too() {
        let list = UrlList::parse(b"");
        assert!(list.jobs.is_empty() && list.invalid.is_empty());
    }
}
