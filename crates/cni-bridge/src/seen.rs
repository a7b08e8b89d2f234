//! What is there before anything is changed.

use cni_net::{At, Link, Net};
use ipnetwork::IpNetwork;

use crate::config::Config;
use crate::error::Error;
use crate::names::{ATTEMPTS, Names, random_name};

/// What an attachment's plan depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The link of the bridge's name.
    pub(crate) bridge: Option<Link>,
    /// The VLAN gateway device; `None` if there is none or none is wanted.
    pub(crate) vlan_device: Option<Link>,
    /// The gateway device's addresses of the gateways' families, in the kernel's order, once they are known.
    pub(crate) gateway_addresses: Vec<IpNetwork>,
    /// Is there a link of the wanted name in the container?
    pub(crate) container_link: bool,
}

impl Seen {
    /// Looks at the node and the container; takes other names for links where the derived ones are taken.
    pub(crate) fn read(net: &Net, config: &Config, names: &mut Names) -> Result<Seen, Error> {
        let look = |at: At, link: &str| {
            net.link(at, link).map_err(|error| Error::Lookup {
                link: link.to_owned(),
                error,
            })
        };
        let container_link = look(At::Container, &names.container)?;
        let [bridge, taken] =
            net.links(At::Host, [&config.bridge, &names.host])
                .map_err(|error| Error::Lookup {
                    link: config.bridge.clone(),
                    error,
                })?;
        let mut seen = Seen {
            container_link: container_link.is_some(),
            bridge,
            ..Seen::default()
        };
        if taken.is_some() {
            free_name(&mut names.host, |name| look(At::Host, name))?;
        }
        if !config.is_gateway {
            return Ok(seen);
        }
        if config.vlan.is_some() {
            seen.vlan_device = look(At::Host, &config.gateway_device())?;
            if seen.vlan_device.is_none() {
                free_name(&mut names.gateway_port, |name| look(At::Host, name))?;
            }
        }
        Ok(seen)
    }

    /// Looks at the addresses of the gateway device, as far as they could be in the way of the gateways'.
    pub(crate) fn read_gateway_addresses(
        &mut self,
        net: &Net,
        config: &Config,
        gateways: &[IpNetwork],
    ) -> Result<(), Error> {
        let device = if config.vlan.is_some() {
            &self.vlan_device
        } else {
            &self.bridge
        };
        if let Some(device) = device {
            let lookup = |error| Error::Lookup {
                link: device.name.clone(),
                error,
            };
            let addresses = net.addresses_like(At::Host, device.index, gateways);
            let addresses = addresses.map_err(lookup)?.into_iter();
            self.gateway_addresses = addresses.map(|it| it.address).collect();
        }
        Ok(())
    }
}

fn free_name(
    name: &mut String,
    look: impl Fn(&str) -> Result<Option<Link>, Error>,
) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        if look(name)?.is_none() {
            return Ok(());
        }
        *name = random_name();
    }
    Err(Error::NoFreeName)
}
