//! Which request a method and a path stand for.
//!
//! A [`Route`] is found by the head alone, before the body is there: what there
//! is no route for is answered without waiting for a body, and how large a body
//! may be depends on the route.

use bytes::Bytes;

use super::head::Head;
use super::json;
use super::query::{Parameters, decoded, decoded_text};
use super::reply::Shape;
use super::response::Response;
use super::{INDEX, SMALL_BODY_BYTES};
use crate::protocol::{Limits, ProtocolError};
use crate::request::{Batch, Command, Condition, Consistency, Expiry, Guard, Key, Request};

/// How a key's value is shown, and by which paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `/key/{k}`, as JSON.
    Json,
    /// `/api/v1/key/{k}`, as a line.
    Line,
    /// `/v1/keys/{k}`, as it is.
    Raw,
}

/// What a path names, whatever is done to it.
#[derive(Debug, Clone, Copy)]
enum Resource<'a> {
    Index,
    Health,
    Ready,
    Status,
    Metrics,
    Keys,
    Key(Style, &'a str),
    Pair(&'a str, &'a str),
    Join { id: &'static str, is_needed: bool },
    Leave,
    Node(&'a str),
}

impl<'a> Resource<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let segments: Vec<_> = path.strip_prefix('/')?.split('/').collect();
        Some(match segments[..] {
            [""] => Self::Index,
            ["health"] => Self::Health,
            ["ready"] => Self::Ready,
            ["status"] => Self::Status,
            ["metrics"] => Self::Metrics,
            ["key"] => Self::Keys,
            ["key", key] => Self::Key(Style::Json, key),
            ["api", "v1", "key", key] => Self::Key(Style::Line, key),
            ["v1", "keys", key] => Self::Key(Style::Raw, key),
            ["api", "v1", "key", key, value] => Self::Pair(key, value),
            ["api", "v1", "key", key, "value", value] => Self::Pair(key, value),
            ["join"] => Self::Join { id: "id", is_needed: false },
            ["api", "v1", "node"] => Self::Join { id: "node_id", is_needed: true },
            ["leave"] => Self::Leave,
            ["api", "v1", "node", id] => Self::Node(id),
            _ => return None,
        })
    }

    /// The methods it has.
    fn methods(self) -> &'static str {
        match self {
            Self::Index | Self::Health | Self::Ready | Self::Status | Self::Metrics => "GET, HEAD",
            Self::Keys | Self::Pair(..) | Self::Join { .. } | Self::Leave => "POST",
            Self::Key(Style::Raw, _) => "GET, HEAD, PUT, DELETE",
            Self::Key(..) => "GET, HEAD, DELETE",
            Self::Node(_) => "DELETE",
        }
    }
}

/// What is to be done once the body is there.
#[derive(Debug)]
pub enum Route {
    /// Ask this; the body says nothing.
    Ask(Request, Shape),
    /// Set what the body says, together.
    SetAll,
    /// Store the body.
    Put { key: Key, expiry: Expiry, condition: Condition },
    /// Take in the node that the body names, by this field.
    Join { id: &'static str, is_needed: bool },
    /// Remove the node that the body names.
    Leave,
}

impl Route {
    /// What a request is about; else its answer.
    pub fn of(head: &Head, limits: &Limits) -> Result<Self, Response> {
        let (path, query) = path_and_query(head.target);
        let Some(resource) = Resource::of(path) else {
            return Err(Response::error(404, "there is no such path; / lists those there are"));
        };
        let methods = resource.methods();
        if !methods.split(", ").any(|method| method == head.method) {
            return Err(Response::error(405, "the path has no such method").with("Allow", methods));
        }
        match resource {
            Resource::Index => Err(Response::text(INDEX)),
            Resource::Health => Ok(Self::Ask(Request::Ping, Shape::Health)),
            Resource::Ready => Ok(Self::Ask(Request::run(Command::Count { db: 0 }), Shape::Ready)),
            Resource::Status => Ok(Self::Ask(Request::Status, Shape::Status)),
            Resource::Metrics => {
                let accepts = head.value("Accept")?.unwrap_or_default();
                let is_open = accepts.contains("application/openmetrics-text");
                Ok(Self::Ask(Request::Status, Shape::Metrics { is_open }))
            }
            Resource::Key(style, key) => {
                let key = self::key(key, limits)?;
                Keyed { head, style, key, parameters: Parameters::of(query)? }.route()
            }
            Resource::Keys => plain(head, query).map(|()| Self::SetAll),
            Resource::Pair(key, value) => {
                plain(head, query)?;
                let set = plain_set(self::key(key, limits)?, decoded(value)?);
                Ok(Self::Ask(Request::run(set), Shape::Done))
            }
            Resource::Join { id, is_needed } => {
                plain(head, query).map(|()| Self::Join { id, is_needed })
            }
            Resource::Leave => plain(head, query).map(|()| Self::Leave),
            Resource::Node(id) => {
                plain(head, query)?;
                let name = name(decoded_text(id)?, limits)?;
                Ok(Self::Ask(Request::Leave { name }, Shape::Done))
            }
        }
    }

    /// How large the body may be.
    pub fn body_limit(&self, limits: &Limits) -> usize {
        match self {
            Self::SetAll => limits.request_bytes,
            Self::Put { .. } => limits.value_bytes,
            Self::Ask(..) | Self::Join { .. } | Self::Leave => SMALL_BODY_BYTES,
        }
    }

    /// What is asked of the node, and how its reply is shown; else the answer.
    pub fn request(self, body: Bytes, limits: &Limits) -> Result<(Request, Shape), Response> {
        match self {
            Self::Ask(request, shape) => Ok((request, shape)),
            Self::SetAll => set_all(&body, limits),
            Self::Put { key, expiry, condition } => {
                // Another version than was expected is a conflict with somebody
                // else's write; the others are conditions of one's own.
                let compares = matches!(condition, Condition::IfVersion(_));
                let set = Command::Set { key, value: body, expiry, condition };
                Ok((Request::run(set), Shape::Stored { compares }))
            }
            Self::Join { id, is_needed } => {
                let mut node = Named::of(&body, limits)?;
                let peer_address = node.need("addr")?;
                let name = if is_needed { Some(node.need(id)?) } else { node.take(id)? };
                let name = name.unwrap_or_else(|| peer_address.clone());
                Ok((Request::Join { name, peer_address }, Shape::Done))
            }
            Self::Leave => {
                let mut node = Named::of(&body, limits)?;
                let name = match node.take("id")? {
                    Some(name) => name,
                    None => node.need("addr")?,
                };
                Ok((Request::Leave { name }, Shape::Done))
            }
        }
    }
}

/// Of a target that is a whole address, the part behind the host.
fn path_and_query(target: &str) -> (&str, &str) {
    let origin = ["http://", "https://"].into_iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
    });
    let target = match origin {
        Some(rest) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        None => target,
    };
    match target.split_once('?') {
        Some(("", query)) => ("/", query),
        Some(parts) => parts,
        None => (target, ""),
    }
}

/// A write that knows neither parameters nor conditions must not be given any.
fn plain(head: &Head, query: &str) -> Result<(), Response> {
    Parameters::of(query)?.none_left()?;
    match conditions(head)?.is_empty() {
        true => Ok(()),
        false => Err(Response::error(400, "only /v1/keys knows conditions")),
    }
}

/// What the headers demand.
fn conditions(head: &Head) -> Result<Vec<Condition>, Response> {
    let mut found = Vec::new();
    match head.value("If-Match")? {
        None => {}
        Some("*") => found.push(Condition::IfPresent),
        Some(tag) => {
            let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let version = version.and_then(|version| version.parse().ok());
            let wrong = || Response::error(400, "If-Match takes one ETag as GET gives it, or *");
            found.push(Condition::IfVersion(version.ok_or_else(wrong)?));
        }
    }
    match head.value("If-None-Match")? {
        None => {}
        Some("*") => found.push(Condition::IfAbsent),
        Some(_) => return Err(Response::error(400, "If-None-Match takes only *")),
    }
    Ok(found)
}

/// A request about one key.
struct Keyed<'a> {
    head: &'a Head<'a>,
    style: Style,
    key: Key,
    parameters: Parameters,
}

impl Keyed<'_> {
    fn route(self) -> Result<Route, Response> {
        match self.head.method {
            "PUT" => self.put(),
            "DELETE" if self.style == Style::Raw => self.delete_if(),
            "DELETE" => {
                self.parameters.none_left()?;
                plain(self.head, "")?;
                Ok(Route::Ask(Request::run(Command::Delete(self.key)), Shape::Done))
            }
            _ => self.get(),
        }
    }

    fn get(mut self) -> Result<Route, Response> {
        let consistency = match self.parameters.take("consistency").as_deref() {
            None | Some("linearizable") => Consistency::Linearizable,
            Some("stale") => Consistency::Stale,
            Some(_) => {
                return Err(Response::error(400, "consistency is linearizable or stale"));
            }
        };
        self.parameters.none_left()?;
        let shape = match self.style {
            Style::Json => match std::str::from_utf8(&self.key.name) {
                Ok(key) => Shape::Json(key.to_owned()),
                Err(_) => return Err(Response::not_json("the key")),
            },
            Style::Line => Shape::Line,
            Style::Raw => Shape::Raw,
        };
        let batch = Batch::of(Command::Get(self.key));
        Ok(Route::Ask(Request::Run { batch, consistency, session: None }, shape))
    }

    fn put(mut self) -> Result<Route, Response> {
        let ttl_ms = self.parameters.take_ttl_ms()?;
        let expiry = ttl_ms.map_or(Expiry::Never, Expiry::AfterMs);
        let mut conditions = conditions(self.head)?;
        if self.parameters.take_flag("nx")? {
            conditions.push(Condition::IfAbsent);
        }
        if self.parameters.take_flag("xx")? {
            conditions.push(Condition::IfPresent);
        }
        conditions.extend(self.parameters.take_version()?.map(Condition::IfVersion));
        self.parameters.none_left()?;
        let condition = only(conditions)?.unwrap_or(Condition::Always);
        Ok(Route::Put { key: self.key, expiry, condition })
    }

    fn delete_if(mut self) -> Result<Route, Response> {
        let mut conditions = conditions(self.head)?;
        conditions.extend(self.parameters.take_version()?.map(Condition::IfVersion));
        self.parameters.none_left()?;
        let guards = match only(conditions)? {
            Some(Condition::IfVersion(version)) => {
                vec![Guard { key: self.key.clone(), version }]
            }
            Some(Condition::IfAbsent) => {
                return Err(Response::error(400, "what is absent cannot be deleted"));
            }
            _ => Vec::new(),
        };
        let batch = Batch { guards, commands: vec![Command::Delete(self.key)] };
        let consistency = Consistency::Linearizable;
        Ok(Route::Ask(Request::Run { batch, consistency, session: None }, Shape::Deleted))
    }
}

fn only(conditions: Vec<Condition>) -> Result<Option<Condition>, Response> {
    if conditions.len() > 1 {
        return Err(Response::error(400, "at most one of nx, xx, version and their headers"));
    }
    Ok(conditions.into_iter().next())
}

fn over_limit(error: ProtocolError) -> Response {
    Response::error(400, &error.to_string())
}

fn key(segment: &str, limits: &Limits) -> Result<Key, Response> {
    let name = decoded(segment)?;
    Limits::check("key", name.len(), limits.key_bytes).map_err(over_limit)?;
    Ok(Key::new(name))
}

fn name(name: String, limits: &Limits) -> Result<String, Response> {
    Limits::check("name", name.len(), limits.name_bytes).map_err(over_limit)?;
    Ok(name)
}

fn plain_set(key: Key, value: Bytes) -> Command {
    Command::Set { key, value, expiry: Expiry::Never, condition: Condition::Always }
}

fn pairs(body: &[u8], limits: &Limits) -> Result<Vec<(String, String)>, Response> {
    json::pairs(body, limits.batch_commands)
        .map_err(|error| Response::error(400, &format!("the body is wrong: {error}")))
}

fn set_all(body: &[u8], limits: &Limits) -> Result<(Request, Shape), Response> {
    let mut commands = Vec::new();
    for (key, value) in pairs(body, limits)? {
        let too_large = |error: ProtocolError| Response::error(413, &error.to_string());
        Limits::check("key", key.len(), limits.key_bytes).map_err(too_large)?;
        Limits::check("value", value.len(), limits.value_bytes).map_err(too_large)?;
        commands.push(plain_set(Key::new(key), value.into()));
    }
    if commands.is_empty() {
        return Err(Response::text("OK"));
    }
    let batch = Batch { guards: Vec::new(), commands };
    let consistency = Consistency::Linearizable;
    Ok((Request::Run { batch, consistency, session: None }, Shape::AllStored))
}

/// The fields of a body that names a node.
struct Named<'a> {
    fields: Vec<(String, String)>,
    limits: &'a Limits,
}

impl<'a> Named<'a> {
    fn of(body: &[u8], limits: &'a Limits) -> Result<Self, Response> {
        Ok(Self { fields: pairs(body, limits)?, limits })
    }

    fn take(&mut self, field: &str) -> Result<Option<String>, Response> {
        let found = self.fields.iter().position(|(known, _)| known == field);
        let value = found.map(|place| self.fields.swap_remove(place).1);
        value.filter(|value| !value.is_empty()).map(|value| name(value, self.limits)).transpose()
    }

    fn need(&mut self, field: &str) -> Result<String, Response> {
        let missing = || Response::error(400, &format!("the body has no {field:?}"));
        self.take(field)?.ok_or_else(missing)
    }
}
