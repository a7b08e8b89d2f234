//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::Failure;

pub(crate) const USAGE: &str = "\
usage: cni-bench [--quick] [--rounds N] [--case FILTER]... [--peer NAME=DIR]... [--data DIR]

  --quick          a minute instead of several
  --rounds N       exactly N rounds of every case, instead of as many as fit its time
  --case FILTER    only cases whose name contains FILTER
  --peer NAME=DIR  another folder with CNI plugins, to run beside
  --data DIR       leases and state files below DIR, to measure its disk too, instead of in memory";

/// What the person asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) quick: bool,
    pub(crate) rounds: Option<usize>,
    pub(crate) cases: Vec<String>,
    pub(crate) peers: Vec<(String, PathBuf)>,
    pub(crate) data: Option<PathBuf>,
}

impl Arguments {
    /// `None` if only the usage is asked for.
    pub(crate) fn parse(
        words: impl IntoIterator<Item = String>,
    ) -> Result<Option<Arguments>, Failure> {
        let mut arguments = Arguments {
            quick: false,
            rounds: None,
            cases: Vec::new(),
            peers: Vec::new(),
            data: None,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("`{word}` needs a value"))
            };
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--quick" => arguments.quick = true,
                "--rounds" => {
                    let text = value()?;
                    let rounds = text.parse().ok().filter(|rounds| *rounds > 0);
                    arguments.rounds =
                        Some(rounds.ok_or_else(|| format!("`{text}` is no number of rounds"))?);
                }
                "--case" => arguments.cases.push(value()?),
                "--data" => arguments.data = Some(folder(&value()?)?),
                "--peer" => {
                    let text = value()?;
                    let (name, folder) = text.split_once('=').ok_or("`--peer` needs NAME=DIR")?;
                    arguments
                        .peers
                        .push((name.to_owned(), self::folder(folder)?));
                }
                _ => return Err(format!("unknown argument `{word}`").into()),
            }
        }
        Ok(Some(arguments))
    }

    /// How long a case may take, where no number of rounds is given.
    pub(crate) fn budget(&self, case: Duration) -> Duration {
        if self.quick { case / 9 } else { case }
    }
}

fn folder(text: &str) -> Result<PathBuf, Failure> {
    Ok(PathBuf::from(text)
        .canonicalize()
        .map_err(|error| format!("{text}: {error}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Arguments>, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn options_in_any_order() {
        let arguments = parse("--case flannel --quick --peer other=/ --rounds 3 --case lo")
            .unwrap()
            .unwrap();
        assert_eq!(
            arguments,
            Arguments {
                quick: true,
                rounds: Some(3),
                cases: vec!["flannel".to_owned(), "lo".to_owned()],
                peers: vec![("other".to_owned(), PathBuf::from("/"))],
                data: None,
            }
        );
        assert_eq!(parse("--quick --help"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, sentence) in [
            ("--fast", "unknown argument `--fast`"),
            ("--rounds", "`--rounds` needs a value"),
            ("--rounds 0", "`0` is no number of rounds"),
            ("--peer /opt/cni/bin", "`--peer` needs NAME=DIR"),
            (
                "--data /nowhere/at/all",
                "/nowhere/at/all: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(parse(line), Err(sentence.to_owned()));
        }
    }
}
