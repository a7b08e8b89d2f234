//! A resolver's file as the `dns` of a result.

use std::io::{self, Read};
use std::path::Path;

use cni_spec::Dns;

use crate::error::Error;
use crate::file;

/// The longest line that is read, in bytes; longer ones are an error as in the reference.
const LONGEST_LINE: usize = 64 * 1024 - 1;
/// A larger file, in bytes, is an error: it is no resolver's.
const FILE_LIMIT: u64 = 1 << 20;

/// Reads a file of the form of `/etc/resolv.conf`.
pub(crate) fn read(path: &Path) -> Result<Dns, Error> {
    let failed = |action| {
        move |source| Error::ResolvConf {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let mut text = Vec::new();
    let file = file::open(path).map_err(failed("open"))?;
    file.take(FILE_LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(failed("read"))?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(failed("read")(io::Error::other(
            "file is larger than 1 MiB",
        )));
    }
    parse(&text).map_err(failed("read"))
}

/// `nameserver` appends its word, the last `domain` wins, `search` and `options` append theirs. Other keywords, and
/// lines that start with `#` or `;`, are passed over.
///
/// Source: resolv.conf(5); that lists accumulate is the reference's.
fn parse(text: &[u8]) -> io::Result<Dns> {
    let mut dns = Dns::default();
    for line in text.split(|&byte| byte == b'\n') {
        if line.len() > LONGEST_LINE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "bufio.Scanner: token too long",
            ));
        }
        let line = String::from_utf8_lossy(line);
        if line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(keyword), Some(first)) = (words.next(), words.next()) else {
            continue;
        };
        match keyword.as_str() {
            "nameserver" => dns.nameservers.push(first),
            "domain" => dns.domain = first,
            "search" => dns.search.extend([first].into_iter().chain(words)),
            "options" => dns.options.extend([first].into_iter().chain(words)),
            _ => {}
        }
    }
    Ok(dns)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    // H12
    #[test]
    fn h12_keywords_accumulate_and_the_last_domain_wins() {
        let text = "; comment\n# comment\nnameserver 192.0.2.0\n nameserver\t192.0.2.1 more\n\
                    domain first.example\ndomain example.com\nsearch a b\nsearch c\r\noptions debug\n\
                    options ndots:2 foo\nnameserver\nsortlist 1.2.3.4\n  # nameserver 9.9.9.9\n";
        let words = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let expected = Dns {
            nameservers: words(&["192.0.2.0", "192.0.2.1"]),
            domain: "example.com".to_owned(),
            search: words(&["a", "b", "c"]),
            options: words(&["debug", "ndots:2", "foo"]),
        };
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
        assert_eq!(parse(b"").unwrap(), Dns::default());
    }

    #[test]
    fn lines_are_bounded() {
        let long = |len: usize| format!("search {}", "a".repeat(len - 7));
        assert!(parse(long(65535).as_bytes()).is_ok());
        assert!(parse(long(65536).as_bytes()).is_err());
    }

    #[test]
    fn files_are_bounded_and_plain() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: &Path| read(path).unwrap_err().to_string();
        let pipe = folder.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for special in [pipe.as_path(), Path::new("/dev/zero")] {
            let expected = format!("open {}: not a regular file", special.display());
            assert_eq!(message(special), expected);
        }
        assert_eq!(read(Path::new("/dev/null")).unwrap(), Dns::default());
        let file = folder.path().join("resolv.conf");
        fs::write(&file, "#\n".repeat(1 << 19)).unwrap();
        assert_eq!(read(&file).unwrap(), Dns::default());
        fs::write(&file, "#\n".repeat((1 << 19) + 1)).unwrap();
        let expected = format!("read {}: file is larger than 1 MiB", file.display());
        assert_eq!(message(&file), expected);
    }
}
