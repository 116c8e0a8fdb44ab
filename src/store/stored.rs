//! An object as the store keeps it: the JSON of its record, byte for byte as it lies on the disk.
//! It is decoded only for those who ask for it. Maps of JSON are sorted, so equal objects have
//! equal bytes, and bytes are what is compared. Pure.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::mirror::Key;
use super::{StoreError, key_of, record};
use crate::model::{Kind, Metadata, Object};

/// An object as bytes. A copy shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    json: Arc<[u8]>,
    /// Where the value of `spec` begins and ends.
    spec: (u32, u32),
    version: u64,
    generation: u64,
}

impl Stored {
    /// Takes over the JSON of a record, and tells under which key it belongs. The values of
    /// `spec` and `status` are skipped over.
    ///
    /// # Errors
    /// serde's, where it isn't an object.
    pub fn read(json: &[u8]) -> serde_json::Result<(Key, Self)> {
        let Split { kind, metadata, spec, .. } = serde_json::from_slice(json)?;
        // It is a part of the JSON, so the difference is where it begins.
        let begin = spec.get().as_ptr().addr().saturating_sub(json.as_ptr().addr());
        let place = |at: usize| {
            u32::try_from(at).map_err(|_| serde::de::Error::custom("it has more than 4 GiB"))
        };
        let object = Self {
            spec: (place(begin)?, place(begin + spec.get().len())?),
            version: metadata.resource_version,
            generation: metadata.generation,
            json: json.into(),
        };
        Ok(((kind, key_of(&metadata).into_boxed_str()), object))
    }

    /// The object itself.
    ///
    /// # Errors
    /// [`StoreError::Io`], where the JSON is none that serde takes.
    pub fn object(&self) -> Result<Object, StoreError> {
        serde_json::from_slice(&self.json).map_err(|error| StoreError::Io {
            doing: "decode an object of the store".into(),
            cause: error.to_string(),
        })
    }

    /// The whole object.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// Its `resourceVersion`.
    pub fn version(&self) -> u64 {
        self.version
    }

    fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        let (begin, end) = (self.spec.0 as usize, self.spec.1 as usize);
        let of = |range: std::ops::Range<usize>| self.json.get(range).unwrap_or_default();
        (of(0..begin), of(begin..end), of(end..self.json.len()))
    }
}

/// Of a record, what has to be known at once.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Split<'a> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    kind: Kind,
    metadata: Metadata,
    #[serde(borrow)]
    spec: &'a RawValue,
    #[serde(rename = "status")]
    _status: IgnoredAny,
}

/// An object that is to be written, still without its versions: all that can be done before the
/// store is locked.
#[derive(Debug)]
pub struct Draft {
    /// Up to the versions.
    head: String,
    /// The value of `spec`.
    spec: String,
    /// What follows it.
    rest: String,
}

impl Draft {
    /// The draft of an object, and the key under which it belongs.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub fn new(object: &Object) -> Result<(Key, Self), StoreError> {
        let Object { api_version, kind, metadata, spec, status } = object;
        let Metadata { name, environment, resource_version: _, generation: _ } = metadata;
        let text = |text: &str| Value::from(text).to_string();
        let mut head = format!(
            r#"{{"apiVersion":{},"kind":"{kind}","metadata":{{"name":{}"#,
            text(api_version),
            text(name)
        );
        if let Some(environment) = environment {
            head.push_str(r#","environment":"#);
            head.push_str(&text(environment));
        }
        let spec = spec.to_string();
        let rest = format!(r#","status":{status}}}"#);
        let bytes = head.len() + spec.len() + rest.len();
        if bytes > record::LARGEST_OBJECT {
            let object = format!("{kind}/{}", key_of(metadata));
            return Err(StoreError::TooLarge { object, bytes });
        }
        Ok(((*kind, key_of(metadata).into_boxed_str()), Self { head, spec, rest }))
    }

    /// What is to be stored under that version in the place of `old`; none where nothing
    /// differs.
    pub fn over(&self, old: Option<&Stored>, version: u64) -> Option<Stored> {
        let old_generation = old.map_or(0, |old| old.generation);
        let old = old.map(|old| (old, old.parts()));
        let is_same_spec = old.is_some_and(|(_, (_, spec, _))| spec == self.spec.as_bytes());
        if let Some((old, (head, _, rest))) = old
            && is_same_spec
            && rest == self.rest.as_bytes()
            && head == self.head(old.version, old_generation).as_bytes()
        {
            return None;
        }
        let generation = old_generation + u64::from(!is_same_spec);
        let head = self.head(version, generation);
        let end = head.len() + self.spec.len();
        // A draft is far smaller than 4 GiB.
        let spec = (head.len() as u32, end as u32);
        let json = [head.as_bytes(), self.spec.as_bytes(), self.rest.as_bytes()].concat();
        Some(Stored { json: json.into(), spec, version, generation })
    }

    /// Up to the value of `spec`.
    fn head(&self, version: u64, generation: u64) -> String {
        let Self { head, .. } = self;
        format!(r#"{head},"resourceVersion":{version},"generation":{generation}}},"spec":"#)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(environment: Option<&str>, spec: Value, status: Value) -> Object {
        Object {
            api_version: crate::model::API_VERSION.into(),
            kind: Kind::App,
            metadata: Metadata {
                name: "a \"quoted\"\nnäme\u{1}".into(),
                environment: environment.map(Into::into),
                resource_version: 0,
                generation: 0,
            },
            spec,
            status,
        }
    }

    #[test]
    fn its_bytes_are_those_of_serde_and_come_back() {
        let values =
            [json!(null), json!({}), json!({"b": [1, -2.5, 1e300], "a": "\\ü\n"}), json!(7)];
        for (spec, status) in values.iter().zip(values.iter().rev()) {
            for environment in [None, Some("pro\"duction")] {
                let mut object = object(environment, spec.clone(), status.clone());
                let (key, draft) = Draft::new(&object).unwrap();
                assert_eq!(*key.1, *key_of(&object.metadata));
                let stored = draft.over(None, 12).unwrap();
                object.metadata.resource_version = 12;
                object.metadata.generation = 1;
                assert_eq!(stored.json(), serde_json::to_vec(&object).unwrap());
                assert_eq!(stored.object().unwrap(), object);
                assert_eq!(Stored::read(stored.json()).unwrap(), (key, stored.clone()));
                assert_eq!(draft.over(Some(&stored), 13), None);
            }
        }
    }

    #[test]
    fn whatever_differs_is_written_and_only_a_spec_makes_a_generation() {
        let draft = |object: &Object| Draft::new(object).unwrap().1;
        let first = object(Some("e"), json!({"a": 1}), json!(null));
        let stored = draft(&first).over(None, 1).unwrap();
        let mut api_version = first.clone();
        api_version.api_version = "plimsoll/v2".into();
        // Both are known under the same key.
        let mut name = first.clone();
        name.metadata.name = format!("e/{}", name.metadata.name);
        for (other, generation) in [
            (object(Some("e"), json!({"a": 2}), json!(null)), 2),
            (object(Some("e"), json!({"a": 12}), json!(null)), 2),
            (object(Some("e"), json!({"a": 1}), json!({})), 1),
            (api_version, 1),
            (name, 1),
        ] {
            let written = draft(&other).over(Some(&stored), 2).unwrap().object().unwrap();
            assert_eq!(
                (written.metadata.resource_version, written.metadata.generation),
                (2, generation)
            );
            assert_eq!((written.spec, written.status), (other.spec, other.status));
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for json in ["", "{}", "null", r#"{"apiVersion":"v","kind":"App","metadata":{},"spec":1}"#]
        {
            assert!(Stored::read(json.as_bytes()).is_err(), "{json}");
        }
    }
}
