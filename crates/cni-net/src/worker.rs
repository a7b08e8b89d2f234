//! A thread that is inside a container's namespace for as long as it lives, since entering one costs more than most of
//! what is to be done there.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::netns::Netns;

type Job = Box<dyn FnOnce() + Send>;

/// Runs what it is given, one after the other, in a namespace. The thread ends when this is dropped.
pub(crate) struct Worker {
    jobs: Sender<Job>,
}

impl Worker {
    /// Starts a thread in the namespace.
    ///
    /// # Errors
    /// Those of setns(2).
    pub(crate) fn start(netns: &Netns) -> io::Result<Worker> {
        let file = netns.try_clone_file()?;
        let (jobs, queue) = channel::<Job>();
        let (entered, is_inside) = channel();
        thread::Builder::new().spawn(move || {
            let inside = setns(&file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            drop(file);
            let stay = inside.is_ok();
            if entered.send(inside).is_ok() && stay {
                queue.into_iter().for_each(|job| job());
            }
        })?;
        is_inside.recv().map_err(|_| ended())??;
        Ok(Worker { jobs })
    }

    /// Runs `f` in the namespace and returns its value; a panic of `f` goes on in the calling thread.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, outcome) = channel::<Result<io::Result<T>, Box<dyn Any + Send>>>();
        let job = move || {
            // Nobody waits any more only if the caller is gone, and with it the need for the value.
            let _ = done.send(catch_unwind(AssertUnwindSafe(f)));
        };
        self.jobs.send(Box::new(job)).map_err(|_| ended())?;
        match outcome.recv().map_err(|_| ended())? {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread in the container's namespace has ended")
}
