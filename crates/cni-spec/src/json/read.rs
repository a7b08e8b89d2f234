//! From a parsed document to a typed value, with Go's rules for keys and `null`.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "all other JSON types are refused alike"
)]

use std::borrow::Cow;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde_json::{Map, Value};

/// Reads a typed value.
///
/// * The keys of structs match without regard to case; where one key stands twice the last wins, and objects merge.
/// * `null` leaves a key's default; unknown keys are passed over.
/// * The keys of maps, and everything inside a [`Value`] field, are kept as they are.
/// * Integers must be plain: `80.0`, `1e3` and `"80"` are refused.
pub fn read<T: de::DeserializeOwned>(value: &Value) -> Result<T, TypeError> {
    T::deserialize(Reader {
        value: Cow::Borrowed(value),
        of: "",
    })
}

/// A value of the wrong type. `Display` is Go's sentence, as near as the type names allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeError {
    text: Text,
    /// The struct that the innermost key belongs to; empty at the top.
    of: &'static str,
    /// The keys from the top to the value.
    path: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Text {
    /// A value that a field's own parser refused; its sentence.
    Custom(String),
    /// A JSON value (`string`, `number 1.5`) where a type (`int`) was wanted.
    Mismatch { value: String, wanted: String },
}

impl TypeError {
    fn mismatch(value: &Value, wanted: &str, of: &'static str) -> TypeError {
        TypeError {
            text: Text::Mismatch {
                value: kind(value),
                wanted: wanted.to_owned(),
            },
            of,
            path: Vec::new(),
        }
    }

    fn below(mut self, key: &str, of: &'static str) -> TypeError {
        if self.of.is_empty() {
            self.of = of;
        }
        self.path.insert(0, key.to_owned());
        self
    }
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Text::Custom(text) => f.write_str(text),
            Text::Mismatch { value, wanted } if self.path.is_empty() => {
                write!(
                    f,
                    "json: cannot unmarshal {value} into Go value of type {wanted}"
                )
            }
            Text::Mismatch { value, wanted } => {
                let (of, path) = (self.of, self.path.join("."));
                write!(
                    f,
                    "json: cannot unmarshal {value} into Go struct field {of}.{path} of type {wanted}"
                )
            }
        }
    }
}

impl std::error::Error for TypeError {}

impl de::Error for TypeError {
    fn custom<T: fmt::Display>(text: T) -> TypeError {
        TypeError {
            text: Text::Custom(text.to_string()),
            of: "",
            path: Vec::new(),
        }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> TypeError {
        let value = match unexpected {
            Unexpected::Bool(_) => "bool".to_owned(),
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => {
                "number".to_owned()
            }
            Unexpected::Str(_) | Unexpected::Char(_) => "string".to_owned(),
            Unexpected::Seq => "array".to_owned(),
            Unexpected::Map => "object".to_owned(),
            other => other.to_string(),
        };
        TypeError {
            text: Text::Mismatch {
                value,
                wanted: expected.to_string(),
            },
            of: "",
            path: Vec::new(),
        }
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> TypeError {
        let value = match unexpected {
            Unexpected::Unsigned(n) => format!("number {n}"),
            Unexpected::Signed(n) => format!("number {n}"),
            other => other.to_string(),
        };
        TypeError {
            text: Text::Mismatch {
                value,
                wanted: expected.to_string(),
            },
            of: "",
            path: Vec::new(),
        }
    }
}

/// A JSON value's kind as Go's sentences name it.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) => format!("number {number}"),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

/// A value, of its own only where keys that stood twice had to be merged.
struct Reader<'v> {
    value: Cow<'v, Value>,
    /// The struct that this value is a field of, for messages.
    of: &'static str,
}

macro_rules! integers {
    ($($method:ident => $wanted:literal)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
            match &*self.value {
                Value::Null => visitor.visit_i64(0),
                Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                    (Some(number), _) => visitor.visit_u64(number),
                    (None, Some(number)) => visitor.visit_i64(number),
                    (None, None) => Err(TypeError::mismatch(&self.value, $wanted, self.of)),
                },
                Value::String(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                    Err(TypeError::mismatch(&self.value, $wanted, self.of))
                }
            }
        }
    )* };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = TypeError;

    /// Free-form: as it stands.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &*self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(it) => visitor.visit_bool(*it),
            Value::Number(it) => it
                .deserialize_any(visitor)
                .map_err(de::Error::custom::<serde_json::Error>),
            Value::String(it) => visitor.visit_str(it),
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            Value::Object(map) => visitor.visit_map(Entries::of("", as_they_stand(map))),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &*self.value {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(it) => visitor.visit_bool(*it),
            other => Err(TypeError::mismatch(other, "bool", self.of)),
        }
    }

    integers! {
        deserialize_i8 => "int" deserialize_i16 => "int" deserialize_i32 => "int" deserialize_i64 => "int"
        deserialize_u8 => "uint" deserialize_u16 => "uint" deserialize_u32 => "uint" deserialize_u64 => "uint"
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &*self.value {
            Value::Null => visitor.visit_str(""),
            Value::String(it) => visitor.visit_str(it),
            // Go adds a number's text only where a number was wanted.
            Value::Number(_) => Err(TypeError {
                text: Text::Mismatch {
                    value: "number".to_owned(),
                    wanted: "string".to_owned(),
                },
                of: self.of,
                path: Vec::new(),
            }),
            other => Err(TypeError::mismatch(other, "string", self.of)),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &*self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &*self.value {
            Value::Null => visitor.visit_seq(Items([].iter())),
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            other => Err(TypeError::mismatch(other, "[]", self.of)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &*self.value {
            Value::Null => visitor.visit_map(Entries::of("", Vec::new())),
            Value::Object(map) => visitor.visit_map(Entries::of("", as_they_stand(map))),
            other => Err(TypeError::mismatch(other, "map", self.of)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        match &*self.value {
            Value::Null => visitor.visit_map(Entries::of(name, Vec::new())),
            Value::Object(map) => visitor.visit_map(Entries::of(name, canonical(map, fields))),
            other => {
                let value = if other.is_number() {
                    "number".to_owned()
                } else {
                    kind(other)
                };
                let wanted = name.to_owned();
                Err(TypeError {
                    text: Text::Mismatch { value, wanted },
                    of: self.of,
                    path: Vec::new(),
                })
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        match &*self.value {
            Value::String(it) => visitor.visit_enum(Variant(it.clone())),
            other => Err(TypeError::mismatch(other, "string", self.of)),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        visitor.visit_unit()
    }
}

/// An object's entries.
type Pairs<'v> = Vec<(&'v str, Cow<'v, Value>)>;

fn as_they_stand(map: &Map<String, Value>) -> Pairs<'_> {
    let entries = map.iter();
    entries
        .map(|(key, value)| (key.as_str(), Cow::Borrowed(value)))
        .collect()
}

/// The entries of an object under a struct's own spelling of its keys; `null` and what the struct lacks left out.
fn canonical<'v>(map: &'v Map<String, Value>, fields: &'static [&'static str]) -> Pairs<'v> {
    let mut known: Pairs<'v> = Vec::new();
    for (key, value) in map {
        let field = fields
            .iter()
            .find(|&&it| it == key)
            .or_else(|| fields.iter().find(|it| same_key(it, key)));
        let Some(field) = field.filter(|_| !value.is_null()) else {
            continue;
        };
        match known.iter_mut().find(|(known, _)| known == field) {
            Some((_, before)) => merge(before.to_mut(), value.clone()),
            None => known.push((field, Cow::Borrowed(value))),
        }
    }
    known
}

/// Equal without regard to case, as Go folds: the Kelvin sign and the long s count as their ASCII letters.
fn same_key(field: &str, key: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        letter => letter.to_ascii_lowercase(),
    };
    field.chars().map(fold).eq(key.chars().map(fold))
}

fn merge(before: &mut Value, value: Value) {
    match (before, value) {
        (Value::Object(before), Value::Object(map)) => {
            for (key, value) in map {
                match before.get_mut(&key) {
                    Some(before) => merge(before, value),
                    None => {
                        before.insert(key, value);
                    }
                }
            }
        }
        (before, value) => *before = value,
    }
}

struct Items<'v>(std::slice::Iter<'v, Value>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = TypeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, TypeError> {
        self.0
            .next()
            .map(|value| {
                seed.deserialize(Reader {
                    value: Cow::Borrowed(value),
                    of: "",
                })
            })
            .transpose()
    }
}

struct Entries<'v> {
    entries: std::vec::IntoIter<(&'v str, Cow<'v, Value>)>,
    value: Option<(&'v str, Cow<'v, Value>)>,
    /// The struct that the entries are fields of; empty for a map.
    of: &'static str,
}

impl<'v> Entries<'v> {
    fn of(of: &'static str, entries: Pairs<'v>) -> Entries<'v> {
        Entries {
            entries: entries.into_iter(),
            value: None,
            of,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = TypeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, TypeError> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        let read = seed.deserialize::<StrDeserializer<'_, TypeError>>(key.into_deserializer())?;
        self.value = Some((key, value));
        Ok(Some(read))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, TypeError> {
        let (key, value) = self.value.take().unwrap_or(("", Cow::Owned(Value::Null)));
        seed.deserialize(Reader { value, of: self.of })
            .map_err(|error| error.below(key, self.of))
    }
}

struct Variant(String);

impl<'de> EnumAccess<'de> for Variant {
    type Error = TypeError;
    type Variant = UnitOnly;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, UnitOnly), TypeError> {
        let variant = seed
            .deserialize::<StrDeserializer<'_, TypeError>>(self.0.as_str().into_deserializer())?;
        Ok((variant, UnitOnly))
    }
}

struct UnitOnly;

impl<'de> de::VariantAccess<'de> for UnitOnly {
    type Error = TypeError;

    fn unit_variant(self) -> Result<(), TypeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, TypeError> {
        Err(de::Error::custom("a plain string was expected"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, TypeError> {
        Err(de::Error::custom("a plain string was expected"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, TypeError> {
        Err(de::Error::custom("a plain string was expected"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, rename_all = "camelCase")]
    struct NetConf {
        bridge: String,
        is_gateway: bool,
        mtu: i64,
        ipam: Ipam,
        capabilities: BTreeMap<String, bool>,
        list: Vec<Ipam>,
        names: Vec<String>,
        free: Option<Value>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, rename = "IPAM", rename_all = "camelCase")]
    struct Ipam {
        r#type: String,
        data_dir: String,
    }

    #[test]
    fn keys_of_structs_match_without_case_and_free_forms_stay() {
        let conf: NetConf = read(&json!({
            "BRIDGE": "br", "ISGATEWAY": true, "Capabilities": { "portMappings": true },
            "free": { "A": { "b": null } }, "unknown": [1, { "x": 2 }],
        }))
        .unwrap();
        assert_eq!((conf.bridge.as_str(), conf.is_gateway), ("br", true));
        assert_eq!(conf.capabilities.get("portMappings"), Some(&true));
        assert_eq!(conf.free, Some(json!({ "A": { "b": null } })));
    }

    #[test]
    fn the_last_of_two_spellings_wins_and_objects_merge() {
        let text = r#"{"mtu": 1, "MTU": 2, "ipam": {"type": "a"}, "IPAM": {"dataDir": "b"}}"#;
        let conf: NetConf = read(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(conf.mtu, 2);
        assert_eq!(
            conf.ipam,
            Ipam {
                r#type: "a".into(),
                data_dir: "b".into()
            }
        );
    }

    #[test]
    fn null_means_absent() {
        let conf: NetConf =
            read(&json!({ "mtu": null, "ipam": null, "names": ["a", null], "list": [null] }))
                .unwrap();
        assert_eq!(conf.names, ["a", ""]);
        assert_eq!(conf.list, [Ipam::default()]);
        assert_eq!(conf.mtu, 0);
    }

    // P20
    #[test]
    fn p20_wrong_types_are_named() {
        let check = |value: Value, text: &str| {
            assert_eq!(
                read::<NetConf>(&value).unwrap_err().to_string(),
                format!("json: cannot unmarshal {text}")
            );
        };
        check(
            json!({ "mtu": "x" }),
            "string into Go struct field NetConf.mtu of type int",
        );
        check(
            json!({ "mtu": 1500.5 }),
            "number 1500.5 into Go struct field NetConf.mtu of type int",
        );
        check(
            json!({ "isGateway": 1 }),
            "number 1 into Go struct field NetConf.isGateway of type bool",
        );
        check(
            json!({ "ipam": { "type": 5 } }),
            "number into Go struct field IPAM.ipam.type of type string",
        );
        check(
            json!({ "ipam": [] }),
            "array into Go struct field NetConf.ipam of type IPAM",
        );
        check(json!([]), "array into Go value of type NetConf");
    }

    #[test]
    fn integers_are_plain() {
        assert!(read::<NetConf>(&serde_json::from_str(r#"{"mtu": 1e3}"#).unwrap()).is_err());
        assert!(read::<NetConf>(&serde_json::from_str(r#"{"mtu": 1500.0}"#).unwrap()).is_err());
        assert_eq!(read::<NetConf>(&json!({ "mtu": -5 })).unwrap().mtu, -5);
    }
}
