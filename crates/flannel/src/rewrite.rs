//! From flannel's configuration and `subnet.env` to the delegate's configuration.
//!
//! The delegate gets the user's `delegate` and `ipam` with what flanneld knows filled in. A key that is there, be it
//! with `null`, is the user's word; only `name`, `cniVersion`, `runtimeConfig`, `ipam` and in it `ranges` and `routes`
//! are never left to the user.

use cni_spec::address;
use cni_spec::json;
use cni_spec::result::{Route, RouteWire};
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::delegate::Delegate;
use crate::error::Error;
use crate::subnet_env::SubnetEnv;

/// The delegate's configuration. Its keys are in byte order at every level, but for those of routes.
///
/// # Errors
/// A `delegate` with keys that are not the user's to set, or `ipam.routes` that are none.
pub(crate) fn delegate(conf: &Config, env: &SubnetEnv) -> Result<Delegate, Error> {
    admit(&conf.delegate)?;
    let routes = routes(&conf.ipam, env)?;
    let mut delegate = conf.delegate.clone();
    if let Some(runtime_config) = &conf.runtime_config {
        delegate.insert("runtimeConfig".to_owned(), runtime_config.clone().into());
    }
    delegate.insert("name".to_owned(), conf.name.as_str().into());
    if !conf.cni_version.is_empty() {
        delegate.insert("cniVersion".to_owned(), conf.cni_version.as_str().into());
    }
    let is_bridge = delegate.entry("type").or_insert_with(|| "bridge".into()) == "bridge";
    if is_bridge {
        delegate.entry("isGateway").or_insert(Value::Bool(true));
    }
    delegate
        .entry("ipMasq")
        .or_insert(Value::Bool(!env.ip_masq));
    delegate.entry("mtu").or_insert_with(|| env.mtu.into());
    delegate.insert("ipam".to_owned(), ipam(&conf.ipam, env).into());
    Ok(Delegate::new(ordered(delegate, routes)))
}

/// Is there nothing in the user's `delegate` that is not the user's to set?
fn admit(delegate: &Map<String, Value>) -> Result<(), Error> {
    if delegate.get("type").is_some_and(|it| !it.is_string()) {
        return Err(Error::DelegateType);
    }
    if delegate.contains_key("name") {
        return Err(Error::DelegateName);
    }
    if delegate.contains_key("ipam") {
        return Err(Error::DelegateIpam);
    }
    Ok(())
}

/// The user's `ipam` with this node's subnets, a range set each. `routes` are filled in later.
fn ipam(of_user: &Map<String, Value>, env: &SubnetEnv) -> Map<String, Value> {
    let mut ipam = of_user.clone();
    ipam.entry("type").or_insert_with(|| "host-local".into());
    let ranges = env
        .subnets
        .iter()
        .map(|subnet| json!([{ "subnet": address::cidr_text(subnet) }]));
    ipam.insert("ranges".to_owned(), ranges.collect());
    ipam.insert("routes".to_owned(), Value::Null);
    ipam
}

/// The user's routes, then one to each network of the cluster, be it there already.
fn routes(ipam: &Map<String, Value>, env: &SubnetEnv) -> Result<Vec<Value>, Error> {
    let of_user = match ipam.get("routes") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(routes)) => routes.as_slice(),
        Some(other) => return Err(Error::Routes(no_list(other))),
    };
    let of_user = of_user
        .iter()
        .map(|it| route(it).map(|route| route.encode()));
    let to_cluster = env
        .networks
        .iter()
        .map(|network| Ok(Route::new(*network, None).encode()));
    of_user.chain(to_cluster).collect()
}

/// A route as it is meant. Without a destination it would send nothing anywhere.
fn route(wire: &Value) -> Result<Route, Error> {
    let read = json::read::<RouteWire>(wire);
    let read = read.map_err(|error| Error::Routes(error.to_string()))?;
    if !has_destination(wire) {
        return Err(Error::RouteWithoutDestination);
    }
    read.into_route()
        .map_err(|error| Error::Routes(error.to_string()))
}

fn has_destination(route: &Value) -> bool {
    let keys = route.as_object().into_iter().flatten();
    keys.into_iter()
        .any(|(key, value)| key.eq_ignore_ascii_case("dst") && value.is_string())
}

/// The sentence of Go's decoder.
fn no_list(value: &Value) -> String {
    let kind = match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Null | Value::Array(_) | Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into Go value of type []types.Route")
}

/// The keys in byte order, but for those of the routes.
fn ordered(conf: Map<String, Value>, routes: Vec<Value>) -> Map<String, Value> {
    let Value::Object(mut conf) = json::sorted(conf.into()) else {
        return Map::new();
    };
    if let Some(Value::Object(ipam)) = conf.get_mut("ipam") {
        ipam.insert("routes".to_owned(), routes.into());
    }
    conf
}

#[cfg(test)]
mod tests;
