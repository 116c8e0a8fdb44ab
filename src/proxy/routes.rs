//! The map of routes: one line for each route, `LISTENER/HOST/PATH/ BACKEND`. HAProxy looks a
//! request up by the longest key that its own listener, host and path begin with; every key ends
//! with a slash, so that `/a` doesn't match `/ab`.
//!
//! The map lies beside the configuration, and is changed at runtime without a reload.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::file::{seal, unseal};
use crate::model::{BackendName, RouteKey};

pub type Routes = BTreeMap<RouteKey, BackendName>;

const HEADER: &str = "# Written by Plimsoll. Edits are undone: change the manifests instead.\n";

/// The key of a route in the map.
pub fn map_key(key: &RouteKey) -> String {
    let RouteKey { listener, host, path } = key;
    match path.as_str() {
        "/" => format!("{listener}/{host}/"),
        path => format!("{listener}/{host}{path}/"),
    }
}

/// The route that a key of the map stands for; none where it isn't one of ours.
pub fn route_of(map_key: &str) -> Option<RouteKey> {
    let (listener, rest) = map_key.split_once('/')?;
    let (host, path) = rest.split_once('/')?;
    let key = RouteKey {
        listener: listener.parse().ok()?,
        host: host.parse().ok()?,
        path: format!("/{path}").parse().ok()?,
    };
    // Spelled in another way it would be another key to HAProxy.
    (self::map_key(&key) == map_key).then_some(key)
}

/// The file of the map, with its trailer.
pub fn render_routes(routes: &Routes) -> String {
    let mut text = HEADER.to_owned();
    for (key, backend) in routes {
        let _ = writeln!(text, "{} {backend}", map_key(key));
    }
    seal(text)
}

/// Reads back what [`render_routes`] wrote.
///
/// # Errors
/// What is wrong with the file, for people.
pub fn parse_routes(sealed: &str) -> Result<Routes, String> {
    let mut routes = Routes::new();
    for line in unseal(sealed)?.lines().filter(|line| !line.starts_with('#')) {
        let bad = || format!("{line:?} isn't a route");
        let (key, backend) = line.split_once(' ').ok_or_else(bad)?;
        let key = route_of(key).ok_or_else(bad)?;
        routes.insert(key, backend.parse().map_err(|_| bad())?);
    }
    if render_routes(&routes) == sealed {
        Ok(routes)
    } else {
        Err("it was written by another version of Plimsoll".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        for (route, key) in [
            ("web www.example.com/", "web/www.example.com/"),
            ("web www.example.com/a/b", "web/www.example.com/a/b/"),
            ("web *.example.com/", "web/*.example.com/"),
            ("web */a", "web/*/a/"),
        ] {
            let route: RouteKey = route.parse().unwrap();
            assert_eq!(map_key(&route), key);
            assert_eq!(route_of(key), Some(route));
        }
        for foreign in ["", "web", "web/a", "web/a/b", "Web/a/", "web/A/", "web/a//"] {
            assert_eq!(route_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_map_of_anything_else_is_refused() {
        for body in ["web/a/\n", "web/a/ b\n", "x\n", "web/a/  production.web\n"] {
            assert!(parse_routes(&seal(body.into())).is_err(), "{body}");
        }
    }
}
