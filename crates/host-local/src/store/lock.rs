//! Waiting for the lock, but not for ever: a process that is stuck must not make all others stuck.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fs2::FileExt;

/// How an attempt to lock a file ended, if not with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Locked,
    /// Somebody else has the lock.
    Held,
    /// The filesystem has no locks.
    Unsupported,
}

/// Locks a file if nobody else has it.
pub(super) fn attempt(file: &File) -> Attempt {
    match uninterrupted(|| file.try_lock_exclusive()) {
        Ok(()) => Attempt::Locked,
        Err(error) if error.kind() == ErrorKind::WouldBlock => Attempt::Held,
        Err(_) => Attempt::Unsupported,
    }
}

/// Locks a file as soon as nobody else has it, within `patience`.
///
/// # Errors
/// That no thread can be started.
pub(super) fn wait(file: &File, patience: Duration) -> io::Result<Attempt> {
    let attempt = attempt(file);
    if attempt != Attempt::Held {
        return Ok(attempt);
    }
    // The kernel lets waiters in by turns, and knows no limit of time: so a thread waits in it. The lock belongs to the
    // open file, which the two share; that of a thread that comes too late goes when it closes its own.
    let (result, results) = mpsc::sync_channel(1);
    let shared = file.try_clone()?;
    thread::Builder::new().spawn(move || {
        let locked = uninterrupted(|| shared.lock_exclusive());
        let _ = result.send(locked); // nobody listens any more if time is up
    })?;
    Ok(match results.recv_timeout(patience) {
        Ok(Ok(())) => Attempt::Locked,
        Ok(Err(_)) => Attempt::Unsupported,
        Err(_) => Attempt::Held,
    })
}

fn uninterrupted(act: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match act() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
