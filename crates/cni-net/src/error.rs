//! What the kernel says when it refuses.

use std::fmt;
use std::io;

use cni_spec::error::os_text;

use crate::attributes::{Attributes, text};

/// The kernel's refusal of one request.
#[derive(Debug)]
pub struct KernelError {
    /// The error number.
    pub errno: io::Error,
    /// The sentence that newer kernels add (`NLMSGERR_ATTR_MSG`), such as `mtu less than device minimum`.
    pub explanation: Option<String>,
}

impl KernelError {
    /// From a refusal that came without a sentence.
    pub fn from_errno(errno: nix::errno::Errno) -> KernelError {
        KernelError {
            errno: io::Error::from_raw_os_error(errno as i32),
            explanation: None,
        }
    }

    /// From netlink's error number, which is negative, and the attributes that come with it.
    pub(crate) fn refused(errno: i32, attributes: Option<&[u8]>) -> KernelError {
        KernelError {
            errno: io::Error::from_raw_os_error(errno.saturating_abs()),
            explanation: attributes.and_then(explanation),
        }
    }

    /// Is it this error number?
    pub fn is(&self, errno: nix::errno::Errno) -> bool {
        self.errno.raw_os_error() == Some(errno as i32)
    }
}

/// The text of `NLMSGERR_ATTR_MSG` (include/uapi/linux/netlink.h).
fn explanation(attributes: &[u8]) -> Option<String> {
    const MSG: u16 = 1;
    Attributes::find(attributes, MSG).map(text)
}

/// The error number's text, as the reference prints it.
impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&os_text(&self.errno))
    }
}

impl std::error::Error for KernelError {}

impl From<io::Error> for KernelError {
    fn from(errno: io::Error) -> KernelError {
        KernelError {
            errno,
            explanation: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_sentence_is_found_behind_other_attributes() {
        let mut bytes = vec![8, 0, 2, 0, 1, 2, 3, 4];
        bytes.extend([4 + 5, 0, 1, 0]);
        bytes.extend(b"nope\0\0\0\0");
        assert_eq!(explanation(&bytes).as_deref(), Some("nope"));
        assert_eq!(explanation(&bytes[..8]), None);
        assert_eq!(explanation(&[0, 0, 2, 0]), None);
    }
}
