//! `cni-bench`: what the plugins cost, beside the reference's, any others, and the kernel's own part.
//!
//! All contenders of a case take turns, so that whatever else the machine does hits them alike; only ratios of one run
//! mean anything. Everything happens in namespaces and folders of the run's own.
#![allow(
    clippy::print_stdout,
    reason = "not a plugin: its report belongs on standard output"
)]

mod arguments;
mod call;
mod case;
mod contender;
mod crowd;
mod goals;
mod node;
mod plot;
mod plots;
mod report;
mod statistics;
mod store;
mod trace;
mod turns;
mod witness;

use std::error::Error;
use std::process::ExitCode;
use std::{env, fs};

use arguments::Arguments;
use case::{Case, Shape};
use contender::Contender;
use node::Node;
use report::Report;

/// An error with a sentence of its own; there is nobody to tell kinds apart.
type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    match Arguments::parse(env::args().skip(1)) {
        Ok(Some(arguments)) => match run(&arguments) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("cni-bench: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(None) => {
            println!("{}", arguments::USAGE);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cni-bench: {error}\n\n{}", arguments::USAGE);
            ExitCode::from(2)
        }
    }
}

/// True if every call of ours did what it should.
fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let target = contender::target_folder()?;
    let contenders = Contender::all(&target, &arguments.peers)?;
    let node = Node::enter(arguments.data.as_deref())?;
    let mut report = Report::new(&contenders);
    print!("{}", report.header(&node));
    for case in case::all().iter().filter(|case| arguments.wants(case)) {
        eprintln!("cni-bench: {}", case.title);
        let rows = match case.shape {
            Shape::InTurn => turns::measure(&node, case, &contenders, arguments)?,
            Shape::AtOnce => crowd::measure(&node, case, &contenders, arguments)?,
        };
        print!("{}", report.section(case, &rows));
        report.add(rows);
    }
    print!("{}", report.verdicts());
    let folder = target.join("bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("bench.json"), report.to_json()?)?;
    for (name, picture) in plots::all(&report) {
        fs::write(folder.join(name), picture)?;
    }
    println!("\nPlots and figures: {}", folder.display());
    Ok(!report.ours_failed())
}

/// Cases by name, for `--case`.
impl Arguments {
    fn wants(&self, case: &Case) -> bool {
        self.cases.is_empty()
            || self
                .cases
                .iter()
                .any(|filter| case.name.contains(filter.as_str()))
    }
}
