//! A way in for tests that throw any text at the readers of this module. It is no part of the
//! library's promises, and nothing in the program calls it.

use super::answer;
use super::file::seal;
use super::parse::parse;
use super::render::{Places, render};
use super::routes::{parse_routes, render_routes, route_of};
use crate::model::FilePath;

/// Reads `text` as each answer of HAProxy and as each file of ours, damaged or with a trailer
/// that is right.
///
/// # Panics
/// Where something that was read doesn't give the same when it is written and read again.
pub fn read_everything(text: &str) {
    for count in 0..4 {
        let _ = answer::split(text, count);
    }
    let _ = (answer::structure(text), answer::map_version(text), answer::processes(text));
    let _ = answer::servers(text);
    if let Ok(routes) = answer::routes(text) {
        assert_eq!(parse_routes(&render_routes(&routes)), Ok(routes), "routes are read back");
    }
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(server) = first.parse() {
        let _ = answer::sessions(rest, &server);
    }
    let _ = route_of(first);
    let _ = parse_routes(text);
    let _ = parse_routes(&seal(text.to_owned()));
    read_configuration(text);
}

fn read_configuration(text: &str) {
    let path = |text: &str| text.parse::<FilePath>().ok();
    let (Some(runtime_socket), Some(routes)) = (path("/s/h.sock"), path("/s/routes.map")) else {
        return;
    };
    let places = Places { runtime_socket, routes };
    let empty = render_routes(&std::collections::BTreeMap::new());
    let _ = parse(text, &empty, &places);
    let sealed = seal(text.to_owned());
    if let Ok(config) = parse(&sealed, &empty, &places) {
        let again = render(&config, &places).map(|rendered| rendered.config);
        assert_eq!(again.ok(), Some(sealed), "the configuration is read back");
    }
}
