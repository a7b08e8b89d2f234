//! Kernel parameters of the calling thread's network namespace, below `/proc/sys`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// The parameter's file. The parts of a name are separated by slashes, so that `eth0.100` can be one part; the dotted
/// form of sysctl(8) is understood where no slash is.
fn file_of(name: &str) -> PathBuf {
    let mut file = PathBuf::from("/proc/sys");
    if name.contains('/') {
        file.push(name)
    } else {
        file.push(name.replace('.', "/"))
    }
    file
}

/// The parameter's value, without the newline.
pub fn read(name: &str) -> io::Result<String> {
    // A parameter comes with one read, and one that is longer than this is none of those that are compared.
    let mut text = [0; 1024];
    let length = File::open(file_of(name))?.read(&mut text)?;
    let text = String::from_utf8_lossy(&text[..length]);
    Ok(text.trim_end_matches('\n').to_owned())
}

/// Sets the parameter.
pub fn write(name: &str, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(file_of(name))?
        .write_all(value.as_bytes())
}

/// Sets the parameter unless it has the value, so that one that must not be written to can be right already.
pub fn ensure(name: &str, value: &str) -> io::Result<()> {
    if read(name)? == value {
        Ok(())
    } else {
        write(name, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // L16
    #[test]
    fn l16_dots_and_slashes() {
        assert_eq!(
            file_of("net.ipv4.ip_forward"),
            PathBuf::from("/proc/sys/net/ipv4/ip_forward")
        );
        assert_eq!(
            file_of("net/ipv4/conf/eth0.100/arp_notify"),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.100/arp_notify")
        );
        assert_eq!(read("kernel/ostype").unwrap(), "Linux");
        assert_eq!(read("kernel.ostype").unwrap(), "Linux");
    }

    // L08
    #[test]
    fn l08_what_is_right_is_not_written() {
        // Writing `kernel/ostype` is refused, so success means that nothing was written.
        assert!(ensure("kernel/ostype", "Linux").is_ok());
        assert!(ensure("kernel/ostype", "Other").is_err());
    }
}
