//! Configuration: as spelled ([`Wire`]) and as meant ([`Config`]).

use serde::Deserialize;

use cni_net::parse_mac;
use cni_spec::args;
use cni_spec::conf::DnsConf;
use cni_spec::name::IfName;

use crate::error::Error;

/// What ADD, DEL and CHECK want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The bridge's name. Wire: `bridge`, default `cni0`.
    pub(crate) bridge: String,
    /// Does the bridge have the gateways' addresses? Wire: `isGateway`, implied by `isDefaultGateway`.
    pub(crate) is_gateway: bool,
    /// Does the container get a default route by the gateway? Wire: `isDefaultGateway`.
    pub(crate) is_default_gateway: bool,
    /// Do other addresses on the bridge make way? Wire: `forceAddress`.
    pub(crate) force_address: bool,
    /// Is what leaves the network masqueraded? Wire: `ipMasq`.
    pub(crate) masquerade: bool,
    /// Who masquerades, as spelled; `None` is for us to choose. Wire: `ipMasqBackend`.
    pub(crate) masquerade_backend: Option<String>,
    /// In bytes, Ethernet header left out; `None` keeps the kernel's choice. Wire: `mtu`, where 0 and less mean `None`.
    pub(crate) mtu: Option<u32>,
    /// Does a container reach itself through the bridge? Wire: `hairpinMode`.
    pub(crate) hairpin: bool,
    /// The same, by the bridge taking in all packets. Wire: `promiscMode`.
    pub(crate) promiscuous: bool,
    /// The VLAN of untagged packets; `None` for no VLAN. Wire: `vlan`, where 0 means `None`.
    pub(crate) vlan: Option<u16>,
    /// The VLANs of tagged packets, ascending. Wire: `vlanTrunk`.
    pub(crate) trunk: Vec<u16>,
    /// Does a new bridge look at VLAN tags? It does for `vlan` and for any `vlanTrunk`, be it an empty one.
    pub(crate) vlan_filtering: bool,
    /// Does a port keep the VLAN that the bridge gives every port? Wire: `preserveDefaultVlan`.
    pub(crate) preserve_default_vlan: bool,
    /// Are packets with another sender than the container's MAC dropped? Wire: `macspoofchk`.
    pub(crate) mac_spoof_check: bool,
    /// Is IPv6 duplicate address detection wanted? Wire: `enabledad`.
    pub(crate) detect_duplicates: bool,
    /// Is the container's end left down? Wire: `disableContainerInterface`.
    pub(crate) container_interface_down: bool,
    /// May the container not talk to other isolated ones? Wire: `portIsolation`.
    pub(crate) isolated: bool,
    /// The IPAM plugin; `None` for layer 2 only. Wire: `ipam.type`, where empty means `None`.
    pub(crate) ipam: Option<String>,
    /// The container's MAC as spelled; `None` for a random one. Wire: `runtimeConfig.mac`, `args.cni.mac`, `MAC` in
    /// `CNI_ARGS`, the first of them that is there.
    pub(crate) mac: Option<String>,
    /// Takes the place of what IPAM says, where it is present. Wire: `dns`.
    pub(crate) dns: Dns,
}

/// DNS as configured, comparable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dns(pub(crate) Option<cni_spec::Dns>);

/// The keys as spelled.
#[derive(Deserialize)]
#[serde(default, rename = "NetConf", rename_all = "camelCase")]
pub(crate) struct Wire {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    mtu: i64,
    hairpin_mode: bool,
    promisc_mode: bool,
    vlan: i64,
    vlan_trunk: Option<Vec<Option<TrunkWire>>>,
    preserve_default_vlan: bool,
    macspoofchk: bool,
    enabledad: bool,
    disable_container_interface: bool,
    port_isolation: bool,
    pub(crate) ipam: IpamWire,
    args: ArgsWire,
    runtime_config: MacWire,
    dns: DnsConf,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "IPAM")]
pub(crate) struct IpamWire {
    pub(crate) r#type: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "BridgeArgs")]
struct ArgsWire {
    cni: MacWire,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MacWire {
    mac: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename = "VlanTrunk")]
struct TrunkWire {
    #[serde(rename = "minID")]
    min_id: Option<i64>,
    #[serde(rename = "maxID")]
    max_id: Option<i64>,
    id: Option<i64>,
}

impl Default for Wire {
    fn default() -> Wire {
        Wire {
            bridge: "cni0".to_owned(),
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            ip_masq: false,
            ip_masq_backend: None,
            mtu: 0,
            hairpin_mode: false,
            promisc_mode: false,
            vlan: 0,
            vlan_trunk: None,
            preserve_default_vlan: false,
            macspoofchk: false,
            enabledad: false,
            disable_container_interface: false,
            port_isolation: false,
            ipam: IpamWire::default(),
            args: ArgsWire::default(),
            runtime_config: MacWire::default(),
            dns: DnsConf::default(),
        }
    }
}

impl Config {
    /// From the keys and the text of `CNI_ARGS`; what fails here fails every verb, as in the reference.
    pub(crate) fn new(wire: Wire, cni_args: &str) -> Result<Config, Error> {
        let vlan = u16::try_from(wire.vlan)
            .ok()
            .filter(|vlan| *vlan <= 4094)
            .ok_or(Error::VlanId(wire.vlan))?;
        let trunk = trunk(wire.vlan_trunk.as_deref().unwrap_or_default())?;
        let [mac_arg] = args::parse(cni_args, ["MAC"], &["IP"])?;
        let present = |text: String| (!text.is_empty()).then_some(text);
        Ok(Config {
            is_gateway: wire.is_gateway || wire.is_default_gateway,
            is_default_gateway: wire.is_default_gateway,
            force_address: wire.force_address,
            masquerade: wire.ip_masq,
            masquerade_backend: wire.ip_masq_backend,
            mtu: match wire.mtu {
                ..=0 => None,
                mtu => Some(u32::try_from(mtu).map_err(|_| Error::Mtu(mtu))?),
            },
            hairpin: wire.hairpin_mode,
            promiscuous: wire.promisc_mode,
            vlan: (vlan != 0).then_some(vlan),
            trunk,
            vlan_filtering: vlan != 0 || wire.vlan_trunk.is_some(),
            preserve_default_vlan: wire.preserve_default_vlan,
            mac_spoof_check: wire.macspoofchk,
            detect_duplicates: wire.enabledad,
            container_interface_down: wire.disable_container_interface,
            isolated: wire.port_isolation,
            ipam: present(wire.ipam.r#type),
            mac: present(wire.runtime_config.mac)
                .or(present(wire.args.cni.mac))
                .or(mac_arg.and_then(present)),
            dns: Dns(wire.dns.is_present().then(|| wire.dns.to_dns())),
            bridge: wire.bridge,
        })
    }

    /// What ADD alone cannot do, told before anybody is asked for an address.
    pub(crate) fn check_for_add(&self) -> Result<(), Error> {
        if self.ipam.is_some() && self.container_interface_down {
            return Err(Error::IpamWithInterfaceDown);
        }
        if self.hairpin && self.promiscuous {
            return Err(Error::HairpinWithPromiscuous);
        }
        if self.bridge.is_empty() {
            return Err(Error::BridgeNameEmpty);
        }
        // The kernel would make `br0` of `br%d`.
        if IfName::new(&self.bridge).is_err() || self.bridge.contains('%') {
            return Err(Error::BridgeName(self.bridge.clone()));
        }
        if self.is_gateway && IfName::new(&self.gateway_device()).is_err() {
            return Err(Error::BridgeName(self.gateway_device()));
        }
        self.mac_bytes().map(drop)
    }

    /// The container's MAC as bytes.
    pub(crate) fn mac_bytes(&self) -> Result<Option<Vec<u8>>, Error> {
        let Some(text) = &self.mac else {
            return Ok(None);
        };
        parse_mac(text)
            .map(Some)
            .ok_or_else(|| Error::Mac(text.clone()))
    }

    /// The name of the device that has the gateways' addresses.
    pub(crate) fn gateway_device(&self) -> String {
        self.vlan_gateway().unwrap_or_else(|| self.bridge.clone())
    }

    /// The name of that device where a VLAN has one of its own.
    pub(crate) fn vlan_gateway(&self) -> Option<String> {
        self.vlan.map(|vlan| format!("{}.{vlan}", self.bridge))
    }
}

/// The ids of a trunk list, ascending, none twice.
fn trunk(list: &[Option<TrunkWire>]) -> Result<Vec<u16>, Error> {
    let valid = |id: i64| u16::try_from(id).ok().filter(|id| (1..=4094).contains(id));
    let mut ids = Vec::new();
    for element in list {
        let Some(element) = element else {
            return Err(Error::TrunkNull);
        };
        match (element.min_id, element.max_id) {
            (Some(min), Some(max)) => {
                let min = valid(min).ok_or(Error::TrunkMinId)?;
                let max = valid(max).ok_or(Error::TrunkMaxId)?;
                if min > max {
                    return Err(Error::TrunkOrder);
                }
                ids.extend(min..=max);
            }
            (None, Some(_)) => return Err(Error::TrunkMinIdMissing),
            (Some(_), None) => return Err(Error::TrunkMaxIdMissing),
            (None, None) => {}
        }
        if let Some(id) = element.id {
            ids.push(valid(id).ok_or(Error::TrunkId)?);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(keys: Value) -> Result<Config, String> {
        Config::new(cni_spec::json::read(&keys).unwrap(), "").map_err(|error| error.to_string())
    }

    // B01
    #[test]
    fn b01_trunk_lists() {
        let trunk = |list: Value| config(json!({ "vlanTrunk": list })).unwrap().trunk;
        assert_eq!(trunk(Value::Null), Vec::<u16>::new());
        assert_eq!(trunk(json!([])), Vec::<u16>::new());
        assert_eq!(
            trunk(json!([{ "minID": 100, "maxID": 105 }])),
            [100, 101, 102, 103, 104, 105]
        );
        assert_eq!(trunk(json!([{ "id": 42 }])), [42]);
        assert_eq!(
            trunk(json!([{ "minID": 100, "maxID": 102, "id": 42 }, { "id": 101 }])),
            [42, 100, 101, 102]
        );
        assert!(config(json!({ "vlanTrunk": [] })).unwrap().vlan_filtering);
        assert!(!config(json!({})).unwrap().vlan_filtering);
    }

    // B02
    #[test]
    fn b02_trunk_errors() {
        let check = |element: Value, text: &str| {
            assert_eq!(config(json!({ "vlanTrunk": [element] })).unwrap_err(), text);
        };
        check(
            json!({ "minID": 100 }),
            "minID and maxID should be configured simultaneously, maxID is missing",
        );
        check(
            json!({ "maxID": 100 }),
            "minID and maxID should be configured simultaneously, minID is missing",
        );
        check(
            json!({ "minID": -1, "maxID": 100 }),
            "incorrect trunk minID parameter",
        );
        check(
            json!({ "minID": 4095, "maxID": 4096 }),
            "incorrect trunk minID parameter",
        );
        check(
            json!({ "minID": 1, "maxID": 4095 }),
            "incorrect trunk maxID parameter",
        );
        check(json!({ "id": 4095 }), "incorrect trunk id parameter");
        check(json!({ "id": -1 }), "incorrect trunk id parameter");
        check(
            json!({ "minID": 200, "maxID": 100 }),
            "minID is greater than maxID in trunk parameter",
        );
        check(Value::Null, "incorrect trunk parameter: element is null");
    }

    // B24
    #[test]
    fn b24_defaults() {
        let config = config(json!({ "bridge": null })).unwrap();
        assert!(!config.force_address && !config.is_gateway && !config.masquerade);
        assert_eq!(
            (config.bridge.as_str(), config.mtu, config.ipam),
            ("cni0", None, None)
        );
    }

    // B35
    #[test]
    fn b35_vlan_ids() {
        assert_eq!(config(json!({ "vlan": 0 })).unwrap().vlan, None);
        assert_eq!(config(json!({ "vlan": 4094 })).unwrap().vlan, Some(4094));
        for vlan in [-100, 5000] {
            let text = format!("invalid VLAN ID {vlan} (must be between 0 and 4094)");
            assert_eq!(config(json!({ "vlan": vlan })).unwrap_err(), text);
        }
    }

    // B27
    #[test]
    fn b27_which_mac_counts() {
        let mac = |keys: Value, args: &str| {
            Config::new(cni_spec::json::read(&keys).unwrap(), args)
                .unwrap()
                .mac
                .unwrap_or_default()
        };
        assert_eq!(mac(json!({}), "MAC=a"), "a");
        assert_eq!(
            mac(json!({ "args": { "cni": { "mac": "b" } } }), "MAC=a"),
            "b"
        );
        let both = json!({ "RuntimeConfig": { "mac": "c" }, "args": { "cni": { "mac": "b" } } });
        assert_eq!(mac(both, "MAC=a"), "c");
        assert_eq!(mac(json!({}), "IP=10.0.0.1"), "");
    }

    // B32
    #[test]
    fn b32_what_cannot_be_combined() {
        let refused = |keys: Value| {
            config(keys)
                .unwrap()
                .check_for_add()
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused(json!({ "ipam": { "type": "host-local" }, "disableContainerInterface": true })),
            "cannot use IPAM when DisableContainerInterface flag is set"
        );
        assert_eq!(
            refused(json!({ "hairpinMode": true, "promiscMode": true })),
            "cannot set hairpin mode and promiscuous mode at the same time"
        );
        assert_eq!(
            refused(json!({ "bridge": "" })),
            "failed to create bridge \"\": could not add \"\": LinkAttrs.Name cannot be empty"
        );
        for name in ["../../x", "a b", "1234567890123456", "a\u{0}b", "br%d"] {
            assert!(refused(json!({ "bridge": name })).starts_with("failed to create bridge "));
        }
        assert_eq!(
            refused(json!({ "args": { "cni": { "mac": "zz" } } })),
            "failed to make veth pair: address zz: invalid MAC address"
        );
    }
}
