//! Every verb through the dispatcher, with the real tools, each test in a network namespace of its own.

mod backends;
mod faults;
mod leftovers;
mod machine;

use cni_net::{KernelError, RouteLookup};
use nix::errno::Errno;

use crate::link_of;

#[test]
fn a_kernel_that_does_not_tell_is_no_kernel_without_a_route() {
    let refused = || KernelError::from_errno(Errno::ENOBUFS);
    let by = |oif| Ok(Some(RouteLookup { local: false, oif }));
    assert!(link_of(Err(refused()), |_| Ok(Some(1))).is_err());
    assert!(link_of(by(Some(7)), |_| Err::<Option<u32>, _>(refused())).is_err());
    assert_eq!(
        link_of(by(Some(7)), |index| Ok(Some(index))).unwrap(),
        Some(7)
    );
    assert_eq!(link_of(by(Some(7)), |_| Ok(None::<u32>)).unwrap(), None);
    assert_eq!(link_of(by(None), |index| Ok(Some(index))).unwrap(), None);
    assert_eq!(link_of(Ok(None), |index| Ok(Some(index))).unwrap(), None);
}
