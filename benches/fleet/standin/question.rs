//! A request's method and path to what is asked.

use hyper::Method;

use super::calls::Call;

/// What is asked, of which container or image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    Ping,
    Version,
    Info,
    List,
    Create,
    Inspect(String),
    Start(String),
    Stop(String),
    Kill(String),
    Remove(String),
    Logs(String),
    Image(String),
    Pull,
    Distribution(String),
    Events,
    Other,
}

impl Question {
    /// `path` without the version of the API.
    pub fn read(method: &Method, path: &str) -> Self {
        let is = |wanted: Method| *method == wanted;
        match path {
            "/_ping" => Self::Ping,
            "/version" => Self::Version,
            "/info" => Self::Info,
            "/events" => Self::Events,
            "/containers/json" => Self::List,
            "/containers/create" if is(Method::POST) => Self::Create,
            "/images/create" if is(Method::POST) => Self::Pull,
            _ => Self::about(method, path).unwrap_or(Self::Other),
        }
    }

    fn about(method: &Method, path: &str) -> Option<Self> {
        if let Some(image) = path.strip_prefix("/images/") {
            return image.strip_suffix("/json").map(|name| Self::Image(name.to_owned()));
        }
        if let Some(image) = path.strip_prefix("/distribution/") {
            return image.strip_suffix("/json").map(|name| Self::Distribution(name.to_owned()));
        }
        let rest = path.strip_prefix("/containers/")?;
        let (id, verb) = rest.split_once('/').unwrap_or((rest, ""));
        let id = id.to_owned();
        Some(match (method.as_str(), verb) {
            ("GET", "json") => Self::Inspect(id),
            ("GET", "logs") => Self::Logs(id),
            ("POST", "start") => Self::Start(id),
            ("POST", "stop") => Self::Stop(id),
            ("POST", "kill") => Self::Kill(id),
            ("DELETE", "") => Self::Remove(id),
            _ => return None,
        })
    }

    pub fn call(&self) -> Call {
        match self {
            Self::Ping => Call::Ping,
            Self::Version => Call::Version,
            Self::Info => Call::Info,
            Self::List => Call::List,
            Self::Create => Call::Create,
            Self::Inspect(_) => Call::Inspect,
            Self::Start(_) => Call::Start,
            Self::Stop(_) => Call::Stop,
            Self::Kill(_) => Call::Kill,
            Self::Remove(_) => Call::Remove,
            Self::Logs(_) => Call::Logs,
            Self::Image(_) => Call::Image,
            Self::Pull => Call::Pull,
            Self::Distribution(_) => Call::Distribution,
            Self::Events => Call::Events,
            Self::Other => Call::Other,
        }
    }
}
